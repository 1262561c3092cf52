package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/edges-exporter/edges_exporter/edges"
	"github.com/edges-exporter/edges_exporter/edges/simulator"
)

// asProgram makes the test binary behave as the program, so that tests can
// start, signal and kill a real process with the code under test in it.
const asProgram = "EDGES_EXPORTER_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		_ = os.Unsetenv(asProgram)
		main()
	}
	os.Exit(m.Run())
}

// process is an exporter in a process of its own.
type process struct {
	cmd    *exec.Cmd
	output *tail
	exited chan error
}

// tail keeps what a process wrote.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

func start(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0], args...), output: &tail{}, exited: make(chan error, 1)}
	p.cmd.Env = append(os.Environ(), append(env, asProgram+"=1")...)
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.exited <- p.cmd.Wait() }()
	t.Cleanup(p.kill)
	return p
}

// kill ends the process as a crash would: it gets no chance to tidy up.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	select {
	case err := <-p.exited:
		p.exited <- err
	case <-time.After(10 * time.Second):
	}
}

// ended reports whether the process is no more.
func (p *process) ended() bool {
	select {
	case err := <-p.exited:
		p.exited <- err
		return true
	default:
		return false
	}
}

// terminate asks the process to stop, and returns its exit code.
func (p *process) terminate(t *testing.T) int {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	return p.wait(t)
}

func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case err := <-p.exited:
		p.exited <- err
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(20 * time.Second):
		t.Fatalf("process did not end; it wrote:\n%s", p.output)
		return -1
	}
}

// freeAddress is an address that nobody listens on. Its port is below those
// that systems give to outgoing connections, so that none of them takes it
// before a process does that is started, or started again.
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

// world is a simulated workspace on a clock that stands until it is told to live, and
// what an exporter that follows it exposes.
type world struct {
	*simulator.Workspace
	clock   *simulator.ManualClock
	api     *httptest.Server
	address string
	folder  string
	freeze  func()
	// before is the truth at the start.
	before simulator.Truth

	mu       sync.Mutex
	requests int
}

func newWorld(t *testing.T, config simulator.Config) *world {
	t.Helper()
	// The Date header has whole seconds: from a whole second on, T0 is exact.
	w := &world{clock: simulator.NewManualClock(time.Now().Truncate(time.Second)), address: freeAddress(t), folder: t.TempDir()}
	config.Clock, config.KeepTruth = w.clock, true
	var err error
	if w.Workspace, err = simulator.New(config); err != nil {
		t.Fatal(err)
	}
	w.api = httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(w.api.Close)
	w.before = w.Truth()
	return w
}

// live lets the clock run as time does, until it is frozen.
func (w *world) live(t *testing.T) {
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		last := time.Now()
		for {
			select {
			case <-done:
				return
			case now := <-time.After(10 * time.Millisecond):
				w.clock.Advance(now.Sub(last))
				last = now
			}
		}
	}()
	w.freeze = sync.OnceFunc(func() { close(done); <-stopped })
	t.Cleanup(w.freeze)
}

func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	w.requests++
	w.mu.Unlock()
	w.ServeHTTP(rw, r)
}

func (w *world) requestCount() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.requests
}

// exporter starts an exporter that follows the workspace, in a hurry unless
// the flags say otherwise.
func (w *world) exporter(t *testing.T, flags ...string) *process {
	t.Helper()
	for _, usual := range []string{
		"--edges.url=" + w.api.URL + "/v1", "--web.listen-address=" + w.address, "--storage.path=" + w.folder,
		"--edges.max-requests-per-minute=100000", "--poll.interval=200ms", "--poll.overlap=4s", "--metrics.zero-hold=3s", "--log.level=error",
	} {
		flag, _, _ := strings.Cut(usual, "=")
		if !slices.ContainsFunc(flags, func(f string) bool { return strings.HasPrefix(f, flag+"=") }) {
			flags = append(flags, usual)
		}
	}
	return start(t, []string{"EDGES_API_KEY=" + simulator.DefaultAPIKey}, flags...)
}

// samples are the samples of a scrape by series.
type samples map[string]float64

func (w *world) scrape(ctx context.Context) (samples, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.address+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("scrape: %s", answer.Status)
	}
	return parse(answer.Body)
}

func parse(in io.Reader) (samples, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(in)
	if err != nil {
		return nil, err
	}
	out := samples{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "edges_") {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			switch {
			case m.Counter != nil:
				out[series(f.GetName(), labels)] = m.Counter.GetValue()
			case m.Gauge != nil:
				out[series(f.GetName(), labels)] = m.Gauge.GetValue()
			case m.Histogram != nil:
				out[series(f.GetName()+"_count", labels)] = float64(m.Histogram.GetSampleCount())
				out[series(f.GetName()+"_sum", labels)] = m.Histogram.GetSampleSum()
				for _, b := range m.Histogram.GetBucket() {
					labels["le"] = fmt.Sprint(b.GetUpperBound())
					out[series(f.GetName()+"_bucket", labels)] = float64(b.GetCumulativeCount())
				}
			}
		}
	}
	return out, nil
}

// series names a series; the workspace's label is left out.
func series(name string, labels map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if k != "workspace" {
			parts = append(parts, fmt.Sprintf("%s=%q", k, labels[k]))
		}
	}
	return name + "{" + strings.Join(parts, ",") + "}"
}

// watcher scrapes all the time and notes what Prometheus could not forgive.
type watcher struct {
	mu      sync.Mutex
	last    samples
	wrong   []string
	scrapes int
}

// watch scrapes until ctx ends, through crashes and restarts.
func (w *world) watch(ctx context.Context) (*watcher, func()) {
	o := &watcher{last: samples{}}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if s, err := w.scrape(ctx); err == nil {
				o.compare(s)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	return o, func() { cancel(); <-done }
}

func isCounter(name string) bool {
	name, _, _ = strings.Cut(name, "{")
	for _, suffix := range []string{"_total", "_count", "_sum", "_bucket"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

func (o *watcher) compare(s samples) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.scrapes++
	for name, v := range s {
		if !isCounter(name) {
			continue
		}
		old, known := o.last[name]
		if !known && v != 0 {
			o.wrong = append(o.wrong, fmt.Sprintf("%s was born at %v", name, v))
		}
		if v < old {
			o.wrong = append(o.wrong, fmt.Sprintf("%s went from %v to %v", name, old, v))
		}
		o.last[name] = v
	}
	for name := range o.last {
		if _, there := s[name]; !there {
			o.wrong = append(o.wrong, name+" vanished")
			delete(o.last, name)
		}
	}
}

func (o *watcher) check(t *testing.T) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	for i, w := range o.wrong {
		if i == 20 {
			t.Errorf("and %d more", len(o.wrong)-i)
			break
		}
		t.Error(w)
	}
	t.Logf("%d scrapes watched", o.scrapes)
}

// expected computes from the truth what a perfect exporter shows of a workspace
// that it has followed since the moment of before.
func expected(before, truth simulator.Truth) samples {
	out, t0 := samples{}, before.Now
	outputs := map[string]int64{}
	for _, r := range before.Runs {
		outputs[r.UID] = r.OutputCount
	}
	for _, e := range truth.Entries {
		pair := map[string]string{"action": e.Action, "mode": e.Mode}
		with := func(status edges.Status, more ...string) map[string]string {
			m := maps.Clone(pair)
			m["status"] = string(status)
			if len(more) > 0 {
				m["error"] = more[0]
			}
			return m
		}
		if e.New && e.CreatedAt.After(t0) {
			out[series("edges_runs_created_total", pair)]++
		}
		if !e.Status.Ended() || !e.At.After(t0) {
			continue
		}
		out[series("edges_run_transitions_total", with(e.Status))]++
		if e.Status.Problem() {
			label := e.Error
			if label == "" {
				label = "none"
			}
			out[series("edges_run_errors_total", with(e.Status, label))]++
		}
		if !e.StartedAt.IsZero() && !e.FinishedAt.IsZero() {
			out[series("edges_run_duration_seconds_count", with(e.Status))]++
			out[series("edges_run_duration_seconds_sum", with(e.Status))] += e.FinishedAt.Sub(e.StartedAt).Seconds()
		}
	}
	for _, r := range truth.Runs {
		mode := r.Mode
		if r.ScheduledRunUID != "" {
			mode = "SCHEDULE"
		}
		if mode == "" {
			mode = "unknown"
		}
		// Of a run that was made before t0 but not seen then, such as a live
		// run that shows only when it is over, nobody knows what it had.
		before, known := outputs[r.UID]
		if grown := r.OutputCount - before; grown > 0 && (known || r.CreatedAt.After(t0)) {
			out[series("edges_run_outputs_total", map[string]string{"action": r.Action, "mode": mode})] += float64(grown)
		}
		labels := map[string]string{"action": r.Action, "mode": mode, "status": string(r.Status)}
		out[series("edges_runs", labels)]++
		if r.PostponedUntil.After(truth.Now) {
			out[series("edges_runs_postponed", labels)]++
		}
	}
	return out
}

// comparable reports whether expected speaks of a series.
func comparableSeries(name string) bool {
	family, labels, _ := strings.Cut(name, "{")
	switch family {
	case "edges_runs", "edges_runs_postponed", "edges_runs_created_total", "edges_run_outputs_total":
		return true
	case "edges_run_transitions_total", "edges_run_errors_total", "edges_run_duration_seconds_count", "edges_run_duration_seconds_sum":
		for _, s := range edges.Statuses() {
			if s.Ended() && strings.Contains(labels, fmt.Sprintf("status=%q", s)) {
				return true
			}
		}
	}
	return false
}

// difference lists where two sets of samples differ.
func difference(want, got samples) []string {
	var out []string
	for name, v := range want {
		if g := got[name]; math.Abs(g-v) > 1e-6*math.Max(1, math.Abs(v)) {
			out = append(out, fmt.Sprintf("%s is %v, the truth is %v", name, g, v))
		}
	}
	for name, g := range got {
		if _, there := want[name]; !there && g != 0 && comparableSeries(name) {
			out = append(out, fmt.Sprintf("%s is %v, the truth is 0", name, g))
		}
	}
	slices.Sort(out)
	return out
}

// settle waits until the exporter shows the truth of a frozen workspace, in all
// families but those left out.
func (w *world) settle(t *testing.T, p *process, without ...string) {
	t.Helper()
	leave := func(name string, _ float64) bool {
		family, _, _ := strings.Cut(name, "{")
		return slices.Contains(without, family)
	}
	want := expected(w.before, w.Truth())
	maps.DeleteFunc(want, leave)
	var wrong []string
	for deadline := time.Now().Add(6 * time.Minute); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		got, err := w.scrape(t.Context())
		if err != nil {
			wrong = []string{err.Error()}
			continue
		}
		maps.DeleteFunc(got, leave)
		if wrong = difference(want, got); len(wrong) == 0 {
			t.Logf("%d series are equal to the truth", len(want))
			return
		}
	}
	for i, line := range wrong {
		if i == 20 {
			t.Errorf("and %d more", len(wrong)-i)
			break
		}
		t.Error(line)
	}
	t.Logf("the exporter wrote:\n%.4000s", p.output)
}

// trouble lets things go wrong in the workspace.
func (w *world) trouble(t *testing.T, all ...string) {
	t.Helper()
	for _, text := range all {
		trouble, err := simulator.ParseTrouble(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.AddTrouble(trouble); err != nil {
			t.Fatal(err)
		}
	}
}

// await waits until a series is as it should be.
func (w *world) await(t *testing.T, name string, good func(float64) bool) {
	t.Helper()
	var last samples
	for deadline := time.Now().Add(6 * time.Minute); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if s, err := w.scrape(t.Context()); err == nil {
			if last = s; good(s[name]) {
				return
			}
		}
	}
	t.Fatalf("%s stays %v", name, last[name])
}

// backfilled waits until the exporter has read the whole past.
func (w *world) backfilled(t *testing.T) {
	t.Helper()
	w.await(t, "edges_backfill_complete{}", func(v float64) bool { return v == 1 })
}

// The numbers are exact although the API misbehaves, the list moves while it
// is read, and the exporter is killed every one or two seconds.
func TestExactOverCrashes(t *testing.T) {
	w := newWorld(t, simulator.Config{
		Seed: 7, History: 24 * time.Hour, RunsPerDay: 25 * 86400, HistoryRunsPerDay: 3000,
		WarmUp: 2 * time.Minute, Retention: 24 * time.Hour, Ties: 0.2, NullUpdatedAt: 0.05,
	})
	p := w.exporter(t, "--edges.retention=24h")
	o, stop := w.watch(t.Context())
	w.backfilled(t)
	w.live(t)
	w.trouble(t, "storm:share=0.03", "errors:share=0.05", "cut:share=0.05", "late:share=0.2:delay=2s", "shuffle-ties")
	kills := 0
	for end := time.Now().Add(25 * time.Second); time.Now().Before(end); kills++ {
		time.Sleep(time.Second + time.Duration(kills%5)*250*time.Millisecond)
		p.kill()
		p = w.exporter(t, "--edges.retention=24h")
	}
	w.ClearTrouble()
	time.Sleep(10 * time.Second)
	w.freeze()
	w.settle(t, p)
	stop()
	o.check(t)
	t.Logf("%d kills, %d requests", kills, w.requestCount())
	if code := p.terminate(t); code != exitOK {
		t.Errorf("exit code %d; it wrote:\n%s", code, p.output)
	}
}

// A first start that is killed while it reads 20,000 old runs loses nothing,
// counts nothing of the past, and counts what happens meanwhile.
func TestExactOverKilledBackfill(t *testing.T) {
	w := newWorld(t, simulator.Config{
		Seed: 11, RunsPerDay: 25 * 86400, HistoryRunsPerDay: 225, WarmUp: time.Second,
	})
	w.trouble(t, "slow:delay=15ms", "errors:share=0.05", "cut:share=0.05")
	p := w.exporter(t, "--poll.interval=1s")
	o, stop := w.watch(t.Context())
	w.await(t, "edges_ledger_runs{}", func(v float64) bool { return v > 0 })
	w.live(t)
	for range 4 {
		time.Sleep(700 * time.Millisecond)
		p.kill()
		p = w.exporter(t, "--poll.interval=1s")
	}
	if s, err := w.scrape(t.Context()); err == nil && s["edges_backfill_complete{}"] == 1 {
		t.Error("the backfill was over before the last kill: nothing was tested")
	}
	w.backfilled(t)
	w.ClearTrouble()
	time.Sleep(10 * time.Second)
	w.freeze()
	// What a run from before the start had produced when it was first seen
	// depends on when that was.
	w.settle(t, p, "edges_run_outputs_total")
	stop()
	o.check(t)
}

// What happens while the exporter is down is counted when it is back; so is a
// failure of a run that had failed before, and the first run ever of an action.
func TestExactAfterDowntime(t *testing.T) {
	w := newWorld(t, simulator.Config{Seed: 3, History: 48 * time.Hour, RunsPerDay: 5 * 86400, HistoryRunsPerDay: 2000})
	p := w.exporter(t)
	o, stop := w.watch(t.Context())
	w.backfilled(t)
	w.live(t)
	failed := simulator.Run{
		Action: "never-seen-before", Mode: edges.ModeAsync, Status: edges.StatusFailed,
		Error: &simulator.RunError{Label: "LIMIT_REACHED"},
	}
	time.Sleep(2 * time.Second)
	failed.StartedAt, failed.FinishedAt = w.Now().Add(-time.Second), w.Now()
	uid := w.Put(failed)
	w.await(t, `edges_run_errors_total{action="never-seen-before",error="LIMIT_REACHED",mode="ASYNC",status="FAILED"}`, func(v float64) bool { return v == 1 })
	if code := p.terminate(t); code != exitOK {
		t.Errorf("exit code %d; it wrote:\n%s", code, p.output)
	}
	time.Sleep(5 * time.Second)
	// Resumed and failed again, and nobody was there to see it.
	if err := w.Resume(uid); err != nil {
		t.Fatal(err)
	}
	err := w.Change(uid, func(r *simulator.Run) {
		r.Status, r.Error = edges.StatusFailed, failed.Error
		r.StartedAt, r.FinishedAt = w.clock.Now().Add(-time.Second), w.clock.Now()
	})
	if err != nil {
		t.Fatal(err)
	}
	p = w.exporter(t)
	time.Sleep(10 * time.Second)
	w.freeze()
	w.settle(t, p)
	stop()
	o.check(t)
}
