package main

import (
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// Colours come from the Okabe-Ito palette and from ramps that differ in
// lightness, so that they hold for colour-blind readers, on dark and on light.
const (
	good    = "#009E73"
	warning = "#E69F00"
	bad     = "#D55E00"
	// neutral is for what is neither good nor bad and is not a status.
	neutral = "#9673D3"
	// light and strong are neutral's neighbours, for lines of one kind.
	light  = "#AD93E3"
	strong = "#7A52C7"
	// reference is for lines to compare with: an objective, the week before.
	reference = "#8E8E8E"
	// plain leaves a value in the theme's own text colour.
	plain = "text"
)

// statusColors holds the one colour that a status has in every panel. Statuses
// on the way to an end are one ramp of blue.
var statusColors = []struct{ status, color string }{
	{"CREATED", "#8496B0"},
	{"SCHEDULED", "#8CC7EE"},
	{"QUEUED", "#4BA3DD"},
	{"RUNNING", "#0072B2"},
	{"BLOCKED", "#CC79A7"},
	{"FAILED", "#D55E00"},
	{"INVALID", "#A6611A"},
	{"PARTIAL_SUCCEEDED", "#D4BC00"},
	{"STOPPED", "#7F7F7F"},
	{"SUCCEEDED", "#009E73"},
}

// Units by what they are used for. A rate of runs has no unit of its own in
// Grafana, so the title or the axis says "per minute".
const (
	unitCount   = "short"
	unitNumber  = "locale"
	unitShare   = "percentunit"
	unitSeconds = "s"
	unitBytes   = "bytes"
	unitFromNow = "dateTimeFromNow"
	unitText    = "string"
)

// Columns are at least so wide, in pixels, that the longest names of Edges' own
// fit: tables are scrolled sideways on a narrow page rather than cut.
const (
	actionWidth = 250
	errorWidth  = 250
)

// override changes how the fields that match are shown.
type override struct {
	matcher    string
	match      string
	properties []dashboard.DynamicConfigValue
}

func byName(name string, properties ...dashboard.DynamicConfigValue) override {
	return override{"byName", name, properties}
}

func byRegexp(expr string, properties ...dashboard.DynamicConfigValue) override {
	return override{"byRegexp", expr, properties}
}

func property(id string, value any) dashboard.DynamicConfigValue {
	return dashboard.DynamicConfigValue{Id: id, Value: value}
}

func colored(color string) dashboard.DynamicConfigValue {
	return property("color", map[string]any{"mode": "fixed", "fixedColor": color})
}

// dashed draws a line with gaps and without the area under it.
func dashed() []dashboard.DynamicConfigValue {
	return []dashboard.DynamicConfigValue{
		property("custom.lineStyle", map[string]any{"fill": "dash", "dash": []int{8, 6}}),
		property("custom.fillOpacity", 0),
		property("custom.stacking", map[string]any{"mode": "none", "group": "A"}),
	}
}

// byStatus gives each status its colour, wherever a field is named after one.
func byStatus() []override {
	var out []override
	for _, s := range statusColors {
		out = append(out, byName(s.status, colored(s.color)))
	}
	return out
}

// statusMappings colours a table's status cells.
func statusMappings() []map[string]any {
	options := map[string]any{}
	for i, s := range statusColors {
		options[s.status] = map[string]any{"color": s.color, "index": i}
	}
	return []map[string]any{{"type": "value", "options": options}}
}

func colorOf(status string) string {
	for _, s := range statusColors {
		if s.status == status {
			return s.color
		}
	}
	panic(fmt.Sprintf("status %q has no colour", status))
}

// byPercentile draws p50, p95 and p99 in one hue, told apart by their dashes.
func byPercentile() []override {
	return []override{
		byName("p50", stroke(light, 2, 5)...),
		byName("p95", stroke(neutral)...),
		byName("p99", stroke(strong, 10, 5)...),
	}
}

// stroke is a line's colour and dashes; solid without any.
func stroke(color string, dash ...int) []dashboard.DynamicConfigValue {
	style := map[string]any{"fill": "solid"}
	if len(dash) > 0 {
		style = map[string]any{"fill": "dash", "dash": dash}
	}
	return []dashboard.DynamicConfigValue{colored(color), property("custom.lineStyle", style)}
}

// step is a threshold: from this value up, the colour.
type step struct {
	from  float64
	color string
}

func thresholds(base string, steps ...step) *dashboard.ThresholdsConfig {
	out := &dashboard.ThresholdsConfig{
		Mode:  dashboard.ThresholdsModeAbsolute,
		Steps: []dashboard.Threshold{{Color: base}},
	}
	for _, s := range steps {
		out.Steps = append(out.Steps, dashboard.Threshold{Value: &s.from, Color: s.color})
	}
	return out
}

// legend names the series below the graph, with their latest values.
func legend() *common.VizLegendOptionsBuilder {
	return common.NewVizLegendOptionsBuilder().ShowLegend(true).
		DisplayMode(common.LegendDisplayModeList).Placement(common.LegendPlacementBottom).
		Calcs([]string{"lastNotNull"})
}

// byMode gives each way of launching a line of its own.
func byMode() []override {
	return []override{
		byName("LIVE", stroke(neutral)...),
		byName("ASYNC", stroke(plain)...),
		byName("SCHEDULE", stroke(light, 2, 4)...),
	}
}
