package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mayBeEmpty are the panels that rightly have nothing to show in a demo that
// just began, with the reason.
var mayBeEmpty = map[string]string{
	"What is firing?": "no alert has had the time to fire",
	"Queue age":       "no run may wait at the moment",
	"How old is the oldest pending callback?": "none may be pending at a moment that is looked at",
}

// Every query of every panel and variable, sent to a real Prometheus that
// scrapes the demo with the configuration that is shipped.
func TestQueriesOnTheDemo(t *testing.T) {
	tools := tools(t)
	exporter, simulator, server := freeAddress(t), freeAddress(t), freeAddress(t)
	dir := t.TempDir()

	binary := filepath.Join(dir, "edges_exporter")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the exporter: %v\n%s", err, out)
	}
	start(t, binary, "demo", "--web.listen-address="+exporter, "--simulator.listen-address="+simulator,
		"--simulator.runs-per-day=400000", "--simulator.history=3d",
		"--simulator.trouble=failed:linkedin-extract-people:share=0.5",
		"--simulator.trouble=blocked:linkedin-search-people:share=0.5")

	shipped, err := os.ReadFile("prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := filepath.Abs("../alerts/edges.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "prometheus.yml")
	text := replaceAll(t, string(shipped), map[string]string{
		"exporter:10253": exporter, "scrape_interval: 15s": "scrape_interval: 1s",
		"evaluation_interval: 30s": "evaluation_interval: 5s", "../alerts/edges.rules.yml": rules, "alertmanager:9093": "127.0.0.1:1",
	})
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &promServer{url: "http://" + server}
	start(t, filepath.Join(tools, "prometheus"), "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+server, "--enable-feature=exemplar-storage")

	// Lines need something to draw: enough scrapes, and ends of each kind.
	p.await(t, `count(count_over_time(edges_up[1m]) > 20)
		and on () count(sum by (status) (increase(edges_run_transitions_total{status=~"FAILED|BLOCKED|SUCCEEDED"}[20s])) > 0) == 3
		and on () sum(increase(edges_run_retries_total[20s])) > 0`)

	t.Run("metrics", func(t *testing.T) { p.checkMetrics(t) })
	values := map[string]string{
		"__rate_interval": "10s", "__range": "60s", "objective": "0.9",
		"job": ".+", "instance": ".+", "workspace": ".+", "action": ".+", "mode": ".+",
	}
	chosen := maps.Clone(values)
	chosen["job"], chosen["instance"], chosen["workspace"] = "edges", strings.ReplaceAll(exporter, ".", `\\.`), "default"
	chosen["action"], chosen["mode"] = "(linkedin-extract-people|linkedin-search-people)", "(LIVE|ASYNC|SCHEDULE)"
	for _, uid := range uids() {
		d, _ := load(t, uid)
		for _, v := range d.Templating.List {
			m := labelValues.FindStringSubmatch(v.query())
			if m == nil {
				continue
			}
			if got := p.labelValues(t, m[2], promQL(m[1], values)); len(got) == 0 {
				t.Errorf("%s: variable %s has no values", uid, v.Name)
			}
		}
		for _, a := range d.Annotations.List {
			p.ask(t, promQL(a.Expr, values), 60*time.Second, time.Second)
		}
		for _, choice := range []struct {
			name   string
			values map[string]string
		}{{"all", values}, {"chosen", chosen}} {
			for _, panel := range d.Panels {
				t.Run(uid+"/"+choice.name+"/"+panel.Title, func(t *testing.T) {
					samples := 0
					for _, q := range panel.Targets {
						span := 60 * time.Second
						if !q.Range {
							span = 0
						}
						expr := promQL(q.Expr, choice.values)
						samples += p.ask(t, expr, span, time.Second).numbers()
						if q.Exemplar && !p.hasExemplars(t, expr) {
							t.Errorf("query %s shows exemplars, but there are none", q.RefID)
						}
					}
					if _, ok := mayBeEmpty[panel.Title]; !ok && samples == 0 && panel.Type != "row" {
						t.Error("no data")
					}
				})
			}
		}
	}
}

// Hours of two workspaces, each followed by two exporters of which one loses
// its store: more than 10,000 series.
func TestQueriesOnALargeHistory(t *testing.T) {
	tools := tools(t)
	dir := t.TempDir()
	to := time.Now().Truncate(15 * time.Second)
	h := history{
		workspaces: []string{"default", "sales"},
		modes:      []string{"LIVE", "ASYNC"},
		instances:  []string{"one:10253", "two:10253"},
		from:       to.Add(-4 * time.Hour), to: to, every: 15 * time.Second,
		perHour: 120, spikeAt: to.Add(-time.Hour), spikeFor: 30 * time.Minute,
	}
	for _, a := range []string{"extract-people", "search-people", "connect", "visit", "message", "extract-company"} {
		h.actions = append(h.actions, "linkedin-"+a)
	}
	series, err := h.write(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if series < 10_000 {
		t.Fatalf("%d series, want 10,000", series)
	}
	t.Logf("%d series", series)
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, []byte("global: {scrape_interval: 15s}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	server := freeAddress(t)
	p := &promServer{url: "http://" + server, at: to.Add(-15 * time.Second)}
	start(t, filepath.Join(tools, "prometheus"), "--config.file="+config, "--storage.tsdb.path="+dir,
		"--web.listen-address="+server, "--storage.tsdb.retention.time=1y")
	p.await(t, "edges_up")

	for _, uid := range uids() {
		d, _ := load(t, uid)
		span, err := time.ParseDuration(strings.TrimPrefix(d.Time.From, "now-"))
		if err != nil {
			t.Fatalf("default time of %s: %v", uid, err)
		}
		t.Run(uid, func(t *testing.T) {
			for _, panel := range d.Panels {
				for _, q := range panel.Targets {
					step, rate := steps(panel, q, span)
					values := map[string]string{
						"__rate_interval": rate.String(), "__range": span.String(), "objective": "0.9",
						"job": ".+", "instance": ".+", "workspace": ".+", "action": ".+", "mode": ".+",
					}
					asked := span
					if !q.Range {
						asked = 0
					}
					expr := promQL(q.Expr, values)
					all, cost := p.cost(t, expr, asked, step)
					t.Logf("%4.0f ms  %s %s", 1000*cost.Seconds(), panel.Title, q.RefID)
					if cost > mostCost {
						t.Errorf("panel %q, query %s takes Prometheus %s of a processor, more than %s", panel.Title, q.RefID, cost, mostCost)
					}
					if uid == uidExporter {
						continue // it looks at each exporter
					}
					values["instance"] = "one:10253"
					one := p.ask(t, promQL(q.Expr, values), asked, step)
					if why := different(all, one); why != "" {
						t.Errorf("panel %q, query %s: two exporters of a workspace are not counted as one: %s", panel.Title, q.RefID, why)
					}
				}
			}
		})
	}
}

// mostCost is what a query may take at 10,000 series over the default time.
const mostCost = 300 * time.Millisecond

// cost sends a query and measures the processor time that Prometheus takes for
// it: unlike the time on the clock it says little of what else the machine
// does. What the clean-up of memory adds by chance is left out by trying again.
func (p *promServer) cost(t *testing.T, expr string, span, step time.Duration) (a answer, least time.Duration) {
	t.Helper()
	least = time.Hour
	for range 4 {
		before := p.processor(t)
		a = p.ask(t, expr, span, step)
		if least = min(least, p.processor(t)-before); least <= mostCost {
			break
		}
	}
	return a, least
}

// processor is the time that Prometheus has had of the processors.
func (p *promServer) processor(t *testing.T) time.Duration {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+"/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "process_cpu_seconds_total "); ok {
			seconds, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatal(err)
			}
			return time.Duration(seconds * float64(time.Second))
		}
	}
	t.Fatal("Prometheus does not tell its processor time")
	return 0
}

// steps are the step of a graph and its $__rate_interval as Grafana makes them,
// at a page width of 1,600 pixels and a scrape interval of 15 seconds.
func steps(p filePanel, q fileTarget, span time.Duration) (step, rate time.Duration) {
	least, err := time.ParseDuration(q.Interval)
	if err != nil {
		least = 15 * time.Second
	}
	points := max(100, 1600*p.GridPos.W/columns)
	step = max(least, (span / time.Duration(points)).Truncate(time.Second))
	return step, max(step+least, 4*least)
}

// different says how two answers differ, beyond what rounding explains.
func different(a, b answer) string {
	x, y := a.series(), b.series()
	for name, points := range x {
		other, ok := y[name]
		if !ok || len(other) != len(points) {
			return fmt.Sprintf("%s has %d points, and %d of one exporter", name, len(points), len(other))
		}
		for i, v := range points {
			if math.Abs(v-other[i]) > 1e-6*(1+math.Abs(v)) {
				return fmt.Sprintf("%s is %g, and %g of one exporter", name, v, other[i])
			}
		}
	}
	if len(x) != len(y) {
		return fmt.Sprintf("%d series, and %d of one exporter", len(x), len(y))
	}
	return ""
}

// promServer asks a running Prometheus.
type promServer struct {
	url string
	// at is the moment that is now; zero for the real one.
	at time.Time
}

// answer is what Prometheus says to a query.
type answer struct {
	Type   string          `json:"resultType"`
	Result json.RawMessage `json:"result"`
	rows   []row
}

type row struct {
	Metric map[string]string `json:"metric"`
	Value  []any             `json:"value"`
	Values [][]any           `json:"values"`
}

// series are the numbers of each series.
func (a answer) series() map[string][]float64 {
	out := map[string][]float64{}
	for _, r := range a.rows {
		name := fmt.Sprint(r.Metric)
		if r.Value != nil {
			r.Values = [][]any{r.Value}
		}
		for _, v := range r.Values {
			f, err := strconv.ParseFloat(v[1].(string), 64)
			if err == nil {
				out[name] = append(out[name], f)
			}
		}
	}
	return out
}

// numbers counts the samples that are numbers; there is one of a scalar.
func (a answer) numbers() (n int) {
	if a.Type == "scalar" {
		return 1
	}
	for _, points := range a.series() {
		for _, v := range points {
			if !math.IsNaN(v) {
				n++
			}
		}
	}
	return n
}

// ask sends a query, over a range if there is one.
func (p *promServer) ask(t *testing.T, expr string, span, step time.Duration) answer {
	t.Helper()
	a, err := p.query(t.Context(), expr, span, step)
	if err != nil {
		t.Fatalf("%v: %s", err, expr)
	}
	return a
}

func (p *promServer) query(ctx context.Context, expr string, span, step time.Duration) (answer, error) {
	now := p.at
	if now.IsZero() {
		now = time.Now()
	}
	seconds := func(t time.Time) string { return fmt.Sprintf("%.3f", float64(t.UnixMilli())/1000) }
	form := url.Values{"query": {expr}}
	path := "/api/v1/query"
	if span == 0 {
		form.Set("time", seconds(now))
	} else {
		path = "/api/v1/query_range"
		form.Set("start", seconds(now.Add(-span)))
		form.Set("end", seconds(now))
		form.Set("step", fmt.Sprint(step.Seconds()))
	}
	var a answer
	if err := p.post(ctx, path, form, &a); err != nil {
		return a, err
	}
	if a.Type == "vector" || a.Type == "matrix" {
		if err := json.Unmarshal(a.Result, &a.rows); err != nil {
			return a, fmt.Errorf("read answer: %w", err)
		}
	}
	return a, nil
}

// post sends a form and reads the data of the answer; a warning is an error.
func (p *promServer) post(ctx context.Context, path string, form url.Values, data any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		return fmt.Errorf("ask Prometheus: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return do(req, data)
}

func (p *promServer) get(ctx context.Context, path string, data any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path, http.NoBody)
	if err != nil {
		return fmt.Errorf("ask Prometheus: %w", err)
	}
	return do(req, data)
}

func do(req *http.Request, data any) error {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask Prometheus: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("ask Prometheus: %w", err)
	}
	var envelope struct {
		Status   string          `json:"status"`
		Error    string          `json:"error"`
		Warnings []string        `json:"warnings"`
		Data     json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(body, &envelope); err != nil {
		return fmt.Errorf("Prometheus answers %s: %.200s", resp.Status, body)
	}
	if envelope.Status != "success" || len(envelope.Warnings) > 0 {
		return fmt.Errorf("Prometheus answers %s: %s %v", resp.Status, envelope.Error, envelope.Warnings)
	}
	if err := json.Unmarshal(envelope.Data, data); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return nil
}

func (p *promServer) labelValues(t *testing.T, label, selector string) []string {
	t.Helper()
	var out []string
	if err := p.get(t.Context(), "/api/v1/label/"+label+"/values?"+url.Values{"match[]": {selector}}.Encode(), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// hasExemplars tells whether a graph can show runs behind a query's numbers.
func (p *promServer) hasExemplars(t *testing.T, expr string) bool {
	t.Helper()
	now := time.Now()
	var found []struct {
		Exemplars []struct{ Labels map[string]string }
	}
	form := url.Values{"query": {expr}, "start": {now.Add(-time.Minute).Format(time.RFC3339)}, "end": {now.Format(time.RFC3339)}}
	if err := p.post(t.Context(), "/api/v1/query_exemplars", form, &found); err != nil {
		t.Fatal(err)
	}
	for _, series := range found {
		for _, e := range series.Exemplars {
			if e.Labels["run_uid"] != "" {
				return true
			}
		}
	}
	return false
}

// await asks until the query has a result.
func (p *promServer) await(t *testing.T, expr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		a, err := p.query(ctx, expr, 0, 0)
		if err == nil && len(a.rows) > 0 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("no result (%v) of %s", err, expr)
		case <-tick.C:
		}
	}
}

// checkMetrics compares the table of metrics with what was scraped.
func (p *promServer) checkMetrics(t *testing.T) {
	var types map[string][]struct{ Type string }
	if err := p.get(t.Context(), "/api/v1/metadata", &types); err != nil {
		t.Fatal(err)
	}
	for name, m := range ofExporter {
		told := append(types[name], types[strings.TrimSuffix(name, "_total")]...)
		if len(told) == 0 || told[0].Type != m.kind {
			t.Errorf("%s is %v, want a %s", name, told, m.kind)
			continue
		}
		scraped := name
		if m.kind == "histogram" {
			scraped += "_count"
		}
		var series []map[string]string
		if err := p.get(t.Context(), "/api/v1/series?"+url.Values{"match[]": {scraped}}.Encode(), &series); err != nil {
			t.Fatal(err)
		}
		if len(series) == 0 {
			t.Errorf("%s has no series", name)
			continue
		}
		got := map[string]bool{}
		for _, labels := range series {
			for l := range labels {
				got[l] = true
			}
		}
		for _, l := range append([]string{"__name__", "job", "instance"}, m.labels...) {
			// Few schedules have a name, and an empty label is none to Prometheus.
			if !got[l] && l != "name" {
				t.Errorf("%s has no label %s", name, l)
			}
		}
	}
}

// tools builds what is missing of the programs for tests, and tells where they are.
func tools(t *testing.T) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "../alerts/tests/tools.sh")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("build Prometheus: %v\n%s", err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// start runs a program until the test ends; what it wrote is shown if the test failed.
func start(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("stop %s: %v", name, err)
		}
		err := cmd.Wait()
		if t.Failed() {
			t.Logf("%s ended with %v and wrote:\n%.4000s", name, err, out.String())
		}
	})
}

// freeAddress is an address of this machine that nothing listens on. Its port
// is below those that systems give to outgoing connections, so that none of
// them takes it before the program that is started does.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprint("127.0.0.1:", 20_000+rand.IntN(12_000))
		l, err := net.Listen("tcp", address)
		if err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("no address is free")
	return ""
}

func replaceAll(t *testing.T, text string, with map[string]string) string {
	t.Helper()
	for old, value := range with {
		if !strings.Contains(text, old) {
			t.Fatalf("%q is not in the file", old)
		}
		text = strings.ReplaceAll(text, old, value)
	}
	return text
}
