package main

import (
	"fmt"
)

// exporter shows whether the numbers of the other dashboards can be trusted,
// and what they cost.
func exporter() *board {
	b := &board{
		uid: uidExporter, title: "Edges / Exporter",
		about:     "Can the numbers be trusted, and what do they cost? Polls, watermark, request budget, backfill, ledger, process.",
		alerts:    alertsOfWorkspace,
		variables: variables(jobVariable, instanceVariable, workspaceVariable),
	}

	b.section("Can the numbers be trusted?")
	b.add(pollsWell().stat(4, 4, single))
	b.add(dataAge().stat(4, 4, single))
	b.add(backfillDone().stat(4, 4, single))
	b.add(budgetUsedNow().stat(4, 4, single))
	b.add(skippedTotal().stat(4, 4, single))
	b.add(version().stat(4, 4, text))
	b.add(watermarkAge().timeseries(12, 8, all(line, shaded)))
	b.add(pollResults().timeseries(12, 8, nil))

	b.section("What does Edges answer, and what of the quota is used?")
	b.add(budgetUsed().timeseries(12, 8, shaded))
	b.add(requestsByCode().timeseries(12, 8, stacked))
	b.add(requestPercentiles().timeseries(12, 8, nil))
	b.add(throttled().timeseries(12, 8, all(shaded, calm)))

	b.section("How far is the reading?")
	b.add(pollPercentiles().timeseries(8, 8, nil))
	b.add(backfill().states(8, 8))
	b.add(ledgerRuns().timeseries(8, 8, shaded))
	b.add(ledgerSize().timeseries(8, 8, shaded))
	b.add(corrections().timeseries(8, 8, calm))
	b.add(skipped().timeseries(8, 8, all(shaded, calm, namesOnly)))

	b.section("Are schedules, callbacks and credits read?")
	b.add(collectorsUp().states(8, 8))
	b.add(collectorsAge().timeseries(8, 8, all(line, namesOnly, flat)))
	b.add(collectorsSkipped().timeseries(8, 8, all(shaded, calm, namesOnly)))

	b.section("How is the process?")
	b.add(memory().timeseries(8, 8, nil))
	b.add(cpu().timeseries(8, 8, shaded))
	b.add(goroutines().timeseries(8, 8, shaded))
	b.add(scrapeTime().timeseries(8, 8, shaded))
	b.add(seriesCount().timeseries(8, 8, shaded))
	b.add(files().timeseries(8, 8, shaded))
	return b
}

// Each exporter has polls, a ledger and a budget of its own, so here they are
// not taken together.
const perFollower = "instance, workspace"

const followerLegend = "{{workspace}} {{instance}}"

// follower sums what one exporter has about one workspace.
func follower(by, expr string) string {
	if by != "" {
		by = ", " + by
	}
	return fmt.Sprintf("sum by (%s%s) (%s)", perFollower, by, expr)
}

func rateOf(metric string) string {
	return "rate(" + where(metric, ofWorkspace) + window + ")"
}

func budgetShare() string {
	return "60 * " + follower("", rateOf("edges_api_requests_total")) +
		"\n/\n" + follower("", where("edges_api_budget_requests_per_minute", ofWorkspace)) + " > 0"
}

// words shows values as words, in their colours.
func words(options map[string]any) []map[string]any {
	return []map[string]any{{"type": "value", "options": options}}
}

func reading() []map[string]any {
	return words(map[string]any{
		"0": map[string]any{"text": "reading", "color": warning, "index": 0},
		"1": map[string]any{"text": "done", "color": good, "index": 1},
	})
}

// succeeding words a value that is 1 after a success and 0 after a failure.
func succeeding() []map[string]any {
	return words(map[string]any{
		"0": map[string]any{"text": "failing", "color": bad, "index": 0},
		"1": map[string]any{"text": "ok", "color": good, "index": 1},
	})
}

func pollsWell() panel {
	return panel{
		title: "Polls", about: "Whether the last poll of each chosen exporter succeeded. Good: ok.",
		unit: unitCount, empty: notYet,
		steps:     thresholds(bad, step{1, good}),
		queries:   []query{{expr: "min(" + where("edges_up", ofWorkspace) + ")", legend: "polls"}},
		overrides: []override{byName("polls", property("mappings", succeeding()))},
	}
}

func backfillDone() panel {
	return panel{
		title: "Backfill", about: "Whether every run within retention has been read. Good: done; while it is reading, gauges still lack old runs and counters are right already.",
		unit: unitCount, empty: notYet,
		steps:     thresholds(warning, step{1, good}),
		queries:   []query{{expr: "min(" + where("edges_backfill_complete", ofWorkspace) + ")", legend: "backfill"}},
		overrides: []override{byName("backfill", property("mappings", reading()))},
	}
}

func budgetUsedNow() panel {
	return panel{
		title: "Budget used", about: "Requests to the Edges API against the budget, of the exporter that is nearest to it. Good: well below 100 %, except while a backfill runs, which takes what there is.",
		unit: unitShare, empty: notYet, decimals: number(0),
		steps:   thresholds(good, step{0.9, warning}),
		queries: []query{{expr: "max(" + budgetShare() + ")", legend: "used", step: fine}},
	}
}

func skippedTotal() panel {
	return panel{
		title: "Skipped runs", about: "Runs in this range that could not be understood and are in no number; the log names them. Good: 0.",
		unit: unitCount, empty: "0", decimals: number(0),
		steps:   thresholds(good, step{0.5, bad}),
		queries: []query{{expr: "sum(max by (workspace, reason) (increase(" + where("edges_skipped_runs_total", ofWorkspace) + whole + "))) or vector(0)"}},
	}
}

func version() panel {
	return panel{
		title: "Version", about: "The running versions of the exporter. Good: one.",
		unit: unitText, empty: notYet,
		queries: []query{{expr: "count by (version, goversion) (" + where("edges_exporter_build_info", ofProcess) + ")", legend: "{{version}} {{goversion}}"}},
	}
}

func watermarkAge() panel {
	return panel{
		title: "How far behind are the numbers?", about: "Everything that happened up to this long ago is in the numbers of this exporter. Good: a sawtooth of the poll's interval, under a minute; a line that climbs is an exporter that falls behind or is cut off.",
		unit: unitSeconds, empty: notYet,
		steps: thresholds(good, step{2 * 60, warning}),
		queries: []query{{
			expr:   "max by (" + perFollower + ") (time() - " + where("edges_poll_watermark_timestamp_seconds", ofWorkspace) + ")",
			legend: followerLegend, step: fine,
		}},
	}
}

func pollResults() panel {
	return panel{
		title: "Do polls succeed? (per minute)", about: "Polls per minute, of all chosen exporters, by result. Good: success at its level, no error.",
		unit: unitCount, empty: notYet,
		queries: []query{{expr: "60 * sum by (result) (" + rateOf("edges_polls_total") + ")", legend: "{{result}}", step: fine}},
		overrides: []override{
			byName("success", colored(good)), byName("error", colored(bad)),
		},
	}
}

func budgetUsed() panel {
	return panel{
		title: "How much of the request budget is used?", about: "Requests against the exporter's budget, which is its part of the rate limit that it shares with your own programs. Good: well below 100 %, except in a backfill.",
		unit: unitShare, empty: notYet, max: number(1),
		queries: []query{{expr: budgetShare(), legend: followerLegend, step: fine}},
	}
}

func requestsByCode() panel {
	return panel{
		title: "What does the API answer? (requests per minute)", about: "Requests by endpoint and HTTP status code; error is no answer at all. Good: nothing but 200. 401 is a bad key, 429 the rate limit, 5xx trouble at Edges.",
		unit: unitCount, empty: notYet,
		queries: []query{{expr: "60 * sum by (endpoint, code) (" + rateOf("edges_api_requests_total") + ") > 0", legend: "{{code}} {{endpoint}}", step: fine}},
		overrides: []override{
			byRegexp("^2.*", colored(neutral)), byRegexp("^[45].*", colored(bad)), byRegexp("^429.*", colored(warning)),
			byRegexp("^error.*", colored(colorOf("INVALID"))),
		},
	}
}

// percentiles of a histogram of the exporter's own.
func percentiles(p panel, bucket string) panel {
	p.overrides = byPercentile()
	for _, q := range []struct{ name, q string }{{"p50", "0.5"}, {"p95", "0.95"}, {"p99", "0.99"}} {
		p.queries = append(p.queries, query{
			expr: fmt.Sprintf("histogram_quantile(%s, sum by (le) (%s)) >= 0", q.q, rateOf(bucket)), legend: q.name, step: coarse,
		})
	}
	return p
}

func requestPercentiles() panel {
	return percentiles(panel{
		title: "How fast does the API answer?", about: "How long requests to the Edges API took, of all chosen exporters. Good: p99 well under a second.",
		unit: unitSeconds, empty: notYet,
	}, "edges_api_request_duration_seconds_bucket")
}

func throttled() panel {
	return panel{
		title: "How much of the time does it wait for the quota?", about: "Share of the time spent waiting for the budget or for Retry-After. Good: 0 %, except in a backfill. High all the time: the budget is too small for this workspace.",
		unit: unitShare, empty: notYet,
		queries: []query{{expr: follower("", rateOf("edges_api_throttled_seconds_total")), legend: followerLegend, step: fine}},
	}
}

func pollPercentiles() panel {
	return percentiles(panel{
		title: "Poll duration", about: "Polls from start to commit, waiting for the budget included. Good: well under the poll's interval.",
		unit: unitSeconds, empty: notYet,
	}, "edges_poll_duration_seconds_bucket")
}

func backfill() panel {
	return panel{
		title: "Is the backfill complete?", about: "Whether every run within retention has been read. Good: done, soon after the first start and ever after.",
		unit: unitCount, empty: notYet, decimals: number(0),
		steps:     thresholds(warning, step{1, good}),
		queries:   []query{{expr: "min by (" + perFollower + ") (" + where("edges_backfill_complete", ofWorkspace) + ")", legend: followerLegend, step: fine}},
		overrides: []override{byRegexp(".*", property("mappings", reading()))},
	}
}

func ledgerRuns() panel {
	return panel{
		title: "Runs in the ledger", about: "Runs in each exporter's ledger. Good: it grows in a backfill, then changes slowly; exporters of one workspace agree.",
		unit: unitCount, empty: notYet, decimals: number(0),
		queries: []query{{expr: "max by (" + perFollower + ") (" + where("edges_ledger_runs", ofWorkspace) + ")", legend: followerLegend, step: fine}},
	}
}

func ledgerSize() panel {
	return panel{
		title: "Size of the ledger", about: "Size of the ledger's file. Good: level after the first weeks; it does not shrink by itself.",
		unit: unitBytes, empty: notYet,
		queries: []query{{expr: "max by (" + perFollower + ") (" + where("edges_ledger_size_bytes", ofWorkspace) + ")", legend: followerLegend, step: fine}},
	}
}

func corrections() panel {
	return panel{
		title: "Audit corrections / min", about: "Runs under way of which an audit found what polls had missed: changed, or gone from the API. Good: close to 0.",
		unit: unitCount, empty: "no corrections in this range",
		queries: []query{{expr: "60 * sum by (reason) (" + rateOf("edges_audit_corrections_total") + ")", legend: "{{reason}}", step: fine}},
		overrides: []override{
			byName("changed", stroke(neutral)...), byName("gone", stroke(strong, 10, 5)...),
		},
	}
}

func skipped() panel {
	return panel{
		title: "Skipped runs / min", about: "Runs that could not be understood, by reason; the log names each once. Good: 0.",
		unit: unitCount, empty: "none skipped in this range",
		queries: []query{{expr: "60 * sum by (reason) (" + rateOf("edges_skipped_runs_total") + ")", legend: "{{reason}}", step: fine}},
	}
}

// notReading is for panels of the collectors beside the runs.
const notReading = "every collector is switched off"

func collectorsUp() panel {
	return panel{
		title: "Do the collectors succeed?", about: "Whether what each collector beside the runs reads could be read last time, by all chosen exporters that have it switched on. A collector that fails keeps its last numbers; the runs are not concerned. Good: ok; failing all the time is a plan or a key without access, and the log has the cause.",
		unit: unitCount, empty: notReading, decimals: number(0),
		steps:     thresholds(bad, step{1, good}),
		queries:   []query{{expr: "min by (collector) (" + where("edges_collector_up", ofWorkspace) + ")", legend: "{{collector}}", step: fine}},
		overrides: []override{byRegexp(".*", property("mappings", succeeding()))},
	}
}

func collectorsAge() panel {
	return panel{
		title: "How long since the last success?", about: "Time since each collector of each exporter last succeeded. Good: a minute or so for callbacks and schedules, 5 for credits; a small budget or a backfill makes it more.",
		unit: unitSeconds, empty: notReading,
		steps: thresholds(good, step{15 * 60, warning}),
		queries: []query{{
			expr:   "max by (" + perFollower + ", collector) (time() - " + where("edges_collector_last_success_timestamp_seconds", ofWorkspace) + ")",
			legend: "{{collector}} " + followerLegend, step: fine,
		}},
		overrides: []override{
			byRegexp("^schedules .*", stroke(neutral)...), byRegexp("^callbacks .*", stroke(strong, 10, 5)...), byRegexp("^credits .*", stroke(light, 2, 5)...),
		},
	}
}

func collectorsSkipped() panel {
	return panel{
		title: "Skipped rows beside the runs / min", about: "Schedules and callbacks that could not be understood; the log names each once, with the reason. Good: 0.",
		unit: unitCount, empty: "no schedules or callbacks are read",
		queries: []query{{expr: "60 * sum by (collector) (" + rateOf("edges_collector_skipped_rows_total") + ")", legend: "{{collector}}", step: fine}},
	}
}

func memory() panel {
	return panel{
		title: "Memory", about: "Resident memory and Go heap in use, of all chosen exporters. Good: level, whatever the number of runs.",
		unit: unitBytes, empty: notYet,
		queries: []query{
			{expr: "sum(" + where("process_resident_memory_bytes", ofProcess) + ")", legend: "resident", step: fine},
			{expr: "sum(" + where("go_memstats_heap_inuse_bytes", ofProcess) + ")", legend: "heap in use", step: fine},
		},
		overrides: []override{byName("resident", stroke(neutral)...), byName("heap in use", stroke(strong, 10, 5)...)},
	}
}

// perProcess has one line for each exporter.
func perProcess(title, about, unit, expr string) panel {
	return panel{
		title: title, about: about, unit: unit, empty: notYet,
		queries: []query{{expr: "sum by (instance) (" + expr + ")", legend: "{{instance}}", step: fine}},
	}
}

func cpu() panel {
	return perProcess("CPU cores used", "Processor time per second. Good: far below 1 outside of a backfill.", unitCount,
		"rate("+where("process_cpu_seconds_total", ofProcess)+window+")")
}

func goroutines() panel {
	return perProcess("Goroutines", "Good: level; a climb is a leak.", unitCount, where("go_goroutines", ofProcess))
}

func scrapeTime() panel {
	return perProcess("Scrape duration", "As Prometheus sees it. Good: milliseconds, since a scrape does no work of its own.", unitSeconds,
		where("scrape_duration_seconds", ofProcess))
}

func seriesCount() panel {
	return perProcess("Samples per scrape", "Good: grows with the number of actions, not with the number of runs.", unitCount,
		where("scrape_samples_scraped", ofProcess))
}

func files() panel {
	return perProcess("Open files", "Good: level; a climb is a leak.", unitCount, where("process_open_fds", ofProcess))
}
