package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
)

// action shows one action in depth, or several side by side.
func action() *board {
	b := &board{
		uid: uidAction, title: "Edges / Action",
		about:     "One action in depth, or several side by side: ends, modes, durations, errors, and this range against the week before.",
		alerts:    alertsOfAction,
		variables: append(variables(jobVariable, instanceVariable, workspaceVariable, actionVariable, modeVariable), objective()),
	}

	b.section("How is it doing?")
	b.add(endedTotal().stat(4, 4, single))
	b.add(successNow().stat(4, 4, nil))
	b.add(failedTotal().stat(4, 4, single))
	b.add(blockedNow().stat(4, 4, couple))
	b.add(p95Total().stat(4, 4, single))
	b.add(outputsTotal().stat(4, 4, single))
	b.add(endsByStatus().timeseries(12, 11, stacked))
	b.add(successByAction().timeseries(12, 11, all(each, high)))
	b.add(sideBySide().table(24, 8, "Ended", true))

	b.section("Which errors, which runs?")
	b.add(errorsOverTime().timeseries(9, 11, all(each, stacked)))
	b.add(errorsTable().table(15, 11, "Times", true))
	b.add(latestProblems().table(24, 9, "When", true))

	b.section("How long does it take?")
	b.add(durationPercentiles().timeseries(12, 9, logarithmic))
	b.add(durationHeatmap().heatmap(12, 9))
	b.add(p95ByAction().timeseries(12, 11, all(each, logarithmic)))
	b.add(queuePercentiles().timeseries(12, 11, logarithmic))

	b.section("Does the way of launching matter?")
	b.add(endsByMode().timeseries(8, 9, nil))
	b.add(shareByMode().timeseries(8, 9, high))
	b.add(p95ByMode().timeseries(8, 9, logarithmic))

	b.section("This range against the same range a week before")
	for _, p := range againstLastWeek() {
		style := all()
		if p.unit == unitShare {
			style = high
		}
		b.add(p.timeseries(12, 8, style))
	}

	b.section("What is under way, what comes out?")
	b.add(underWay().timeseries(12, 11, stacked))
	b.add(oldestByAction().timeseries(12, 11, all(each, logarithmic)))
	b.add(outputsByAction().timeseries(12, 11, each))
	b.add(retriesByAction().timeseries(12, 11, all(each, calm)))
	return b
}

func endedTotal() panel {
	return panel{
		title: "Runs ended", about: "Runs that ended in this range, however they ended, estimated by increase(). Good: as many as usual.",
		unit: unitNumber, empty: noRuns, decimals: number(0),
		queries: []query{{expr: total("", perStatus, transitions(ended), "")}},
	}
}

func p95Total() panel {
	return panel{
		title: "p95 duration", about: "19 of 20 runs that ended as SUCCEEDED or PARTIAL_SUCCEEDED in this range took less than this. Good: as usual; see the graphs below.",
		unit: unitSeconds, empty: noRuns,
		queries: []query{{expr: quantile("0.95", "", perStatus, durations(), whole, "")}},
	}
}

func outputsTotal() panel {
	return panel{
		title: "Results", about: "Results that runs produced in this range, estimated by increase(). Good: as many as usual for the runs that ended.",
		unit: unitNumber, empty: noRuns, decimals: number(0),
		queries: []query{{expr: total("", perPair, where("edges_run_outputs_total", ofRuns), "")}},
	}
}

// successByAction draws the ten actions with the most ended runs.
func successByAction() panel {
	p := successOverTime("action")
	p.title = "What share of each action's runs succeeds?"
	p.about += " The ten busiest of the chosen actions."
	p.queries[0].expr = busiest("action", p.queries[0].expr, transitions(ended), perStatus)
	return p
}

func sideBySide() panel {
	perRun := total("action", perPair, where("edges_run_outputs_total", ofRuns), "") +
		"\n/\n(" + total("action", perStatus, transitions(ended), "") + " > 0)"
	return byActionTable(panel{
		title: "Side by side, and against the same range a week before", about: "The chosen actions in this range; the columns that say before are the same range one week earlier and stay empty until there is data from then. Success counts SUCCEEDED and PARTIAL_SUCCEEDED against FAILED and INVALID. Good: each column near its neighbour from before.",
		unit: unitNumber, empty: noRuns, decimals: number(0),
	}, []column{
		{"Ended", total("action", perStatus, transitions(ended), ""), width(75)},
		{"Ended before", total("action", perStatus, transitions(ended), before), width(115)},
		{"Success", successShare("action", whole, ""), append(width(85), share()...)},
		{"Success before", successShare("action", whole, before), append(width(130), share()...)},
		{"p50", quantile("0.5", "action", perStatus, durations(), whole, ""), append(width(85), duration()...)},
		{"p95", quantile("0.95", "action", perStatus, durations(), whole, ""), append(width(85), duration()...)},
		{"p95 before", quantile("0.95", "action", perStatus, durations(), whole, before), append(width(100), duration()...)},
		{"Queue p95", quantile("0.95", "action", perPair, queueTimes(), whole, ""), append(width(100), duration()...)},
		{"Results / run", perRun, append(width(115), property("decimals", 1))},
		{"Retries", total("action", perPair, where("edges_run_retries_total", ofRuns), ""), width(80)},
	})
}

func errorsOverTime() panel {
	errors := where("edges_run_errors_total", ofRuns)
	return panel{
		title: "Which errors, and when? (per minute)", about: "Entries into FAILED, BLOCKED, INVALID and PARTIAL_SUCCEEDED, per minute, by the label of the run's last error; the ten most frequent. Good: low and familiar; one label that grows alone is one cause.",
		unit: unitCount, empty: noneSeen,
		queries: []query{{
			expr:   busiest("error", perMinute("error", perError, errors, ""), errors, perError),
			legend: "{{error}}", step: coarse, exemplars: true,
		}},
	}
}

func errorsTable() panel {
	return panel{
		title: "Which errors, by action?", about: "How often runs entered a problem status with which error in this range, most frequent first; at most 100 rows. Good: short.",
		unit: unitNumber, empty: noneSeen, decimals: number(0),
		queries: []query{{
			expr:   "topk(100, " + total("action, status, error", perError, where("edges_run_errors_total", ofRuns), "") + " >= 0.5)",
			format: prometheus.PromQueryFormatTable,
		}},
		transforms: []dashboard.DataTransformerConfig{{Id: "organize", Options: map[string]any{
			"excludeByName": map[string]bool{"Time": true},
			"indexByName":   map[string]int{"Value": 0, "error": 1, "action": 2, "status": 3},
			"renameByName":  map[string]string{"Value": "Times", "action": "Action", "status": "Status", "error": "Error"},
		}}},
		overrides: []override{
			byName("Error", property("custom.minWidth", errorWidth)),
			byName("Status", property("custom.width", 165), property("custom.cellOptions", map[string]any{"type": "color-text"}), property("mappings", statusMappings())),
			byName("Action", property("custom.minWidth", actionWidth)),
			byName("Times", property("custom.width", 70)),
			actionCell(),
		},
	}
}

func p95ByAction() panel {
	return panel{
		title: "How long do the runs of each action take? (p95)", about: "19 of 20 successful runs took less than this; the ten busiest of the chosen actions. Good: level lines.",
		unit: unitSeconds, empty: noRuns,
		queries: []query{{
			expr:   busiest("action", quantile("0.95", "action", perStatus, durations(), window, ""), transitions(ended), perStatus),
			legend: "{{action}}", step: coarse, exemplars: true,
		}},
	}
}

func endsByMode() panel {
	return panel{
		title: "Runs ended, by mode (per minute)", about: "Runs that ended, per minute, by how they were launched. Good: as usual for the hour; SCHEDULE comes in steps.",
		unit: unitCount, empty: noRuns,
		queries: []query{{
			expr:   perMinute("mode", perStatus, transitions(ended), ""),
			legend: "{{mode}}", step: coarse, exemplars: true,
		}},
		overrides: byMode(),
	}
}

func shareByMode() panel {
	p := successOverTime("mode")
	p.title = "Success share, by mode"
	p.overrides = append(p.overrides, byMode()...)
	return p
}

func p95ByMode() panel {
	return panel{
		title: "p95 duration, by mode", about: "19 of 20 successful runs took less than this. Good: level lines; LIVE is the one that somebody waits for.",
		unit: unitSeconds, empty: noRuns,
		queries: []query{{
			expr:   quantile("0.95", "mode", perStatus, durations(), window, ""),
			legend: "{{mode}}", step: coarse, exemplars: true,
		}},
		overrides: byMode(),
	}
}

// againstLastWeek has the same four questions for now and for a week ago.
func againstLastWeek() []panel {
	ask := func(title, about, unit string, expr func(shift string) string) panel {
		return panel{
			title: title, about: about + " Good: the lines go together. The dashed one needs data from a week ago; choose the last 7 days to compare whole weeks.",
			unit: unit, empty: noRuns,
			queries: []query{
				{expr: expr(""), legend: "this range", step: coarse},
				{expr: expr(before), legend: "a week before", step: coarse},
			},
			overrides: []override{
				byName("this range", colored(neutral), property("custom.lineWidth", 2)),
				byName("a week before", append(dashed(), colored(reference))...),
			},
		}
	}
	outputs := where("edges_run_outputs_total", ofRuns)
	ratio := ask("Success share", "SUCCEEDED and PARTIAL_SUCCEEDED among those and the FAILED and INVALID ones.", unitShare, func(shift string) string {
		return successShare("", window, shift)
	})
	ratio.max = number(1)
	return []panel{
		ask("Runs ended (per minute)", "Runs that ended, per minute.", unitCount, func(shift string) string {
			return perMinute("", perStatus, transitions(ended), shift)
		}),
		ratio,
		ask("p95 duration", "19 of 20 successful runs took less than this.", unitSeconds, func(shift string) string {
			return quantile("0.95", "", perStatus, durations(), window, shift)
		}),
		ask("Results (per minute)", "Results that runs produced, per minute.", unitCount, func(shift string) string {
			return perMinute("", perPair, outputs, shift)
		}),
	}
}

func underWay() panel {
	return panel{
		title: "How many runs are under way?", about: "Runs in a status that is not an end, stacked. Good: a level that breathes with the day; a growing BLOCKED band waits for a person.",
		unit: unitCount, empty: "no run was under way in this range", decimals: number(0),
		queries: []query{{
			expr:   now("status", where("edges_runs", ofRuns, status("CREATED|QUEUED|SCHEDULED|RUNNING|BLOCKED"))),
			legend: "{{status}}", step: fine,
		}},
		overrides: byStatus(),
	}
}

func oldestByAction() panel {
	oldest := where("edges_run_oldest_timestamp_seconds", ofRuns, status("CREATED|QUEUED|RUNNING"))
	return panel{
		title: "How old is each action's oldest run under way?", about: "For how long the action's oldest CREATED, QUEUED or RUNNING run has been in its status; the ten busiest of the chosen actions. Good: it falls back again and again; a line that climbs without end is a stuck run.",
		unit: unitSeconds, empty: "no run was under way in this range",
		queries: []query{{
			expr:   busiest("action", "max by (action) (time() - "+oldest+")", transitions(ended), perStatus),
			legend: "{{action}}", step: fine,
		}},
	}
}

func outputsByAction() panel {
	outputs := where("edges_run_outputs_total", ofRuns)
	return panel{
		title: "How many results does each action produce? (per minute)", about: "Results per minute of the ten chosen actions that produce the most. Good: as usual for the hour; an action that goes on succeeding while this falls succeeds empty.",
		unit: unitCount, empty: noRuns,
		queries: []query{{
			expr:   busiest("action", perMinute("action", perPair, outputs, ""), outputs, perPair),
			legend: "{{action}}", step: coarse,
		}},
	}
}

func retriesByAction() panel {
	retries := where("edges_run_retries_total", ofRuns)
	return panel{
		title: "How often does Edges retry? (per minute)", about: "Retries that Edges made by itself, per minute, of the ten chosen actions with the most. Good: few; many retries are failures that do not show yet.",
		unit: unitCount, empty: "no retries in this range",
		queries: []query{{
			expr:   busiest("action", perMinute("action", perPair, retries, ""), retries, perPair),
			legend: "{{action}}", step: coarse,
		}},
	}
}
