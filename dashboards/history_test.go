package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

// history is a past for a Prometheus, made up: workspaces with actions whose
// runs come by the day's rhythm, a spike of failures, and exporters that
// restart, one with its store and the others without. It is written as a block,
// so hours of it take seconds.
type history struct {
	workspaces, actions, modes []string
	instances                  []string
	from, to                   time.Time
	every                      time.Duration
	// perHour is the number of runs of the busiest pair of action and mode.
	perHour float64
	// spikeAt is when runs of the first action begin to fail and those of the
	// second to be blocked, for spikeFor.
	spikeAt  time.Time
	spikeFor time.Duration
}

var (
	runBuckets   = []float64{0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 28800, 86400}
	queueBuckets = []float64{0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400}
	pollBuckets  = []float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 120}
	apiBuckets   = []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}
	endings      = []string{"SUCCEEDED", "PARTIAL_SUCCEEDED", "FAILED", "STOPPED", "INVALID"}
)

// write makes the block below dir and returns the number of series in it.
func (h history) write(ctx context.Context, dir string) (int, error) {
	w, err := tsdb.NewBlockWriter(slog.New(slog.DiscardHandler), dir, h.to.Sub(h.from).Milliseconds()+1)
	if err != nil {
		return 0, fmt.Errorf("start block: %w", err)
	}
	defer w.Close()
	p := &past{history: h, random: rand.New(rand.NewPCG(1, 2)), series: map[string][]*sample{}}
	for _, ws := range h.workspaces {
		for a, action := range h.actions {
			for m, mode := range h.modes {
				weight := math.Pow(0.75, float64(a%12)) * math.Pow(0.6, float64(m))
				p.pairs = append(p.pairs, &pair{workspace: ws, action: action, mode: mode, number: a, perHour: h.perHour * weight})
			}
		}
	}
	app := w.Appender(ctx)
	for i, t := 0, h.from; t.Before(h.to); i, t = i+1, t.Add(h.every) {
		p.advance(t)
		if err := p.append(app, t); err != nil {
			return 0, fmt.Errorf("append samples of %s: %w", t, err)
		}
		if i%20 == 19 {
			if err := app.Commit(); err != nil {
				return 0, fmt.Errorf("commit samples: %w", err)
			}
			app = w.Appender(ctx)
		}
	}
	if err := app.Commit(); err != nil {
		return 0, fmt.Errorf("commit samples: %w", err)
	}
	if _, err := w.Flush(ctx); err != nil {
		return 0, fmt.Errorf("write block: %w", err)
	}
	return len(p.order), nil
}

// pair is one action and mode, with the runs that are in each status.
type pair struct {
	workspace, action, mode string
	number                  int
	perHour, owed           float64
	running, queued         float64
	blocked                 float64
}

type sample struct {
	labels labels.Labels
	ref    storage.SeriesRef
	value  float64
	hidden bool
	// lost is what a counter had when its exporter lost its store.
	lost float64
	// written is the value of the sample before.
	written float64
}

// past is the state of the world at one moment.
type past struct {
	history
	random  *rand.Rand
	pairs   []*pair
	series  map[string][]*sample
	order   []*sample
	started time.Time
	recent  []problem
}

type problem struct {
	uid, workspace, action, mode, status, label string
	at                                          time.Time
}

// at finds a series, for all exporters together: they differ in instance only.
func (p *past) at(name string, pairs ...string) []*sample {
	key := name + "\xff" + strings.Join(pairs, "\xff")
	if found, ok := p.series[key]; ok {
		return found
	}
	out := make([]*sample, 0, len(p.instances))
	for _, instance := range p.instances {
		s := &sample{labels: labels.FromStrings(append([]string{"__name__", name, "job", "edges", "instance", instance}, pairs...)...)}
		out = append(out, s)
		p.order = append(p.order, s)
	}
	p.series[key] = out
	return out
}

func (p *past) add(v float64, name string, pairs ...string) {
	for _, s := range p.at(name, pairs...) {
		s.value += v
	}
}

func (p *past) set(v float64, name string, pairs ...string) {
	for _, s := range p.at(name, pairs...) {
		s.value, s.hidden = v, false
	}
}

func (p *past) hide(name string, pairs ...string) {
	for _, s := range p.at(name, pairs...) {
		s.hidden = true
	}
}

// observe adds n equal observations to a histogram.
func (p *past) observe(n, v float64, buckets []float64, name string, pairs ...string) {
	for _, le := range append(buckets[:len(buckets):len(buckets)], math.Inf(1)) {
		text := "+Inf"
		if !math.IsInf(le, 1) {
			if text = strconv.FormatFloat(le, 'g', -1, 64); le == math.Trunc(le) {
				text += ".0"
			}
		}
		grown := 0.0
		if v <= le {
			grown = n
		}
		p.add(grown, name+"_bucket", append(pairs[:len(pairs):len(pairs)], "le", text)...)
	}
	p.add(n, name+"_count", pairs...)
	p.add(n*v, name+"_sum", pairs...)
}

// advance lets one step of time happen.
func (p *past) advance(t time.Time) {
	day := float64(t.Hour())*3600 + float64(t.Minute())*60
	rhythm := 0.65 + 0.35*math.Sin((day/86400-0.3)*2*math.Pi)
	spike := !t.Before(p.spikeAt) && t.Before(p.spikeAt.Add(p.spikeFor))
	for _, r := range p.pairs {
		p.runs(r, t, rhythm, spike)
	}
	for _, ws := range p.workspaces {
		p.exporter(ws, t)
		p.beside(ws, t, spike)
	}
	p.process(t)
	for i, name := range []string{"EdgesRunsFailedSpike", "EdgesRunsBlockedSpike"} {
		as := []string{"alertname", name, "alertstate", "firing", "severity", "critical", "workspace", p.workspaces[0], "action", p.actions[i]}
		if spike && t.Sub(p.spikeAt) > 2*time.Minute {
			p.set(1, "ALERTS", as...)
		} else {
			p.hide("ALERTS", as...)
		}
	}
}

// runs makes and ends the runs of one pair.
func (p *past) runs(r *pair, t time.Time, rhythm float64, spike bool) {
	in := []string{"workspace", r.workspace, "action", r.action, "mode", r.mode}
	with := func(more ...string) []string { return append(in[:len(in):len(in)], more...) }
	r.owed += r.perHour * rhythm * p.every.Hours() * (0.5 + p.random.Float64())
	n := math.Floor(r.owed)
	r.owed -= n

	fails := 0.015 + 0.01*float64(r.number%5)
	if spike && r.number == 0 {
		fails = 0.55
	}
	of := map[string]float64{}
	for range int(n) {
		switch x := p.random.Float64(); {
		case x < fails:
			of["FAILED"]++
		case x < fails+0.01:
			of["PARTIAL_SUCCEEDED"]++
		case x < fails+0.015:
			of["STOPPED"]++
		case x < fails+0.018:
			of["INVALID"]++
		default:
			of["SUCCEEDED"]++
		}
	}
	p.add(n, "edges_runs_created_total", in...)
	base := 4 * math.Pow(1.9, float64(r.number%7))
	for _, status := range endings {
		p.add(of[status], "edges_run_transitions_total", with("status", status)...)
		p.add(of[status], "edges_runs", with("status", status)...)
		took := base * math.Exp(0.7*p.random.NormFloat64())
		p.observe(of[status], took, runBuckets, "edges_run_duration_seconds", with("status", status)...)
	}
	wait := 0.8 * math.Exp(0.9*p.random.NormFloat64())
	p.observe(n, wait, queueBuckets, "edges_run_queue_duration_seconds", in...)
	for _, status := range []string{"CREATED", "QUEUED", "SCHEDULED", "RUNNING"} {
		p.add(n, "edges_run_transitions_total", with("status", status)...)
	}
	p.add(math.Round(of["SUCCEEDED"]*(8+6*p.random.Float64())), "edges_run_outputs_total", in...)
	retries := 0.0
	if p.random.Float64() < 0.05*n {
		retries = 1
	}
	p.add(retries, "edges_run_retries_total", in...)

	blocked := 0.0
	if p.random.Float64() < 0.012*n || (spike && r.number == 1 && n > 0) {
		blocked = math.Max(1, n*0.6)
	}
	unblocked := 0.0
	if r.blocked > 0 && p.random.Float64() < 0.02 {
		unblocked = math.Ceil(r.blocked / 2)
	}
	r.blocked += math.Round(blocked) - unblocked
	p.add(math.Round(blocked), "edges_run_transitions_total", with("status", "BLOCKED")...)
	p.set(r.blocked, "edges_runs", with("status", "BLOCKED")...)
	p.set(math.Floor(r.blocked/3), "edges_runs_postponed", with("status", "BLOCKED")...)

	r.running = math.Round(r.perHour * rhythm * base / 3600 * (0.7 + 0.6*p.random.Float64()))
	r.queued = math.Round(r.running * 0.3 * p.random.Float64())
	p.set(r.running, "edges_runs", with("status", "RUNNING")...)
	p.set(r.queued, "edges_runs", with("status", "QUEUED")...)
	p.set(math.Floor(r.queued/2), "edges_runs", with("status", "CREATED")...)
	p.set(math.Floor(r.perHour/30), "edges_runs", with("status", "SCHEDULED")...)
	oldest := "edges_run_oldest_timestamp_seconds"
	for status, count := range map[string]float64{"RUNNING": r.running, "QUEUED": r.queued} {
		if count == 0 {
			p.hide(oldest, with("status", status)...)
			continue
		}
		age := base * (1 + 2*p.random.Float64())
		if status == "QUEUED" {
			age = wait
		}
		p.set(float64(t.Unix())-age, oldest, with("status", status)...)
	}

	labelsOf := []string{"LK_ERROR", "STATUS_429", "PROXY_ERROR", "LIMIT_REACHED"}
	for i, label := range labelsOf {
		for _, status := range []string{"FAILED", "BLOCKED"} {
			grown := 0.0
			count := of[status]
			if status == "BLOCKED" {
				count = math.Round(blocked)
			}
			if count > 0 && (p.random.IntN(len(labelsOf)) == i || (spike && i == 0 && status == "FAILED")) {
				grown = count
				p.remember(problem{workspace: r.workspace, action: r.action, mode: r.mode, status: status, label: label, at: t})
			}
			p.add(grown, "edges_run_errors_total", with("status", status, "error", label)...)
		}
	}
}

// remember keeps the latest 20 problem runs, as the exporter does.
func (p *past) remember(x problem) {
	x.uid = fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", p.random.Uint32(), p.random.IntN(1<<16), p.random.IntN(1<<12), p.random.IntN(1<<12), p.random.Uint64N(1<<48))
	p.recent = append(p.recent, x)
	name := "edges_run_problem_timestamp_seconds"
	as := func(x problem) []string {
		return []string{"run_uid", x.uid, "workspace", x.workspace, "action", x.action, "mode", x.mode, "status", x.status, "error", x.label}
	}
	if x.at.After(p.to.Add(-2 * time.Hour)) {
		p.set(float64(x.at.Unix()), name, as(x)...)
		if len(p.recent) > 20 {
			if gone := p.recent[len(p.recent)-21]; gone.at.After(p.to.Add(-2 * time.Hour)) {
				p.hide(name, as(gone)...)
			}
		}
	}
}

// exporter is what an exporter says of itself, for one workspace.
func (p *past) exporter(ws string, t time.Time) {
	in := []string{"workspace", ws}
	with := func(more ...string) []string { return append(in[:len(in):len(in)], more...) }
	seconds := p.every.Seconds()
	now := float64(t.UnixMilli()) / 1000
	p.set(1, "edges_up", in...)
	p.set(now-3-10*p.random.Float64(), "edges_poll_last_success_timestamp_seconds", in...)
	p.set(now-4-12*p.random.Float64(), "edges_poll_watermark_timestamp_seconds", in...)
	failed := 0.0
	if p.random.Float64() < 0.01 {
		failed = 1
	}
	p.add(seconds/15-failed, "edges_polls_total", with("result", "success")...)
	p.add(failed, "edges_polls_total", with("result", "error")...)
	p.observe(1, 0.3*math.Exp(0.5*p.random.NormFloat64()), pollBuckets, "edges_poll_duration_seconds", in...)
	reading := t.Before(p.from.Add(p.to.Sub(p.from) / 4))
	complete, share := 1.0, 1.0
	if reading {
		complete, share = 0, float64(t.Sub(p.from))/float64(p.to.Sub(p.from)/4)
	}
	p.set(complete, "edges_backfill_complete", in...)
	p.set(math.Round(40000*share), "edges_ledger_runs", in...)
	p.set(math.Round(9e6*share)+1e6, "edges_ledger_size_bytes", in...)
	for _, reason := range []string{"no_uid", "bad_time"} {
		p.add(0, "edges_skipped_runs_total", with("reason", reason)...)
	}
	for _, reason := range []string{"changed", "gone"} {
		p.add(math.Floor(p.random.Float64()*1.01), "edges_audit_corrections_total", with("reason", reason)...)
	}
	requests := seconds / 15
	if reading {
		requests = 14 * seconds / 60
	}
	p.add(requests-failed, "edges_api_requests_total", with("endpoint", "runs", "code", "200")...)
	p.add(failed, "edges_api_requests_total", with("endpoint", "runs", "code", "429")...)
	p.add(math.Floor(p.random.Float64()*1.02), "edges_api_requests_total", with("endpoint", "runs", "code", "error")...)
	p.observe(requests, 0.18*math.Exp(0.5*p.random.NormFloat64()), apiBuckets, "edges_api_request_duration_seconds", with("endpoint", "runs")...)
	p.set(15, "edges_api_budget_requests_per_minute", in...)
	p.add(map[bool]float64{true: seconds * 0.7, false: 0}[reading], "edges_api_throttled_seconds_total", in...)
}

// beside is what an exporter reads beside the runs: 100 schedules, of which the
// first misses its time in the spike, callbacks that fail more often in it, and
// credits. An exporter shows up to 200 schedules, but two workspaces with two
// replicas each have more than the ten thousand series of the promise already.
func (p *past) beside(ws string, t time.Time, spike bool) {
	in := []string{"workspace", ws}
	with := func(more ...string) []string { return append(in[:len(in):len(in)], more...) }
	now := float64(t.Unix())
	for i := range 100 {
		action, uid := p.actions[i%len(p.actions)], fmt.Sprintf("00000000-0000-4000-8000-%012d", i)
		as := with("schedule", uid, "name", "every "+strconv.Itoa(5+i)+" minutes", "action", action)
		every := 60 * float64(5+i)
		last := math.Floor(now/every) * every
		if i == 0 && spike {
			last = float64(p.spikeAt.Unix())
		}
		p.set(last, "edges_schedule_last_run_timestamp_seconds", as...)
		p.set(last+every, "edges_schedule_next_run_timestamp_seconds", as...)
		for _, status := range append([]string{"CREATED", "SCHEDULED", "QUEUED", "RUNNING", "BLOCKED"}, endings...) {
			ran := 0.0
			if now-last < p.every.Seconds() && (status == "RUNNING" || status == "FAILED" && i%7 == 0 || status == "SUCCEEDED" && i%7 != 0) {
				ran = 1
			}
			p.add(ran, "edges_schedule_runs_total", with("schedule", uid, "status", status)...)
		}
	}
	for i, action := range p.actions {
		for status, n := range map[string]float64{"ACTIVE": 25, "PAUSED": float64(i), "CANCELLED": 1, "COMPLETED": 2} {
			p.set(n, "edges_schedules", with("action", action, "status", status)...)
		}
		p.set((now-float64(p.from.Unix()))*float64(1+i)/60, "edges_credits_action_used", with("action", action)...)
	}
	failed := math.Floor(p.random.Float64() * 1.05)
	if spike {
		failed += 4
	}
	p.add(math.Floor(10*p.random.Float64()), "edges_callbacks_total", with("status", "SUCCESS", "code", "200")...)
	p.add(failed, "edges_callbacks_total", with("status", "FAILED", "code", "500")...)
	p.add(math.Floor(failed/2), "edges_callbacks_total", with("status", "FAILED", "code", "none")...)
	p.add(failed, "edges_callback_retries_total", in...)
	p.set(math.Floor(20*p.random.Float64())+10*failed, "edges_callbacks_pending", in...)
	p.set(now-60*(1+failed), "edges_callback_oldest_pending_timestamp_seconds", in...)
	p.set(1e6, "edges_credits_limit", in...)
	p.set(3e5+now-float64(p.from.Unix()), "edges_credits_used", in...)
	p.set(7e5-now+float64(p.from.Unix()), "edges_credits_left", in...)
	p.set(float64(p.to.Add(-10*24*time.Hour).Unix()), "edges_credits_period_start_timestamp_seconds", in...)
	p.set(float64(p.to.Add(20*24*time.Hour).Unix()), "edges_credits_period_end_timestamp_seconds", in...)
	for _, collector := range []string{"schedules", "callbacks", "credits"} {
		p.set(1, "edges_collector_up", with("collector", collector)...)
		p.set(now-20, "edges_collector_last_success_timestamp_seconds", with("collector", collector)...)
		p.add(0, "edges_collector_skipped_rows_total", with("collector", collector, "reason", "bad_time")...)
	}
}

// process is what the processes and Prometheus say; they restart in the middle.
func (p *past) process(t time.Time) {
	if middle := p.from.Add(p.to.Sub(p.from) * 3 / 5); p.started.IsZero() || (p.started.Before(middle) && !t.Before(middle)) {
		p.loseStore()
		p.started = t
	}
	p.set(float64(p.started.Unix()), "process_start_time_seconds")
	p.set(32e6+4e6*p.random.Float64(), "process_resident_memory_bytes")
	p.set(11e6+5e6*p.random.Float64(), "go_memstats_heap_inuse_bytes")
	p.add(0.004*p.every.Seconds()*(0.5+p.random.Float64()), "process_cpu_seconds_total")
	p.set(22+math.Floor(4*p.random.Float64()), "go_goroutines")
	p.set(14, "process_open_fds")
	p.set(0.004+0.002*p.random.Float64(), "scrape_duration_seconds")
	p.set(float64(len(p.order)), "scrape_samples_scraped")
	p.set(1, "up")
	p.set(1, "edges_exporter_build_info", "version", "1.0.0", "revision", "0000000", "goversion", "go1.26")
}

// loseStore lets all exporters but the first begin to count anew.
func (p *past) loseStore() {
	for _, of := range p.series {
		if _, counter := strings.CutSuffix(of[0].labels.Get("__name__"), "_total"); !counter && !of[0].labels.Has("le") {
			continue
		}
		for _, s := range of[1:] {
			s.lost = s.written
		}
	}
}

func (p *past) append(app storage.Appender, t time.Time) error {
	for _, s := range p.order {
		if s.hidden {
			continue
		}
		s.written = s.value
		ref, err := app.Append(s.ref, s.labels, t.UnixMilli(), s.value-s.lost)
		if err != nil {
			return fmt.Errorf("append %s: %w", s.labels, err)
		}
		s.ref = ref
	}
	return nil
}
