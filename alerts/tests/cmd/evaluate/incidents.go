package main

import "time"

// incident is something that goes wrong, and which alerts may tell of it.
type incident struct {
	name string
	// trouble is what the simulated workspace is told; empty for what befalls
	// the exporter.
	trouble string
	// down stops the exporter, stale only its polls; rows puts rows into the
	// list that nobody can understand.
	down, stale, rows bool
	at, lasts         time.Duration
	// echo is how long after the incident its consequences still count.
	echo time.Duration
	// action is what the alert must name, alerts which one it may be.
	action string
	alerts []string
}

// bumps are what ordinary life has too: busy and quiet hours, slow ones, and a
// few more failures than usual.
func bumps() []string {
	return []string{
		"burst:email-find:factor=4:from=2026-03-03T10:00:00Z:for=2h",
		"failed:company-enrich:share=0.08:from=2026-03-04T09:00:00Z:for=3h",
		"quiet:from=2026-03-05T12:00:00Z:for=1h",
		"slow-runs:linkedin-visit-profile:factor=1.6:from=2026-03-06T14:00:00Z:for=2h",
		"failed:linkedin-extract-people:share=0.08:from=2026-03-10T15:00:00Z:for=1h",
		"burst:factor=2:from=2026-03-11T08:00:00Z:for=4h",
		"blocked:linkedin-connect-profile:share=0.06:error=LIMIT_REACHED:from=2026-03-12T13:00:00Z:for=2h",
		"outage:from=2026-03-13T03:00:00Z:for=1m",
	}
}

// incidentDays is how long the life with incidents lasts; the first three days
// are quiet, so that there is a past.
const incidentDays = 16

func incidents() []incident {
	at := func(day, hour int) time.Duration {
		return time.Duration(day-1)*24*time.Hour + time.Duration(hour)*time.Hour
	}
	failed, blocked := []string{"EdgesRunsFailedSpike"}, []string{"EdgesRunsBlockedSpike"}
	hour := time.Hour
	half := 30 * time.Minute
	return []incident{
		{name: "all runs of a busy action fail", trouble: "failed:linkedin-visit-profile", at: at(4, 10), lasts: half, echo: hour, action: "linkedin-visit-profile", alerts: failed},
		{name: "six in ten of its runs fail", trouble: "failed:linkedin-extract-people:share=0.6", at: at(4, 14), lasts: hour, echo: hour, action: "linkedin-extract-people", alerts: failed},
		{name: "six in ten fail, at night", trouble: "failed:company-enrich:share=0.6", at: at(5, 2), lasts: 2 * hour, echo: hour, action: "company-enrich", alerts: failed},
		{name: "an action that always fails 8 % fails 60 %", trouble: "failed:email-find:share=0.6:error=PROXY_ERROR", at: at(5, 9), lasts: hour, echo: hour, action: "email-find", alerts: failed},
		{name: "a slow action's runs fail all day", trouble: "failed:salesnavigator-search-companies", at: at(5, 12), lasts: 8 * hour, echo: hour, action: "salesnavigator-search-companies", alerts: failed},
		{name: "an account reaches its limit", trouble: "blocked:linkedin-connect-profile:error=LIMIT_REACHED", at: at(6, 9), lasts: 2 * hour, echo: 6 * hour, action: "linkedin-connect-profile", alerts: blocked},
		{name: "a login is lost, one action", trouble: "blocked:linkedin-send-message:share=0.8", at: at(6, 16), lasts: hour, echo: 2 * hour, action: "linkedin-send-message", alerts: blocked},
		{name: "nobody resumes the runs of a lost login", trouble: "blocked:linkedin-send-message", at: at(5, 15), lasts: 3 * hour, echo: 5 * hour, action: "linkedin-send-message", alerts: []string{"EdgesRunsBlockedNeedAction"}},
		{name: "an integration refuses", trouble: "failed:hubspot-sync-contact:error=INTEGRATION_ERROR", at: at(11, 15), lasts: 3 * hour, echo: hour, action: "hubspot-sync-contact", alerts: failed},
		{name: "launches with bad parameters", trouble: "invalid:company-enrich", at: at(7, 16), lasts: half, echo: hour, action: "company-enrich", alerts: []string{"EdgesRunsInvalidSpike"}},
		{name: "the API is out", trouble: "outage", at: at(8, 3), lasts: 20 * time.Minute, echo: half, alerts: []string{"EdgesPollFailing"}},
		{name: "the key is revoked", trouble: "revoked", at: at(8, 6), lasts: 20 * time.Minute, echo: half, alerts: []string{"EdgesAPIKeyRejected"}},
		{name: "a stuck run", trouble: "stuck:linkedin-visit-profile:count=1", at: at(8, 9), lasts: 2 * hour, echo: half, action: "linkedin-visit-profile", alerts: []string{"EdgesRunsStuck"}},
		{name: "a queue stalls", trouble: "stall:linkedin-connect-profile", at: at(8, 13), lasts: hour, echo: half, action: "linkedin-connect-profile", alerts: []string{"EdgesQueueStalled"}},
		{name: "every queue stalls", trouble: "stall", at: at(8, 16), lasts: hour, echo: hour, alerts: []string{"EdgesQueueStalled"}},
		{name: "nothing ends any more", trouble: "stuck:count=100000", at: at(9, 9), lasts: 90 * time.Minute, echo: hour, alerts: []string{"EdgesNoRunsFinishing"}},
		{name: "runs take ten times as long", trouble: "slow-runs:email-find:factor=10", at: at(9, 14), lasts: 4 * hour, echo: hour, action: "email-find", alerts: []string{"EdgesRunsSlow"}},
		{name: "a login is lost, every action feels it a little", trouble: "blocked:share=0.2", at: at(10, 10), lasts: 2 * hour, echo: 4 * hour, alerts: []string{"EdgesErrorLabelSpike"}},
		{name: "runs succeed but bring nothing", trouble: "empty:linkedin-extract-people", at: at(10, 16), lasts: 4 * hour, echo: hour, action: "linkedin-extract-people", alerts: []string{"EdgesNoOutputs"}},
		{name: "the exporter is down", down: true, at: at(11, 2), lasts: 20 * time.Minute, echo: half, alerts: []string{"EdgesExporterDown"}},
		{name: "the exporter stands still", stale: true, at: at(11, 5), lasts: 20 * time.Minute, echo: half, alerts: []string{"EdgesExporterBehind"}},
		{name: "other programs use the limit up", trouble: "storm:share=0.4", at: at(11, 8), lasts: hour, echo: half, alerts: []string{"EdgesAPIThrottled"}},
		{name: "rows that nobody understands", rows: true, at: at(11, 12), lasts: 5 * time.Minute, echo: hour, alerts: []string{"EdgesRunsSkipped"}},
		{name: "nearly everything fails", trouble: "failed:share=0.95", at: at(12, 9), lasts: 2 * hour, echo: 3 * hour, alerts: []string{"EdgesSuccessRatioBurn"}},
		{name: "a rare action fails", trouble: "failed:linkedin-extract-group-members", at: at(16, 7), lasts: 12 * hour, echo: 5 * hour, action: "linkedin-extract-group-members", alerts: failed},
		{name: "everything fails a little more, for a day", trouble: "failed:share=0.2", at: at(14, 6), lasts: 24 * hour, echo: 6 * hour, alerts: []string{"EdgesSuccessRatioBurn"}},
	}
}
