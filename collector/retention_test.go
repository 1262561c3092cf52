package collector

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
)

const day = 24 * time.Hour

// A run leaves the ledger and the gauges when it is 90 days old, counters stay;
// one that is already older is not taken in.
func TestRetention(t *testing.T) {
	r := newRig(t)
	ages := []time.Duration{0, day, 89 * day, 90*day - time.Second, 90 * day, 91 * day, 200 * day}
	for i, age := range ages {
		at := start.Add(-age)
		r.srv.put(row{uid: uid(i), action: "act", mode: "ASYNC", status: "BLOCKED", errLabel: "X", created: at, updated: at, postponed: start.Add(time.Hour)})
	}
	r.poll()
	got := r.scrape()
	present(t, got, samples{runsIn + "BLOCKED}": 4, "edges_runs_postponed{action=act,mode=ASYNC,status=BLOCKED}": 4})
	w := firstFailure(r.srv.advance(time.Second))
	w.uid = uid(1000)
	r.srv.put(w)
	r.look()
	got = r.look()
	present(t, got, samples{runsIn + "BLOCKED}": 3, entriesInto + "FAILED}": 1, entriesInto + "BLOCKED}": 0})
	r.exact()
	// The server goes on showing the old ones: they stay out.
	r.leap(30 * day)
	got = r.scrape()
	present(t, got, samples{runsIn + "BLOCKED}": 2, runsIn + "FAILED}": 1, entriesInto + "FAILED}": 1})
	r.exact()
	r.leap(100 * day)
	got = r.scrape()
	present(t, got, samples{
		runsIn + "BLOCKED}": 0, runsIn + "FAILED}": 0, entriesInto + "FAILED}": 1, timeCount + "FAILED}": 1,
		"edges_runs_postponed{action=act,mode=ASYNC,status=BLOCKED}": 0, "edges_ledger_runs{}": 0,
	})
	if n := len(got.values("edges_run_problem_timestamp_seconds", "run_uid")); n != 0 {
		t.Errorf("%d problem runs are shown that left retention", n)
	}
	if n := len(got.values("edges_run_oldest_timestamp_seconds", "status")); n != 0 {
		t.Errorf("%d oldest runs are shown that left retention", n)
	}
	r.exact()
	r.restart()
	r.look()
	r.exact()
}

// Many leave at once, after the exporter was down for long.
func TestRetentionOfMany(t *testing.T) {
	r := newRig(t)
	const n = 12_000
	for i := range n {
		at := start.Add(-89*day - time.Duration(i)*time.Second)
		r.srv.put(row{uid: uid(i), action: "act", mode: "ASYNC", status: "SUCCEEDED", created: at, updated: at})
	}
	r.poll()
	r.srv.mu.Lock()
	r.srv.rows, r.srv.order = map[string]*row{}, nil
	r.srv.mu.Unlock()
	r.leap(3 * day)
	if held := len(r.held()); held != 0 {
		t.Errorf("%d runs are still in the ledger", held)
	}
	r.look()
	r.exact()
}

// One odd Date header neither empties the ledger nor moves anything.
func TestOddDate(t *testing.T) {
	for name, odd := range map[string]time.Duration{"a year on": 365 * day, "a year back": -365 * day, "an hour on": time.Hour, "1970": -start.Sub(time.Unix(0, 0))} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			for i := range 50 {
				r.srv.put(past(i))
			}
			before := r.look()
			r.srv.advance(odd)
			r.poll()
			r.srv.advance(-odd)
			for i := range 5 {
				r.srv.put(fresh(100+i, r.srv.advance(5*time.Second)))
				r.poll()
			}
			got := r.look()
			r.exact()
			if n := got.sum("edges_run_transitions_total") - before.sum("edges_run_transitions_total"); n != 5 {
				t.Errorf("%v entries are counted, want 5", n)
			}
			if w := got.sum("edges_poll_watermark_timestamp_seconds"); w > float64(r.srv.clock().Unix()) {
				t.Errorf("the watermark is ahead of the clock by %v s", w-float64(r.srv.clock().Unix()))
			}
		})
	}
}

func TestNoDate(t *testing.T) {
	r := newRig(t)
	r.srv.noDate = true
	r.srv.advance(time.Since(start).Truncate(time.Second)) // the exporter's clock is all there is
	for i := range 150 {
		r.srv.put(past(100 + i))
	}
	r.poll()
	r.srv.put(firstFailure(r.srv.advance(10 * time.Second)))
	r.look()
	present(t, r.look(), afterFirstFailure)
	r.exact()
}

// created_at is null, comes, and goes again: one run all the time.
func TestCreatedAtComesAndGoes(t *testing.T) {
	r := newRig(t)
	r.poll()
	now := r.srv.advance(5 * time.Second)
	made := now.Add(-time.Second)
	r.srv.put(
		row{uid: uid(1), action: "act", mode: "ASYNC", status: "CREATED", updated: now},
		row{uid: uid(2), action: "act", mode: "ASYNC", status: "CREATED", created: made, updated: now},
	)
	states := []edges.Status{edges.StatusQueued, edges.StatusRunning, edges.StatusFailed, edges.StatusScheduled, edges.StatusSucceeded}
	for i, s := range states {
		r.look()
		now = r.srv.advance(10 * time.Second)
		for u := 1; u <= 2; u++ {
			r.srv.change(uid(u), func(w *row) {
				to(s)(w, now)
				w.created = time.Time{}
				if (i+u)%2 == 0 {
					w.created = made
				}
			})
		}
		if i == 2 {
			r.restart()
		}
	}
	got := r.look()
	r.exact()
	present(t, got, samples{createdOnes: 2, runsIn + "SUCCEEDED}": 2, entriesInto + "FAILED}": 2, entriesInto + "QUEUED}": 2, entriesInto + "SUCCEEDED}": 2})
	// It leaves after 90 days as all do.
	r.srv.remove(uid(1), uid(2))
	r.leap(91 * day)
	if held := len(r.held()); held != 0 {
		t.Errorf("%d runs are still in the ledger", held)
	}
}

// inFlight puts n runs in flight behind 200 others, so that only an audit
// reads them again.
func inFlight(r *rig, n int) {
	for i := range n {
		at := start.Add(-100*time.Hour - time.Duration(i)*time.Second)
		status := []string{"RUNNING", "QUEUED", "BLOCKED", "CREATED", "SCHEDULED"}[i%5]
		r.srv.put(row{uid: uid(5000 + i), action: "act", mode: "ASYNC", status: status, created: at, started: at, updated: at})
	}
	for i := range 200 {
		r.srv.put(past(i))
	}
	r.settle()
	r.srv.count()
}

// Runs in flight that the API does not know any more leave the gauges. Their
// return is not counted again.
func TestGone(t *testing.T) {
	r := newRig(t)
	inFlight(r, 250)
	before := r.look()
	r.srv.count()
	var gone []string
	kept := map[string]row{}
	for _, w := range r.srv.visible() {
		if w.action == "act" && len(gone) < 120 {
			gone = append(gone, w.uid)
			kept[w.uid] = w
		}
	}
	r.srv.remove(gone...)
	r.leap(20 * time.Minute)
	got := r.look()
	if lists, audits := r.srv.count(); audits != 3 {
		t.Errorf("the audit of 250 runs took %d requests (and %d of the list), want 3", audits, lists)
	}
	r.exact(gone...)
	present(t, got, samples{"edges_audit_corrections_total{reason=gone}": 120, "edges_audit_corrections_total{reason=changed}": 0})
	if n := got.sum("edges_runs", "action=act"); n != 130 {
		t.Errorf("%v runs are in flight, want 130", n)
	}
	r.restart()
	// Half of them come back as they were, half of those that do changed.
	now := r.srv.advance(time.Minute)
	for i, u := range gone[:60] {
		w := kept[u]
		if i%2 == 0 {
			w.status, w.finished, w.updated = "FAILED", now, now
		}
		r.srv.put(w)
	}
	// Those that did not change are too far behind to be read: they are when
	// they change.
	now = r.srv.advance(time.Minute)
	for i, u := range gone[:60] {
		if i%2 == 1 {
			r.srv.change(u, func(w *row) { w.updated, w.outputs = now, 5 })
		}
	}
	got = r.settle()
	r.exact(gone...)
	if n := got.sum("edges_run_transitions_total") - before.sum("edges_run_transitions_total"); n != 30 {
		t.Errorf("%v entries are counted, want the 30 failures", n)
	}
	if n := got.sum("edges_runs_created_total"); n != 0 {
		t.Errorf("%v runs are made, want none", n)
	}
	present(t, got, samples{"edges_audit_corrections_total{reason=gone}": 120, outputsOf: 150})
}

// What polls missed, the audit puts right, and says so.
func TestAuditFindsMissedChanges(t *testing.T) {
	r := newRig(t)
	inFlight(r, 30)
	// The server changes rows without a new place in the list: nobody can see.
	for i := range 10 {
		r.srv.change(uid(5000+i), func(w *row) { w.status, w.finished = "FAILED", w.updated })
	}
	r.leap(20 * time.Minute)
	got := r.look()
	r.exact()
	present(t, got, samples{"edges_audit_corrections_total{reason=changed}": 10, "edges_audit_corrections_total{reason=gone}": 0, entriesInto + "FAILED}": 10})
	// A change that a poll would have seen is no correction.
	now := r.srv.advance(20 * time.Minute)
	for i := 10; i < 20; i++ {
		r.srv.change(uid(5000+i), func(w *row) { to(edges.StatusFailed)(w, now) })
	}
	r.poll()
	r.poll()
	got = r.look()
	r.exact()
	present(t, got, samples{"edges_audit_corrections_total{reason=changed}": 10, entriesInto + "FAILED}": 20})
}

// An audit that is answered badly drops no run.
func TestAuditAnsweredBadly(t *testing.T) {
	cases := map[string]func(s *server, w writer, q *request) bool{
		"500":   func(_ *server, w writer, q *request) bool { return status(500)(0, w, q) },
		"cut":   func(_ *server, w writer, q *request) bool { return cut(0, w, q) },
		"html":  func(_ *server, w writer, q *request) bool { return text("<html>")(0, w, q) },
		"null":  func(_ *server, w writer, q *request) bool { return text("null")(0, w, q) },
		"other": func(s *server, w writer, q *request) bool { s.ignoreUID = true; s.list(w, q); return true },
		"a bad time": func(_ *server, w writer, q *request) bool {
			var rows []string
			for _, u := range q.URL.Query()["uid"] {
				rows = append(rows, fmt.Sprintf(`{"uid":%q,"status":"RUNNING","updated_at":"soon"}`, u))
			}
			return text("["+strings.Join(rows, ",")+"]")(0, w, q)
		},
		"a bad status": func(_ *server, w writer, q *request) bool {
			var rows []string
			for _, u := range q.URL.Query()["uid"] {
				rows = append(rows, fmt.Sprintf(`{"uid":%q,"status":{}}`, u))
			}
			return text("["+strings.Join(rows, ",")+"]")(0, w, q)
		},
		"a uid of another type": func(_ *server, w writer, q *request) bool {
			var rows []string
			for range q.URL.Query()["uid"] {
				rows = append(rows, `{"uid":12,"status":"RUNNING"}`)
			}
			return text("["+strings.Join(rows, ",")+"]")(0, w, q)
		},
		"empty objects": func(_ *server, w writer, q *request) bool { return text("[{},{},7,null]")(0, w, q) },
	}
	for name, answer := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			inFlight(r, 30)
			r.srv.trouble(func(_ int, w writer, q *request) bool {
				return q.URL.Query()["uid"] != nil && answer(r.srv, w, q)
			})
			r.srv.advance(20 * time.Minute)
			for range 5 {
				r.srv.advance(time.Second)
				_ = r.tryPoll()
			}
			r.exact()
			if got := r.scrape(); got.sum("edges_runs", "action=act") != 30 {
				t.Errorf("%v runs are left of 30", got.sum("edges_runs", "action=act"))
			}
			if _, audits := r.srv.count(); audits == 0 {
				t.Error("nothing was audited")
			}
			r.srv.calm()
			r.srv.ignoreUID = false
			r.look()
			got := r.look()
			r.exact()
			present(t, got, samples{"edges_audit_corrections_total{reason=gone}": 0})
		})
	}
}

// The list goes on being read while audits fail.
func TestFailingAuditsDoNotStopTheRest(t *testing.T) {
	r := newRig(t)
	for i := range 3000 {
		w := past(i)
		if i >= 150 && i < 155 { // read by the first poll, and not in front
			w.status, w.finished = "RUNNING", time.Time{}
		}
		r.srv.put(w)
	}
	r.pages = 3
	r.poll()
	r.srv.trouble(func(n int, w http.ResponseWriter, q *request) bool {
		return q.URL.Query()["uid"] != nil && status(500)(n, w, q)
	})
	r.srv.advance(20 * time.Minute)
	before := len(r.held())
	for range 30 {
		now := r.srv.advance(time.Second)
		r.srv.put(fresh(9000+int(now.Unix()%1000), now))
		_ = r.tryPoll()
	}
	if after := len(r.held()); after < before+1000 {
		t.Errorf("the ledger went from %d to %d runs while audits failed", before, after)
	}
}

// A run that is blocked and postponed counts as such until its time has come.
func TestPostponed(t *testing.T) {
	r := newRig(t)
	at := start.Add(-time.Hour)
	r.srv.put(row{uid: uid(1), action: "act", mode: "ASYNC", status: "BLOCKED", created: at, updated: at, postponed: start.Add(3 * time.Minute)})
	key := "edges_runs_postponed{action=act,mode=ASYNC,status=BLOCKED}"
	r.poll()
	present(t, r.scrape(), samples{key: 1, runsIn + "BLOCKED}": 1})
	r.srv.advance(2 * time.Minute)
	r.restart()
	r.poll()
	present(t, r.scrape(), samples{key: 1})
	r.srv.advance(2 * time.Minute)
	r.poll()
	present(t, r.scrape(), samples{key: 0, runsIn + "BLOCKED}": 1})
	now := r.srv.advance(time.Minute)
	r.srv.change(uid(1), func(w *row) { w.postponed, w.updated = now.Add(time.Hour), now })
	r.poll()
	present(t, r.scrape(), samples{key: 1})
	now = r.srv.advance(time.Minute)
	r.srv.change(uid(1), func(w *row) { to(edges.StatusScheduled)(w, now); w.postponed = time.Time{} })
	r.poll()
	present(t, r.scrape(), samples{key: 0})
}

// The oldest run of a status is shown by when it entered it, and only of the
// statuses that a run can be stuck in.
func TestOldestAndProblems(t *testing.T) {
	r := newRig(t, func(c *Config) { c.ProblemRuns = 3 })
	for i, s := range edges.Statuses() {
		for k := range 3 {
			at := start.Add(-time.Duration(10*i+k+1) * time.Hour)
			w := row{uid: uid(10*i + k), action: "act", mode: "ASYNC", status: string(s), created: at.Add(-time.Hour), updated: at, errLabel: "X"}
			if s == edges.StatusRunning {
				w.started = at.Add(-30 * time.Minute)
			}
			if s.Ended() {
				w.finished = at
			}
			r.srv.put(w)
		}
	}
	r.poll()
	got := r.scrape()
	for i, s := range edges.Statuses() {
		key := "edges_run_oldest_timestamp_seconds{action=act,mode=ASYNC,status=" + string(s) + "}"
		v, ok := got[key]
		want := start.Add(-time.Duration(10*i+3) * time.Hour)
		switch s {
		case edges.StatusCreated:
			want = want.Add(-time.Hour)
		case edges.StatusRunning:
			want = want.Add(-30 * time.Minute)
		}
		if wanted := s.InFlight() || s == edges.StatusBlocked; ok != wanted {
			t.Errorf("%s is shown: %v, want %v", key, ok, wanted)
		} else if ok && v != float64(want.Unix()) {
			t.Errorf("%s is %s, want %s", key, time.Unix(int64(v), 0).UTC(), want)
		}
	}
	// INVALID is the youngest of the problem statuses here.
	if uids := got.values("edges_run_problem_timestamp_seconds", "run_uid"); fmt.Sprint(uids) != fmt.Sprint([]string{uid(10), uid(11), uid(12)}) {
		t.Errorf("problem runs are %v", uids)
	}
	present(t, got, samples{
		"edges_run_problem_timestamp_seconds{action=act,error=X,mode=ASYNC,run_uid=" + uid(10) + ",status=INVALID}": float64(start.Add(-11 * time.Hour).Unix()),
	})
	now := r.srv.advance(time.Minute)
	for u := 10; u <= 12; u++ {
		r.srv.change(uid(u), func(w *row) { to(edges.StatusScheduled)(w, now) })
	}
	r.srv.change(uid(0), func(w *row) { to(edges.StatusQueued)(w, now) })
	r.poll()
	got = r.scrape()
	for _, u := range got.values("edges_run_problem_timestamp_seconds", "run_uid") {
		if u <= uid(12) {
			t.Errorf("run %s is resumed, and still shown as a problem", u)
		}
	}
	if n := len(got.values("edges_run_problem_timestamp_seconds", "run_uid")); n != 3 {
		t.Errorf("%d problem runs are shown, want 3", n)
	}
	r.restart()
	again := r.scrape()
	for k, v := range got {
		if strings.HasPrefix(k, "edges_run_") && again[k] != v {
			t.Errorf("%s is %v, and %v after a restart", k, v, again[k])
		}
	}
}
