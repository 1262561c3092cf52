package collector

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"github.com/edges-exporter/edges_exporter/edges"
)

// extras is what a workspace has beside its runs, under a test's control. Its
// clock is that of the server of the runs.
type extras struct {
	srv *server

	mu        sync.Mutex
	schedules []edges.Schedule
	callbacks []edges.Callback // the oldest first
	credits   string
	// requests counts by path what was asked for, refused has the paths that
	// get a status code instead of an answer.
	requests map[string]int
	refused  map[string]int
	// raw are rows that are shown as they are, in front of the callbacks.
	raw []string
	// between runs before each answer, without the lock.
	between func(path string, n int)
}

const (
	pathSchedules = "/v1/schedules"
	pathCallbacks = "/v1/runs/callbacks"
	pathCredits   = "/v1/workspaces/consumption"
)

func newExtras(srv *server) *extras {
	e := &extras{srv: srv, requests: map[string]int{}, refused: map[string]int{}}
	srv.trouble(e.answer)
	return e
}

func (e *extras) do(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f()
}

func (e *extras) count(path string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.requests[path]
	e.requests[path] = 0
	return n
}

func (e *extras) answer(_ int, w http.ResponseWriter, r *http.Request) bool {
	path := r.URL.Path
	if path != pathSchedules && path != pathCallbacks && path != pathCredits {
		return false
	}
	e.mu.Lock()
	e.requests[path]++
	n, between, code := e.requests[path], e.between, e.refused[path]
	e.mu.Unlock()
	if between != nil {
		between(path, n)
	}
	if code == 0 {
		code = e.refusedNow(path)
	}
	if code != 0 {
		w.WriteHeader(code)
		_, _ = fmt.Fprintf(w, `{"error_label":"NO_ACCESS","status_code":%d}`, code)
		return true
	}
	w.Header().Set("Date", e.srv.clock().UTC().Format(http.TimeFormat))
	e.mu.Lock()
	defer e.mu.Unlock()
	q := r.URL.Query()
	switch path {
	case pathSchedules:
		_, _ = fmt.Fprintf(w, "[%s]", strings.Join(cutRows(q, 100, e.scheduleRows()), ","))
	case pathCallbacks:
		_, _ = fmt.Fprintf(w, "[%s]", strings.Join(cutRows(q, 20, e.callbackRows(q)), ","))
	default:
		_, _ = fmt.Fprint(w, e.credits)
	}
	return true
}

func (e *extras) refusedNow(path string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.refused[path]
}

// cutRows is the part of a list that is asked for.
func cutRows(q url.Values, most int, rows []string) []string {
	limit, offset := number(q, "limit", 10), number(q, "offset", 0)
	rows = rows[min(offset, len(rows)):]
	return rows[:min(limit, most, len(rows))]
}

func (e *extras) scheduleRows() []string {
	out := []string{}
	for _, s := range e.schedules {
		if s.Defect != "" {
			out = append(out, `{"uid":"`+s.UID+`","created_at":"yesterday"}`)
			continue
		}
		body, err := json.Marshal(map[string]any{
			"uid": s.UID, "name": null(s.Name), "action_name": null(s.ActionName), "status": s.Status, "cron": "0 * * * *", "timezone": "UTC",
			"next_execution_at": date(s.NextExecutionAt), "last_executed_at": date(s.LastExecutedAt), "created_at": date(s.CreatedAt),
		})
		if err != nil {
			panic(err)
		}
		out = append(out, string(body))
	}
	return out
}

func (e *extras) callbackRows(q url.Values) []string {
	var out []string
	if q["status"] == nil && q["run_uid"] == nil {
		out = slices.Clone(e.raw)
	}
	has := func(filter, value string) bool { return q[filter] == nil || slices.Contains(q[filter], value) }
	for _, c := range slices.Backward(e.callbacks) {
		if !has("status", string(c.Status)) || !has("run_uid", c.RunUID) {
			continue
		}
		var code any
		if c.HTTPStatus != 0 {
			code = c.HTTPStatus
		}
		body, err := json.Marshal(map[string]any{
			"uid": c.UID, "run_uid": null(c.RunUID), "status": c.Status, "retry_count": c.RetryCount, "http_status": code,
			"callback_url": "https://example.com/" + secret, "created_at": date(c.CreatedAt),
		})
		if err != nil {
			panic(err)
		}
		out = append(out, string(body))
	}
	return out
}

// besideRig is a rig whose collectors beside the runs are on.
func besideRig(t testing.TB, changes ...func(*Config)) (*rig, *extras) {
	t.Helper()
	r := newRig(t, append([]func(*Config){func(c *Config) {
		c.Schedules, c.Callbacks, c.Credits = true, true, true
	}}, changes...)...)
	e := newExtras(r.srv)
	e.credits = `{"credits_left":900.5,"credits_used":99.5,"credits_max":1000,"current_month_start":"2026-03-01T00:00:00.000Z",` +
		`"current_month_end":"2026-04-01","consumptions":[{"action_slug":"act","credits_used":90},{"action_slug":"more","credits_used":9.5}]}`
	return r, e
}

// due lets everything beside the runs be read at the next poll.
func (r *rig) due() {
	for _, s := range r.c.beside {
		s.due, s.onPace = time.Time{}, time.Time{}
	}
}

// all polls and scrapes until what is beside the runs shows too.
func (r *rig) all() samples {
	r.t.Helper()
	r.due()
	r.poll()
	r.scrape()
	r.poll()
	return r.scrape()
}

func wantOnly(t *testing.T, s samples, family string, want samples) {
	t.Helper()
	for k, v := range s {
		if strings.HasPrefix(k, family+"{") && want[k] != v {
			t.Errorf("%s is %v, want %v", k, v, want[k])
		}
	}
	for k, v := range want {
		if got, ok := s[k]; !ok {
			t.Errorf("%s is missing, want %v", k, v)
		} else if got != v {
			t.Errorf("%s is %v, want %v", k, got, v)
		}
	}
}

func TestCredits(t *testing.T) {
	r, e := besideRig(t)
	want := samples{
		"edges_credits_left{}": 900.5, "edges_credits_used{}": 99.5, "edges_credits_limit{}": 1000,
		"edges_credits_period_start_timestamp_seconds{}": float64(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).Unix()),
		"edges_credits_period_end_timestamp_seconds{}":   float64(time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC).Unix()),
		"edges_credits_action_used{action=act}":          90, "edges_credits_action_used{action=more}": 9.5,
	}
	got := r.all()
	got.want(t, want)
	wantOnly(t, got, "edges_collector_up", samples{"edges_collector_up{collector=credits}": 1, "edges_collector_up{collector=schedules}": 1, "edges_collector_up{collector=callbacks}": 1})
	r.restart()
	r.scrape().want(t, want)

	t.Run("what the API does not tell is not shown as 0", func(t *testing.T) {
		e.do(func() { e.credits = `{"credits_left":null,"credits_used":7,"consumptions":[]}` })
		got := r.all()
		got.want(t, samples{"edges_credits_used{}": 7})
		for k := range got {
			if strings.HasPrefix(k, "edges_credits_") && k != "edges_credits_used{}" {
				t.Errorf("%s is shown", k)
			}
		}
	})
	for name, answer := range map[string]string{"nothing in it": `{"message":"soon"}`, "odd": `{"credits_left":{"a":1}}`, "no JSON": `sorry`} {
		t.Run(name, func(t *testing.T) {
			e.do(func() { e.credits = answer })
			got := r.all()
			got.want(t, samples{"edges_collector_up{collector=credits}": 0, "edges_up{}": 1, "edges_credits_used{}": 7})
			if _, ok := got["edges_collector_up{collector=credits}"]; !ok {
				t.Error("edges_collector_up is not shown")
			}
		})
	}
}

func TestSchedules(t *testing.T) {
	r, e := besideRig(t)
	next, last := start.Add(time.Hour), start.Add(-time.Hour)
	e.schedules = []edges.Schedule{
		{UID: "s-active", Name: "every hour", ActionName: "act", Status: edges.ScheduleActive, NextExecutionAt: next, LastExecutedAt: last},
		{UID: "s-silent", ActionName: "act", Status: edges.ScheduleActive},
		{UID: "s-paused", ActionName: "act", Status: edges.SchedulePaused, NextExecutionAt: next},
		{UID: "s-over", ActionName: "more", Status: edges.ScheduleCompleted, LastExecutedAt: last},
		{UID: "s-bad", Defect: edges.DefectBadTime},
	}
	made := start.Add(-2 * time.Hour)
	r.srv.put(
		row{uid: uid(1), action: "act", mode: "ASYNC", status: "SUCCEEDED", schedule: "s-paused", created: made, started: made, finished: made, updated: made},
		row{uid: uid(2), action: "act", mode: "ASYNC", status: "RUNNING", schedule: "s-silent", created: made, started: made, updated: made},
	)
	counts := samples{
		"edges_schedules{action=act,status=ACTIVE}": 2, "edges_schedules{action=act,status=PAUSED}": 1,
		"edges_schedules{action=act,status=CANCELLED}": 0, "edges_schedules{action=act,status=COMPLETED}": 0,
		"edges_schedules{action=more,status=ACTIVE}": 0, "edges_schedules{action=more,status=PAUSED}": 0,
		"edges_schedules{action=more,status=CANCELLED}": 0, "edges_schedules{action=more,status=COMPLETED}": 1,
	}
	check := func(got samples) {
		t.Helper()
		wantOnly(t, got, "edges_schedules", counts)
		wantOnly(t, got, "edges_schedule_next_run_timestamp_seconds", samples{
			"edges_schedule_next_run_timestamp_seconds{action=act,name=every hour,schedule=s-active}": float64(next.Unix()),
		})
		wantOnly(t, got, "edges_schedule_last_run_timestamp_seconds", samples{
			"edges_schedule_last_run_timestamp_seconds{action=act,name=every hour,schedule=s-active}": float64(last.Unix()),
			"edges_schedule_last_run_timestamp_seconds{action=act,name=,schedule=s-silent}":           float64(made.Unix()),
			"edges_schedule_last_run_timestamp_seconds{action=act,name=,schedule=s-paused}":           float64(made.Unix()),
		})
	}
	got := r.all()
	check(got)
	got.want(t, samples{"edges_collector_skipped_rows_total{collector=schedules,reason=bad_time}": 1, "edges_skipped_runs_total{reason=bad_time}": 0})
	if n := len(got.values("edges_schedule_runs_total", "status")); n != len(edges.Statuses()) {
		t.Errorf("%d statuses of a schedule's runs are shown", n)
	}
	if got.sum("edges_schedule_runs_total") != 0 {
		t.Error("runs from before the start are counted")
	}
	r.restart()
	check(r.scrape())
	check(r.all())

	// Runs that a schedule starts, also one that no list has shown.
	now := r.srv.advance(time.Minute)
	r.srv.change(uid(2), func(x *row) { x.status, x.finished, x.updated, x.errLabel = "FAILED", now, now, "LK_ERROR" })
	r.srv.put(
		row{uid: uid(3), action: "act", mode: "ASYNC", status: "SUCCEEDED", schedule: "s-silent", created: now, started: now, finished: now, updated: now},
		row{uid: uid(4), action: "act", mode: "ASYNC", status: "SUCCEEDED", schedule: "s-new", created: now, started: now, finished: now, updated: now},
		row{uid: uid(5), action: "act", mode: "ASYNC", status: "SUCCEEDED", created: now, started: now, finished: now, updated: now},
	)
	e.do(func() { e.schedules[3].ActionName, e.schedules[3].Status = "act", edges.ScheduleCancelled })
	r.all()
	got = r.all()
	got.want(t, samples{
		"edges_schedule_runs_total{schedule=s-silent,status=FAILED}":    1,
		"edges_schedule_runs_total{schedule=s-silent,status=SUCCEEDED}": 1,
		"edges_schedule_runs_total{schedule=s-new,status=SUCCEEDED}":    1,
		"edges_schedule_runs_total{schedule=s-new,status=FAILED}":       0,
		"edges_schedules{action=act,status=CANCELLED}":                  1,
		"edges_schedules{action=more,status=COMPLETED}":                 0,

		"edges_schedule_last_run_timestamp_seconds{action=act,name=,schedule=s-silent}": float64(now.Unix()),
	})
	if total := got.sum("edges_schedule_runs_total"); total != 3 {
		t.Errorf("%v runs of schedules are counted, want 3", total)
	}
}

func TestManySchedules(t *testing.T) {
	r, e := besideRig(t)
	for i := range 730 {
		s := edges.Schedule{UID: fmt.Sprintf("s-%03d", i), ActionName: "act", Status: edges.ScheduleActive, CreatedAt: start, LastExecutedAt: start}
		// The last of the list is due first.
		s.NextExecutionAt = start.Add(time.Duration(1000-i) * time.Minute)
		e.schedules = append(e.schedules, s)
	}
	got := r.all()
	got.want(t, samples{"edges_schedules{action=act,status=ACTIVE}": 730})
	// Pages overlap by a row: 8 pages, since 7 hold 694.
	if n := e.count(pathSchedules); n != 8 {
		t.Errorf("the list took %d requests", n)
	}
	for _, family := range []string{"edges_schedule_next_run_timestamp_seconds", "edges_schedule_last_run_timestamp_seconds", "edges_schedule_runs_total"} {
		shown := got.values(family, "schedule")
		if len(shown) != 200 || shown[0] != "s-530" {
			t.Errorf("%s has %d schedules, the first is %s", family, len(shown), shown[0])
		}
	}
	// A schedule beyond the bound is "other".
	now := r.srv.advance(time.Minute)
	r.srv.put(row{uid: uid(1), action: "act", mode: "ASYNC", status: "SUCCEEDED", schedule: "s-000", created: now, started: now, finished: now, updated: now})
	r.all()
	r.all().want(t, samples{"edges_schedule_runs_total{schedule=other,status=SUCCEEDED}": 1})

	// A row that is removed while the list is read does not hide another.
	e.do(func() {
		e.requests[pathSchedules] = 0
		e.between = func(path string, n int) {
			if path == pathSchedules && n == 4 {
				e.do(func() { e.schedules = e.schedules[50:] })
			}
		}
	})
	r.all().want(t, samples{"edges_schedules{action=act,status=ACTIVE}": 680})
	// A list that ignores the offset does not end well, but it ends.
	e.do(func() {
		e.between = func(path string, _ int) {
			if path == pathSchedules {
				e.do(func() { slices.Reverse(e.schedules) })
			}
		}
	})
	r.all().want(t, samples{"edges_collector_up{collector=schedules}": 0, "edges_schedules{action=act,status=ACTIVE}": 680})
}

func callback(n int, status edges.CallbackStatus, code int, at time.Time) edges.Callback {
	return edges.Callback{UID: uid(90_000 + n), RunUID: uid(n / 2), Status: status, HTTPStatus: code, CreatedAt: at}
}

func TestCallbacks(t *testing.T) {
	r, e := besideRig(t)
	before := start.Add(-time.Minute)
	for i := range 100 {
		e.callbacks = append(e.callbacks, callback(i, edges.CallbackSuccess, 200, before.Add(-time.Duration(100-i)*time.Minute)))
	}
	// Of these the end is counted.
	for _, i := range []int{3, 40, 99} {
		e.callbacks[i].Status, e.callbacks[i].RetryCount, e.callbacks[i].HTTPStatus = edges.CallbackPending, 2, 0
	}
	e.callbacks[40].Status = edges.CallbackRunning
	got := r.all()
	wantOnly(t, got, "edges_callbacks_total", samples{
		"edges_callbacks_total{code=200,status=SUCCESS}": 0, "edges_callbacks_total{code=500,status=FAILED}": 0, "edges_callbacks_total{code=none,status=FAILED}": 0,
	})
	got.want(t, samples{
		"edges_callbacks_pending{}": 3, "edges_callback_retries_total{}": 0,
		"edges_callback_oldest_pending_timestamp_seconds{}": float64(e.callbacks[3].CreatedAt.Unix()),
	})

	now := r.srv.advance(time.Minute)
	e.do(func() {
		e.callbacks[3].Status, e.callbacks[3].HTTPStatus = edges.CallbackSuccess, 200
		e.callbacks[40].RetryCount = 5
		e.callbacks = append(e.callbacks,
			callback(200, edges.CallbackFailed, 0, now.Add(-3*time.Second)),
			callback(201, edges.CallbackFailed, 404, now.Add(-2*time.Second)),
			callback(202, edges.CallbackPending, 0, now.Add(-time.Second)))
	})
	r.all()
	r.restart()
	want := samples{
		"edges_callbacks_total{code=200,status=SUCCESS}": 1, "edges_callbacks_total{code=500,status=FAILED}": 0,
		"edges_callbacks_total{code=none,status=FAILED}": 1, "edges_callbacks_total{code=404,status=FAILED}": 1,
	}
	got = r.all()
	wantOnly(t, got, "edges_callbacks_total", want)
	got.want(t, samples{
		"edges_callbacks_pending{}": 3, "edges_callback_retries_total{}": 3,
		"edges_callback_oldest_pending_timestamp_seconds{}": float64(e.callbacks[40].CreatedAt.Unix()),
	})

	// Whatever time passes, nothing is counted twice, and no end is missed.
	for range 8 {
		r.leap(10 * time.Minute)
		r.due()
		r.poll()
	}
	wantOnly(t, r.all(), "edges_callbacks_total", want)
	e.do(func() {
		for i := range e.callbacks {
			if !e.callbacks[i].Status.Ended() {
				e.callbacks[i].Status, e.callbacks[i].HTTPStatus = edges.CallbackFailed, 500
			}
		}
	})
	r.all()
	want["edges_callbacks_total{code=500,status=FAILED}"] = 3
	got = r.all()
	wantOnly(t, got, "edges_callbacks_total", want)
	got.want(t, samples{"edges_callbacks_pending{}": 0})
	if _, ok := got["edges_callback_oldest_pending_timestamp_seconds{}"]; ok {
		t.Error("the oldest of none is shown")
	}
	e.count(pathCallbacks)
	r.due()
	r.poll()
	if n := e.count(pathCallbacks); n != 1 {
		t.Errorf("a quiet poll took %d requests", n)
	}
}

// A callback that the API does not show any more is not pending for ever, and a
// row that is not understood stops no other.
func TestCallbacksOddities(t *testing.T) {
	r, e := besideRig(t)
	e.callbacks = []edges.Callback{callback(1, edges.CallbackPending, 0, start.Add(-time.Hour)), callback(2, edges.CallbackPending, 0, start.Add(-time.Minute))}
	r.all().want(t, samples{"edges_callbacks_pending{}": 2})
	now := r.srv.advance(time.Minute)
	e.do(func() {
		e.callbacks = e.callbacks[1:]
		e.raw = []string{`null`, `{"uid":"odd","created_at":"then"}`, `{"uid":"undated","status":"FAILED"}`, `{"status":"FAILED"}`}
		e.callbacks = append(e.callbacks, callback(7, edges.CallbackFailed, 999, now), callback(8, "PAUSED", 0, now))
	})
	for range 3 {
		r.all()
	}
	got := r.all()
	got.want(t, samples{
		"edges_callbacks_pending{}":                                                 2,
		"edges_callbacks_total{code=999,status=FAILED}":                             1,
		"edges_collector_skipped_rows_total{collector=callbacks,reason=not_object}": 1,
		"edges_collector_skipped_rows_total{collector=callbacks,reason=bad_time}":   2,
		"edges_collector_skipped_rows_total{collector=callbacks,reason=no_uid}":     1,
		"edges_collector_up{collector=callbacks}":                                   1,
		"edges_callback_oldest_pending_timestamp_seconds{}":                         float64(start.Add(-time.Minute).Unix()),
		"edges_skipped_runs_total{reason=not_object}":                               0,
		"edges_collector_skipped_rows_total{collector=schedules,reason=not_object}": 0,
	})
	// What never ends leaves with retention.
	e.do(func() { e.callbacks, e.raw = nil, nil })
	r.leap(91 * 24 * time.Hour)
	e.do(func() { e.callbacks = []edges.Callback{callback(9, edges.CallbackSuccess, 200, r.srv.clock())} })
	r.all()
	r.all().want(t, samples{"edges_callbacks_pending{}": 0, "edges_callbacks_total{code=200,status=SUCCESS}": 1})
}

// Many callbacks, few requests, restarts and refused requests: each is counted
// once, and in the end all are.
func TestCallbacksExact(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 1))
			r, e := besideRig(t)
			want := samples{}
			next, pending, retries := 0, map[int]bool{}, 0.0
			end := func(c *edges.Callback) {
				c.Status, c.HTTPStatus = edges.CallbackSuccess, 200
				if rng.Float64() < 0.07 {
					c.Status, c.HTTPStatus = edges.CallbackFailed, []int{0, 404, 500}[rng.IntN(3)]
				}
				code := fmt.Sprint(c.HTTPStatus)
				if c.HTTPStatus == 0 {
					code = "none"
				}
				want["edges_callbacks_total{code="+code+",status="+string(c.Status)+"}"]++
			}
			for range 300 {
				e.callbacks = append(e.callbacks, callback(next, edges.CallbackSuccess, 200, start.Add(-time.Hour)))
				next++
			}
			for i := range 5 {
				e.callbacks[i*50].Status = edges.CallbackPending
				pending[i*50] = true
			}
			r.all()
			for range 40 {
				now := r.srv.advance(time.Duration(rng.IntN(20_000)) * time.Millisecond)
				e.do(func() {
					for range rng.IntN(45) {
						c := callback(next, edges.CallbackPending, 0, now.Add(-time.Duration(rng.IntN(4))*time.Second/4))
						if rng.Float64() < 0.5 {
							end(&c)
						} else {
							pending[next] = true
						}
						e.callbacks = append(e.callbacks, c)
						next++
					}
					slices.SortStableFunc(e.callbacks, func(a, b edges.Callback) int { return a.CreatedAt.Compare(b.CreatedAt) })
					for i := range e.callbacks {
						c := &e.callbacks[i]
						var n int
						_, _ = fmt.Sscanf(c.UID[24:], "%x", &n)
						if n -= 90_000; !pending[n] {
							continue
						}
						if rng.Float64() < 0.1 {
							c.RetryCount++
							retries++
						}
						if rng.Float64() < 0.15 {
							end(c)
							delete(pending, n)
						}
					}
					e.refused[pathCallbacks] = 0
					if rng.Float64() < 0.1 {
						e.refused[pathCallbacks] = []int{500, 429, 503}[rng.IntN(3)]
					}
				})
				r.due()
				r.pages = 1 + rng.IntN(6)
				r.poll()
				r.scrape()
				if rng.Float64() < 0.1 {
					r.restart()
				}
			}
			r.pages = 0
			e.do(func() { e.refused[pathCallbacks] = 0 })
			for range 3 {
				r.srv.advance(time.Minute)
				r.all()
			}
			got := r.all()
			for _, k := range []string{"200,status=SUCCESS", "500,status=FAILED", "none,status=FAILED", "404,status=FAILED"} {
				want["edges_callbacks_total{code="+k+"}"] += 0
			}
			wantOnly(t, got, "edges_callbacks_total", want)
			got.want(t, samples{"edges_callbacks_pending{}": float64(len(pending)), "edges_callback_retries_total{}": retries})
		})
	}
}

// Callbacks that lie unread for hours are counted when they are read at last,
// and only then.
func TestCallbacksUnreadForLong(t *testing.T) {
	r, e := besideRig(t, func(c *Config) { c.Schedules, c.Credits = false, false })
	r.all()
	now := r.srv.advance(time.Minute)
	for i := range 200 {
		e.callbacks = append(e.callbacks, callback(i, edges.CallbackSuccess, 200, now.Add(-time.Duration(200-i)*time.Second/10)))
	}
	r.pages = 2
	for range 4 {
		r.due()
		r.leap(time.Hour)
		if i := r.c.beside[0].beside.(*callbacksCollector); len(i.state.List.Stretches) == 0 {
			t.Fatal("all was read, and nothing is tested")
		}
		r.restart()
	}
	r.pages = 0
	for range 3 {
		r.srv.advance(time.Minute)
		r.all()
	}
	r.all().want(t, samples{"edges_callbacks_total{code=200,status=SUCCESS}": 200})
}

// What a plan does not include is said once, costs few requests, and is none of
// the runs' business.
func TestCollectorFailsAlone(t *testing.T) {
	r, e := besideRig(t)
	for _, path := range []string{pathSchedules, pathCallbacks, pathCredits} {
		e.refused[path] = map[string]int{pathSchedules: 402, pathCallbacks: 403, pathCredits: 404}[path]
	}
	for range 3 {
		got := r.all()
		got.want(t, samples{"edges_up{}": 1})
		wantOnly(t, got, "edges_collector_up", samples{
			"edges_collector_up{collector=schedules}": 0, "edges_collector_up{collector=callbacks}": 0, "edges_collector_up{collector=credits}": 0,
		})
		for k := range got {
			if strings.HasPrefix(k, "edges_callbacks_") || strings.HasPrefix(k, "edges_credits_") || strings.HasPrefix(k, "edges_schedules") {
				t.Errorf("%s is shown, but was never read", k)
			}
		}
	}
	if n := strings.Count(r.log.String(), "collector failed"); n != 3 {
		t.Errorf("the log says %d times that a collector failed", n)
	}
	for _, s := range r.c.beside {
		if first := (&sideline{beside: s.beside, failures: 1}).wait(); s.wait() < first {
			t.Errorf("%s waits %s after more failures, %s after the first", s.name(), s.wait(), first)
		}
	}
	e.do(func() { clear(e.refused) })
	wantOnly(t, r.all(), "edges_collector_up", samples{
		"edges_collector_up{collector=schedules}": 1, "edges_collector_up{collector=callbacks}": 1, "edges_collector_up{collector=credits}": 1,
	})
	if n := strings.Count(r.log.String(), "collector works again"); n != 3 {
		t.Errorf("the log says %d times that a collector works again", n)
	}
}

func TestCollectorsSwitchedOff(t *testing.T) {
	r, e := besideRig(t)
	r.all()
	r.close()
	r.cfg.Schedules, r.cfg.Callbacks, r.cfg.Credits = false, false, false
	hidden := []string{"edges_schedule", "edges_callback", "edges_credits", "edges_collector_up", "edges_collector_last"}
	for k := range r.shown {
		for _, prefix := range hidden {
			if strings.HasPrefix(k, prefix) {
				delete(r.shown, k)
			}
		}
	}
	for _, path := range []string{pathSchedules, pathCallbacks, pathCredits} {
		e.count(path)
	}
	r.open()
	for k := range r.all() {
		for _, prefix := range hidden {
			if strings.HasPrefix(k, prefix) {
				t.Errorf("%s is shown", k)
			}
		}
	}
	for _, path := range []string{pathSchedules, pathCallbacks, pathCredits} {
		if n := e.count(path); n != 0 {
			t.Errorf("%s was asked for %d times", path, n)
		}
	}
}

// A store that was made before there was anything beside the runs goes on.
func TestStoreWithoutBeside(t *testing.T) {
	r, _ := besideRig(t)
	r.srv.put(past(1))
	want := r.all()
	for k := range want {
		if strings.HasPrefix(k, "edges_api_") || strings.HasPrefix(k, "edges_poll") {
			delete(want, k)
		}
	}
	drop := func(names ...[]byte) {
		t.Helper()
		err := r.c.store.update(func(tx *bbolt.Tx) error {
			for _, name := range names {
				if err := tx.DeleteBucket(name); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	drop(bucketsBeside...)
	r.restart()
	got := r.all()
	for k := range want {
		if strings.HasPrefix(k, "edges_collector_last") || strings.HasPrefix(k, "edges_ledger_size") {
			delete(want, k)
		}
	}
	got.want(t, want)
	if len(r.held()) != 1 {
		t.Error("the run is not in the ledger any more")
	}
	// One that lacks only some of it is damaged.
	drop(bucketDelivered)
	r.close()
	r.cfg.Client = r.client()
	defer r.cfg.Client.Close()
	if _, err := New(r.cfg); err == nil || !strings.Contains(err.Error(), damagedAdvice) {
		t.Errorf("a store without one of its buckets gives: %v", err)
	}
}

// What tells a short list from a short page is not booked in the page's place.
func TestShortListOfCallbacks(t *testing.T) {
	r, e := besideRig(t)
	r.all()
	r.restart()
	const ended = 15
	now := r.srv.advance(time.Minute)
	for i := range ended {
		e.callbacks = append(e.callbacks, callback(i, edges.CallbackSuccess, 200, now.Add(-time.Duration(i)*time.Second)))
	}
	r.poll()
	got := 0
	err := r.c.store.view(func(tx *bbolt.Tx) error {
		got = tx.Bucket(bucketDelivered).Stats().KeyN
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got != ended {
		t.Errorf("the first poll took %d callbacks, want %d", got, ended)
	}
}

// A store that has lost a callback which has not ended is damaged: its end would
// be missed.
func TestStoreWithoutACallback(t *testing.T) {
	r, e := besideRig(t)
	e.callbacks = []edges.Callback{callback(1, edges.CallbackPending, 0, start.Add(-time.Hour)), callback(2, edges.CallbackRunning, 0, start.Add(-time.Hour))}
	r.all().want(t, samples{"edges_callbacks_pending{}": 2})
	r.restart()
	err := r.c.store.update(func(tx *bbolt.Tx) error {
		k, _ := tx.Bucket(bucketDeliveries).Cursor().First()
		return tx.Bucket(bucketDeliveries).Delete(k)
	})
	if err != nil {
		t.Fatal(err)
	}
	r.close()
	r.cfg.Client = r.client()
	defer r.cfg.Client.Close()
	if _, err := New(r.cfg); err == nil || !strings.Contains(err.Error(), damagedAdvice) {
		t.Errorf("a store without one of its callbacks gives: %v", err)
	}
}

// With the budget of the smallest plan, everything switched on, much to be read
// and much that fails, polls of the runs wait for nothing.
func TestBudgetWithEverything(t *testing.T) {
	const perMinute, interval = 15, 15 * time.Second
	var mu sync.Mutex
	requests := 0
	srv := newServer(t)
	// Nothing may be on a connection while the clock is to go on.
	srv.http.Config.SetKeepAlivesEnabled(false)
	e := newExtras(srv)
	const runs, pending = 3000, 800
	for i := range runs {
		srv.put(past(i))
	}
	for i := range pending {
		e.callbacks = append(e.callbacks, callback(i, edges.CallbackPending, 0, start.Add(-time.Hour)))
	}
	for i := range 250 {
		e.schedules = append(e.schedules, edges.Schedule{UID: fmt.Sprint("s-", i), ActionName: "act", Status: edges.ScheduleActive, CreatedAt: start})
	}
	e.refused[pathCredits] = 500
	srv.between(func(int, url.Values) {
		mu.Lock()
		defer mu.Unlock()
		requests++
	})
	counted := func() int {
		mu.Lock()
		defer mu.Unlock()
		return requests
	}
	path := t.TempDir() + "/store"
	synctest.Test(t, func(t *testing.T) {
		budget, err := edges.NewBudget(perMinute, "")
		if err != nil {
			t.Fatal(err)
		}
		defer budget.Close()
		client, err := edges.NewClient(edges.Config{
			URL: srv.http.URL + "/v1", Key: func() (string, error) { return apiKey, nil }, Budget: budget,
		})
		if err != nil {
			t.Fatal(err)
		}
		c, err := New(Config{
			Client: client, Budget: budget, Workspace: "test", StorePath: path, PollInterval: interval, PollOverlap: 30 * time.Second,
			AuditInterval: 15 * time.Minute, Retention: 90 * 24 * time.Hour, MaxActions: 10, Schedules: true, Callbacks: true, Credits: true,
			Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		begun := time.Now()
		taken := map[time.Duration]int{}
		for poll := range 160 {
			if poll == 100 {
				e.do(func() { e.refused[pathCallbacks], e.refused[pathSchedules] = 503, 429 })
			}
			before, at := counted(), time.Now()
			if err := c.Poll(t.Context()); err != nil {
				t.Fatalf("poll %d: %v", poll, err)
			}
			if took := time.Since(at); took >= interval {
				t.Errorf("poll %d took %s", poll, took)
			}
			taken[at.Sub(begun)] = counted() - before
			srv.advance(interval)
			time.Sleep(time.Until(begun.Add(time.Duration(poll+1) * interval)))
		}
		for at := range taken {
			sum := 0
			for other, n := range taken {
				if other >= at && other < at+time.Minute {
					sum += n
				}
			}
			if sum > perMinute {
				t.Errorf("%d requests in the minute from %s", sum, at)
			}
		}
		if throttled := budget.Throttled(); throttled != 0 {
			t.Errorf("requests waited %s for the budget", throttled)
		}
		if s := c.State(); !s.BackfillComplete || s.Runs != runs {
			t.Errorf("after %d requests the ledger holds %d runs, backfill complete: %v", counted(), s.Runs, s.BackfillComplete)
		}
		got := c.ledger.value(keyOf(famCallbacksPending))
		if got != pending {
			t.Errorf("%d callbacks are pending", got)
		}
		t.Logf("%d requests in %s", counted(), time.Since(begun))
		client.Close()
	})
}
