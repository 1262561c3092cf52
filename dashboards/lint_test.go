package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

func TestDashboardsKeepTheRules(t *testing.T) {
	for _, uid := range uids() {
		t.Run(uid, func(t *testing.T) {
			d, _ := load(t, uid)
			for _, fault := range lint(d) {
				t.Error(fault)
			}
		})
	}
}

// A rule that finds nothing wrong in anything is none.
func TestRulesFindFaults(t *testing.T) {
	_, text := load(t, uidRuns)
	for _, c := range []struct{ name, old, new, want string }{
		{"editable", `"editable": false`, `"editable": true`, "editable"},
		{"no refresh", `"refresh": "1m"`, `"refresh": ""`, "refresh"},
		{"no description", `"description": "Firing alerts`, `"was": "Firing alerts`, "no description"},
		{"no title", `"title": "Data age"`, `"was": ""`, "no title"},
		{"no unit", `"unit": "locale"`, `"unit": "bananas"`, "unit"},
		{"nothing for no data", `"noValue": "none"`, `"noValue": ""`, "no data"},
		{"data source by name", `"uid": "${datasource}"`, `"uid": "prometheus-1"`, "data source"},
		{"data source variable's name", `"name": "datasource"`, `"name": "source"`, "datasource"},
		{"all of a variable", `"allValue": ".+"`, `"allValue": ".*"`, "allValue"},
		{"single choice", `"multi": true`, `"multi": false`, "multi"},
		{"label of a variable", `"label": "Job"`, `"label": "job"`, "label"},
		{"variable not reloaded", `"refresh": 2`, `"refresh": 1`, "time range"},
		{"broken expression", `count(ALERTS`, `count((ALERTS`, "parse"},
		{"no job", `edges_run_transitions_total{job=~\"$job\", `, `edges_run_transitions_total{`, "job"},
		{"no mode", `, mode=~\"$mode\", status=\"FAILED\"`, `, status=\"FAILED\"`, "mode"},
		{"rate over a fixed time", `[$__rate_interval]`, `[5m]`, "range"},
		{"counter as it is", `increase(edges_run_transitions_total`, `max_over_time(edges_run_transitions_total`, "counter"},
		{"replicas added up", `sum(max by (workspace, action, mode, status) (increase(`, `sum(sum by (workspace, action, mode, status) (increase(`, "replicas"},
		{"replicas' credits added up", `max by (workspace) (edges_credits_left`, `sum by (workspace) (edges_credits_left`, "replicas"},
		{"a schedule's unknown label", `max by (workspace, schedule, name, action)`, `max by (workspace, schedule, title, action)`, "title"},
		{"silence of what is not read", `callbacks are not read`, `no callbacks`, "not be read"},
		{"0 for what is not read", `or 0 * max(`, `or vector(0) * max(`, "not be read"},
		{"shares of nothing", ` > 0)`, ` < 1e9)`, "denominator"},
		{"unknown metric", `edges_run_outputs_total`, `edges_run_output_total`, "not exposed"},
		{"unknown label", `sum by (status) (max by (workspace, action, mode, status)`, `sum by (state) (max by (workspace, action, mode, state)`, "state"},
		{"another colour of a status", `"fixedColor": "#D55E00"`, `"fixedColor": "#FF0000"`, "colour"},
		{"two panels in one place", `"x": 12`, `"x": 0`, "overlaps"},
		{"a hole", `"w": 12`, `"w": 11`, "hole"},
		{"no links", `"includeVars": true`, `"includeVars": false`, "link"},
		{"no step of a graph", `"interval": "1m"`, `"interval": ""`, "step"},
	} {
		t.Run(c.name, func(t *testing.T) {
			changed := strings.ReplaceAll(string(text), c.old, c.new)
			if changed == string(text) {
				t.Fatalf("%q is not in the dashboard", c.old)
			}
			faults := lint(decode(t, []byte(changed)))
			if !slices.ContainsFunc(faults, func(f string) bool { return strings.Contains(f, c.want) }) {
				t.Errorf("no fault about %q among %d: %.300q", c.want, len(faults), faults)
			}
		})
	}
}

// units are those of Grafana's that the dashboards may use.
var units = []string{"short", "none", "locale", "percentunit", "s", "bytes", "dateTimeFromNow", "string"}

// lint returns what is wrong with a dashboard: the substance of what Grafana's
// dashboard-linter asks for in strict mode, and rules of the project's own.
func lint(d fileDashboard) []string {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }

	if d.UID == "" || d.Title == "" || d.Description == "" || !slices.Contains(d.Tags, "edges") {
		fault("uid, title, description or tag is missing")
	}
	if d.Editable == nil || *d.Editable {
		fault("the dashboard is editable")
	}
	if d.Refresh == "" || d.Time.From == "" || d.Time.To != "now" {
		fault("no default time or refresh")
	}
	if d.SchemaVersion < 36 {
		fault("schema version %d is too old", d.SchemaVersion)
	}
	if len(d.Links) != 1 || d.Links[0].Type != "dashboards" || !slices.Equal(d.Links[0].Tags, []string{"edges"}) || !d.Links[0].KeepTime || !d.Links[0].IncludeVars {
		fault("no link to the other dashboards that keeps time and variables")
	}
	faults = append(faults, lintVariables(d)...)
	faults = append(faults, lintLayout(d)...)
	for _, a := range d.Annotations.List {
		if a.Datasource.UID != "${datasource}" || !a.Enable {
			fault("annotation %q: not of the data source variable, or off", a.Name)
		}
		faults = append(faults, lintExpr("annotation "+a.Name, "", a.Expr, d)...)
	}
	if len(d.Annotations.List) != 2 {
		fault("%d annotations, want alerts and restarts", len(d.Annotations.List))
	}
	for _, p := range d.Panels {
		if p.Type != "row" {
			faults = append(faults, lintPanel(p, d)...)
		}
	}
	return faults
}

func lintVariables(d fileDashboard) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	known := map[string]fileVariable{}
	for _, v := range d.Templating.List {
		known[v.Name] = v
		switch v.Type {
		case "datasource":
			if v.Name != "datasource" || v.Label != "Data source" || v.query() != "prometheus" {
				fault("the data source variable is not a Prometheus named datasource and labelled Data source")
			}
		case "query":
			if v.Datasource.UID != "${datasource}" {
				fault("variable %s: data source %q", v.Name, v.Datasource.UID)
			}
			if want := strings.ToUpper(v.Name[:1]) + v.Name[1:]; v.Label != want {
				fault("variable %s: label %q, want %q", v.Name, v.Label, want)
			}
			if !v.Multi || !v.IncludeAll {
				fault("variable %s: not multi with All", v.Name)
			}
			if v.AllValue != ".+" {
				fault("variable %s: allValue %q", v.Name, v.AllValue)
			}
			if v.Refresh != 2 {
				fault("variable %s: not reloaded when the time range changes", v.Name)
			}
			if v.Sort == 0 {
				fault("variable %s: not sorted", v.Name)
			}
			m := labelValues.FindStringSubmatch(v.query())
			if m == nil || m[2] != v.Name {
				fault("variable %s: query %q", v.Name, v.query())
				continue
			}
			if _, err := parse(m[1]); err != nil {
				fault("variable %s: parse %q: %v", v.Name, m[1], err)
			}
			faults = append(faults, lintMetrics("variable "+v.Name, m[1])...)
		}
		used := slices.ContainsFunc(d.Panels, func(p filePanel) bool {
			return slices.ContainsFunc(p.Targets, func(q fileTarget) bool {
				return v.Name == "datasource" || regexp.MustCompile(`\$\{?`+v.Name+`\b`).MatchString(q.Expr)
			})
		})
		if !used {
			fault("variable %s is in no query", v.Name)
		}
	}
	if len(d.Templating.List) == 0 || d.Templating.List[0].Type != "datasource" {
		fault("the first variable is not the datasource")
	}
	for _, name := range []string{"datasource", "job", "instance", "workspace"} {
		if _, ok := known[name]; !ok {
			fault("there is no variable %s", name)
		}
	}
	return faults
}

// lintLayout wants lines of full width without holes, ids that differ, and
// headings over everything.
func lintLayout(d fileDashboard) (faults []string) {
	taken := map[[2]int]string{}
	ids := map[int]bool{}
	bottom := 0
	for _, p := range d.Panels {
		if ids[p.ID] {
			faults = append(faults, fmt.Sprintf("id %d is there twice", p.ID))
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok {
					faults = append(faults, fmt.Sprintf("panel %q overlaps %q", p.Title, other))
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		bottom = max(bottom, p.GridPos.Y+p.GridPos.H)
	}
	for y := range bottom {
		for x := range columns {
			if _, ok := taken[[2]int{x, y}]; !ok {
				return append(faults, fmt.Sprintf("there is a hole at column %d of line %d", x, y))
			}
		}
	}
	if len(taken) != bottom*columns {
		faults = append(faults, "a panel stands out of the grid")
	}
	return faults
}

func lintPanel(p filePanel, d fileDashboard) (faults []string) {
	name := fmt.Sprintf("panel %q", p.Title)
	fault := func(format string, args ...any) {
		faults = append(faults, name+": "+fmt.Sprintf(format, args...))
	}
	if p.Title == "" {
		fault("no title")
	}
	if p.Description == "" || !strings.Contains(p.Description, "Good: ") {
		fault("no description that says what good looks like")
	}
	if !slices.Contains(units, p.FieldConfig.Defaults.Unit) {
		fault("unit %q", p.FieldConfig.Defaults.Unit)
	}
	if p.FieldConfig.Defaults.NoValue == "" {
		fault("no text for no data")
	}
	if p.Datasource.UID != "${datasource}" {
		fault("data source %q", p.Datasource.UID)
	}
	if len(p.Targets) == 0 {
		fault("no queries")
	}
	for _, o := range p.FieldConfig.Overrides {
		for _, s := range statusColors {
			for _, property := range o.Properties {
				if color, ok := property.Value.(map[string]any); ok && o.Matcher.Options == s.status && property.ID == "color" && color["fixedColor"] != s.color {
					fault("%s has the colour %v, elsewhere %s", s.status, color["fixedColor"], s.color)
				}
			}
		}
	}
	graph := slices.Contains([]string{"timeseries", "heatmap", "status-history", "state-timeline"}, p.Type)
	refs := map[string]bool{}
	for _, q := range p.Targets {
		if q.Datasource.UID != "${datasource}" {
			fault("query %s: data source %q", q.RefID, q.Datasource.UID)
		}
		if q.RefID == "" || refs[q.RefID] {
			fault("refId %q is empty or there twice", q.RefID)
		}
		refs[q.RefID] = true
		if graph && (q.LegendFormat == "" || q.Interval == "" || !q.Range) {
			fault("query %s of a graph has no legend or no step", q.RefID)
		}
		if !graph && p.Type != "stat" && !q.Instant {
			fault("query %s of a %s is not instant", q.RefID, p.Type)
		}
		faults = append(faults, lintExpr(name, p.Type, q.Expr, d)...)
		if readBeside(q.Expr) && (!strings.HasSuffix(p.FieldConfig.Defaults.NoValue, "not read") || strings.Contains(q.Expr, "vector(0)")) {
			fault("query %s of what may not be read at all: without data it says %q, or 0", q.RefID, p.FieldConfig.Defaults.NoValue)
		}
	}
	return faults
}

// readBeside says whether an expression asks for what a collector reads that can
// be switched off.
func readBeside(expr string) bool {
	return slices.ContainsFunc(besidePrefixes(), func(prefix string) bool { return strings.Contains(expr, prefix) })
}

func besidePrefixes() []string { return []string{"edges_schedule", "edges_callback", "edges_credits"} }

// lintExpr looks at one expression of a panel or an annotation.
func lintExpr(name, panelType, text string, d fileDashboard) (faults []string) {
	fault := func(format string, args ...any) {
		faults = append(faults, name+": "+fmt.Sprintf(format, args...)+": "+text)
	}
	expr, err := parse(text)
	if err != nil {
		fault("parse: %v", err)
		return faults
	}
	faults = append(faults, lintMetrics(name, text)...)
	has := func(variable string) bool {
		return slices.ContainsFunc(d.Templating.List, func(v fileVariable) bool { return v.Name == variable })
	}
	parser.Inspect(expr, func(node parser.Node, path []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			m, known := metricOf(n.Name)
			if n.Name == "ALERTS" || !known {
				return nil // has neither job nor instance, or is told elsewhere
			}
			for _, variable := range []string{"job", "instance", "workspace", "action", "mode"} {
				if !slices.Contains(m.labels, variable) || !has(variable) {
					continue
				}
				if !slices.ContainsFunc(n.LabelMatchers, func(l *labels.Matcher) bool {
					return l.Name == variable && l.Type == labels.MatchRegexp && l.Value == "$"+variable
				}) {
					fault("%s is not filtered by the variable %s", n.Name, variable)
				}
			}
			if m.kind != "gauge" {
				call := within(path)
				if call != "rate" && call != "increase" && call != "irate" {
					fault("the counter %s is not in rate or increase", n.Name)
				}
				if strings.HasSuffix(n.Name, "_bucket") && panelType != "heatmap" && !slices.ContainsFunc(path, func(p parser.Node) bool {
					c, ok := p.(*parser.Call)
					return ok && c.Func.Name == "histogram_quantile"
				}) {
					fault("the buckets of %s are in no histogram_quantile", n.Name)
				}
			}
			// What is counted of a workspace is the same in every exporter that
			// follows it, so it must not be added up over them.
			if ofWorkspaceAlone(n.Name, m) {
				if first := firstAggregation(path); first == nil || (first.Op != parser.MAX && first.Op != parser.MIN) ||
					first.Without || slices.Contains(first.Grouping, "instance") {
					fault("%s of several replicas is not taken once, by max or min", n.Name)
				}
			}
		case *parser.MatrixSelector:
			window, _ := time.ParseDuration(rateWindow)
			span, _ := time.ParseDuration(rangeSpan)
			call := within(append(path, node))
			if n.Range != window && (call != "increase" || n.Range != span) {
				fault("%s over the range %s, want $__rate_interval, or $__range in increase", call, n.Range)
			}
		case *parser.SubqueryExpr:
			fault("a subquery is too dear for a dashboard")
		case *parser.BinaryExpr:
			if n.Op == parser.DIV && !mentions(n.RHS, "edges_api_budget_requests_per_minute") && !positive(n.RHS) {
				fault("a denominator that may be 0")
			}
		}
		return nil
	})
	return faults
}

// ofWorkspaceAlone says whether a metric tells of a workspace, and not of the
// exporter that follows it.
func ofWorkspaceAlone(name string, m metric) bool {
	return slices.Contains(m.labels, "action") || slices.ContainsFunc(besidePrefixes(), func(prefix string) bool {
		return strings.HasPrefix(name, prefix)
	})
}

// within names the function whose range the path's end is.
func within(path []parser.Node) string {
	for _, n := range slices.Backward(path) {
		switch n := n.(type) {
		case *parser.Call:
			return n.Func.Name
		case *parser.MatrixSelector, *parser.VectorSelector, *parser.StepInvariantExpr:
		default:
			return ""
		}
	}
	return ""
}

func firstAggregation(path []parser.Node) *parser.AggregateExpr {
	for _, n := range slices.Backward(path) {
		if a, ok := n.(*parser.AggregateExpr); ok {
			return a
		}
	}
	return nil
}

// positive says whether an expression leaves out what is not above 0.
func positive(expr parser.Expr) bool {
	switch e := expr.(type) {
	case *parser.ParenExpr:
		return positive(e.Expr)
	case *parser.NumberLiteral:
		return e.Val > 0
	case *parser.BinaryExpr:
		switch e.Op {
		case parser.GTR:
			zero, ok := e.RHS.(*parser.NumberLiteral)
			return ok && zero.Val == 0
		case parser.ADD:
			return positive(e.LHS)
		}
	}
	return false
}

func mentions(expr parser.Expr, metric string) (found bool) {
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		v, ok := n.(*parser.VectorSelector)
		found = found || (ok && v.Name == metric)
		return nil
	})
	return found
}

// lintMetrics checks that metrics and labels are ones that are exposed.
func lintMetrics(name, text string) (faults []string) {
	expr, err := parse(text)
	if err != nil {
		return nil // told by the caller
	}
	labelsKnown := map[string]bool{}
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		n, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		m, known := metricOf(n.Name)
		if !known {
			faults = append(faults, fmt.Sprintf("%s: the metric %q is not exposed", name, n.Name))
			return nil
		}
		for _, l := range m.labels {
			labelsKnown[l] = true
		}
		for _, l := range n.LabelMatchers {
			if l.Name != "__name__" && !slices.Contains(m.labels, l.Name) {
				faults = append(faults, fmt.Sprintf("%s: %s has no label %q", name, n.Name, l.Name))
			}
		}
		return nil
	})
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		var used []string
		switch n := node.(type) {
		case *parser.AggregateExpr:
			used = n.Grouping
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				used = n.VectorMatching.MatchingLabels
			}
		}
		for _, l := range used {
			if !labelsKnown[l] {
				faults = append(faults, fmt.Sprintf("%s: no metric in it has the label %q: %s", name, l, text))
			}
		}
		return nil
	})
	return faults
}
