package main

import (
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
)

// Texts for panels of what a collector beside the runs reads: it may be switched
// off, and then nothing is known, which is not 0.
const (
	noSchedules = "no schedules, or they are not read"
	noCallbacks = "no callbacks, or they are not read"
	noUsage     = "no credits, or they are not read"
)

const (
	ofActions = ofWorkspace + `, action=~"$action"`

	perSchedule       = "workspace, schedule, name, action"
	perScheduleStatus = "workspace, schedule, status"
	perCallback       = "workspace, status, code"
)

// lateAfter is for how long a schedule may be due, in seconds: schedules are
// read once a minute, and Edges needs a moment to begin a run.
const lateAfter = "300"

// beside shows what the exporter reads beside the runs.
func beside(b *board) {
	b.section("Schedules, callbacks and credits")
	b.add(schedulesNow().stat(8, 4, couple))
	b.add(callbacksNow().stat(8, 4, couple))
	b.add(creditsNow().stat(8, 4, couple))
	b.add(schedulesTable().table(24, 9, "Late by", true))
	b.add(schedulesByStatus().timeseries(12, 8, stacked))
	b.add(scheduledRuns().timeseries(12, 8, stacked))
	b.add(callbacksEnded().timeseries(12, 8, stacked))
	b.add(callbacksFailing().timeseries(12, 8, all(in(bad), low)))
	b.add(callbacksPending().timeseries(12, 7, all(in(neutral), calm)))
	b.add(callbacksOldest().timeseries(12, 7, all(in(neutral), namesOnly)))
	b.add(creditsUsed().timeseries(8, 10, all(shaded, line, calm)))
	b.add(creditsForecast().timeseries(8, 10, all(shaded, line, calm)))
	b.add(creditsByAction().bars(8, 10, neutral))
}

// lastRead is when a collector last succeeded. It has a value only where that
// collector is switched on.
func lastRead(collector string) string {
	return where("edges_collector_last_success_timestamp_seconds", ofWorkspace, fmt.Sprintf("collector=%q", collector))
}

// late is by how many seconds each schedule has missed its time. What counts is
// the moment at which schedules were last read: a collector that fails makes
// none late.
func late() string {
	return "max by (workspace) (" + lastRead("schedules") + ")\n- on (workspace) group_right ()\n" +
		once(perSchedule, where("edges_schedule_next_run_timestamp_seconds", ofActions)) + "\n> " + lateAfter
}

func scheduledEntries(statuses string) string {
	return where("edges_schedule_runs_total", ofWorkspace, status(statuses))
}

// judgedBy gives one number of several its own thresholds. The panel's are
// plain, so that a text for no data is neither good nor bad.
func judgedBy(name string, t *dashboard.ThresholdsConfig, more ...dashboard.DynamicConfigValue) override {
	return byName(name, append(more, property("thresholds", t))...)
}

func schedulesNow() panel {
	return panel{
		title: "Schedules", about: "Late are ACTIVE schedules whose next run was due more than 5 minutes before schedules were last read. FAILED is how often runs that schedules started, of all actions, entered it in this range. Good: 0.",
		unit: unitNumber, empty: "not read", decimals: number(0),
		queries: []query{
			{expr: "count(\n" + late() + "\n)\nor 0 * max(" + lastRead("schedules") + ")", legend: "late"},
			{expr: total("", perScheduleStatus, scheduledEntries("FAILED"), ""), legend: "FAILED"},
		},
		overrides: []override{
			judgedBy("late", thresholds(good, step{1, bad})),
			judgedBy("FAILED", thresholds(good, step{0.5, bad})),
		},
	}
}

// callbackShare is the share of the callbacks that ended which failed; it has no
// value where none ended.
func callbackShare(over string) string {
	f := "rate"
	if over == whole {
		f = "increase"
	}
	part := func(more ...string) string {
		return sumBy("", once(perCallback, fmt.Sprintf("%s(%s%s)", f, where("edges_callbacks_total", ofWorkspace, more...), over)))
	}
	return fmt.Sprintf("%s\n/\n(%s > 0)", part(status("FAILED")), part())
}

// pendingAge is the age of the oldest callback that has not ended. A replica
// that cannot read keeps an old one, so the younger is taken.
func pendingAge() string {
	return "max(time() - " + once("workspace", where("edges_callback_oldest_pending_timestamp_seconds", ofWorkspace)) + ")"
}

func pendingNow() string {
	return sumBy("", once("workspace", where("edges_callbacks_pending", ofWorkspace)))
}

func callbacksNow() panel {
	return panel{
		title: "Callbacks", about: "The share of the callbacks that ended in this range whose results could not be delivered; how many have not ended; and the age of the oldest of those. Good: 0 % failed, few pending, and minutes old at most.",
		unit: unitNumber, empty: "not read", decimals: number(0),
		queries: []query{
			{expr: callbackShare(whole), legend: "failed"},
			{expr: pendingNow(), legend: "pending"},
			{expr: pendingAge(), legend: "oldest"},
		},
		overrides: []override{
			judgedBy("failed", thresholds(good, step{0.001, warning}, step{0.05, bad}), share()...),
			judgedBy("oldest", thresholds(good, step{15 * 60, warning}, step{60 * 60, bad}), property("unit", unitSeconds)),
		},
	}
}

// credit is a number of a workspace's credits or of their period, once for all
// exporters of the workspace.
func credit(name string) string {
	return once("workspace", where("edges_credits_"+name, ofWorkspace))
}

// forecast is the share of a period's credits that will be used at its end, at
// a pace in credits a second.
func forecast(pace string) string {
	return fmt.Sprintf("(\n%s\n+ %s\n* clamp_min(%s - time(), 0)\n)\n/\n(%s > 0)",
		credit("used"), pace, credit("period_end_timestamp_seconds"), credit("limit"))
}

// paceSoFar is that of the period up to now. In its first day it is as if that
// had passed, or the first hours would tell of wonders.
func paceSoFar() string {
	return fmt.Sprintf("%s / (clamp_min(time() - %s, 86400) > 0)", credit("used"), credit("period_start_timestamp_seconds"))
}

// paceOfDay is that of the last 24 hours. It has no value where a period began
// in them, or the day before is unknown.
func paceOfDay() string {
	return fmt.Sprintf("((%s - %s) >= 0) / 86400", credit("used"), once("workspace", where("edges_credits_used", ofWorkspace)+" offset 1d"))
}

func creditsNow() panel {
	faster := "((" + paceOfDay() + ") > " + paceSoFar() + " or " + paceSoFar() + ")"
	return panel{
		title: "Credits", about: "The share of the period's credits that is left; the days until the period ends; and the share that will be used by then, at the pace of the period so far or that of the last 24 hours, whichever is faster. Of several workspaces the worst of each. Good: a forecast below 100 %.",
		unit: unitShare, empty: "not read", decimals: number(1),
		queries: []query{
			{expr: "min(" + credit("left") + "\n/\n(" + credit("limit") + " > 0))", legend: "left"},
			{expr: "(max(" + credit("period_end_timestamp_seconds") + ") - time()) / 86400", legend: "days to go"},
			{expr: "max(" + forecast(faster) + ")", legend: "forecast"},
		},
		overrides: []override{
			judgedBy("left", thresholds(bad, step{0.05, warning}, step{0.15, good})),
			byName("days to go", property("unit", unitCount)),
			judgedBy("forecast", thresholds(good, step{0.9, warning}, step{1, bad})),
		},
	}
}

func schedulesTable() panel {
	next := once(perSchedule, where("edges_schedule_next_run_timestamp_seconds", ofActions))
	last := once(perSchedule, where("edges_schedule_last_run_timestamp_seconds", ofActions))
	// Runs have the schedule's uid alone; the rest comes from the schedule, of
	// which exporters may know two names while it gets another.
	count := func(statuses string) string {
		return total("workspace, schedule", perScheduleStatus, scheduledEntries(statuses), "") +
			"\n* on (workspace, schedule) group_left (name, action)\n(0 * topk by (workspace, schedule) (1, " + last + " or " + next + ") + 1)"
	}
	p := panel{
		title: "Which schedules are late, which fail?", about: "ACTIVE and PAUSED schedules, up to 200 of a workspace: those that missed their next run by more than 5 minutes first, then by their next run. One without is PAUSED, or Edges names none. Ended and FAILED are runs that it started, in this range. Good: nothing in Late by, and FAILED small beside Ended.",
		unit: unitNumber, empty: noSchedules, decimals: number(0),
		transforms: []dashboard.DataTransformerConfig{
			{Id: "merge", Options: map[string]any{}},
			{Id: "organize", Options: map[string]any{
				"excludeByName": map[string]bool{"Time": true},
				"indexByName":   map[string]int{"action": 0, "Value #A": 1, "Value #B": 2, "Value #C": 3, "Value #D": 4, "Value #E": 5, "name": 6, "schedule": 7, "workspace": 8},
				"renameByName": map[string]string{
					"name": "Name", "action": "Action", "Value #A": "Next run", "Value #B": "Last run", "Value #C": "Late by",
					"Value #D": "Ended", "Value #E": "FAILED", "schedule": "Schedule", "workspace": "Workspace",
				},
			}},
		},
		overrides: []override{
			byName("Name", property("custom.minWidth", 170)),
			byName("Action", property("custom.minWidth", actionWidth)),
			byName("Next run", property("unit", unitFromNow), property("custom.width", 130), property("custom.align", "left")),
			byName("Last run", property("unit", unitFromNow), property("custom.width", 130), property("custom.align", "left")),
			byName("Late by", append(emphasis(bad), property("unit", unitSeconds), property("custom.width", 95),
				property("mappings", words(map[string]any{"0": map[string]any{"text": "–", "index": 0}})))...),
			byName("Ended", width(75)...),
			byName("FAILED", append(width(80), emphasis(bad)...)...),
			byName("Schedule", property("custom.width", 314)),
			byName("Workspace", property("custom.width", 110)),
			actionCell(),
		},
	}
	for _, expr := range []string{"sort(" + next + ") * 1000", last + " * 1000", late() + "\nor 0 * " + next, count(ended), count("FAILED")} {
		p.queries = append(p.queries, query{expr: expr, format: prometheus.PromQueryFormatTable})
	}
	return p
}

func schedulesByStatus() panel {
	return panel{
		title: "How many schedules are in each status?", about: "Schedules by their status. Good: ACTIVE level; ACTIVE that turns into PAUSED unasked has been stopped by somebody or something.",
		unit: unitCount, empty: noSchedules, decimals: number(0),
		queries: []query{{
			expr:   sumBy("status", once("workspace, action, status", where("edges_schedules", ofActions))),
			legend: "{{status}}", step: fine,
		}},
		overrides: []override{
			byName("ACTIVE", colored(good)), byName("PAUSED", colored(warning)),
			byName("CANCELLED", colored(reference)), byName("COMPLETED", colored(neutral)),
		},
	}
}

func scheduledRuns() panel {
	return panel{
		title: "How do runs of schedules end? (per hour)", about: "Runs that schedules started, of all actions, that ended or were blocked, per hour. Good: green at the rhythm of the schedules.",
		unit: unitCount, empty: noSchedules,
		queries: []query{{
			expr:   "60 * " + perMinute("status", perScheduleStatus, scheduledEntries(ended+"|BLOCKED"), ""),
			legend: "{{status}}", step: rare,
		}},
		overrides: byStatus(),
	}
}

func callbacksEnded() panel {
	callbacks := where("edges_callbacks_total", ofWorkspace)
	return panel{
		title: "How do callbacks end? (per minute)", about: "Callbacks that ended, per minute, by the HTTP status code that the webhook answered; none is no answer. The ten most frequent. Good: nothing but SUCCESS.",
		unit: unitCount, empty: noCallbacks,
		queries: []query{{
			expr:   busiest("status, code", perMinute("status, code", perCallback, callbacks, ""), callbacks, perCallback),
			legend: "{{status}} {{code}}", step: fine,
		}},
		overrides: []override{
			byRegexp("^SUCCESS.*", colored(good)), byRegexp("^FAILED.*", colored(bad)), byRegexp("^FAILED 4.*", colored(warning)),
			byRegexp("^FAILED none", colored(colorOf("INVALID"))),
		},
	}
}

func callbacksFailing() panel {
	return panel{
		title: "What share of the callbacks fails?", about: "Callbacks that failed among those that ended. There is a gap where none ended. Good: 0 %.",
		unit: unitShare, empty: noCallbacks,
		queries: []query{{expr: callbackShare(window), legend: "failed", step: coarse}},
	}
}

func callbacksPending() panel {
	return panel{
		title: "How many callbacks are pending?", about: "Callbacks that have not ended. Good: few, and back to few after each batch.",
		unit: unitCount, empty: "callbacks are not read", decimals: number(0),
		queries: []query{{expr: pendingNow(), legend: "pending", step: fine}},
	}
}

func callbacksOldest() panel {
	return panel{
		title: "How old is the oldest pending callback?", about: "For how long the oldest callback that has not ended has been there; a gap where none was pending. Good: minutes. A line that climbs without end is a delivery that hangs.",
		unit: unitSeconds, empty: "none pending, or they are not read",
		queries: []query{{expr: pendingAge(), legend: "oldest", step: fine}},
	}
}

func creditsUsed() panel {
	return panel{
		title: "How much of the credits is used?", about: "Credits used in the current period, of those that it has. It falls to 0 where a period begins. Good: below the dashed line until the period ends.",
		unit: unitShare, empty: noUsage,
		steps:   thresholds(plain, step{1, bad}),
		queries: []query{{expr: credit("used") + "\n/\n(" + credit("limit") + " > 0)", legend: "{{workspace}}", step: fine}},
	}
}

func creditsForecast() panel {
	return panel{
		title: "Will the credits last?", about: "Forecast of the share of the credits that will be used when the period ends, at the pace of the period so far; dashed, at that of the last 24 hours. Good: below the dashed line at 100 %.",
		unit: unitShare, empty: noUsage,
		steps: thresholds(plain, step{1, bad}),
		queries: []query{
			{expr: forecast(paceSoFar()), legend: "{{workspace}}", step: fine},
			{expr: forecast(paceOfDay()), legend: "{{workspace}}, as last day", step: fine},
		},
		overrides: []override{byRegexp(".*, as last day$", property("custom.lineStyle", map[string]any{"fill": "dash", "dash": []int{8, 6}}))},
	}
}

func creditsByAction() panel {
	return panel{
		title: "What uses the credits?", about: "Credits that each action has used in the current period, whatever the range; the eight with the most. Good: as you expect.",
		unit: unitNumber, empty: noUsage, decimals: number(0), min: number(0),
		queries: []query{{
			expr:   "sort_desc(topk(8, " + sumBy("action", once("workspace, action", where("edges_credits_action_used", ofActions))) + "))",
			legend: "{{action}}",
		}},
	}
}
