package main

import (
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
)

// runs is the front page: are the runs well, and if not, which action, error
// and runs.
func runs() *board {
	b := &board{
		uid: uidRuns, title: "Edges / Runs",
		about:     "Are the runs well? If not: which action, which error, which runs.",
		alerts:    alertsOfAction,
		variables: append(variables(jobVariable, instanceVariable, workspaceVariable, actionVariable, modeVariable), objective()),
	}

	b.section("Are the runs well?")
	b.add(alertsFiring().stat(4, 4, couple))
	b.add(successNow().stat(4, 4, nil))
	b.add(failedTotal().stat(4, 4, single))
	b.add(blockedNow().stat(4, 4, couple))
	b.add(oldestWaiting().stat(4, 4, single))
	b.add(dataAge().stat(4, 4, single))
	b.add(statusNow().stat(24, 3, tiles))
	b.add(endsByStatus().timeseries(12, 9, stacked))
	b.add(successOverTime("").timeseries(12, 9, all(in(neutral), high)))

	b.section("Which action, which error, which runs?")
	b.add(shareByAction("Where do runs fail? (weighted share FAILED)", "FAILED", ended).strips(12, 8, dashboard.FieldColorModeIdContinuousReds))
	b.add(shareByAction("Where are runs blocked? (weighted share BLOCKED)", "BLOCKED", ended+"|BLOCKED").strips(12, 8, dashboard.FieldColorModeIdContinuousPurples))
	b.add(actionsTable().table(16, 10, "FAILED", true))
	b.add(errorTotals().bars(8, 10, neutral))
	b.add(latestProblems().table(24, 10, "When", true))
	b.add(firingTable().table(24, 6, "Severity", false))

	b.section("How long do runs take?")
	b.add(durationPercentiles().timeseries(12, 9, logarithmic))
	b.add(durationHeatmap().heatmap(12, 9))
	b.add(oldestByStatus().timeseries(12, 9, logarithmic))
	b.add(queuePercentiles().timeseries(12, 9, logarithmic))

	b.section("What comes in, what comes out?")
	b.add(createdAndEnded().timeseries(12, 8, nil))
	b.add(outputsPerMinute().timeseries(12, 8, in(neutral)))

	beside(b)
	return b
}

func alertsFiring() panel {
	count := func(severity string) string {
		return "count(" + strings.TrimSuffix(alertsOfAction, "}") + `, severity="` + severity + `"}) or vector(0)`
	}
	return panel{
		title: "Alerts firing", about: "Firing alerts of the chosen workspaces and actions, and of their exporters, by severity. Good: 0. Needs the alert rules in Prometheus; without them this is always 0.",
		unit: unitCount, empty: "0", decimals: number(0),
		steps: thresholds(good, step{1, bad}),
		queries: []query{
			{expr: count("critical"), legend: "critical"},
			{expr: count("warning"), legend: "warning"},
		},
		overrides: []override{byName("warning", property("thresholds", thresholds(good, step{1, warning})))},
	}
}

func successNow() panel {
	return panel{
		title: "Success", about: "Runs that ended in this range as SUCCEEDED or PARTIAL_SUCCEEDED, among those and the FAILED and INVALID ones; runs that somebody STOPPED are left out. The margin is how far that is above the chosen objective. Good: a margin above 0.",
		unit: unitShare, empty: noRuns, decimals: number(1),
		steps: thresholds(bad, step{0, good}),
		queries: []query{
			{expr: successShare("", whole, ""), legend: "share"},
			{expr: "(" + successShare("", whole, "") + ") - $objective", legend: "margin"},
		},
		overrides: []override{byName("share", colored(plain))},
	}
}

func failedTotal() panel {
	return panel{
		title: "FAILED runs", about: "How often runs entered FAILED in this range, estimated by increase(). Good: none; what is usual depends on the action, so look at the share too.",
		unit: unitNumber, empty: noRuns, decimals: number(0),
		steps:   thresholds(good, step{0.5, bad}),
		queries: []query{{expr: total("", perStatus, transitions("FAILED"), "")}},
	}
}

func blockedNow() panel {
	blocked := now("", where("edges_runs", ofRuns, status("BLOCKED")))
	postponed := now("", where("edges_runs_postponed", ofRuns, status("BLOCKED")))
	return panel{
		title: "BLOCKED", about: "Runs that met something they cannot get past. Those that Edges will not retry by itself have to be resumed by hand, once the cause is gone. Good: none.",
		unit: unitNumber, empty: noneNow, decimals: number(0),
		steps: thresholds(good, step{1, colorOf("BLOCKED")}),
		queries: []query{
			{expr: blocked, legend: "all"},
			{expr: blocked + "\n- (" + postponed + " or vector(0))", legend: "by hand"},
		},
	}
}

func oldestWaiting() panel {
	return panel{
		title: "Queue age", about: "For how long the longest waiting run has been CREATED or QUEUED. Good: about as long as usual; minutes, not hours.",
		unit: unitSeconds, empty: "none",
		steps: thresholds(good, step{15 * 60, warning}, step{60 * 60, bad}),
		queries: []query{{
			expr: "time() - min(" + where("edges_run_oldest_timestamp_seconds", ofRuns, status(waiting)) + ")",
		}},
	}
}

// dataAge looks at the freshest exporter of each workspace.
func dataAge() panel {
	return panel{
		title: "Data age", about: "Everything that happened up to this long ago is in these numbers, in the workspace that is furthest behind. Good: under a minute.",
		unit: unitSeconds, empty: notYet, decimals: number(0),
		steps: thresholds(good, step{2 * 60, warning}, step{10 * 60, bad}),
		queries: []query{{
			expr: "max(time() - max by (workspace) (" + where("edges_poll_watermark_timestamp_seconds", ofWorkspace) + "))",
		}},
	}
}

func statusNow() panel {
	return panel{
		title: "How many runs are in each status now?", about: "All runs that Edges still shows (90 days), by their present status. Good: few BLOCKED, and QUEUED and RUNNING that do not pile up. The colours are those of every other panel.",
		unit: unitNumber, empty: "no runs yet", decimals: number(0),
		queries:    []query{{expr: now("status", where("edges_runs", ofRuns)), legend: "{{status}}"}},
		transforms: inOrder(),
		// The full word would make the names of all tiles too small to read.
		overrides: append(byStatus(), byName("PARTIAL_SUCCEEDED", property("displayName", "PARTIAL"))),
	}
}

// inOrder puts the statuses into the order in which a run meets them.
func inOrder() []dashboard.DataTransformerConfig {
	order := map[string]int{"Time": 0}
	for i, s := range statusColors {
		order[s.status] = i + 1
	}
	return []dashboard.DataTransformerConfig{
		{Id: "joinByField", Options: map[string]any{"byField": "Time", "mode": "outer"}},
		{Id: "organize", Options: map[string]any{"indexByName": order, "excludeByName": map[string]bool{}, "renameByName": map[string]string{}}},
	}
}

func endsByStatus() panel {
	return panel{
		title: "How do runs end? (runs per minute)", about: "Runs that ended, per minute, by how. Good: green at its usual height with a thin edge of other colours below.",
		unit: unitCount, empty: noRuns,
		queries: []query{{
			expr:   perMinute("status", perStatus, transitions(ended), ""),
			legend: "{{status}}", step: fine, exemplars: true,
		}},
		overrides: byStatus(),
	}
}

func successOverTime(by string) panel {
	name := "succeeded"
	if by != "" {
		name = "{{" + by + "}}"
	}
	return panel{
		title: "What share of the runs succeeds?", about: "Runs that ended as SUCCEEDED or PARTIAL_SUCCEEDED, among those and the FAILED and INVALID ones, against the chosen objective. There is a gap where none ended. Good: above the dashed line.",
		unit: unitShare, empty: noRuns, max: number(1),
		queries: []query{
			{expr: successShare(by, window, ""), legend: name, step: coarse},
			{expr: "vector($objective)", legend: "objective", step: coarse},
		},
		overrides: []override{byName("objective", append(dashed(), colored(reference))...)},
	}
}

// shareByAction is a share and no number of runs, so that a colour means the
// same for busy actions and rare ones, in a quiet hour and in a bad one.
func shareByAction(title, status, among string) panel {
	return panel{
		title: title, about: "The share of " + status + " among the runs that ended or were blocked in each stretch, in the ten actions with the most " + status + " runs in this range. It is weighted as if 15 more runs an hour had gone well, so that the one failure of a rare action stays faint. Full colour is half or more; a gap means that there were no runs. Good: nothing, or faint rows of the actions that always have some.",
		unit: unitShare, empty: "no run was " + status + " in this range", min: number(0), max: number(0.5), decimals: number(0),
		queries: []query{{
			expr:   busiest("action", dampedShare(status, among), transitions(status), perStatus),
			legend: "{{action}}", step: coarse,
		}},
	}
}

// column is a column of a table: what is asked for and how it is shown.
type column struct {
	name, expr string
	properties []dashboard.DynamicConfigValue
}

// byActionTable joins one query for each column on the action.
func byActionTable(p panel, columns []column) panel {
	rename := map[string]string{"action": "Action"}
	order := map[string]int{"action": 0}
	exclude := map[string]bool{"Time": true}
	p.overrides = append(p.overrides, byName("Action", property("custom.minWidth", actionWidth)), actionCell())
	for i, c := range columns {
		value := "Value #" + string(rune('A'+i))
		rename[value] = c.name
		order[value] = i + 1
		p.queries = append(p.queries, query{expr: c.expr, format: prometheus.PromQueryFormatTable})
		if len(c.properties) > 0 {
			p.overrides = append(p.overrides, byName(c.name, c.properties...))
		}
	}
	p.transforms = []dashboard.DataTransformerConfig{
		{Id: "merge", Options: map[string]any{}},
		{Id: "organize", Options: map[string]any{"excludeByName": exclude, "indexByName": order, "renameByName": rename}},
	}
	return p
}

func actionsTable() panel {
	return byActionTable(panel{
		title: "Which actions need a look?", about: "All chosen actions in this range, those with the most FAILED runs first; BLOCKED is how many are it now, p95 the duration that 19 of 20 successful runs stayed below. Success is as above. A click on an action opens its own dashboard. Good: FAILED and BLOCKED small beside Ended.",
		unit: unitNumber, empty: noRuns, decimals: number(0),
	}, []column{
		{"Ended", total("action", perStatus, transitions(ended), ""), width(65)},
		{"Success", successShare("action", whole, ""), append(width(75), share()...)},
		{"FAILED", total("action", perStatus, transitions("FAILED"), ""), append(width(80), emphasis(bad)...)},
		{"BLOCKED", now("action", where("edges_runs", ofRuns, status("BLOCKED"))), append(width(90), emphasis(colorOf("BLOCKED"))...)},
		{"p95", quantile("0.95", "action", perStatus, durations(), whole, ""), append(width(80), duration()...)},
	})
}

// emphasis colours numbers above 0.
func emphasis(color string) []dashboard.DynamicConfigValue {
	return []dashboard.DynamicConfigValue{
		property("custom.cellOptions", map[string]any{"type": "color-text"}),
		property("thresholds", thresholds(plain, step{0.5, color})),
	}
}

func width(pixels int) []dashboard.DynamicConfigValue {
	return []dashboard.DynamicConfigValue{property("custom.width", pixels)}
}

func share() []dashboard.DynamicConfigValue {
	return []dashboard.DynamicConfigValue{property("unit", unitShare), property("decimals", 1)}
}

func duration() []dashboard.DynamicConfigValue {
	return []dashboard.DynamicConfigValue{property("unit", unitSeconds), property("decimals", 1)}
}

func errorTotals() panel {
	return panel{
		title: "Which errors?", about: "Entries into FAILED, BLOCKED, INVALID and PARTIAL_SUCCEEDED in this range by the label of the run's last error; the eight most frequent. none means that the run named no error. Good: an empty or familiar list.",
		unit: unitNumber, empty: noneSeen, decimals: number(0), min: number(0),
		queries: []query{{
			expr:   "sort_desc(topk(8, " + total("error", perError, where("edges_run_errors_total", ofRuns), "") + " >= 0.5))",
			legend: "{{error}}",
		}},
	}
}

func latestProblems() panel {
	return panel{
		title: "Which runs? The latest problems", about: "The latest runs that entered FAILED, BLOCKED, INVALID or PARTIAL_SUCCEEDED, newest first; up to 50 of what the exporter keeps (20 a workspace unless told otherwise), whatever the range. Good: old entries only.",
		unit: unitCount, empty: "no problem runs",
		queries: []query{{
			expr:   "topk(50, max by (run_uid, workspace, action, mode, status, error) (" + where("edges_run_problem_timestamp_seconds", ofRuns) + ")) * 1000",
			format: prometheus.PromQueryFormatTable,
		}},
		transforms: []dashboard.DataTransformerConfig{{Id: "organize", Options: map[string]any{
			"excludeByName": map[string]bool{"Time": true},
			"indexByName":   map[string]int{"Value": 0, "status": 1, "action": 2, "error": 3, "run_uid": 4, "mode": 5, "workspace": 6},
			"renameByName":  map[string]string{"Value": "When", "workspace": "Workspace", "action": "Action", "mode": "Mode", "status": "Status", "error": "Error", "run_uid": "Run"},
		}}},
		overrides: []override{
			byName("When", property("unit", unitFromNow), property("custom.width", 140), property("custom.align", "left")),
			byName("Status", property("custom.width", 165), property("custom.cellOptions", map[string]any{"type": "color-text"}), property("mappings", statusMappings())),
			byName("Action", property("custom.minWidth", actionWidth)),
			byName("Error", property("custom.minWidth", errorWidth)),
			byName("Run", property("custom.width", 314)),
			byName("Mode", property("custom.width", 100)),
			byName("Workspace", property("custom.width", 110)),
			actionCell(),
		},
	}
}

func firingTable() panel {
	return panel{
		title: "What is firing?", about: "The alerts that fire now, most severe first. Good: empty. Needs the alert rules in Prometheus.",
		unit: unitCount, empty: "nothing is firing",
		queries: []query{{
			expr:   "count by (severity, alertname, workspace, action) (" + alertsOfAction + ")",
			format: prometheus.PromQueryFormatTable,
		}},
		transforms: []dashboard.DataTransformerConfig{{Id: "organize", Options: map[string]any{
			"excludeByName": map[string]bool{"Time": true, "Value": true},
			"indexByName":   map[string]int{"severity": 0, "alertname": 1, "workspace": 2, "action": 3},
			"renameByName":  map[string]string{"severity": "Severity", "alertname": "Alert", "workspace": "Workspace", "action": "Action"},
		}}},
		overrides: []override{
			byName("Severity", property("custom.width", 120), property("custom.cellOptions", map[string]any{"type": "color-text"}),
				property("mappings", []map[string]any{{"type": "value", "options": map[string]any{
					"critical": map[string]any{"color": bad, "index": 0}, "warning": map[string]any{"color": warning, "index": 1},
				}}})),
			actionCell(),
		},
	}
}

func durationPercentiles() panel {
	p := panel{
		title: "How long do runs take from start to end?", about: "How long runs took from start to end, of those that ended as SUCCEEDED or PARTIAL_SUCCEEDED in each stretch: half took less than p50, one in a hundred more than p99. Estimated from buckets. Good: level lines.",
		unit: unitSeconds, empty: noRuns, overrides: byPercentile(),
	}
	for _, q := range []struct{ name, q string }{{"p50", "0.5"}, {"p95", "0.95"}, {"p99", "0.99"}} {
		p.queries = append(p.queries, query{
			expr: quantile(q.q, "", perStatus, durations(), window, ""), legend: q.name, step: coarse, exemplars: q.name == "p99",
		})
	}
	return p
}

func durationHeatmap() panel {
	return panel{
		title: "How are run durations spread? (runs per minute)", about: "Runs that ended as SUCCEEDED or PARTIAL_SUCCEEDED, per minute, by how long they took; the brighter, the more. Good: bands that stay where they are.",
		unit: unitCount, empty: noRuns,
		queries: []query{{
			expr:   perMinute("le", perStatus+", le", durations(), ""),
			legend: "{{le}}", step: coarse, exemplars: true, format: prometheus.PromQueryFormatHeatmap,
		}},
	}
}

func oldestByStatus() panel {
	return panel{
		title: "How old is the oldest run in each status?", about: "For how long the run that is longest in a status has been in it. Good: CREATED and QUEUED short, RUNNING about as long as the longest runs take; BLOCKED stays until somebody resumes. A line that climbs without end is a stuck run or a stalled queue.",
		unit: unitSeconds, empty: "no run was on its way in this range",
		queries: []query{{
			expr:   "max by (status) (time() - min by (" + perStatus + ") (" + where("edges_run_oldest_timestamp_seconds", ofRuns) + "))",
			legend: "{{status}}", step: fine,
		}},
		overrides: byStatus(),
	}
}

func queuePercentiles() panel {
	p := panel{
		title: "How long do runs wait for their start?", about: "Time from the making of a run to its first start, of the runs that started in each stretch. Good: level lines; a rise of all three is a queue that fills.",
		unit: unitSeconds, empty: "no run started in this range", overrides: byPercentile(),
	}
	for _, q := range []struct{ name, q string }{{"p50", "0.5"}, {"p95", "0.95"}, {"p99", "0.99"}} {
		p.queries = append(p.queries, query{
			expr: quantile(q.q, "", perPair, queueTimes(), window, ""), legend: q.name, step: coarse, exemplars: q.name == "p99",
		})
	}
	return p
}

func createdAndEnded() panel {
	return panel{
		title: "Do runs end as fast as they are made? (per minute)", about: "Runs made and runs ended, per minute. Good: the lines go together; made above ended for long means that work piles up.",
		unit: unitCount, empty: noRuns,
		queries: []query{
			{expr: perMinute("", perPair, where("edges_runs_created_total", ofRuns), ""), legend: "made", step: coarse},
			{expr: perMinute("", perStatus, transitions(ended), ""), legend: "ended", step: coarse, exemplars: true},
		},
		overrides: []override{
			byName("made", colored(neutral)),
			byName("ended", append(dashed(), colored(reference))...),
		},
	}
}

func outputsPerMinute() panel {
	return panel{
		title: "How many results come out? (per minute)", about: "Results that runs produced, per minute. Good: as usual for the hour; runs that succeed while this falls succeed empty.",
		unit: unitCount, empty: noRuns,
		queries: []query{{
			expr:   perMinute("", perPair, where("edges_run_outputs_total", ofRuns), ""),
			legend: "results", step: coarse,
		}},
	}
}
