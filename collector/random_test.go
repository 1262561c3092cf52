package collector

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
)

var seeds = flag.Int("seeds", 6, "how many random worlds TestRandomLives tries")

// world makes runs live at random, and keeps count of what the exporter must
// have counted in the end.
type world struct {
	t    *testing.T
	r    *rig
	rng  *rand.Rand
	next int
	want samples
	// queued holds the runs whose first start is counted.
	queued  map[string]bool
	removed []string
}

var nextStatuses = map[string][]edges.Status{
	"CREATED":           {edges.StatusQueued, edges.StatusScheduled, edges.StatusRunning, edges.StatusInvalid, edges.StatusSucceeded},
	"QUEUED":            {edges.StatusScheduled, edges.StatusRunning, edges.StatusFailed, edges.StatusStopped},
	"SCHEDULED":         {edges.StatusRunning, edges.StatusBlocked, edges.StatusPartialSucceeded},
	"RUNNING":           {edges.StatusRunning, edges.StatusSucceeded, edges.StatusFailed, edges.StatusBlocked, edges.StatusPartialSucceeded},
	"BLOCKED":           {edges.StatusScheduled, edges.StatusRunning, edges.StatusFailed},
	"FAILED":            {edges.StatusFailed, edges.StatusScheduled},
	"STOPPED":           {edges.StatusScheduled, edges.StatusStopped},
	"PARTIAL_SUCCEEDED": {edges.StatusPartialSucceeded, edges.StatusScheduled},
	"SUCCEEDED":         {edges.StatusScheduled},
	"INVALID":           {edges.StatusScheduled},
}

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

func (w *world) pair(x *row) string { return "action=" + x.action + ",mode=" + modeOf(*x) }

// enter counts an entry that the exporter has to see.
func (w *world) enter(x *row) {
	full := w.pair(x) + ",status=" + x.status
	w.want["edges_run_transitions_total{"+full+"}"]++
	if edges.Status(x.status).Problem() {
		w.want["edges_run_errors_total{action="+x.action+",error="+or(x.errLabel, "none")+",mode="+modeOf(*x)+",status="+x.status+"}"]++
	}
	if edges.Status(x.status).Ended() && !x.started.IsZero() {
		w.want["edges_run_duration_seconds_count{"+full+"}"]++
		w.want["edges_run_duration_seconds_sum{"+full+"}"] += x.finished.Sub(x.started).Seconds()
	}
	if !x.started.IsZero() && !w.queued[x.uid] {
		w.queued[x.uid] = true
		w.want["edges_run_queue_duration_seconds_count{"+w.pair(x)+"}"]++
		w.want["edges_run_queue_duration_seconds_sum{"+w.pair(x)+"}"] += x.started.Sub(x.created).Seconds()
	}
}

// move brings a run into its next status.
func (w *world) move(x *row, at time.Time) {
	next := nextStatuses[x.status]
	status := next[w.rng.IntN(len(next))]
	if status == edges.StatusRunning && x.status == "RUNNING" && !x.started.Before(at) {
		return
	}
	if status.Ended() && string(status) == x.status && !x.finished.Before(at) {
		return
	}
	x.status, x.updated = string(status), at
	x.errLabel = ""
	retries := x.retries
	switch {
	case status == edges.StatusRunning:
		x.started, x.finished = at, time.Time{}
	case status.Ended():
		x.finished = at
	case status == edges.StatusScheduled:
		x.finished = time.Time{}
		x.retries = 0
	}
	if status.Problem() && w.chance(0.8) {
		x.errLabel = []string{"LK_ERROR", "NO_RESULT", "STATUS_403"}[w.rng.IntN(3)]
	}
	if w.chance(0.3) {
		n := int64(w.rng.IntN(50))
		x.outputs += n
		w.want["edges_run_outputs_total{"+w.pair(x)+"}"] += float64(n)
	}
	if w.chance(0.1) {
		x.retries++
	}
	w.want["edges_run_retries_total{"+w.pair(x)+"}"] += float64(max(0, x.retries-retries))
	w.enter(x)
}

func (w *world) make(at time.Time) row {
	w.next++
	x := row{
		uid: uid(w.next), action: fmt.Sprintf("act%d", w.rng.IntN(4)), mode: []string{"LIVE", "ASYNC"}[w.rng.IntN(2)],
		status: "CREATED", created: at, updated: at, workspace: uid(0xabc),
	}
	if w.chance(0.1) {
		x.schedule = uid(0xdef)
	}
	if w.chance(0.2) { // a live run that is seen only when it has ended
		x.started = at.Add(-time.Duration(w.rng.IntN(3000)) * time.Millisecond)
		x.created = x.started.Add(-time.Duration(w.rng.IntN(3)) * time.Millisecond)
		if x.created.After(start) {
			x.status, x.finished = "SUCCEEDED", at
		} else {
			x.started, x.created = time.Time{}, at
		}
	}
	w.want["edges_runs_created_total{"+w.pair(&x)+"}"]++
	w.enter(&x)
	return x
}

// live lets some time pass, and runs be made, move and go.
func (w *world) live() {
	s := w.r.srv
	now := s.advance(time.Duration(200+w.rng.IntN(9000)) * time.Millisecond)
	stamp := func() time.Time { // some share their stamp
		if w.chance(0.3) {
			return now
		}
		return now.Add(-time.Duration(w.rng.IntN(150)) * time.Millisecond)
	}
	held := w.r.held()
	// A run may move on once the ledger has seen where it is: so every entry
	// can be seen, and has to be counted.
	var movable []row
	for _, x := range s.visible() {
		if h, ok := held[x.uid]; ok && h.updated == nanos(x.updated) && x.updated.Before(now.Add(-150*time.Millisecond)) {
			movable = append(movable, x)
		}
	}
	pending := map[string]bool{}
	s.mu.Lock()
	for u, x := range s.rows {
		pending[u] = x.shown.After(s.now)
	}
	s.mu.Unlock()
	movable = slices.DeleteFunc(movable, func(x row) bool { return pending[x.uid] })
	w.rng.Shuffle(len(movable), func(i, j int) { movable[i], movable[j] = movable[j], movable[i] })

	moves := min(len(movable), []int{0, 1, 5, 30, 180}[w.rng.IntN(5)])
	// Nobody can read a page's worth of ties whose order is new in each answer.
	same := w.chance(0.2) && (s.ties == nil || moves < 50)
	for _, x := range movable[:moves] {
		at := stamp()
		if same {
			at = now
		}
		late := w.chance(0.1)
		s.change(x.uid, func(v *row) {
			w.move(v, at)
			if late {
				v.shown = at.Add(time.Duration(w.rng.IntN(29_000)) * time.Millisecond)
			}
		})
	}
	for range []int{0, 1, 3, 20, 120}[w.rng.IntN(5)] {
		x := w.make(stamp())
		if w.chance(0.1) {
			x.shown = x.updated.Add(time.Duration(w.rng.IntN(29_000)) * time.Millisecond)
		}
		s.put(x)
	}
	if w.chance(0.3) {
		for _, x := range movable[moves:min(len(movable), moves+1+w.rng.IntN(20))] {
			if edges.Status(x.status).Ended() {
				s.remove(x.uid)
				w.removed = append(w.removed, x.uid)
			}
		}
	}
}

// step is one poll, in which things may go wrong.
func (w *world) step() {
	r := w.r
	r.pages = []int{0, 1, 1, 2, 3}[w.rng.IntN(5)]
	trouble := w.chance(0.15)
	if trouble {
		first, kind := r.srv.requests+1+w.rng.IntN(3), w.rng.IntN(4)
		r.srv.trouble(func(n int, rw writer, q *request) bool {
			if n != first {
				return false
			}
			switch kind {
			case 0:
				return status(500)(n, rw, q)
			case 1:
				return status(429)(n, rw, q)
			case 2:
				return cut(n, rw, q)
			default:
				return text("<html>sorry</html>")(n, rw, q)
			}
		})
	}
	killed := w.chance(0.08)
	var copied []byte
	if killed {
		at := 1 + w.rng.IntN(3)
		page := 0
		r.srv.between(func(int, url.Values) {
			page++
			if copied == nil && page == at {
				r.scrape()
				var err error
				if copied, err = os.ReadFile(r.cfg.StorePath); err != nil {
					w.t.Error(err)
				}
			}
		})
	}
	err := r.tryPoll()
	r.srv.calm()
	r.srv.between(nil)
	if err != nil && !trouble {
		w.t.Fatalf("poll: %v", err)
	}
	switch {
	case copied != nil:
		// Killed in the middle of the poll: the store is as it was then.
		r.close()
		if err := os.WriteFile(r.cfg.StorePath, copied, 0o600); err != nil {
			w.t.Fatal(err)
		}
		r.open()
	case w.chance(0.08):
		r.restart()
	}
	if w.chance(0.8) {
		got := r.scrape()
		r.consistent(got)
		w.watermark(got)
	}
}

// watermark checks that everything up to the watermark is in the ledger, but
// what the backfill has still to read.
func (w *world) watermark(got samples) {
	mark := got.sum("edges_poll_watermark_timestamp_seconds")
	if mark == 0 {
		return
	}
	for _, b := range w.r.behind(time.UnixMilli(int64(mark * 1000))) {
		if got.sum("edges_backfill_complete") == 1 || w.isNew(b) {
			w.t.Errorf("the watermark is %s, but %s", time.UnixMilli(int64(mark*1000)).UTC().Format(time.StampMilli), b)
		}
	}
}

func (w *world) isNew(behind string) bool {
	for _, x := range w.r.srv.visible() {
		if strings.HasPrefix(behind, x.uid) {
			return x.updated.After(start)
		}
	}
	return false
}

// Random lives, troubles, budgets, restarts and kills: in the end every number
// is the truth.
func TestRandomLives(t *testing.T) {
	for seed := range *seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(c *Config) { c.AuditInterval = time.Minute })
			w := &world{t: t, r: r, rng: rand.New(rand.NewPCG(uint64(seed), 3)), next: 10_000, want: samples{}, queued: map[string]bool{}}
			if seed%3 == 0 {
				r.srv.ties = rand.New(rand.NewPCG(uint64(seed), 4))
			}
			for i := range []int{0, 90, 450}[seed%3] {
				x := past(i)
				if i%4 == 0 {
					x.status, x.finished = "RUNNING", time.Time{}
				}
				w.queued[x.uid] = true
				r.srv.put(x)
			}
			r.pages = 1
			r.poll() // the first good answer is T0
			for range 50 {
				w.step()
				w.live()
			}
			r.settle()
			r.settle()
			got := r.exact(w.removed...)
			got.want(t, w.want)
			for _, name := range []string{"edges_run_transitions_total", "edges_runs_created_total", "edges_run_errors_total", "edges_run_outputs_total", "edges_run_retries_total", "edges_run_duration_seconds_count", "edges_run_queue_duration_seconds_count"} {
				if g, want := got.sum(name), w.want.sum(name); g != want {
					t.Errorf("%s adds up to %v, want %v", name, g, want)
				}
			}
			if c := got.sum("edges_audit_corrections_total"); c != 0 {
				t.Errorf("the audit corrected %v runs, but polls missed none", c)
			}
			if len(w.want) < 20 {
				t.Error("hardly anything happened")
			}
		})
	}
}
