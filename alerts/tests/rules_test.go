package tests

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/template"
	"go.yaml.in/yaml/v3"

	"github.com/edges-exporter/edges_exporter/collector"
	"github.com/edges-exporter/edges_exporter/edges"
	"github.com/edges-exporter/edges_exporter/edges/simulator"
)

const rulesFile = "../edges.rules.yml"

// targetLabels are what Prometheus adds to every series it scrapes.
var targetLabels = []string{"instance", "job"}

func readRules(t *testing.T) *rulefmt.RuleGroups {
	t.Helper()
	groups, errs := rulefmt.ParseFile(rulesFile, false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	for _, err := range errs {
		t.Errorf("%s: %v", rulesFile, err)
	}
	if len(errs) > 0 {
		t.FailNow()
	}
	return groups
}

func eachRule(groups *rulefmt.RuleGroups, f func(rulefmt.Rule)) {
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			f(r)
		}
	}
}

func parseExpr(t *testing.T, expr string) parser.Expr {
	t.Helper()
	e, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Fatalf("%v in %s", err, expr)
	}
	return e
}

// schema knows which labels each series has, exposed or recorded.
type schema struct {
	series map[string][]string
	// learning tells that not all recorded series are known yet: a set
	// operator then goes by the sides that are, so that rules which read
	// themselves have a beginning.
	learning bool
}

// newSchema takes the exposed series from the exporter's own description, and
// works out the labels of the recorded ones.
func newSchema(t *testing.T, groups *rulefmt.RuleGroups) *schema {
	t.Helper()
	s := &schema{series: map[string][]string{"up": targetLabels}, learning: true}
	for _, m := range collector.Metrics() {
		names := append(slices.Clone(m.Labels), targetLabels...)
		if m.Type != "histogram" {
			s.series[m.Name] = names
			continue
		}
		s.series[m.Name+"_sum"], s.series[m.Name+"_count"] = names, names
		s.series[m.Name+"_bucket"] = append(slices.Clone(names), "le")
	}
	exposed := slices.Collect(maps.Keys(s.series))
	// Rules read others of later groups: go round until nothing new is learnt.
	for range 10 {
		before := len(s.series)
		eachRule(groups, func(r rulefmt.Rule) {
			if r.Record == "" {
				return
			}
			if slices.Contains(exposed, r.Record) {
				t.Errorf("%s is recorded under the name of an exposed metric", r.Record)
			}
			got, err := s.labelsOf(parseExpr(t, r.Expr))
			if err != nil {
				return // said below, when nothing is left to learn
			}
			all := append(got, slices.Collect(maps.Keys(r.Labels))...)
			all = append(all, s.series[r.Record]...)
			slices.Sort(all)
			s.series[r.Record] = slices.Compact(all)
		})
		if len(s.series) == before {
			break
		}
	}
	s.learning = false
	return s
}

// labelsOf returns the labels that the series of an expression have, and an
// error if it uses a metric or a label that is not there.
func (s *schema) labelsOf(e parser.Expr) ([]string, error) {
	switch e := e.(type) {
	case *parser.ParenExpr:
		return s.labelsOf(e.Expr)
	case *parser.UnaryExpr:
		return s.labelsOf(e.Expr)
	case *parser.StepInvariantExpr:
		return s.labelsOf(e.Expr)
	case *parser.MatrixSelector:
		return s.labelsOf(e.VectorSelector)
	case *parser.SubqueryExpr:
		return s.labelsOf(e.Expr)
	case *parser.NumberLiteral, *parser.StringLiteral:
		return nil, nil
	case *parser.VectorSelector:
		names, ok := s.series[e.Name]
		if !ok {
			return nil, fmt.Errorf("there is no metric %q", e.Name)
		}
		for _, m := range e.LabelMatchers {
			if m.Name != model.MetricNameLabel && !slices.Contains(names, m.Name) {
				return nil, fmt.Errorf("%s has no label %q", e.Name, m.Name)
			}
		}
		return slices.Clone(names), nil
	case *parser.AggregateExpr:
		inner, err := s.labelsOf(e.Expr)
		if err != nil {
			return nil, err
		}
		if err := within(e.Grouping, inner, e); err != nil {
			return nil, err
		}
		switch {
		case e.Op == parser.TOPK || e.Op == parser.BOTTOMK:
			return inner, nil
		case e.Without:
			return without(inner, e.Grouping), nil
		}
		return e.Grouping, nil
	case *parser.Call:
		return s.labelsOfCall(e)
	case *parser.BinaryExpr:
		return s.labelsOfBinary(e)
	}
	return nil, fmt.Errorf("%T is not known to this test", e)
}

func (s *schema) labelsOfCall(e *parser.Call) ([]string, error) {
	var first []string
	for _, arg := range e.Args {
		got, err := s.labelsOf(arg)
		if err != nil {
			return nil, err
		}
		if t := arg.Type(); first == nil && (t == parser.ValueTypeVector || t == parser.ValueTypeMatrix) {
			first = got
		}
	}
	switch e.Func.Name {
	case "scalar", "vector", "time":
		return nil, nil
	case "histogram_quantile":
		return without(first, []string{"le"}), nil
	case "label_replace":
		to := e.Args[1].(*parser.StringLiteral).Val
		return append(without(first, []string{to}), to), nil
	}
	return first, nil
}

func (s *schema) labelsOfBinary(e *parser.BinaryExpr) ([]string, error) {
	left, err := s.labelsOf(e.LHS)
	right, rightErr := s.labelsOf(e.RHS)
	if s.learning && e.Op.IsSetOperator() && (err == nil) != (rightErr == nil) {
		if err != nil {
			return right, nil //nolint:nilerr // the side that is known tells
		}
		return left, nil
	}
	if err := errors.Join(err, rightErr); err != nil {
		return nil, err
	}
	m := e.VectorMatching
	if e.LHS.Type() == parser.ValueTypeScalar || m == nil {
		return append(left, right...), nil
	}
	// A label that only one side has would never match, unless it is ignored.
	if m.On {
		if err := within(m.MatchingLabels, left, e); err != nil {
			return nil, err
		}
		if err := within(m.MatchingLabels, right, e); err != nil {
			return nil, err
		}
	} else if l, r := without(left, m.MatchingLabels), without(right, m.MatchingLabels); e.Op != parser.LOR {
		slices.Sort(l)
		slices.Sort(r)
		if !slices.Equal(l, r) {
			return nil, fmt.Errorf("%v on one side and %v on the other never match in %s", l, r, e)
		}
	}
	switch {
	case e.Op == parser.LOR:
		all := append(left, right...)
		slices.Sort(all)
		return slices.Compact(all), nil
	case e.Op == parser.LAND || e.Op == parser.LUNLESS || m.Card == parser.CardManyToOne:
		return left, nil
	case m.Card == parser.CardOneToMany:
		return right, nil
	case m.On:
		return m.MatchingLabels, nil
	}
	return without(left, m.MatchingLabels), nil
}

func within(some, all []string, e parser.Expr) error {
	for _, name := range some {
		if !slices.Contains(all, name) {
			return fmt.Errorf("no label %q, only %v, in %s", name, all, e)
		}
	}
	return nil
}

func without(all, some []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(name string) bool { return slices.Contains(some, name) })
}

// TestExpressions checks each expression against what the exporter exposes:
// every metric and every label is there, and vectors that are matched can.
func TestExpressions(t *testing.T) {
	groups := readRules(t)
	s := newSchema(t, groups)
	eachRule(groups, func(r rulefmt.Rule) {
		if _, err := s.labelsOf(parseExpr(t, r.Expr)); err != nil {
			t.Errorf("%s%s: %v", r.Record, r.Alert, err)
		}
	})
}

// TestExpressionsCheckFinds makes sure that the check above can fail.
func TestExpressionsCheckFinds(t *testing.T) {
	s := newSchema(t, readRules(t))
	for name, expr := range map[string]string{
		"an unknown metric":                `edges_run_transition_total`,
		"an unknown label in a matcher":    `edges_up{action="a"}`,
		"an unknown label to group by":     `sum by (error) (edges_run_transitions_total)`,
		"an unknown label to drop":         `sum without (error) (edges_run_transitions_total)`,
		"an unknown label to match on":     `edges_up + on (action) edges_backfill_complete`,
		"sides that never match":           `edges_runs > edges_up`,
		"an unknown metric in a threshold": `edges_up > scalar(edges:threshold:nothing)`,
	} {
		if _, err := s.labelsOf(parseExpr(t, expr)); err == nil {
			t.Errorf("%s is not found: %s", name, expr)
		}
	}
}

// TestAlerts checks what every alert must have.
func TestAlerts(t *testing.T) {
	groups := readRules(t)
	s := newSchema(t, groups)
	camel := regexp.MustCompile(`^Edges([A-Z][a-z]+|API)+$`)
	eachRule(groups, func(r rulefmt.Rule) {
		if r.Alert == "" {
			return
		}
		t.Run(r.Alert+"/"+r.Labels["severity"], func(t *testing.T) {
			if !camel.MatchString(r.Alert) {
				t.Error("its name is not in CamelCase after Edges")
			}
			if sev := r.Labels["severity"]; sev != "critical" && sev != "warning" {
				t.Errorf("severity is %q", sev)
			}
			for _, name := range []string{"summary", "description", "runbook_url", "dashboard_url"} {
				if r.Annotations[name] == "" {
					t.Errorf("no annotation %s", name)
				}
			}
			if strings.Contains(r.Annotations["summary"], "{{") {
				t.Error("its summary is not static, so it cannot be grouped by")
			}
			have, err := s.labelsOf(parseExpr(t, r.Expr))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(have, "workspace") {
				t.Error("it does not keep the workspace")
			}
			for _, l := range append(targetLabels, "pod") {
				if l != "job" && slices.Contains(have, l) {
					t.Errorf("it keeps %s: replicas would alert twice", l)
				}
			}
			for name, text := range r.Annotations {
				for _, m := range regexp.MustCompile(`\$labels\.(\w+)`).FindAllStringSubmatch(text, -1) {
					if _, fixed := r.Labels[m[1]]; !fixed && !slices.Contains(have, m[1]) {
						t.Errorf("%s uses $labels.%s, which the alert has not", name, m[1])
					}
				}
			}
			checkMessages(t, s, r, have)
		})
	})
}

// checkMessages expands the alert's templates, with every query in them
// answered by one series that has all labels, and checks the queries.
func checkMessages(t *testing.T, s *schema, r rulefmt.Rule, have []string) {
	t.Helper()
	values := map[string]string{}
	for _, name := range have {
		values[name] = "some " + name
	}
	maps.Copy(values, r.Labels)
	for _, window := range []string{"row", "10m"} {
		ask := func(_ context.Context, q string, _ time.Time) (promql.Vector, error) {
			answer := map[string]string{"window": window, "run_uid": "0a1b", "grafana": "http://g", "runbooks": "http://r"}
			for _, name := range []string{"action", "status", "error", "code"} {
				answer[name] = "some " + name
			}
			got, err := s.labelsOf(parseExpr(t, q))
			if err != nil {
				t.Errorf("%v in the query %s", err, q)
			}
			for name := range answer {
				if !slices.Contains(got, name) {
					delete(answer, name)
				}
			}
			return promql.Vector{{F: 1_700_000_000, Metric: labels.FromMap(answer)}}, nil
		}
		for name, text := range r.Annotations {
			prefix := "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}{{$externalURL := .ExternalURL}}{{$value := .Value}}"
			expander := template.NewTemplateExpander(t.Context(), prefix+text, r.Alert,
				template.AlertTemplateData(values, nil, "", promql.Sample{F: 7}), model.Now(), ask, &url.URL{}, []string{"missingkey=error"})
			got, err := expander.Expand()
			switch {
			case err != nil:
				t.Errorf("%s: %v", name, err)
			case strings.Contains(got, "<no value>") || strings.Contains(got, "NaN") || strings.Contains(got, "%!"):
				t.Errorf("%s reads %q", name, got)
			case name == "description" && !strings.Contains(got, values["workspace"]):
				t.Errorf("%s does not name the workspace: %q", name, got)
			case name == "description" && slices.Contains(have, "action") && !strings.Contains(got, values["action"]):
				t.Errorf("%s does not name the action: %q", name, got)
			case name == "dashboard_url":
				checkDashboard(t, got, values)
			case name == "runbook_url" && got != "http://r/"+r.Alert+".md":
				t.Errorf("%s is %q", name, got)
			}
		}
	}
}

// checkDashboard checks that a link opens a dashboard of ours, with the
// alert's own labels.
func checkDashboard(t *testing.T, link string, values map[string]string) {
	t.Helper()
	u, err := url.Parse(link)
	if err != nil {
		t.Error(err)
		return
	}
	if !regexp.MustCompile(`^/d/edges-(runs|action|exporter)$`).MatchString(u.Path) {
		t.Errorf("dashboard_url leads to %s", u.Path)
	}
	for _, name := range []string{"workspace", "action"} {
		if want := values[name]; want != "" && u.Query().Get("var-"+name) != want {
			t.Errorf("dashboard_url %s does not carry %s", link, name)
		}
	}
}

// TestThresholds checks that every threshold is used, and stands in the README
// with the value that it has.
func TestThresholds(t *testing.T) {
	groups := readRules(t)
	readme := read(t, "../README.md")
	used := map[string]bool{}
	var thresholds []rulefmt.Rule
	eachRule(groups, func(r rulefmt.Rule) {
		if strings.HasPrefix(r.Record, "edges:threshold:") {
			thresholds = append(thresholds, r)
		}
		for _, text := range append(slices.Collect(maps.Values(r.Annotations)), r.Expr) {
			for _, name := range regexp.MustCompile(`edges:threshold:\w+`).FindAllString(text, -1) {
				used[name] = true
			}
		}
	})
	if len(thresholds) == 0 {
		t.Fatal("no thresholds")
	}
	for _, r := range thresholds {
		if !used[r.Record] {
			t.Errorf("%s is used by no rule", r.Record)
		}
		value := strings.TrimSuffix(strings.TrimPrefix(r.Expr, "vector("), ")")
		if row := fmt.Sprintf("| `%s` | %s |", strings.TrimPrefix(r.Record, "edges:threshold:"), value); !strings.Contains(readme, row) {
			t.Errorf("README.md has no row that begins with %s", row)
		}
	}
}

// TestRunbooks checks that every alert has a runbook and a row in the README,
// and the other way round.
func TestRunbooks(t *testing.T) {
	alerts := map[string]bool{}
	readme := read(t, "../README.md")
	eachRule(readRules(t), func(r rulefmt.Rule) {
		if r.Alert != "" {
			alerts[r.Alert] = true
		}
	})
	for alert := range alerts {
		if !strings.Contains(readme, "| ["+alert+"](runbooks/"+alert+".md) |") {
			t.Errorf("README.md has no row for %s", alert)
		}
		page := read(t, filepath.Join("../runbooks", alert+".md"))
		for _, part := range []string{"# " + alert + "\n", "## What it means", "## What users feel", "## See it", "## Likely causes", "## What to do", "## Silence it", "## False alarms"} {
			if !strings.Contains(page, part) {
				t.Errorf("the runbook of %s has no %q", alert, part)
			}
		}
		if !strings.Contains(page, "```promql") || !strings.Contains(page, "curl ") {
			t.Errorf("the runbook of %s shows no PromQL or no API call", alert)
		}
		checkPromQL(t, alert, page)
	}
	pages, err := filepath.Glob("../runbooks/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		if name := strings.TrimSuffix(filepath.Base(page), ".md"); !alerts[name] {
			t.Errorf("%s belongs to no alert", page)
		}
	}
}

// checkPromQL checks the queries of a page as it does those of the rules.
func checkPromQL(t *testing.T, name, page string) {
	t.Helper()
	s := newSchema(t, readRules(t))
	s.series["ALERTS"] = []string{"alertname", "alertstate", "severity", "workspace", "action"}
	for _, block := range regexp.MustCompile("(?s)```promql\n(.*?)```").FindAllStringSubmatch(page, -1) {
		for query := range strings.SplitSeq(block[1], "\n\n") {
			if strings.TrimSpace(query) == "" {
				continue
			}
			if _, err := s.labelsOf(parseExpr(t, query)); err != nil {
				t.Errorf("the page of %s: %v", name, err)
			}
		}
	}
}

// TestCommands runs every command of this project that a runbook or a message
// names, on a simulated workspace.
func TestCommands(t *testing.T) {
	t.Parallel()
	program, err := buildExporter()
	if err != nil {
		t.Fatal(err)
	}
	workspace, err := simulator.New(simulator.Config{RunsPerDay: 20_000, HistoryRunsPerDay: 200, History: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(workspace)
	t.Cleanup(server.Close)
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "inputs.json"), []byte(`[{"full_name": "Ada Lovelace"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{"the rules": read(t, rulesFile)}
	pages, err := filepath.Glob("../runbooks/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		texts[filepath.Base(page)] = read(t, page)
	}
	named := map[string]int{}
	for where, text := range texts {
		for _, command := range regexp.MustCompile("(?m)edges_exporter (?:runs|launch|schedules|check)\\b[^`\n]*").FindAllString(text, -1) {
			// What a template fills in is left to what fills it in.
			command, _, loop := strings.Cut(command, "{{ range")
			command = regexp.MustCompile(`\{\{ end \}\}|;.*$`).ReplaceAllString(command, "")
			if loop {
				command += strings.Repeat(" UID", 2)
			}
			command = regexp.MustCompile(`\{\{ (?:\$labels|\.Labels)\.action[^}]*\}\}`).ReplaceAllString(command, "ACTION")
			command = regexp.MustCompile(`\{\{[^}]*\}\}`).ReplaceAllString(command, "UID")
			named[strings.Join(strings.Fields(command)[1:min(3, len(strings.Fields(command)))], " ")]++
			t.Run(where+"/"+command, func(t *testing.T) { runCommand(t, workspace, program, server.URL, folder, command) })
		}
	}
	for _, want := range []string{"runs get", "runs list", "runs resume", "runs cancel", "schedules list", "launch ACTION", "check"} {
		if named[want] == 0 {
			t.Errorf("nothing names %q", want)
		}
	}
}

// runCommand fills a command in and runs it; what asks before it acts is given
// its answer.
func runCommand(t *testing.T, w *simulator.Workspace, program, url, folder, command string) {
	t.Helper()
	status := edges.StatusFailed
	if strings.Contains(command, "runs resume") {
		status = edges.StatusBlocked
	} else if strings.Contains(command, "runs cancel") {
		status = edges.StatusRunning
	}
	uid, action := "", ""
	for _, r := range w.Truth().Runs {
		if r.Status == status && r.Mode == edges.ModeAsync && r.FlowRunID == 0 {
			uid, action = r.UID, r.Action
		}
	}
	if strings.Contains(command, "schedules list") {
		uid = w.Schedules()[0].UID
	}
	if uid == "" {
		t.Fatalf("the workspace has no run that is %s", status)
	}
	command = strings.NewReplacer("ACTION", action, "UID", uid, "FILE", filepath.Join(folder, "inputs.json"), "URL", "https://hooks.example.com/a").Replace(command)
	if last := command[strings.LastIndex(command, "edges_exporter"):]; regexp.MustCompile(`runs (resume|cancel)|launch `).MatchString(last) && !strings.Contains(last, "--yes") {
		command += " --yes"
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(program)+":"+os.Getenv("PATH"), "EDGES_API_KEY="+simulator.DefaultAPIKey,
		"EDGES_EXPORTER_EDGES_URL="+url+"/v1", "EDGES_EXPORTER_EDGES_MAX_REQUESTS_PER_MINUTE=10000", "EDGES_EXPORTER_STORAGE_PATH="+folder)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", command, err, out)
	}
}

// TestEveryAlertHasCases checks that promtool's test files hold a firing and a
// silent case for every alert, each severity of it.
func TestEveryAlertHasCases(t *testing.T) {
	files, err := filepath.Glob("*.test.yml")
	if err != nil {
		t.Fatal(err)
	}
	firing, silent := map[string]bool{}, map[string]bool{}
	for _, file := range files {
		var suite struct {
			Tests []struct {
				AlertRuleTest []struct {
					Alertname string `yaml:"alertname"`
					ExpAlerts []struct {
						ExpLabels map[string]string `yaml:"exp_labels"`
					} `yaml:"exp_alerts"`
				} `yaml:"alert_rule_test"`
			} `yaml:"tests"`
		}
		if err := yaml.Unmarshal([]byte(read(t, file)), &suite); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, test := range suite.Tests {
			for _, c := range test.AlertRuleTest {
				if len(c.ExpAlerts) == 0 {
					silent[c.Alertname] = true
				}
				for _, a := range c.ExpAlerts {
					firing[c.Alertname+" "+a.ExpLabels["severity"]] = true
				}
			}
		}
	}
	eachRule(readRules(t), func(r rulefmt.Rule) {
		if r.Alert == "" {
			return
		}
		if key := r.Alert + " " + r.Labels["severity"]; !firing[key] {
			t.Errorf("no case in which %s (%s) fires", r.Alert, r.Labels["severity"])
		}
		if !silent[r.Alert] {
			t.Errorf("no case in which %s is silent", r.Alert)
		}
	})
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
