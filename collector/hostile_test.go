package collector

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
)

// Whatever the API names, the number of series is bounded, and what is beyond
// a bound is "other": no run is lost from the sums.
func TestBounds(t *testing.T) {
	cases := []struct {
		name, label, family string
		bound               int
		set                 func(w *row, i int)
	}{
		{"actions", "action", "edges_runs", 500 + 2, func(w *row, i int) { w.action = fmt.Sprintf("action-%d", i) }},
		{"statuses", "status", "edges_runs", 32, func(w *row, i int) { w.status = fmt.Sprintf("STATUS_%d", i) }},
		{"modes", "mode", "edges_runs", 8, func(w *row, i int) { w.mode = fmt.Sprintf("MODE_%d", i) }},
		{"error labels", "error", "edges_run_errors_total", 100 + 2, func(w *row, i int) { w.errLabel = fmt.Sprintf("ERROR_%d", i) }},
		{"long actions", "action", "edges_runs", 100 + 2, func(w *row, i int) { w.action = strings.Repeat("é", 5000) + strconv.Itoa(i) }},
		{"odd actions", "action", "edges_runs", 100 + 2, func(w *row, i int) { w.action = "\x00\u2028\"\\\n{}" + strconv.Itoa(i) }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(cfg *Config) {
				if c.label == "action" {
					cfg.MaxActions = c.bound - 2
				}
			})
			r.poll()
			const n = 3000
			now := r.srv.advance(10 * time.Second)
			for i := range n {
				at := now.Add(-time.Duration(i) * time.Millisecond)
				w := row{uid: uid(i), action: "act", mode: "ASYNC", status: "FAILED", errLabel: "X", created: at, finished: at, updated: at}
				c.set(&w, i)
				r.srv.put(w)
			}
			got := r.look()
			r.consistent(got)
			values := got.values(c.family, c.label)
			if len(values) > c.bound {
				t.Errorf("%d values of %s are exposed, want at most %d", len(values), c.label, c.bound)
			}
			for _, v := range values {
				if len(v) > 200 {
					t.Errorf("a value of %s has %d bytes", c.label, len(v))
				}
			}
			if other := got.sum(c.family, c.label+"=other"); c.name != "long actions" && other < n-float64(c.bound) {
				t.Errorf("%v runs are other", other)
			}
			for _, family := range []string{"edges_runs", "edges_run_transitions_total", "edges_runs_created_total"} {
				if sum := got.sum(family); sum != n {
					t.Errorf("%s adds up to %v, want %d", family, sum, n)
				}
			}
			// All statuses of all pairs, and nothing else.
			if len(got) > c.bound*200+5000 {
				t.Errorf("%d series are exposed", len(got))
			}
			before := len(got)
			r.restart()
			r.poll()
			if after := len(r.scrape()); after != before {
				t.Errorf("%d series are exposed before a restart, %d after", before, after)
			}
		})
	}
}

// A smaller bound than the store was made with keeps what is there.
func TestSmallerBoundAfterRestart(t *testing.T) {
	r := newRig(t)
	for i := range 50 {
		w := past(i)
		w.action = fmt.Sprintf("action-%d", i)
		r.srv.put(w)
	}
	r.look()
	r.cfg.MaxActions = 10
	r.restart()
	w := fresh(1000, r.srv.advance(10*time.Second))
	w.action = "late"
	r.srv.put(w)
	got := r.look()
	if got.sum("edges_runs") != 51 || got.sum("edges_runs", "action=other") != 1 {
		t.Errorf("%v runs, %v of them other", got.sum("edges_runs"), got.sum("edges_runs", "action=other"))
	}
}

// A body that is no list fails the poll with an error that says so, loses
// nothing, and is forgotten with the next good answer.
func TestHostileBodies(t *testing.T) {
	good := past(3)
	bodies := map[string]answerer{
		"empty":           text(""),
		"space":           text(" \n "),
		"html":            text("<!doctype html><html>"),
		"null":            text("null"),
		"number":          text("42"),
		"string":          text(`"runs"`),
		"object":          text(`{"runs":[]}`),
		"half an array":   text(`[{"uid":"x"},`),
		"two arrays":      text(`[][]`),
		"deep":            text(strings.Repeat("[", 100_000)),
		"deep in a field": text(`[{"uid":"x","parameters":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + "}]"),
		"zeros":           text(strings.Repeat("\x00", 10_000)),
		"bad utf-8":       text("[\"\xff\xfe\"]\xff"),
		"endless":         endless,
		"unsorted": func(_ int, w writer, _ *request) bool {
			a, b := past(10), past(5)
			return text("["+string(encodeRow(&a))+","+string(encodeRow(&b))+"]")(0, w, nil)
		},
		"unsorted behind the first page": func(_ int, w writer, q *request) bool {
			if q.URL.Query().Get("offset") == "" || q.URL.Query().Get("offset") == "0" {
				return false
			}
			a, b := past(200), past(100)
			return text("["+string(encodeRow(&a))+","+string(encodeRow(&b))+"]")(0, w, nil)
		},
		"204": func(_ int, w writer, _ *request) bool { w.WriteHeader(204); return true },
		"301": func(_ int, w writer, _ *request) bool {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(301)
			return true
		},
	}
	for name, answer := range bodies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			for i := range 300 {
				r.srv.put(past(i))
			}
			if name != "endless" { // its rows are taken for too large one by one, and have no Date
				r.srv.trouble(answer)
				if err := r.tryPoll(); err == nil { // at the first start
					t.Error("the poll succeeds")
				} else if len(err.Error()) > 2000 {
					t.Errorf("the error has %d bytes", len(err.Error()))
				}
				r.scrape()
				r.srv.calm()
			}
			r.settle()
			before := r.exact()
			r.srv.trouble(answer)
			for range 3 { // and later
				r.srv.advance(40 * time.Second)
				if err := r.tryPoll(); err == nil && !strings.Contains(name, "behind") {
					t.Error("the poll succeeds")
				}
			}
			got := r.exact()
			for k, v := range before {
				if strings.HasPrefix(k, "edges_run") && got[k] != v {
					t.Errorf("%s goes from %v to %v", k, v, got[k])
				}
			}
			if strings.Contains(name, "behind") {
				return
			}
			if got.sum("edges_up") != 0 {
				t.Error("edges_up is not 0")
			}
			r.srv.calm()
			now := r.srv.advance(time.Second)
			r.srv.change(good.uid, func(w *row) { to(edges.StatusFailed)(w, now) })
			got = r.settle()
			r.exact()
			if n := got.sum("edges_run_transitions_total", "status=FAILED"); n != 1 || got.sum("edges_up") != 1 {
				t.Errorf("after it %v failures are counted, edges_up is %v", n, got.sum("edges_up"))
			}
		})
	}
}

// Elements of a list that are no runs are counted once each by reason, and the
// runs beside them are read.
func TestHostileRows(t *testing.T) {
	at := date(start.Add(-time.Minute))
	rows := map[string]string{
		"not_object": `17`,
		"no_uid":     `{}`,
		"bad_time":   fmt.Sprintf(`{"uid":"bad-1","updated_at":%q,"created_at":"1.1.2026","status":"FAILED"}`, at),
		"bad_field":  fmt.Sprintf(`{"uid":"bad-2","updated_at":%q,"status":{"a":1}}`, at),
	}
	odd := []string{
		`null`, `"text"`, `[]`, `true`, `{"uid":12}`, `{"uid":""}`, `{"uid":"` + strings.Repeat("u", 5000) + `"}`,
		fmt.Sprintf(`{"uid":"bad-3","updated_at":%q,"retry_count":-1}`, at),
		fmt.Sprintf(`{"uid":"bad-4","updated_at":%q,"output_count":1e300}`, at),
		fmt.Sprintf(`{"uid":"bad-5","updated_at":%q,"created_at":"0001-01-01T00:00:00Z","finished_at":"9999-12-31T00:00:00Z"}`, at),
		fmt.Sprintf(`{"uid":"bad-6","updated_at":%q,"action_name":["x"]}`, at),
		fmt.Sprintf(`{"uid":"bad-7","updated_at":%q,"parameters":%q}`, at, strings.Repeat("p", 2<<20)),
	}
	r := newRig(t)
	for i := range 150 {
		r.srv.put(past(i))
	}
	r.look()
	i := 0
	for _, raw := range rows {
		r.srv.put(row{uid: uid(1000 + i), updated: start.Add(-time.Minute), raw: raw})
		i++
	}
	got := r.look()
	for reason := range rows {
		if n := got.sum("edges_skipped_runs_total", "reason="+reason); n != 1 {
			t.Errorf("%v rows are skipped as %s, want 1", n, reason)
		}
	}
	for k, raw := range odd {
		r.srv.put(row{uid: uid(2000 + k), updated: start.Add(-time.Minute), raw: raw})
	}
	w := fresh(3000, r.srv.advance(time.Second))
	r.srv.put(w)
	skipped := 0.0
	for range 5 {
		r.srv.advance(20 * time.Second)
		got = r.look()
		if n := got.sum("edges_skipped_runs_total"); skipped != 0 && n != skipped {
			t.Errorf("skipped runs go from %v to %v, though none is new", skipped, n)
		} else {
			skipped = n
		}
	}
	if n := got.sum("edges_runs_created_total", "action="+w.action); n != 1 {
		t.Errorf("the good run beside them is counted %v times", n)
	}
	if out := r.log.String(); strings.Count(out, "bad-1") != 1 {
		t.Errorf("the bad run is logged %d times, want once", strings.Count(out, "bad-1"))
	} else if len(out) > 1<<20 {
		t.Errorf("the log has %d bytes", len(out))
	}
}

// Duplicates within a page, and a list that shows the same rows for ever.
func TestListThatNeverEnds(t *testing.T) {
	for _, n := range []int{100, 150, 5000} {
		t.Run(fmt.Sprintf("%d runs", n), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(c *Config) { c.PollInterval = 20 * time.Second })
			r.srv.ignoreOffset = true
			for i := range n {
				r.srv.put(past(i))
			}
			var err error
			for range 3 {
				r.srv.advance(time.Second)
				err = errors.Join(err, r.tryPoll())
			}
			if err == nil {
				t.Error("polls of a list that ignores the offset succeed")
			}
			if lists, _ := r.srv.count(); lists > 3*50 {
				t.Errorf("three polls made %d requests", lists)
			}
			r.consistent(r.scrape())
			r.srv.ignoreOffset = false
			r.settle()
			r.exact()
		})
	}
	t.Run("new rows without end", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, func(c *Config) { c.PollInterval = time.Second })
		next := 0
		r.srv.trouble(func(_ int, w writer, q *request) bool {
			rows := make([]string, 0, 100)
			offset := number(q.URL.Query(), "offset", 0)
			for i := range 100 {
				x := past((offset + i) % 50_000) // never older than retention
				next++
				x.uid = uid(next)
				rows = append(rows, string(encodeRow(&x)))
			}
			return text("["+strings.Join(rows, ",")+"]")(0, w, q)
		})
		started := time.Now()
		_ = r.tryPoll()
		if took := time.Since(started); took > 20*time.Second {
			t.Errorf("a poll of an endless list took %s, the interval is 1s", took)
		}
		r.consistent(r.scrape())
	})
}

func TestDuplicatesInAPage(t *testing.T) {
	r := newRig(t)
	r.poll()
	w := firstFailure(r.srv.advance(5 * time.Second))
	one := string(encodeRow(&w))
	r.srv.trouble(text("[" + strings.Join([]string{one, one, one}, ",") + "]"))
	present(t, r.look(), afterFirstFailure)
	r.srv.calm()
	r.srv.put(w)
	present(t, r.look(), afterFirstFailure)
	r.exact()
}

// An unusual uid is a uid like any other.
func TestUIDs(t *testing.T) {
	r := newRig(t)
	uids := []string{
		"x", strings.Repeat("u", 128), "5E000000-0000-4000-8000-00000000000A", "5e000000-0000-4000-8000-00000000000a",
		"5e00000000004000800000000000000a", "ümläut", "a b/c?d&e=f", "5e000000-0000-4000-8000-00000000000g",
	}
	for i, u := range uids {
		w := past(i)
		w.uid, w.status, w.finished = u, "RUNNING", time.Time{}
		r.srv.put(w)
	}
	for i := range 200 {
		r.srv.put(fresh(100+i, start.Add(time.Second)))
	}
	r.settle()
	r.exact()
	r.restart()
	r.leap(20 * time.Minute) // an audit asks for each by name
	got := r.look()
	r.exact()
	if gone := got.sum("edges_audit_corrections_total"); gone != 0 {
		t.Errorf("%v runs were not found by their uid", gone)
	}
}

// An answer over 16 MiB is asked for again with a smaller limit, down to one
// row, and that one is skipped.
func TestAnswersTooLarge(t *testing.T) {
	r := newRig(t)
	big := func(i, size int) row {
		w := past(i)
		w.encoded = []byte(strings.Replace(string(encodeRow(&w)), `"query":"x"`, `"query":"`+strings.Repeat("x", size)+`"`, 1))
		return w
	}
	for i := range 230 {
		r.srv.put(past(i))
	}
	r.srv.put(big(40, 17<<20))
	for i := 120; i < 160; i++ {
		r.srv.put(big(i, 600_000))
	}
	limits := map[string]bool{}
	r.srv.between(func(_ int, q url.Values) { limits[q.Get("limit")] = true })
	r.poll()
	r.settle()
	got := r.look()
	if n := got.sum("edges_skipped_runs_total", "reason=too_large"); n != 1 {
		t.Errorf("%v runs are skipped as too large, want 1", n)
	}
	if n := got.sum("edges_runs"); n != 229 {
		t.Errorf("%v runs are in the gauges, want all 229 but the one", n)
	}
	if !limits["1"] || !limits["50"] {
		t.Errorf("limits asked for: %v", limits)
	}
}

// An API that gives smaller pages than it is asked for is read to its end all
// the same, at the first start, after a downtime, and in an audit.
func TestPagesSmallerThanAskedFor(t *testing.T) {
	for _, most := range []int{10, 33, 99} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			r := newRig(t)
			r.srv.most = most
			for i := range 400 {
				r.srv.put(past(i))
			}
			r.poll()
			r.settle()
			if n := r.look().sum("edges_runs"); n != 400 {
				t.Fatalf("%v runs are known, want 400", n)
			}
			r.close()
			now := r.srv.advance(time.Minute)
			for i := range 250 {
				w := fresh(1000+i, now.Add(-time.Duration(i)*time.Millisecond))
				w.status, w.finished = "RUNNING", time.Time{}
				r.srv.put(w)
			}
			r.open()
			r.poll()
			r.settle()
			r.exact()
			r.leap(20 * time.Minute)
			got := r.exact()
			present(t, got, samples{"edges_audit_corrections_total{reason=gone}": 0})
			if n := got.sum("edges_runs", "status=RUNNING"); n != 250 {
				t.Errorf("%v runs are RUNNING, want 250", n)
			}
		})
	}
}

// A short list costs one request more, once; the pages stay as large as the API
// allows.
func TestShortList(t *testing.T) {
	r := newRig(t)
	for i := range 60 {
		r.srv.put(past(i))
	}
	for _, want := range []int{2, 1, 1} {
		r.poll()
		if lists, _ := r.srv.count(); lists != want {
			t.Errorf("a poll took %d requests, want %d", lists, want)
		}
	}
	now := r.srv.advance(time.Minute)
	for i := range 300 {
		r.srv.put(fresh(1000+i, now.Add(-time.Duration(i)*time.Millisecond)))
	}
	r.poll()
	r.exact()
	if lists, _ := r.srv.count(); lists > 5 {
		t.Errorf("300 new runs took %d requests", lists)
	}
}

// A context that ends stops a poll, and the poll counts as neither.
func TestPollIsStopped(t *testing.T) {
	r := newRig(t)
	for i := range 1000 {
		r.srv.put(past(i))
	}
	ctx, stop := contextOf(t)
	r.srv.between(func(n int, _ url.Values) {
		if n == 4 {
			stop()
		}
	})
	if err := r.c.Poll(ctx); err == nil {
		t.Error("a poll that was stopped returns no error")
	}
	r.srv.between(nil)
	r.restart()
	got := r.look()
	r.settle()
	r.exact()
	if got.sum("edges_polls_total", "result=error") != 0 {
		t.Error("the poll that was stopped counts as an error")
	}
}
