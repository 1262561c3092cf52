package collector

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
)

// Every status, with every time missing, before T0 or after it: first seen in
// the first answer, or later in a list that was read whole.
func TestFirstSight(t *testing.T) {
	const absent, before, after = 0, 1, 2
	choose := func(when int, earlier, later time.Duration) time.Time {
		switch when {
		case before:
			return start.Add(-earlier)
		case after:
			return start.Add(later)
		}
		return time.Time{}
	}
	for _, baseline := range []bool{true, false} {
		for _, status := range edges.Statuses() {
			name := fmt.Sprintf("%s/baseline=%v", status, baseline)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				if !baseline {
					r.poll()
				}
				want := samples{}
				for combination := range 81 {
					created, updated, started, finished := combination%3, combination/3%3, combination/9%3, combination/27
					w := row{
						uid: uid(combination), action: fmt.Sprintf("a%02d", combination), mode: "ASYNC", status: string(status),
						errLabel: "NO_RESULT", outputs: 7, retries: 2,
						created:  choose(created, 4*time.Hour, 100*time.Millisecond),
						started:  choose(started, 3*time.Hour, 200*time.Millisecond),
						finished: choose(finished, 2*time.Hour, 300*time.Millisecond),
						updated:  choose(updated, time.Hour, 400*time.Millisecond),
					}
					r.srv.put(w)

					// updated_at stands in for what is missing, created_at for
					// that. With no time at all a run is new, unless it stands
					// in the first answer.
					fallback := func(when int) bool {
						for _, w := range []int{when, updated, created} {
							if w != absent {
								return w == after
							}
						}
						return !baseline
					}
					entered := fallback(updated)
					switch {
					case status.Ended():
						entered = fallback(finished)
					case status == edges.StatusRunning:
						entered = fallback(started)
					case status == edges.StatusCreated:
						entered = fallback(created)
					}
					one := func(b bool) float64 {
						if b {
							return 1
						}
						return 0
					}
					pair := "action=" + w.action + ",mode=ASYNC"
					full := pair + ",status=" + w.status
					isNew := fallback(created)
					want["edges_runs{"+full+"}"] = 1
					want["edges_run_transitions_total{"+full+"}"] = one(entered)
					want["edges_runs_created_total{"+pair+"}"] = one(isNew)
					want["edges_run_outputs_total{"+pair+"}"] = 7 * one(isNew)
					want["edges_run_retries_total{"+pair+"}"] = 2 * one(isNew)
					want["edges_run_errors_total{action="+w.action+",error=NO_RESULT,mode=ASYNC,status="+w.status+"}"] = one(entered && status.Problem())
					timed := status.Ended() && entered && started != absent && finished != absent && !w.finished.Before(w.started)
					want["edges_run_duration_seconds_count{"+full+"}"] = one(timed)
					if timed {
						want["edges_run_duration_seconds_sum{"+full+"}"] = w.finished.Sub(w.started).Seconds()
					}
					queued := started == after && created != absent
					want["edges_run_queue_duration_seconds_count{"+pair+"}"] = one(queued)
					if queued {
						want["edges_run_queue_duration_seconds_sum{"+pair+"}"] = w.started.Sub(w.created).Seconds()
					}
				}
				r.poll()
				r.get(http.MethodGet) // sees every series at 0
				r.poll()
				_, page := r.get(http.MethodGet)
				got := parse(t, page)
				got.want(t, want)
				if n := got.sum("edges_run_transitions_total"); n != want.sum("edges_run_transitions_total") {
					t.Errorf("%v entries are counted, want %v", n, want.sum("edges_run_transitions_total"))
				}
			})
		}
	}
}

// story is a run that changes before each poll; the counters are looked at when
// it has ended.
type story struct {
	name string
	// old makes the run one from before T0.
	old   bool
	steps []func(w *row, now time.Time)
	want  samples
}

func to(status edges.Status) func(w *row, now time.Time) {
	return func(w *row, now time.Time) {
		w.status, w.updated = string(status), now
		switch {
		case status == edges.StatusRunning:
			w.started, w.finished = now, time.Time{}
		case status.Ended():
			w.finished = now
		}
	}
}

func and(steps ...func(w *row, now time.Time)) func(w *row, now time.Time) {
	return func(w *row, now time.Time) {
		for _, s := range steps {
			s(w, now)
		}
	}
}

func failing(l string) func(w *row, now time.Time) {
	return func(w *row, _ time.Time) { w.errLabel = l }
}

const (
	entriesInto = "edges_run_transitions_total{action=act,mode=ASYNC,status="
	createdOnes = "edges_runs_created_total{action=act,mode=ASYNC}"
	outputsOf   = "edges_run_outputs_total{action=act,mode=ASYNC}"
	retriesOf   = "edges_run_retries_total{action=act,mode=ASYNC}"
	queueCount  = "edges_run_queue_duration_seconds_count{action=act,mode=ASYNC}"
	queueSum    = "edges_run_queue_duration_seconds_sum{action=act,mode=ASYNC}"
	runsIn      = "edges_runs{action=act,mode=ASYNC,status="
	timeCount   = "edges_run_duration_seconds_count{action=act,mode=ASYNC,status="
	timeSum     = "edges_run_duration_seconds_sum{action=act,mode=ASYNC,status="
)

func errorsOf(status, label string) string {
	return "edges_run_errors_total{action=act,error=" + label + ",mode=ASYNC,status=" + status + "}"
}

// Polls are ten seconds apart.
var stories = []story{
	{
		name: "a whole life is counted step by step",
		steps: []func(*row, time.Time){
			to(edges.StatusQueued), to(edges.StatusScheduled), to(edges.StatusRunning), to(edges.StatusSucceeded),
		},
		want: samples{
			createdOnes: 1, entriesInto + "CREATED}": 1, entriesInto + "QUEUED}": 1, entriesInto + "SCHEDULED}": 1,
			entriesInto + "RUNNING}": 1, entriesInto + "SUCCEEDED}": 1, runsIn + "SUCCEEDED}": 1, runsIn + "CREATED}": 0,
			queueCount: 1, queueSum: 30, timeCount + "SUCCEEDED}": 1, timeSum + "SUCCEEDED}": 10,
		},
	},
	{
		name: "a status that nobody could see is not made up",
		steps: []func(*row, time.Time){
			func(w *row, now time.Time) {
				w.started = now.Add(-5 * time.Second)
				to(edges.StatusSucceeded)(w, now)
			},
		},
		want: samples{
			entriesInto + "RUNNING}": 0, entriesInto + "QUEUED}": 0, entriesInto + "SUCCEEDED}": 1,
			queueCount: 1, queueSum: 5, timeSum + "SUCCEEDED}": 5,
		},
	},
	{
		name: "failed, resumed and failed again between two polls",
		steps: []func(*row, time.Time){
			and(to(edges.StatusRunning), to(edges.StatusFailed), failing("LK_ERROR")),
			func(w *row, now time.Time) {
				w.started = now.Add(-3 * time.Second)
				to(edges.StatusFailed)(w, now)
				w.errLabel = "NO_RESULT"
			},
		},
		want: samples{
			entriesInto + "FAILED}": 2, errorsOf("FAILED", "LK_ERROR"): 1, errorsOf("FAILED", "NO_RESULT"): 1,
			timeCount + "FAILED}": 2, timeSum + "FAILED}": 3, queueCount: 1, entriesInto + "RUNNING}": 0, runsIn + "FAILED}": 1,
		},
	},
	{
		name: "failed, seen resumed, failed again",
		steps: []func(*row, time.Time){
			to(edges.StatusRunning), to(edges.StatusFailed),
			and(to(edges.StatusScheduled), failing("")), to(edges.StatusRunning), to(edges.StatusFailed),
		},
		want: samples{
			entriesInto + "FAILED}": 2, entriesInto + "SCHEDULED}": 1, entriesInto + "RUNNING}": 2, errorsOf("FAILED", "none"): 2,
			timeCount + "FAILED}": 2, timeSum + "FAILED}": 20, queueCount: 1, queueSum: 10,
		},
	},
	{
		name: "an end that gets its time later is one end",
		steps: []func(*row, time.Time){
			to(edges.StatusRunning),
			func(w *row, now time.Time) { w.status, w.updated = "FAILED", now },
			func(w *row, now time.Time) { w.finished, w.updated = now.Add(-10*time.Second), now },
		},
		want: samples{entriesInto + "FAILED}": 1, errorsOf("FAILED", "none"): 1, timeCount + "FAILED}": 1, timeSum + "FAILED}": 10},
	},
	{
		name: "running with a new start is a new entry",
		steps: []func(*row, time.Time){
			to(edges.StatusRunning), to(edges.StatusRunning),
		},
		want: samples{entriesInto + "RUNNING}": 2, queueCount: 1, queueSum: 10},
	},
	{
		name: "a start that gets its time later is one start",
		steps: []func(*row, time.Time){
			func(w *row, now time.Time) { w.status, w.updated = "RUNNING", now },
			func(w *row, now time.Time) { w.started, w.updated = now, now },
		},
		want: samples{entriesInto + "RUNNING}": 1, queueCount: 1, queueSum: 20},
	},
	{
		name: "a touched row is no entry",
		steps: []func(*row, time.Time){
			to(edges.StatusRunning),
			func(w *row, now time.Time) { w.updated = now },
			func(w *row, now time.Time) { w.updated = now },
		},
		want: samples{entriesInto + "RUNNING}": 1},
	},
	{
		name: "an older version is ignored",
		steps: []func(*row, time.Time){
			to(edges.StatusRunning),
			func(w *row, now time.Time) { w.status, w.updated = "QUEUED", now.Add(-15*time.Second) },
		},
		want: samples{entriesInto + "RUNNING}": 1, entriesInto + "QUEUED}": 0, runsIn + "RUNNING}": 1},
	},
	{
		name: "a version of the same updated_at with other content counts",
		steps: []func(*row, time.Time){
			to(edges.StatusRunning),
			func(w *row, now time.Time) { w.status, w.finished = "FAILED", now },
		},
		want: samples{entriesInto + "FAILED}": 1, runsIn + "FAILED}": 1, runsIn + "RUNNING}": 0, timeSum + "FAILED}": 10},
	},
	{
		name: "stamped in the future, then put right",
		steps: []func(*row, time.Time){
			func(w *row, now time.Time) { to(edges.StatusRunning)(w, now); w.updated = now.Add(240 * time.Hour) },
			to(edges.StatusFailed),
		},
		want: samples{entriesInto + "RUNNING}": 1, entriesInto + "FAILED}": 1, runsIn + "FAILED}": 1, runsIn + "RUNNING}": 0},
	},
	{
		name: "outputs and retries count as they grow, over resumes",
		steps: []func(*row, time.Time){
			func(w *row, now time.Time) { w.outputs, w.retries, w.updated = 5, 2, now },
			func(w *row, now time.Time) { w.outputs, w.retries, w.updated = 12, 3, now },
			func(w *row, now time.Time) { w.outputs, w.retries, w.updated = 0, 0, now },
			func(w *row, now time.Time) { w.outputs, w.retries, w.updated = 4, 1, now },
		},
		want: samples{outputsOf: 16, retriesOf: 4, createdOnes: 1, entriesInto + "CREATED}": 1},
	},
	{
		name: "of a run from before T0 only the growth counts",
		old:  true,
		steps: []func(*row, time.Time){
			func(w *row, now time.Time) { w.outputs, w.retries, w.updated = 45, 10, now },
		},
		want: samples{outputsOf: 5, retriesOf: 1, createdOnes: 0, entriesInto + "RUNNING}": 0, runsIn + "RUNNING}": 1, queueCount: 0},
	},
	{
		name: "a run from before T0 that ends after it",
		old:  true,
		steps: []func(*row, time.Time){
			to(edges.StatusSucceeded),
		},
		want: samples{entriesInto + "SUCCEEDED}": 1, createdOnes: 0, entriesInto + "RUNNING}": 0, timeCount + "SUCCEEDED}": 1, timeSum + "SUCCEEDED}": 3611, queueCount: 0},
	},
	{
		name: "a change against the ledger counts, whatever its times say",
		old:  true,
		steps: []func(*row, time.Time){
			func(w *row, now time.Time) {
				w.status, w.finished, w.updated = "STOPPED", start.Add(-10*time.Minute), now
			},
		},
		want: samples{entriesInto + "STOPPED}": 1, timeCount + "STOPPED}": 1, timeSum + "STOPPED}": 3000},
	},
	{
		name: "blocked and postponed again and again",
		steps: []func(*row, time.Time){
			to(edges.StatusRunning),
			and(to(edges.StatusBlocked), failing("LIMIT_REACHED"), func(w *row, now time.Time) { w.postponed = now.Add(time.Hour) }),
			func(w *row, now time.Time) { w.postponed, w.retries, w.updated = now.Add(2*time.Hour), 1, now },
			and(to(edges.StatusRunning), failing(""), func(w *row, _ time.Time) { w.postponed = time.Time{} }),
			and(to(edges.StatusBlocked), failing("LIMIT_REACHED")),
		},
		want: samples{
			entriesInto + "BLOCKED}": 2, errorsOf("BLOCKED", "LIMIT_REACHED"): 2, entriesInto + "RUNNING}": 2, retriesOf: 1,
			"edges_runs_postponed{action=act,mode=ASYNC,status=BLOCKED}": 0,
		},
	},
	{
		name: "part of the results, invalid and stopped",
		steps: []func(*row, time.Time){
			and(to(edges.StatusPartialSucceeded), failing("LK_524")),
			and(to(edges.StatusInvalid), failing("BAD_INPUT")),
			and(to(edges.StatusStopped), failing("")),
		},
		want: samples{
			errorsOf("PARTIAL_SUCCEEDED", "LK_524"): 1, errorsOf("INVALID", "BAD_INPUT"): 1, entriesInto + "STOPPED}": 1,
			errorsOf("STOPPED", "none"): 0, timeCount + "INVALID}": 0,
		},
	},
	{
		name: "a new status passes through",
		steps: []func(*row, time.Time){
			func(w *row, now time.Time) { w.status, w.updated = "PAUSED", now },
		},
		want: samples{entriesInto + "PAUSED}": 1, runsIn + "PAUSED}": 1},
	},
	{
		name: "a status that is null",
		steps: []func(*row, time.Time){
			func(w *row, now time.Time) { w.status, w.updated = "", now },
		},
		want: samples{entriesInto + "unknown}": 1, runsIn + "unknown}": 1, runsIn + "CREATED}": 0},
	},
}

func TestChanges(t *testing.T) {
	for _, s := range stories {
		for _, restarts := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/restarts=%v", s.name, restarts), func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				w := row{uid: uid(1), action: "act", mode: "ASYNC", status: "CREATED", created: start.Add(time.Second), updated: start.Add(time.Second)}
				if s.old {
					w = row{
						uid: uid(1), action: "act", mode: "ASYNC", status: "RUNNING", outputs: 40, retries: 9,
						created: start.Add(-2 * time.Hour), started: start.Add(-time.Hour), updated: start.Add(-time.Hour),
					}
					r.srv.put(w)
				}
				r.poll()
				r.scrape()
				r.srv.advance(time.Second)
				r.srv.put(w)
				for _, step := range s.steps {
					r.poll()
					r.scrape()
					now := r.srv.advance(10 * time.Second)
					r.srv.change(w.uid, func(w *row) { step(w, now) })
					if restarts {
						r.restart()
						r.scrape()
					}
				}
				r.look().want(t, s.want)
			})
		}
	}
}

func TestLabels(t *testing.T) {
	r := newRig(t)
	r.poll()
	at := start.Add(time.Second)
	r.srv.put(
		row{uid: uid(1), action: "act", mode: "LIVE", status: "SUCCEEDED", created: at, updated: at},
		row{uid: uid(2), action: "act", mode: "ASYNC", schedule: uid(99), status: "SUCCEEDED", created: at, updated: at},
		row{uid: uid(3), status: "FAILED", created: at, updated: at},
		row{uid: uid(4), action: "act", mode: "BATCH", status: "FAILED", errLabel: "a \"b\"\n\\c", created: at, updated: at},
	)
	r.look().want(t, samples{
		"edges_runs{action=act,mode=LIVE,status=SUCCEEDED}":                            1,
		"edges_runs{action=act,mode=SCHEDULE,status=SUCCEEDED}":                        1,
		"edges_runs{action=unknown,mode=unknown,status=FAILED}":                        1,
		"edges_runs{action=act,mode=BATCH,status=FAILED}":                              1,
		"edges_run_errors_total{action=unknown,error=none,mode=unknown,status=FAILED}": 1,
	})
	// null is a gap in an answer: a run keeps its action and mode.
	r.srv.advance(10 * time.Second)
	r.srv.change(uid(1), func(w *row) { w.action, w.mode, w.updated = "", "", w.updated.Add(5*time.Second) })
	r.look().want(t, samples{
		"edges_runs{action=act,mode=LIVE,status=SUCCEEDED}":        1,
		"edges_runs{action=unknown,mode=unknown,status=SUCCEEDED}": 0,
	})
}

// The sum of durations is exact, whatever the order in which they come.
func TestSumOfDurations(t *testing.T) {
	r := newRig(t)
	r.poll()
	var total time.Duration
	const n = 350
	for i := range n {
		took := time.Duration(1+i*i*7919%100_000_003) * time.Millisecond
		total += took
		at := start.Add(time.Second + time.Duration(i)*time.Millisecond)
		r.srv.put(row{uid: uid(i), action: "act", mode: "ASYNC", status: "SUCCEEDED", created: at.Add(-took - time.Second), started: at.Add(-took), finished: at, updated: at})
	}
	r.srv.advance(10 * time.Second)
	got := r.look()
	if sum := got[timeSum+"SUCCEEDED}"]; sum != total.Seconds() {
		t.Errorf("sum of durations is %v, want %v", sum, total.Seconds())
	}
	if count := got[timeCount+"SUCCEEDED}"]; count != n {
		t.Errorf("count of durations is %v, want %d", count, n)
	}
}

// What happens after T0 is counted while old pages are still being read, and
// what happened before is not, whichever page shows it first.
func TestCountsDuringBackfill(t *testing.T) {
	r := newRig(t)
	r.pages = 2
	const n = 900
	for i := range n {
		at := start.Add(-time.Duration(i+1) * time.Minute)
		status := edges.StatusFailed
		if i%3 == 0 {
			status = edges.StatusRunning
		}
		w := row{uid: uid(i), action: "act", mode: "ASYNC", status: string(status), errLabel: "OLD", created: at.Add(-time.Hour), started: at.Add(-time.Minute), updated: at}
		if status.Ended() {
			w.finished = at
		}
		r.srv.put(w)
	}
	r.poll()
	if got := r.scrape(); got.sum("edges_backfill_complete") != 0 || got.sum("edges_runs") >= n {
		t.Fatalf("the first poll read %v runs, backfill complete: %v", got.sum("edges_runs"), got.sum("edges_backfill_complete"))
	}
	ended := 0
	for i := 3; i < n; i += 6 { // of runs that are running, every second
		now := r.srv.advance(time.Second)
		r.srv.change(uid(i), func(w *row) { to(edges.StatusFailed)(w, now); w.errLabel = "NEW" })
		ended++
		if ended%15 == 0 {
			r.poll()
			r.scrape()
		}
	}
	for range 20 {
		r.srv.advance(time.Second)
		r.poll()
	}
	got := r.look()
	r.exact()
	got.want(t, samples{
		"edges_backfill_complete{}":       1,
		entriesInto + "FAILED}":           float64(ended),
		errorsOf("FAILED", "NEW"):         float64(ended),
		entriesInto + "RUNNING}":          0,
		createdOnes:                       0,
		timeCount + "FAILED}":             float64(ended),
		queueCount:                        0,
		runsIn + "FAILED}":                float64(n*2/3 + ended),
		runsIn + "RUNNING}":               float64(n/3 - ended),
		errorsOf("FAILED", "OLD"):         0,
		"edges_polls_total{result=error}": 0,
	})
}

// What happened while the exporter was down is counted after its start.
func TestMissedWhileDown(t *testing.T) {
	r := newRig(t)
	r.srv.put(row{uid: uid(1), action: "act", mode: "ASYNC", status: "RUNNING", created: start.Add(-time.Hour), started: start.Add(-time.Hour), updated: start.Add(-time.Hour)})
	r.look()
	r.close()
	now := r.srv.advance(4 * time.Minute)
	r.srv.change(uid(1), func(w *row) { to(edges.StatusFailed)(w, now.Add(-time.Minute)) })
	for i := 2; i < 302; i++ {
		at := now.Add(-time.Duration(i) * 500 * time.Millisecond)
		r.srv.put(row{uid: uid(i), action: "act", mode: "ASYNC", status: "SUCCEEDED", created: at.Add(-2 * time.Second), started: at.Add(-time.Second), finished: at, updated: at})
	}
	r.open()
	r.look().want(t, samples{entriesInto + "FAILED}": 1, entriesInto + "SUCCEEDED}": 300, createdOnes: 300, timeSum + "SUCCEEDED}": 300})
	r.exact()
}

// T0 itself belongs to the baseline; the next millisecond does not.
func TestBorderOfTheBaseline(t *testing.T) {
	for offset, counted := range map[time.Duration]float64{-time.Millisecond: 0, 0: 0, time.Millisecond: 1} {
		t.Run(offset.String(), func(t *testing.T) {
			r := newRig(t)
			at := start.Add(offset)
			r.srv.put(row{uid: uid(1), action: "act", mode: "ASYNC", status: "FAILED", created: at, started: at, finished: at, updated: at})
			present(t, r.look(), samples{
				entriesInto + "FAILED}": counted, createdOnes: counted, timeCount + "FAILED}": counted, queueCount: counted, runsIn + "FAILED}": 1,
			})
		})
	}
}
