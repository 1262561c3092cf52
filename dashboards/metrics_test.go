package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/edges-exporter/edges_exporter/collector"
)

// metric is what Prometheus has of one name.
type metric struct {
	kind   string
	labels []string
}

// ofGo are the metrics that the exporter's process has besides.
var ofGo = map[string]metric{
	"edges_exporter_build_info":     {"gauge", []string{"version", "goversion"}},
	"process_start_time_seconds":    {"gauge", nil},
	"process_resident_memory_bytes": {"gauge", nil},
	"process_cpu_seconds_total":     {"counter", nil},
	"process_open_fds":              {"gauge", nil},
	"go_memstats_heap_inuse_bytes":  {"gauge", nil},
	"go_goroutines":                 {"gauge", nil},
}

// ofExporter are the metrics that dashboards may ask for, by the exporter's own
// description. A test compares them with a running exporter.
var ofExporter = func() map[string]metric {
	out := maps.Clone(ofGo)
	for _, m := range collector.Metrics() {
		out[m.Name] = metric{m.Type, m.Labels}
	}
	return out
}()

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
