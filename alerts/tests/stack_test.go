package tests

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"github.com/edges-exporter/edges_exporter/edges/simulator"
)

// pace is how fast a stack lives.
type pace struct {
	// scale divides every duration of the rules and of Alertmanager's routes:
	// windows, for, keep_firing_for, intervals, offsets, group_wait. 1 leaves
	// both files as they are shipped.
	scale float64
	// scrape is Prometheus' scrape interval.
	scrape time.Duration
	// exporter are the flags that differ from the defaults.
	exporter []string
	// runsPerDay is how busy the workspace is.
	runsPerDay int
	// thresholds are those that differ from the shipped ones.
	thresholds map[string]string
}

// stack is everything from a workspace to a message: the simulated workspace,
// the exporter, Prometheus with the shipped rules, Alertmanager with the
// shipped configuration and templates, and what receives its messages.
type stack struct {
	t        *testing.T
	pace     pace
	folder   string
	program  string
	api      string
	exporter string
	prom     string
	process  *process // the exporter's
	inbox    *inbox
}

// buildExporter builds the program once for all tests.
var buildExporter = sync.OnceValues(func() (string, error) {
	folder, err := os.MkdirTemp("", "edges-alerts-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(folder, "edges_exporter")
	cmd := exec.Command("go", "build", "-o", path, ".")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the exporter: %w\n%s", err, out)
	}
	return path, nil
})

func newStack(t *testing.T, p pace) *stack {
	t.Helper()
	program, err := buildExporter()
	if err != nil {
		t.Fatal(err)
	}
	ports := freePorts(t, 4)
	s := &stack{t: t, pace: p, folder: t.TempDir(), program: program, api: ports[0], exporter: ports[1], prom: ports[2], inbox: newInbox(t)}

	start(t, "simulator", program, "simulate", "--simulator.listen-address="+s.api, "--simulator.seed=7",
		"--simulator.history=2d", "--simulator.history-runs-per-day=200", fmt.Sprintf("--simulator.runs-per-day=%d", p.runsPerDay), "--log.level=warn")
	s.await("the simulator", func() bool { return answers(t, "http://"+s.api+"/simulator/state") })
	s.startExporter()
	s.await("the exporter", func() bool { return answers(t, "http://"+s.exporter+"/-/ready") })

	start(t, "alertmanager", tool(t, "alertmanager"), "--config.file="+s.alertmanagerConfig(),
		"--web.listen-address="+ports[3], "--cluster.listen-address=", "--storage.path="+filepath.Join(s.folder, "alertmanager"), "--log.level=warn")
	start(t, "prometheus", tool(t, "prometheus"), "--config.file="+s.prometheusConfig(ports[3]),
		"--web.listen-address="+s.prom, "--storage.tsdb.path="+filepath.Join(s.folder, "prometheus"), "--log.level=warn")
	s.await("Prometheus", func() bool { return s.query(`edges_up == 1`) > 0 })
	return s
}

func (s *stack) startExporter() {
	s.process = start(s.t, "exporter", s.program, append([]string{
		"serve", "--edges.url=http://" + s.api + "/v1", "--edges.workspace=e2e", "--web.listen-address=" + s.exporter,
		"--storage.path=" + filepath.Join(s.folder, "store"), "--log.level=error",
	}, s.pace.exporter...)...)
}

func (s *stack) killExporter() {
	if err := s.process.kill(); err != nil {
		s.t.Fatal(err)
	}
}

// prometheusConfig writes a configuration with the shipped rules.
func (s *stack) prometheusConfig(alertmanager string) string {
	rules := filepath.Join(s.folder, "edges.rules.yml")
	s.write(rules, scaleRules(s.t, s.setThresholds(read(s.t, rulesFile)), s.pace.scale))
	path := filepath.Join(s.folder, "prometheus.yml")
	s.write(path, fmt.Sprintf(`
global:
  scrape_interval: %[1]s
  scrape_timeout: %[1]s
  evaluation_interval: %[1]s
rule_files: [%[2]s]
alerting:
  alertmanagers: [{static_configs: [{targets: ["%[3]s"]}]}]
scrape_configs: [{job_name: anything, static_configs: [{targets: ["%[4]s"]}]}]
`, s.pace.scrape, rules, alertmanager, s.exporter))
	return path
}

// setThresholds edits the rules as their users do.
func (s *stack) setThresholds(rules string) string {
	for name, value := range s.pace.thresholds {
		line := regexp.MustCompile(`(record: edges:threshold:` + name + `\n\s+expr: vector)\(.*\)`)
		if !line.MatchString(rules) {
			s.t.Fatalf("there is no threshold %s", name)
		}
		rules = line.ReplaceAllString(rules, "$1("+value+")")
	}
	return rules
}

// alertmanagerConfig writes the shipped configuration with our addresses: its
// Slack and PagerDuty are ours, and a webhook gets a copy of everything.
func (s *stack) alertmanagerConfig() string {
	t := s.t
	var config map[string]any
	if err := yaml.Unmarshal([]byte(read(t, "../alertmanager.yml")), &config); err != nil {
		t.Fatal(err)
	}
	secret := func(name, value string) string {
		path := filepath.Join(s.folder, name)
		s.write(path, value)
		return path
	}
	global := config["global"].(map[string]any)
	global["slack_api_url_file"] = secret("slack-url", s.inbox.server.URL+"/slack")
	global["pagerduty_url"] = s.inbox.server.URL + "/pagerduty"
	global["smtp_auth_password_file"] = secret("smtp-password", "none")
	for _, r := range config["receivers"].([]any) {
		r := r.(map[string]any)
		for _, c := range list(r["pagerduty_configs"]) {
			c["routing_key_file"] = secret("routing-key", "none")
		}
		for _, c := range list(r["webhook_configs"]) {
			c["url_file"] = secret("webhook-url", s.inbox.server.URL+"/webhook")
		}
	}
	route := config["route"].(map[string]any)
	route["routes"] = append([]any{map[string]any{"receiver": "webhook", "continue": true}}, route["routes"].([]any)...)
	s.scaleRoute(route)
	template, err := filepath.Abs("../edges.tmpl")
	if err != nil {
		t.Fatal(err)
	}
	config["templates"] = []string{template}
	text, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return secret("alertmanager.yml", string(text))
}

func list(v any) []map[string]any {
	var out []map[string]any
	if all, ok := v.([]any); ok {
		for _, x := range all {
			out = append(out, x.(map[string]any))
		}
	}
	return out
}

func (s *stack) scaleRoute(route map[string]any) {
	for _, name := range []string{"group_wait", "group_interval"} {
		if v, ok := route[name].(string); ok {
			route[name] = scaleDuration(s.t, v, s.pace.scale)
		}
	}
	for _, sub := range list(route["routes"]) {
		s.scaleRoute(sub)
	}
}

func (s *stack) write(path, text string) {
	s.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// trouble lets something go wrong in the workspace; the result ends it.
func (s *stack) trouble(what string) (end func()) {
	s.t.Helper()
	var made []struct {
		ID int `json:"id"`
	}
	s.call(http.MethodPost, "/simulator/trouble", what, &made)
	return func() {
		s.call(http.MethodDelete, fmt.Sprintf("/simulator/trouble?id=%d", made[0].ID), "", nil)
	}
}

// truth tells what has really happened in the workspace.
func (s *stack) truth() simulator.Truth {
	s.t.Helper()
	var truth simulator.Truth
	s.call(http.MethodGet, "/simulator/truth?runs=false", "", &truth)
	return truth
}

// entered returns the entries of an action's runs into a status since a time.
func (s *stack) entered(action, status string, since time.Time) []simulator.Entry {
	s.t.Helper()
	return slices.DeleteFunc(s.truth().Entries, func(e simulator.Entry) bool {
		return e.Action != action || string(e.Status) != status || e.At.Before(since)
	})
}

func (s *stack) call(method, path, body string, into any) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+s.api+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "text/plain")
	req.Header.Set("X-API-Key", simulator.DefaultAPIKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 != 2 {
		s.t.Fatalf("%s %s: %s %v %s", method, path, resp.Status, err, text)
	}
	if into != nil {
		if err := json.Unmarshal(text, into); err != nil {
			s.t.Fatal(err)
		}
	}
}

// query returns how many series Prometheus answers.
func (s *stack) query(expr string) int {
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, "http://"+s.prom+"/api/v1/query", strings.NewReader("query="+expr))
	if err != nil {
		return 0
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	var answer struct {
		Data struct {
			Result []any `json:"result"`
		} `json:"data"`
	}
	if json.NewDecoder(resp.Body).Decode(&answer) != nil {
		return 0
	}
	return len(answer.Data.Result)
}

// patience is how long something may take before the test gives up on it. It
// is no promise: what is promised is printed.
const patience = 4 * time.Minute

func (s *stack) await(what string, done func() bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			s.t.Fatalf("%s: not in %v; messages so far:\n%s", what, patience, s.inbox)
		case <-tick.C:
		}
	}
}

// message waits for a webhook message about an alert in a status, and returns
// the alert and when the message came.
func (s *stack) message(alert, status string, labels map[string]string) (notice, time.Time) {
	s.t.Helper()
	return s.messageAmong(s.inbox.messages, alert, status, labels)
}

// messageAmong is message, but says which messages are looked at.
func (s *stack) messageAmong(messages func() []message, alert, status string, labels map[string]string) (notice, time.Time) {
	s.t.Helper()
	var found notice
	var at time.Time
	s.await(status+" message of "+alert, func() bool {
		for _, m := range messages() {
			for _, a := range m.Alerts {
				if a.Labels["alertname"] != alert || a.Status != status {
					continue
				}
				if !slices.ContainsFunc(slices.Collect(maps.Keys(labels)), func(k string) bool { return a.Labels[k] != labels[k] }) {
					found, at = a, m.at
					return true
				}
			}
		}
		return false
	})
	return found, at
}

// follow runs the commands that a message names and that only read, and
// returns what they write.
func (s *stack) follow(description string) string {
	s.t.Helper()
	var out strings.Builder
	for _, command := range regexp.MustCompile(`edges_exporter (runs (get|list)|schedules list) .*`).FindAllString(description, -1) {
		cmd := exec.CommandContext(s.t.Context(), "sh", "-c", command)
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(s.program)+":"+os.Getenv("PATH"),
			"EDGES_API_KEY="+simulator.DefaultAPIKey, "EDGES_EXPORTER_EDGES_URL=http://"+s.api+"/v1")
		written, err := cmd.CombinedOutput()
		if err != nil {
			s.t.Errorf("%s: %v\n%s", command, err, written)
		}
		out.Write(written)
	}
	return out.String()
}

// inbox receives every message.
type inbox struct {
	server *httptest.Server

	mu  sync.Mutex
	all []message
	// old is how many of them were looked at.
	old   int
	texts []string
}

// message is what Alertmanager posts to a webhook.
type message struct {
	Alerts []notice `json:"alerts"`
	at     time.Time
}

type notice struct {
	Status      string            `json:"status"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    time.Time         `json:"startsAt"`
}

func newInbox(t *testing.T) *inbox {
	i := &inbox{}
	i.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		i.mu.Lock()
		defer i.mu.Unlock()
		if r.URL.Path != "/webhook" {
			i.texts = append(i.texts, string(body))
			if r.URL.Path == "/slack" {
				io.WriteString(w, "ok")
			} else {
				w.WriteHeader(http.StatusAccepted)
				io.WriteString(w, `{"status":"success"}`)
			}
			return
		}
		m := message{at: time.Now()}
		if err := json.Unmarshal(body, &m); err != nil {
			t.Errorf("webhook: %v", err)
		}
		i.all = append(i.all, m)
	}))
	t.Cleanup(i.server.Close)
	return i
}

// messages returns those since the last forget.
func (i *inbox) messages() []message {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.all[i.old:])
}

// everything returns all messages.
func (i *inbox) everything() []message {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.all)
}

// forget makes the messages so far old ones.
func (i *inbox) forget() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.old = len(i.all)
}

// rendered returns what Slack and PagerDuty got.
func (i *inbox) rendered() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.texts)
}

func (i *inbox) String() string {
	var b strings.Builder
	for _, m := range i.messages() {
		for _, a := range m.Alerts {
			fmt.Fprintf(&b, "%s %s %v: %s\n", m.at.Format(time.TimeOnly), a.Status, a.Labels, a.Annotations["description"])
		}
	}
	return b.String()
}

// process is a program that the test started.
type process struct {
	cmd  *exec.Cmd
	out  *bytes.Buffer
	once sync.Once
	err  error
}

// start runs a program until the test ends.
func start(t *testing.T, name, path string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(path, args...), out: &bytes.Buffer{}}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.Env = append(os.Environ(), "EDGES_API_KEY="+simulator.DefaultAPIKey)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	t.Cleanup(func() {
		if err := p.kill(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if t.Failed() {
			t.Logf("%s wrote:\n%s", name, p.out)
		}
	})
	return p
}

// kill ends the program without giving it time.
func (p *process) kill() error {
	p.once.Do(func() {
		if p.err = p.cmd.Process.Kill(); errors.Is(p.err, os.ErrProcessDone) {
			p.err = nil
		}
		_ = p.cmd.Wait() // it was killed: that is its error
	})
	return p.err
}

func answers(t *testing.T, url string) bool {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// freePorts returns addresses on which nothing listens. Their ports are below
// those that systems give to outgoing connections, so that none of them takes
// one before the program that is started does.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	var out []string
	for range 100 {
		address := fmt.Sprint("127.0.0.1:", 20_000+rand.IntN(12_000))
		l, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		defer l.Close()
		if out = append(out, address); len(out) == n {
			return out
		}
	}
	t.Fatal("no addresses are free")
	return nil
}

// scaleRules divides every duration of the rules: intervals, for,
// keep_firing_for, and in expressions ranges, offsets and steps. Thresholds stay:
// those in seconds are about the runs, which do not live faster.
func scaleRules(t *testing.T, text string, scale float64) string {
	t.Helper()
	if scale == 1 {
		return text
	}
	var rules map[string]any
	if err := yaml.Unmarshal([]byte(text), &rules); err != nil {
		t.Fatal(err)
	}
	for _, g := range list(rules["groups"]) {
		g["interval"] = scaleDuration(t, g["interval"].(string), scale)
		for _, r := range list(g["rules"]) {
			for _, name := range []string{"for", "keep_firing_for"} {
				if v, ok := r[name].(string); ok {
					r[name] = scaleDuration(t, v, scale)
				}
			}
			expr := parseExpr(t, r["expr"].(string))
			parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
				switch n := n.(type) {
				case *parser.MatrixSelector:
					n.Range = scaled(n.Range, scale)
				case *parser.VectorSelector:
					n.OriginalOffset = scaled(n.OriginalOffset, scale)
				case *parser.SubqueryExpr:
					n.Range, n.Step, n.OriginalOffset = scaled(n.Range, scale), scaled(n.Step, scale), scaled(n.OriginalOffset, scale)
				}
				return nil
			})
			r["expr"] = expr.String()
		}
	}
	out, err := yaml.Marshal(rules)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// scaled keeps whole seconds: shorter ones would be below a scrape.
func scaled(d time.Duration, scale float64) time.Duration {
	if d == 0 {
		return 0
	}
	return max(time.Duration(float64(d)/scale).Round(time.Second), time.Second)
}

func scaleDuration(t *testing.T, text string, scale float64) string {
	t.Helper()
	d, err := model.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return model.Duration(scaled(time.Duration(d), scale)).String()
}
