// Package tests proves the alert rules: with Prometheus' own parser, with
// promtool, with amtool, and end to end with the real programs. It is a module
// of its own, so that the exporter does not depend on Prometheus.
package tests
