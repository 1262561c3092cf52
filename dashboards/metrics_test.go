package main

import (
	"slices"
	"strings"
)

// metric is what Prometheus has of one name.
type metric struct {
	kind   string
	labels []string
}

// ofExporter are the metrics of the exporter that dashboards may ask for, with
// the labels that it gives them. A test compares them with a running exporter.
var ofExporter = map[string]metric{
	"edges_runs":                                {"gauge", []string{"workspace", "action", "mode", "status"}},
	"edges_runs_postponed":                      {"gauge", []string{"workspace", "action", "mode", "status"}},
	"edges_run_oldest_timestamp_seconds":        {"gauge", []string{"workspace", "action", "mode", "status"}},
	"edges_runs_created_total":                  {"counter", []string{"workspace", "action", "mode"}},
	"edges_run_transitions_total":               {"counter", []string{"workspace", "action", "mode", "status"}},
	"edges_run_errors_total":                    {"counter", []string{"workspace", "action", "mode", "status", "error"}},
	"edges_run_outputs_total":                   {"counter", []string{"workspace", "action", "mode"}},
	"edges_run_retries_total":                   {"counter", []string{"workspace", "action", "mode"}},
	"edges_run_duration_seconds":                {"histogram", []string{"workspace", "action", "mode", "status"}},
	"edges_run_queue_duration_seconds":          {"histogram", []string{"workspace", "action", "mode"}},
	"edges_run_problem_timestamp_seconds":       {"gauge", []string{"workspace", "run_uid", "action", "mode", "status", "error"}},
	"edges_up":                                  {"gauge", []string{"workspace"}},
	"edges_poll_last_success_timestamp_seconds": {"gauge", []string{"workspace"}},
	"edges_polls_total":                         {"counter", []string{"workspace", "result"}},
	"edges_poll_duration_seconds":               {"histogram", []string{"workspace"}},
	"edges_poll_watermark_timestamp_seconds":    {"gauge", []string{"workspace"}},
	"edges_backfill_complete":                   {"gauge", []string{"workspace"}},
	"edges_ledger_runs":                         {"gauge", []string{"workspace"}},
	"edges_ledger_size_bytes":                   {"gauge", []string{"workspace"}},
	"edges_skipped_runs_total":                  {"counter", []string{"workspace", "reason"}},
	"edges_audit_corrections_total":             {"counter", []string{"workspace", "reason"}},
	"edges_api_requests_total":                  {"counter", []string{"workspace", "endpoint", "code"}},
	"edges_api_request_duration_seconds":        {"histogram", []string{"workspace", "endpoint"}},
	"edges_api_budget_requests_per_minute":      {"gauge", []string{"workspace"}},
	"edges_api_throttled_seconds_total":         {"counter", []string{"workspace"}},
	"edges_exporter_build_info":                 {"gauge", []string{"version", "goversion"}},
	"process_start_time_seconds":                {"gauge", nil},
	"process_resident_memory_bytes":             {"gauge", nil},
	"process_cpu_seconds_total":                 {"counter", nil},
	"process_open_fds":                          {"gauge", nil},
	"go_memstats_heap_inuse_bytes":              {"gauge", nil},
	"go_goroutines":                             {"gauge", nil},
}

// ofPrometheus are metrics that Prometheus adds by itself.
var ofPrometheus = map[string]metric{
	"scrape_duration_seconds": {"gauge", nil},
	"scrape_samples_scraped":  {"gauge", nil},
}

// metricOf finds a metric by the name that a query has for it, with the labels
// that the scrape adds.
func metricOf(name string) (metric, bool) {
	if name == "ALERTS" {
		return metric{"gauge", []string{"alertname", "alertstate", "severity", "workspace", "action"}}, true
	}
	scraped := []string{"job", "instance"}
	for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
		base, found := strings.CutSuffix(name, suffix)
		m, known := ofExporter[base]
		if !known {
			m, known = ofPrometheus[base]
		}
		if !found || !known || (m.kind == "histogram") != (suffix != "") {
			continue
		}
		m.labels = slices.Concat(m.labels, scraped)
		if suffix == "_bucket" {
			m.labels = append(m.labels, "le")
		}
		return m, true
	}
	return metric{}, false
}
