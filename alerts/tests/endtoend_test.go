package tests

import (
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edges-exporter/edges_exporter/edges/simulator"
)

var uid = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// TestEndToEnd lets things go wrong in a workspace and reads the messages that
// come out at the other end. It lives twenty times as fast as the default.
func TestEndToEnd(t *testing.T) {
	t.Parallel()
	s := newStack(t, pace{
		scale: 20, scrape: time.Second, runsPerDay: 900_000,
		exporter:   []string{"--poll.interval=1s", "--poll.overlap=2s", "--metrics.zero-hold=2s", "--edges.max-requests-per-minute=6000"},
		thresholds: map[string]string{"schedule_seconds": "5"},
	})
	const scheduled = "linkedin-visit-profile"
	s.call(http.MethodPost, "/v1/actions/"+scheduled+"/run/schedule", `{"name": "New people, every minute", "cron": "* * * * *", "timezone": "UTC",
		"inputs": [{"linkedin_profile_url": "https://www.linkedin.com/in/ada"}]}`, nil)

	// Ordinary traffic brings no message: 40 s of it are 400 runs.
	time.Sleep(40 * time.Second)
	if got := s.inbox.messages(); len(got) > 0 {
		t.Fatalf("ordinary traffic brought a message:\n%s", s.inbox)
	}

	// While the spikes come, a schedule misses its minute, and then runs again.
	end := s.trouble("miss-schedule:" + scheduled)
	s.spike("failed", "FAILED", "company-enrich", "EdgesRunsFailedSpike")
	missed := map[string]string{"workspace": "e2e", "severity": "warning", "action": scheduled, "name": "New people, every minute"}
	got, _ := s.messageAmong(s.inbox.everything, "EdgesScheduleMissed", "firing", missed)
	s.judgeSchedule(got)
	end()
	s.spike("blocked", "BLOCKED", "email-find", "EdgesRunsBlockedSpike")
	s.messageAmong(s.inbox.everything, "EdgesScheduleMissed", "resolved", missed)

	s.inbox.forget()
	end = s.trouble("outage:code=503")
	s.message("EdgesPollFailing", "firing", map[string]string{"workspace": "e2e", "severity": "critical"})
	end()
	s.message("EdgesPollFailing", "resolved", nil)

	s.inbox.forget()
	end = s.trouble("revoked")
	got, _ = s.message("EdgesAPIKeyRejected", "firing", map[string]string{"workspace": "e2e", "severity": "critical"})
	if d := got.Annotations["description"]; !strings.Contains(d, "401") {
		t.Errorf("the message does not say what the API answered: %q", d)
	}
	end()
	s.message("EdgesAPIKeyRejected", "resolved", nil)
	for _, m := range s.inbox.messages() {
		for _, a := range m.Alerts {
			if name := a.Labels["alertname"]; name == "EdgesPollFailing" && a.Status == "firing" {
				t.Errorf("the rejected key did not silence what follows from it: %s", name)
			}
		}
	}

	s.inbox.forget()
	s.killExporter()
	s.message("EdgesExporterDown", "firing", map[string]string{"workspace": "e2e", "severity": "critical"})
	s.startExporter()
	s.message("EdgesExporterDown", "resolved", nil)

	// The templates made readable texts of all that.
	texts := strings.Join(s.inbox.rendered(), "\n")
	for _, want := range []string{
		"EdgesRunsFailedSpike, company-enrich (workspace e2e)", "EdgesScheduleMissed, New people, every minute (workspace e2e)", "Resolved: ",
		"What to do: https://", "Dashboard: http://", "edges_exporter runs get ", "edges_exporter runs resume ", "edges_exporter schedules list --uid=",
	} {
		if !strings.Contains(texts, want) {
			t.Errorf("no text holds %q in\n%s", want, texts)
		}
	}
	if strings.Contains(texts, "no value") || strings.Contains(texts, "executing template") {
		t.Errorf("a template went wrong:\n%s", texts)
	}
}

// TestDefaults measures the time from a failed run to its message with every
// program at its defaults, and nothing scaled.
func TestDefaults(t *testing.T) {
	t.Parallel()
	s := newStack(t, pace{scale: 1, scrape: 15 * time.Second, runsPerDay: 90_000})
	// Two scrapes of everyday life: the exporter holds new series at 0.
	time.Sleep(75 * time.Second)
	if got := s.inbox.messages(); len(got) > 0 {
		t.Fatalf("ordinary traffic brought a message:\n%s", s.inbox)
	}
	from := time.Now()
	end := s.trouble("failed:company-enrich:share=1")
	defer end()
	got, at := s.message("EdgesRunsFailedSpike", "firing", map[string]string{"action": "company-enrich"})
	s.judge(got, at, "company-enrich", "FAILED", from)
}

// spike lets an action's runs go wrong, and then lets it recover.
func (s *stack) spike(kind, status, action, alert string) {
	t := s.t
	t.Helper()
	s.inbox.forget()
	from := time.Now()
	end := s.trouble(kind + ":" + action + ":share=1")
	got, at := s.message(alert, "firing", map[string]string{"workspace": "e2e", "action": action, "severity": "critical", "status": status})
	s.judge(got, at, action, status, from)
	for _, m := range s.inbox.messages() {
		for _, a := range m.Alerts {
			if name := a.Labels["alertname"]; strings.HasSuffix(name, "Spike") && (name != alert || a.Labels["action"] != action) {
				t.Errorf("a spike of %s brought %v", action, a.Labels)
			}
		}
	}
	end()
	s.message(alert, "resolved", map[string]string{"action": action})
}

// judge compares a message with the truth, and prints how long it took.
func (s *stack) judge(got notice, at time.Time, action, status string, from time.Time) {
	t := s.t
	t.Helper()
	description := got.Annotations["description"]
	t.Logf("message: %s", description)
	// Some runs in progress had been meant to end this way before.
	truth := s.entered(action, status, from.Add(-10*time.Minute))
	named := uid.FindAllString(description, -1)
	if len(named) == 0 {
		t.Errorf("the message names no run: %q", description)
	}
	for _, u := range named {
		if !slices.ContainsFunc(truth, func(e simulator.Entry) bool { return e.UID == u }) {
			t.Errorf("%s is named but did not become %s", u, status)
		}
	}
	if written := s.follow(description); len(named) > 0 && !strings.Contains(written, named[0]) {
		t.Errorf("the message's command does not show the run %s, but\n%s", named[0], written)
	}
	count, err := strconv.Atoi(regexp.MustCompile(`\d+`).FindString(description))
	if err != nil || count < 3 || count > len(truth) {
		t.Errorf("the message counts %d runs, in truth %d became %s", count, len(truth), status)
	}
	during := s.entered(action, status, from)
	if len(during) < 5 {
		t.Logf("only %d runs had become %s by now", len(during), status)
		return
	}
	t.Logf("poll and scrape every %s: the message came %.1f s after the first %s run and %.1f s after the fifth", s.pace.scrape,
		at.Sub(during[0].At).Seconds(), status, at.Sub(during[4].At).Seconds())
}

// judgeSchedule compares a message about a schedule with the truth.
func (s *stack) judgeSchedule(got notice) {
	t := s.t
	t.Helper()
	description := got.Annotations["description"]
	t.Logf("message: %s", description)
	var truth simulator.Truth
	s.call(http.MethodGet, "/simulator/truth", "", &truth)
	i := slices.IndexFunc(truth.Schedules, func(sc simulator.Schedule) bool { return sc.UID == got.Labels["schedule"] })
	if i < 0 || truth.Schedules[i].Name != got.Labels["name"] {
		t.Fatalf("the message is about a schedule that is not there: %v", got.Labels)
	}
	due := regexp.MustCompile(`due at ([-0-9]+ [:0-9]+) UTC`).FindStringSubmatch(description)
	if due == nil || !slices.ContainsFunc(truth.Schedules[i].Missed, func(at time.Time) bool { return at.UTC().Format(time.DateTime) == due[1] }) {
		t.Errorf("the message reads %q, in truth it missed %v", description, truth.Schedules[i].Missed)
	}
	if written := s.follow(description); !strings.Contains(written, got.Labels["schedule"]) {
		t.Errorf("the message's command does not show the schedule, but\n%s", written)
	}
}
