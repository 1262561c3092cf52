package simulator_test

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
	"github.com/edges-exporter/edges_exporter/edges/simulator"
)

// client is the project's own client of the workspace, which tries once.
func (o *office) client() *edges.Client {
	o.t.Helper()
	c, err := edges.NewClient(o.config())
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(c.Close)
	return c
}

func (o *office) writer() *edges.Writer {
	o.t.Helper()
	w, err := edges.NewWriter(o.config())
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(w.Close)
	return w
}

func (o *office) config() edges.Config {
	return edges.Config{URL: o.http.URL + "/v1", Key: edges.FixedKey(o.key), MaxRetries: -1}
}

// trouble lets something go wrong.
func (o *office) trouble(text string) simulator.Trouble {
	o.t.Helper()
	trouble, err := simulator.ParseTrouble(text)
	if err == nil {
		trouble, err = o.AddTrouble(trouble)
	}
	if err != nil {
		o.t.Fatal(err)
	}
	return trouble
}

// pass lets time go by, and everything happen that is due.
func (o *office) pass(d time.Duration) {
	o.clock.Advance(d)
	o.State()
}

// refusal asks for the code of the answer to a POST, and its error label.
func (o *office) refusal(path, body string) (code int, label string) {
	o.t.Helper()
	a, err := o.do(http.MethodPost, path, strings.NewReader(body), "Content-Type", "application/json")
	if err != nil {
		o.t.Fatal(err)
	}
	var p struct {
		Label string `json:"error_label"`
	}
	if err := json.Unmarshal(a.body, &p); err != nil && a.code >= 300 {
		o.t.Fatalf("%v: %s", err, a.body)
	}
	return a.code, p.Label
}

func TestSchedulesOverTheAPI(t *testing.T) {
	o := open(t, still())
	c := o.client()
	all, err := c.ListSchedules(t.Context(), edges.SchedulesQuery{Limit: 100})
	if err != nil || len(all.Schedules) < 8 || !all.Date.Equal(o.Now().Truncate(time.Second)) {
		t.Fatalf("%+v, %v", all, err)
	}
	truth := o.Schedules()
	for i, s := range all.Schedules {
		want := truth[len(truth)-1-i]
		if s.Defect != "" || s.UID != want.UID || s.Status != want.Status || s.ActionName != want.Action || s.Cron != want.Cron || s.Timezone != "UTC" || s.WorkspaceUID != o.UID() {
			t.Errorf("%+v, want %+v", s, want)
		}
		if active := s.Status == edges.ScheduleActive; active != s.NextExecutionAt.After(start) || active == !s.LastExecutedAt.IsZero() {
			t.Errorf("%s runs next %s, ran last %s", s.Status, s.NextExecutionAt, s.LastExecutedAt)
		}
		if one, err := c.GetSchedule(t.Context(), s.UID); err != nil || one != s {
			t.Errorf("%+v, %v", one, err)
		}
	}

	for name, test := range map[string]struct {
		query edges.SchedulesQuery
		keep  func(edges.Schedule) bool
	}{
		"status":   {edges.SchedulesQuery{Status: []edges.ScheduleStatus{edges.SchedulePaused, edges.ScheduleCancelled}}, func(s edges.Schedule) bool { return s.Status == "PAUSED" || s.Status == "CANCELLED" }},
		"uid":      {edges.SchedulesQuery{UID: []string{all.Schedules[1].UID}}, func(s edges.Schedule) bool { return s.UID == all.Schedules[1].UID }},
		"user":     {edges.SchedulesQuery{UserUID: []string{all.Schedules[0].UserUID}}, func(s edges.Schedule) bool { return s.UserUID == all.Schedules[0].UserUID }},
		"nothing":  {edges.SchedulesQuery{UID: []string{uid(1)}}, func(edges.Schedule) bool { return false }},
		"two at 3": {edges.SchedulesQuery{Limit: 2, Offset: 3}, func(s edges.Schedule) bool { return s == all.Schedules[3] || s == all.Schedules[4] }},
	} {
		test.query.Limit = cmp.Or(test.query.Limit, 100)
		page, err := c.ListSchedules(t.Context(), test.query)
		want := slices.Clone(all.Schedules)
		want = slices.DeleteFunc(want, func(s edges.Schedule) bool { return !test.keep(s) })
		if err != nil || !slices.Equal(page.Schedules, want) {
			t.Errorf("%s: got %d, want %d: %v", name, len(page.Schedules), len(want), err)
		}
	}
	sorted, err := c.ListSchedules(t.Context(), edges.SchedulesQuery{Limit: 100, Sort: []string{"-next_execution_at", "uid"}})
	if err != nil || !slices.IsSortedFunc(sorted.Schedules, func(a, b edges.Schedule) int {
		if d := b.NextExecutionAt.Compare(a.NextExecutionAt); d != 0 {
			return d
		}
		return strings.Compare(a.UID, b.UID)
	}) {
		t.Errorf("not sorted, %v", err)
	}
	for _, field := range []string{"created_at", "updated_at", "last_executed_at", "name", "action_name", "status"} {
		o.must(200, "GET", "/v1/schedules?sort=-"+field)
	}
	for _, bad := range []string{"limit=101", "limit=0", "sort=cron", "status=RUNNING", "uid=x", "user_uid=x"} {
		o.must(422, "GET", "/v1/schedules?"+bad)
	}
	if _, err := c.GetSchedule(t.Context(), uid(1)); !errors.Is(err, edges.ErrNotFound) {
		t.Errorf("error %v", err)
	}
}

func TestSchedulesRun(t *testing.T) {
	o := open(t, simulator.Config{History: simulator.None, NoRhythm: true, KeepTruth: true, RunsPerDay: 3000})
	before := o.Schedules()
	o.pass(24 * time.Hour)
	runs := map[string]int{}
	for _, r := range o.Truth().Runs {
		runs[r.ScheduledRunUID]++
	}
	for i, s := range o.Schedules() {
		if s.Status != edges.ScheduleActive {
			if s.Executed != 0 || runs[s.UID] != 0 {
				t.Errorf("%s schedule ran: %+v", s.Status, s)
			}
			continue
		}
		if s.Executed == 0 || runs[s.UID] == 0 || len(s.Missed) != 0 || s.LastExecutedAt.Before(before[i].NextExecutionAt) || !s.NextExecutionAt.After(o.Now()) {
			t.Errorf("%d runs of %+v", runs[s.UID], s)
		}
	}
	paused := before[0].UID
	if err := o.SetScheduleStatus(paused, edges.SchedulePaused); err != nil {
		t.Fatal(err)
	}
	executed := o.Schedules()[0].Executed
	o.pass(5 * time.Hour)
	if s := o.Schedules()[0]; s.Executed != executed || !s.NextExecutionAt.IsZero() || len(s.Missed) != 0 {
		t.Errorf("paused, but %+v", s)
	}
	if err := o.SetScheduleStatus(uid(1), edges.SchedulePaused); !errors.Is(err, simulator.ErrNoSchedule) {
		t.Errorf("error %v", err)
	}
}

// The first schedule is due at every full hour; it is 14:00:30.
func TestMissedSchedule(t *testing.T) {
	at := func(hour, minute int) time.Time { return time.Date(2026, 3, 18, hour, minute, 0, 0, time.UTC) }
	tests := []struct {
		trouble string
		// next, last and postponed are what the API shows at 16:10.
		next, last, postponed time.Time
		// later is next_execution_at once the trouble is over, last the last.
		later, lastThen time.Time
		missed          int
	}{
		{"", at(17, 0), at(16, 0), time.Time{}, at(18, 0), at(17, 0), 0},
		{"miss-schedule", at(15, 0), time.Time{}, time.Time{}, at(18, 0), at(17, 0), 2},
		{"miss-schedule:drop=true", at(17, 0), time.Time{}, time.Time{}, at(18, 0), at(17, 0), 2},
		{"miss-schedule:delay=20m", at(17, 0), at(15, 20), at(16, 20), at(18, 0), at(17, 0), 2},
		{"miss-schedule:email-find", at(17, 0), at(16, 0), time.Time{}, at(18, 0), at(17, 0), 0},
	}
	for _, test := range tests {
		t.Run(test.trouble, func(t *testing.T) {
			o := open(t, still())
			c := o.client()
			hourly := o.Schedules()[0]
			if test.trouble != "" {
				o.trouble(test.trouble + ":for=130m")
			}
			o.pass(130*time.Minute - 30*time.Second)
			s, err := c.GetSchedule(t.Context(), hourly.UID)
			if err != nil || !s.NextExecutionAt.Equal(test.next) || !s.LastExecutedAt.Equal(test.last) || !s.PostponedUntil.Equal(test.postponed) {
				t.Errorf("at 16:10 %+v, %v", s, err)
			}
			o.pass(time.Hour)
			s, err = c.GetSchedule(t.Context(), hourly.UID)
			if err != nil || !s.NextExecutionAt.Equal(test.later) || !s.LastExecutedAt.Equal(test.lastThen) || !s.PostponedUntil.IsZero() {
				t.Errorf("at 17:10 %+v, %v", s, err)
			}
			if got := o.Schedules()[0]; len(got.Missed) != test.missed {
				t.Errorf("missed %v", got.Missed)
			}
		})
	}
}

// deliveries puts n ended runs in and has their results delivered.
func (o *office) deliveries(n int) {
	o.t.Helper()
	o.fill(n)
	for i := range n {
		if _, err := o.Deliver(uid(i)); err != nil {
			o.t.Fatal(err)
		}
	}
}

// everyCallback reads the list to its end, 20 at a time.
func (o *office) everyCallback(query edges.CallbacksQuery) []edges.Callback {
	o.t.Helper()
	c := o.client()
	var all []edges.Callback
	for query.Limit = 20; ; query.Offset += 20 {
		page, err := c.ListCallbacks(o.t.Context(), query)
		if err != nil {
			o.t.Fatal(err)
		}
		all = append(all, page.Callbacks...)
		if len(page.Callbacks) < 20 {
			return all
		}
	}
}

func TestCallbackLife(t *testing.T) {
	o := open(t, still())
	o.trouble("callbacks-failing:share=0.07:code=502")
	o.deliveries(1000)
	if got := o.everyCallback(edges.CallbacksQuery{Status: []edges.CallbackStatus{edges.CallbackPending}}); len(got) != 1000 {
		t.Fatalf("%d pending", len(got))
	}
	var running bool
	for range 40 {
		o.pass(100 * time.Millisecond)
		running = running || len(o.everyCallback(edges.CallbacksQuery{Status: []edges.CallbackStatus{edges.CallbackRunning}})) > 0
	}
	if !running {
		t.Error("none was seen RUNNING")
	}
	o.pass(15 * time.Minute)

	truth := o.Truth().Callbacks
	got := o.everyCallback(edges.CallbacksQuery{})
	if len(got) != 1000 || len(truth) != 1000 {
		t.Fatalf("%d callbacks, %d in truth", len(got), len(truth))
	}
	count := map[string]int{}
	for i, c := range got {
		want := truth[len(truth)-1-i]
		if c.Defect != "" || c.UID != want.UID || c.RunUID != want.RunUID || c.Status != want.Status || c.RetryCount != want.RetryCount || c.HTTPStatus != want.HTTPStatus ||
			!c.CreatedAt.Equal(want.CreatedAt) || c.Target != "https://hooks.example.com" || c.BatchUID == "" || c.WorkspaceUID != o.UID() {
			t.Fatalf("%+v, want %+v", c, want)
		}
		if !c.Status.Ended() || want.EndedAt.IsZero() {
			t.Errorf("not over: %+v", want)
		}
		if c.Status == edges.CallbackFailed && c.RetryCount != 3 {
			t.Errorf("given up after %d retries", c.RetryCount)
		}
		count[fmt.Sprint(c.Status, c.HTTPStatus)]++
	}
	if n := count["FAILED502"]; n < 50 || n > 90 {
		t.Errorf("7 %% of 1,000 should have failed: %v", count)
	}
	if failed := o.everyCallback(edges.CallbacksQuery{Status: []edges.CallbackStatus{edges.CallbackFailed}}); len(failed) != 1000-count["SUCCESS200"] {
		t.Errorf("%d failed, of %v", len(failed), count)
	}
}

func TestCallbackTroubles(t *testing.T) {
	o := open(t, still())
	o.trouble("callbacks-stalled:for=1h")
	o.deliveries(5)
	o.pass(59 * time.Minute)
	for _, c := range o.Callbacks() {
		if c.Status != edges.CallbackPending {
			t.Errorf("stalled, but %+v", c)
		}
	}
	o.pass(30 * time.Minute)
	for _, c := range o.Callbacks() {
		if c.Status != edges.CallbackSuccess || c.EndedAt.Sub(c.CreatedAt) < time.Hour {
			t.Errorf("not stalled any more, but %+v", c)
		}
	}
	o.trouble("callbacks-failing:drop=true")
	replay, err := o.ReplayCallback(o.Callbacks()[0].UID)
	if err != nil {
		t.Fatal(err)
	}
	o.pass(15 * time.Minute)
	c := o.everyCallback(edges.CallbacksQuery{RunUID: []string{uid(0)}, Sort: []string{"created_at"}})
	if len(c) != 2 || c[1].UID != replay || c[1].ParentUID != c[0].UID || c[1].Status != edges.CallbackFailed || c[1].HTTPStatus != 0 {
		t.Errorf("%+v", c)
	}
	if _, err := o.ReplayCallback(uid(9)); !errors.Is(err, simulator.ErrNoCallback) {
		t.Errorf("error %v", err)
	}
	if _, err := o.Deliver(uid(9)); !errors.Is(err, simulator.ErrNoRun) {
		t.Errorf("error %v", err)
	}
}

func TestCallbackBounds(t *testing.T) {
	o := open(t, still())
	o.deliveries(25)
	if rows := decode[[]json.RawMessage](t, o.must(200, "GET", "/v1/runs/callbacks").body); len(rows) != 10 {
		t.Errorf("%d rows by default", len(rows))
	}
	for _, good := range []string{"limit=20", "offset=1000", "sort=-retry_count&sort=uid", "sort=http_status", "sort=run_uid", "sort=status", "sort=-created_at&status=SUCCESS&status=FAILED"} {
		o.must(200, "GET", "/v1/runs/callbacks?"+good)
	}
	for _, bad := range []string{"limit=21", "limit=0", "offset=-1", "status=DONE", "run_uid=x", "sort=callback_url"} {
		o.must(422, "GET", "/v1/runs/callbacks?"+bad)
	}
	if a, err := o.do(http.MethodPost, "/v1/runs/callbacks", nil); err != nil || a.code != http.StatusMethodNotAllowed || a.header.Get("Allow") != "GET" {
		t.Errorf("%d %v, %v", a.code, a.header, err)
	}
	by := o.everyCallback(edges.CallbacksQuery{Sort: []string{"-run_uid"}})
	for i, c := range by {
		if c.RunUID != uid(24-i) {
			t.Errorf("callback %d is of %s", i, c.RunUID)
		}
	}
	o.pass(91 * 24 * time.Hour)
	if left := o.Callbacks(); len(left) != 0 {
		t.Errorf("%d past retention", len(left))
	}
}

// The runs of ordinary life have their results delivered: those that ended by
// themselves, and were not live.
func TestCallbacksOfLife(t *testing.T) {
	o := open(t, simulator.Config{History: 24 * time.Hour, WarmUp: simulator.None, HistoryRunsPerDay: 3000, RunsPerDay: 20_000, NoRhythm: true, KeepTruth: true})
	o.pass(3 * time.Hour)
	truth := o.Truth()
	want := map[string]int{}
	for _, e := range truth.Entries {
		if e.Mode != edges.ModeLive && (e.Status == edges.StatusSucceeded || e.Status == edges.StatusPartialSucceeded || e.Status == edges.StatusFailed) {
			want[e.UID]++
		}
	}
	got, replays := map[string]int{}, 0
	for _, c := range truth.Callbacks {
		if c.ParentUID != "" {
			replays++
			continue
		}
		got[c.RunUID]++
		if c.CreatedAt.Before(truth.StartedAt) && !c.Status.Ended() {
			t.Errorf("of the past, but %+v", c)
		}
	}
	if len(want) < 1000 || len(got) != len(want) {
		t.Errorf("%d runs with callbacks, want %d", len(got), len(want))
	}
	for uid, n := range want {
		if got[uid] != n {
			t.Errorf("run %s ended %d times and has %d callbacks", uid, n, got[uid])
		}
	}
}

func TestCredits(t *testing.T) {
	config := simulator.Config{History: simulator.None, NoRhythm: true, RunsPerDay: 20_000, Credits: 1e6}
	o := open(t, config)
	o.pass(3 * time.Hour)
	got, err := o.client().GetConsumption(t.Context())
	truth := o.Consumption()
	if err != nil || got.Defect != "" || math.Abs(got.CreditsUsed-truth.CreditsUsed) > 0.001 || got.CreditsMax != 1e6 || math.Abs(got.CreditsLeft+got.CreditsUsed-1e6) > 0.01 || got.CreditsUsed == 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if !got.PeriodStart.Equal(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)) || !got.PeriodEnd.Equal(time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("from %s to %s", got.PeriodStart, got.PeriodEnd)
	}
	sum := 0.0
	for _, a := range got.Actions {
		sum += a.Used
	}
	if math.Abs(sum-got.CreditsUsed) > 0.01 || len(got.Actions) < 8 {
		t.Errorf("%d actions used %f of %f", len(got.Actions), sum, got.CreditsUsed)
	}

	drained := open(t, config)
	drained.trouble("credit-drain:factor=3")
	drained.pass(3 * time.Hour)
	if three := drained.Consumption().CreditsUsed; math.Abs(three-3*truth.CreditsUsed) > 0.01 {
		t.Errorf("%f drained, without trouble %f", three, truth.CreditsUsed)
	}
}

func TestCreditsOfARun(t *testing.T) {
	config := still()
	config.Credits = 10
	o := open(t, config)
	o.Put(simulator.Run{UID: uid(1), Action: "email-find", Mode: edges.ModeAsync, Status: edges.StatusRunning, OutputCount: 1})
	used := func() float64 { return o.Consumption().CreditsUsed }
	if used() != 3 {
		t.Errorf("one email costs %v", used())
	}
	for _, outputs := range []int64{2, 2, 1} { // what is taken back is not given back
		if err := o.Change(uid(1), func(r *simulator.Run) { r.OutputCount = outputs }); err != nil {
			t.Fatal(err)
		}
	}
	if used() != 6 {
		t.Errorf("two emails cost %v", used())
	}
	if err := o.UseCredits("company-enrich", 14.5); err != nil {
		t.Fatal(err)
	}
	if c := o.Consumption(); c.CreditsUsed != 20.5 || c.CreditsLeft != 0 {
		t.Errorf("%+v", c)
	}
	if err := o.UseCredits("nothing", 1); err == nil {
		t.Error("an action that is not there used credits")
	}
	if _, err := o.writer().Launch(t.Context(), "email-find", edges.LaunchAsync, strings.NewReader(`{"inputs":[{}]}`)); !errors.Is(err, edges.ErrNoAccess) || errors.Is(err, edges.ErrOutcomeUnknown) {
		t.Errorf("launched without credits: %v", err)
	}
	o.pass(14 * 24 * time.Hour) // into April
	if c := o.Consumption(); c.CreditsUsed != 0 || c.CreditsLeft != 10 || len(c.Actions) != 0 || !c.PeriodStart.Equal(time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("in a new month %+v", c)
	}
	if _, err := simulator.New(simulator.Config{Credits: -1}); err == nil {
		t.Error("fewer credits than none")
	}
}

// Without a setting, the credits last for the month.
func TestCreditsLast(t *testing.T) {
	o := open(t, simulator.Config{History: simulator.None, RunsPerDay: 3000})
	o.pass(48 * time.Hour)
	c := o.Consumption()
	if share := c.CreditsUsed / c.CreditsMax * 31 / 2; share < 0.3 || share > 0.95 {
		t.Errorf("at this pace %.0f %% of the credits are used in a month", 100*share)
	}
}

func TestWorkspaces(t *testing.T) {
	config := still()
	config.Plan = "Gold"
	o := open(t, config)
	got, err := o.client().ListWorkspaces(t.Context())
	if err != nil || len(got) != 1 || got[0].UID != o.UID() || got[0].PlanName != "gold" || got[0].Name == "" || got[0].CreditsLeft != 100_000 || got[0].Defect != "" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestOutputs(t *testing.T) {
	o := open(t, still())
	o.Put(simulator.Run{UID: uid(1), Action: "linkedin-search-people", Mode: edges.ModeAsync, Status: edges.StatusSucceeded, OutputCount: 1203})
	o.Put(simulator.Run{UID: uid(2), Action: "email-find", Mode: edges.ModeAsync, Status: edges.StatusRunning})
	c := o.client()
	var sizes []int
	positions := map[string]bool{}
	for cursor := ""; ; {
		page, err := c.ListOutputs(t.Context(), uid(1), cursor)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(page.Outputs))
		for _, output := range page.Outputs {
			positions[string(output)] = true
		}
		if cursor = page.Next; cursor == "" {
			break
		}
		if !strings.HasPrefix(cursor, o.http.URL+"/v1/runs/"+uid(1)+"/outputs?cursor=") {
			t.Fatalf("next is %s", cursor)
		}
	}
	if !slices.Equal(sizes, []int{500, 500, 203}) || len(positions) != 1203 {
		t.Errorf("pages of %v, %d different outputs", sizes, len(positions))
	}
	if page, err := c.ListOutputs(t.Context(), uid(2), ""); err != nil || len(page.Outputs) != 0 || page.Next != "" {
		t.Errorf("%+v, %v", page, err)
	}
	if _, err := c.ListOutputs(t.Context(), uid(3), ""); !errors.Is(err, edges.ErrNotFound) {
		t.Errorf("error %v", err)
	}
	for _, bad := range []string{"limit=501", "limit=0", "cursor=x", "cursor=LTU"} {
		o.must(422, "GET", "/v1/runs/"+uid(1)+"/outputs?"+bad)
	}
	if rows := decode[[]json.RawMessage](t, o.must(200, "GET", "/v1/runs/"+uid(1)+"/outputs").body); len(rows) != 10 {
		t.Errorf("%d rows by default", len(rows))
	}
}

func TestFlowRunID(t *testing.T) {
	o := open(t, still())
	o.Put(simulator.Run{UID: uid(1), Action: "email-find", Mode: edges.ModeAsync, Status: edges.StatusBlocked, FlowRunID: 41})
	o.Put(simulator.Run{UID: uid(2), Action: "email-find", Mode: edges.ModeAsync, Status: edges.StatusBlocked})
	c := o.client()
	page, err := c.ListRunsRaw(t.Context(), edges.RunsQuery{FlowRunID: []int64{41}})
	if err != nil || len(page.Rows) != 1 || page.Rows[0].UID != uid(1) || page.Rows[0].FlowRunID != 41 || !strings.Contains(string(page.JSON[0]), `"flow_run_id":41`) {
		t.Errorf("%+v, %v", page, err)
	}
	if r, err := c.GetRun(t.Context(), uid(2)); err != nil || r.FlowRunID != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	w := o.writer()
	var refused *edges.APIError
	if _, err := w.Resume(t.Context(), uid(1)); !errors.As(err, &refused) || refused.StatusCode != 422 || errors.Is(err, edges.ErrOutcomeUnknown) {
		t.Errorf("a run of a flow was resumed: %v", err)
	}
	if r, err := w.Resume(t.Context(), uid(2)); err != nil || r.UID != uid(2) || r.Status != edges.StatusScheduled {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := w.Cancel(t.Context(), uid(2)); err != nil || r.UID != uid(2) || r.Status != edges.StatusStopped {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := w.Cancel(t.Context(), uid(2)); !errors.As(err, &refused) || refused.StatusCode != 422 {
		t.Errorf("stopped twice: %v", err)
	}
}

func TestLaunchLive(t *testing.T) {
	o := open(t, still())
	w := o.writer()
	seen := map[string]bool{}
	for range 60 {
		one, err := w.Launch(t.Context(), "email-find", edges.LaunchLive, strings.NewReader(`{"input":{"full_name":"Ada Abadi"}}`))
		var refused *edges.APIError
		switch {
		case errors.As(err, &refused) && refused.StatusCode == http.StatusFailedDependency && refused.Label != "":
			seen["failed"] = true
		case err != nil:
			t.Fatal(err)
		case one.RunUID != "" || !strings.HasPrefix(string(one.Body), `{"position":0,`):
			t.Fatalf("%+v %s", one, one.Body)
		default:
			seen["one"] = true
		}
	}
	many, err := w.Launch(t.Context(), "linkedin-search-people", edges.LaunchLive, strings.NewReader(`{"input":{"search_url":"https://example.com"},"parameters":{"max_results":25}}`))
	if err != nil || !strings.HasPrefix(string(many.Body), `[{"position":0,`) {
		t.Errorf("%s, %v", many.Body, err)
	}
	for _, r := range o.Truth().Runs {
		if r.Mode != edges.ModeLive || r.Status == edges.StatusRunning || !r.CreatedAt.Before(o.Now()) || !r.UpdatedAt.Equal(o.Now()) || !r.StartedAt.Equal(r.CreatedAt) {
			t.Errorf("%+v", r)
		}
	}
	o.pass(time.Hour)
	for _, r := range o.Truth().Runs {
		if r.Status == edges.StatusRunning {
			t.Errorf("came back to life: %+v", r)
		}
	}
	if !seen["one"] || !seen["failed"] || len(o.Callbacks()) != 0 {
		t.Errorf("%v, %d callbacks", seen, len(o.Callbacks()))
	}
	o.trouble("invalid:email-find:error=BAD_INPUT")
	if code, label := o.refusal("/v1/actions/email-find/run/live", `{"input":{}}`); code != 422 || label != "BAD_INPUT" {
		t.Errorf("%d %s", code, label)
	}
}

func TestLaunchAsync(t *testing.T) {
	o := open(t, still())
	launched, err := o.writer().Launch(t.Context(), "email-find", edges.LaunchAsync,
		strings.NewReader(`{"inputs":[{"n":1},{"n":2},{"n":3}],"parameters":{"p":"q"},"callback":{"url":"https://example.org/hook","headers":{"Authorization":"Bearer x"}}}`))
	if err != nil || launched.RunUID == "" || launched.Status != edges.StatusCreated {
		t.Fatalf("%+v, %v", launched, err)
	}
	c := o.client()
	r, text, err := c.GetRunRaw(t.Context(), launched.RunUID)
	if err != nil || r.Status != edges.StatusCreated || r.ActionName != "email-find" || r.ExecutionMode != edges.ModeAsync ||
		!strings.Contains(string(text), `"parameters":{"input":{"n":1},"parameters":{"p":"q"}}`) || !strings.Contains(string(text), `"url":"https://example.org/hook"`) {
		t.Errorf("%+v %s, %v", r, text, err)
	}
	for range 100 {
		if o.pass(time.Minute); !r.Status.InFlight() {
			break
		}
		if r, err = c.GetRunStatus(t.Context(), launched.RunUID); err != nil {
			t.Fatal(err)
		}
	}
	o.pass(time.Hour)
	callbacks := o.everyCallback(edges.CallbacksQuery{RunUID: []string{launched.RunUID}})
	if r.Status != edges.StatusSucceeded || len(callbacks) != 1 || callbacks[0].Target != "https://example.org" {
		t.Errorf("%s, %+v", r.Status, callbacks)
	}
	if r, err := c.GetRun(t.Context(), launched.RunUID); err != nil || r.OutputCount != 3 {
		t.Errorf("%+v, %v", r, err)
	}

	silent, err := o.writer().Launch(t.Context(), "email-find", edges.LaunchAsync, strings.NewReader(`{"inputs":[{}]}`))
	if err != nil {
		t.Fatal(err)
	}
	o.pass(time.Hour)
	if callbacks := o.everyCallback(edges.CallbacksQuery{RunUID: []string{silent.RunUID}}); len(callbacks) != 0 {
		t.Errorf("nobody asked for %+v", callbacks)
	}
}

// stream writes a launch on n inputs without ever holding it whole.
func stream(n int) io.Reader {
	reader, writer := io.Pipe()
	go func() {
		buffered := bufio.NewWriterSize(writer, 64<<10) // an error stays with it
		fmt.Fprint(buffered, `{"inputs":[{}`)
		for range n - 1 {
			fmt.Fprint(buffered, `,{}`)
		}
		fmt.Fprint(buffered, `]}`)
		writer.CloseWithError(buffered.Flush())
	}()
	return reader
}

func TestLaunchManyInputs(t *testing.T) {
	o := open(t, still())
	w := o.writer()
	if launched, err := w.Launch(t.Context(), "email-find", edges.LaunchAsync, stream(100_000)); err != nil || launched.RunUID == "" {
		t.Errorf("100,000 inputs: %+v, %v", launched, err)
	}
	var refused *edges.APIError
	if _, err := w.Launch(t.Context(), "email-find", edges.LaunchAsync, stream(100_001)); !errors.As(err, &refused) || refused.StatusCode != 422 {
		t.Errorf("100,001 inputs: %v", err)
	}
	if n := o.State().Runs; n != 1 {
		t.Errorf("%d runs", n)
	}
}

func TestLaunchSchedule(t *testing.T) {
	o := open(t, still())
	c, w := o.client(), o.writer()
	launch := func(body string) edges.Schedule {
		t.Helper()
		launched, err := w.Launch(t.Context(), "email-find", edges.LaunchSchedule, strings.NewReader(body))
		if err != nil || launched.Status != edges.StatusScheduled {
			t.Fatalf("%+v, %v", launched, err)
		}
		s, err := c.GetSchedule(t.Context(), launched.RunUID)
		if err != nil || s.Status != edges.ScheduleActive || s.ActionName != "email-find" {
			t.Fatalf("%+v, %v", s, err)
		}
		return s
	}
	daily := launch(`{"inputs":[{"n":1},{"n":2}],"cron":"30 9 * * *","timezone":"America/New_York","name":"mornings"}`)
	// New York is four hours behind in March's second half: 09:30 is 13:30.
	if !daily.NextExecutionAt.Equal(time.Date(2026, 3, 19, 13, 30, 0, 0, time.UTC)) || daily.Timezone != "America/New_York" || daily.Cron != "30 9 * * *" || daily.Name != "mornings" {
		t.Errorf("%+v", daily)
	}
	once := launch(`{"inputs":[{}],"schedule_at":"2026-03-18T18:00:00","timezone":"Europe/Paris"}`)
	if !once.NextExecutionAt.Equal(time.Date(2026, 3, 18, 17, 0, 0, 0, time.UTC)) || once.Cron != "" {
		t.Errorf("%+v", once)
	}
	launch(`{"inputs":[{}],"schedule_at":"2026-03-19T18:00:00.5+01:00"}`)

	o.pass(48 * time.Hour)
	runs := map[string]int{}
	for _, r := range o.Truth().Runs {
		runs[r.ScheduledRunUID]++
	}
	daily, err := c.GetSchedule(t.Context(), daily.UID)
	if err != nil || runs[daily.UID] != 2 || !daily.LastExecutedAt.Equal(time.Date(2026, 3, 20, 13, 30, 0, 0, time.UTC)) {
		t.Errorf("%d runs of %+v, %v", runs[daily.UID], daily, err)
	}
	once, err = c.GetSchedule(t.Context(), once.UID)
	if err != nil || runs[once.UID] != 1 || once.Status != edges.ScheduleCompleted || !once.NextExecutionAt.IsZero() {
		t.Errorf("%d runs of %+v, %v", runs[once.UID], once, err)
	}
}

func TestLaunchRefused(t *testing.T) {
	o := open(t, still())
	const hook = `"callback":{"url":"https://example.org"}`
	tests := []struct {
		mode, body string
		code       int
		label      string
	}{
		{"live", `{"inputs":[{}]}`, 422, "BAD_PARAMETERS"},
		{"live", `{}`, 422, "BAD_PARAMETERS"},
		{"live", `{"input":"text"}`, 422, "BAD_PARAMETERS"},
		{"async", `{}`, 422, "MISSING_PARAMETER"},
		{"async", `{"inputs":[]}`, 422, "MISSING_PARAMETER"},
		{"async", `{"inputs":[1]}`, 422, "BAD_PARAMETERS"},
		{"async", `{"inputs":{}}`, 422, "BAD_PARAMETERS"},
		{"async", `{"input":{}}`, 422, "BAD_PARAMETERS"},
		{"async", `{"inputs":[{}],"cron":"* * * * *"}`, 422, "BAD_PARAMETERS"},
		{"async", `{"inputs":[{}],"parameters":[]}`, 422, "BAD_PARAMETERS"},
		{"async", `{"inputs":[{}],"callback":"https://example.org"}`, 422, "BAD_PARAMETERS"},
		{"async", `{"inputs":[{}],"callback":{"url":"example.org"}}`, 422, "BAD_PARAMETERS"},
		{"async", `{"inputs":[{}`, 400, "BAD_INPUT"},
		{"async", ``, 400, "BAD_INPUT"},
		{"schedule", `{"inputs":[{}],` + hook + `}`, 422, "BAD_PARAMETERS"},
		{"schedule", `{"inputs":[{}],"cron":"* * * * *","schedule_at":"2026-04-01T00:00:00Z"}`, 422, "BAD_PARAMETERS"},
		{"schedule", `{"inputs":[{}],"cron":"* * * *"}`, 422, "BAD_PARAMETERS"},
		{"schedule", `{"inputs":[{}],"cron":"CRON_TZ=UTC * * * * *"}`, 422, "BAD_PARAMETERS"},
		{"schedule", `{"inputs":[{}],"cron":"61 * * * *"}`, 422, "BAD_PARAMETERS"},
		{"schedule", `{"inputs":[{}],"cron":"* * * * *","timezone":"Mars/Base"}`, 422, "BAD_PARAMETERS"},
		{"schedule", `{"inputs":[{}],"schedule_at":"tomorrow"}`, 422, "BAD_PARAMETERS"},
		{"schedule", `{"inputs":[{}],"schedule_at":"2020-01-01T00:00:00Z"}`, 422, "BAD_PARAMETERS"},
		{"schedule", `{"cron":"* * * * *"}`, 422, "MISSING_PARAMETER"},
		{"later", `{"inputs":[{}]}`, 404, "STATUS_404"},
	}
	before := len(o.Schedules())
	for _, test := range tests {
		if code, label := o.refusal("/v1/actions/email-find/run/"+test.mode, test.body); code != test.code || label != test.label {
			t.Errorf("%s %s: %d %s, want %d %s", test.mode, test.body, code, label, test.code, test.label)
		}
	}
	if code, _ := o.refusal("/v1/actions/nothing/run/async", `{"inputs":[{}]}`); code != 404 {
		t.Errorf("an action that is not there: %d", code)
	}
	if o.State().Runs != 0 || len(o.Schedules()) != before {
		t.Error("a refused launch has left something")
	}
}

// All routes use up one limit, and none is open without the key.
func TestRestIsLimited(t *testing.T) {
	config := still()
	config.Plan = "trial"
	o := open(t, config)
	o.Put(simulator.Run{UID: uid(1), Action: "email-find", Mode: edges.ModeAsync, Status: edges.StatusSucceeded})
	groups := map[string]string{
		"GET /v1/runs/callbacks":                   "runs",
		"GET /v1/runs/" + uid(1) + "/outputs":      "runs",
		"POST /v1/actions/email-find/run/live":     "runs",
		"POST /v1/actions/email-find/run/async":    "runs",
		"POST /v1/actions/a/run/schedule":          "runs",
		"GET /v1/schedules":                        "schedules",
		"GET /v1/schedules/" + uid(1):              "schedules",
		"GET /v1/workspaces":                       "workspaces",
		"GET /v1/workspaces/consumption":           "workspaces",
		"POST /v1/runs/" + uid(1) + "/resume":      "runs",
		"POST /v1/runs/" + uid(1) + "/cancel":      "runs",
		"GET /v1/runs/" + uid(1) + "/status":       "runs",
		"GET /v1/runs?flow_run_id=1&uid=" + uid(1): "runs",
	}
	for route := range groups {
		method, path, _ := strings.Cut(route, " ")
		a, err := o.do(method, path, nil, "X-Api-Key", "wrong")
		if err != nil || a.code != http.StatusUnauthorized {
			t.Errorf("%s: %d, %v", route, a.code, err)
		}
	}
	for range 30 {
		o.must(200, "GET", "/v1/workspaces")
	}
	for route, group := range groups {
		method, path, _ := strings.Cut(route, " ")
		a, err := o.do(method, path, nil)
		if err != nil || a.code != http.StatusTooManyRequests || a.header.Get("X-RateLimit-Type") != group {
			t.Errorf("%s: %d %q, %v", route, a.code, a.header.Get("X-RateLimit-Type"), err)
		}
	}
}

// The rest of the truth comes over the wire as it is.
func TestTruthOfTheRest(t *testing.T) {
	o := open(t, still())
	o.trouble("miss-schedule:for=2h")
	o.deliveries(3)
	o.pass(3 * time.Hour)
	got, want := decode[simulator.Truth](t, o.must(200, "GET", "/simulator/truth").body), o.Truth()
	if !slices.Equal(got.Callbacks, want.Callbacks) || len(got.Callbacks) != 3 || fmt.Sprint(got.Schedules) != fmt.Sprint(want.Schedules) || len(got.Schedules[0].Missed) != 2 {
		t.Errorf("%+v\n%+v", got.Schedules, want.Schedules)
	}
	uids := decode[map[string][]string](t, o.must(200, "POST", "/simulator/replay?count=2").body)["uids"]
	again := decode[map[string][]string](t, o.must(200, "POST", "/simulator/replay?uid="+uids[0]).body)["uids"]
	if all := o.Callbacks(); len(uids) != 2 || len(again) != 1 || len(all) != 6 || all[5].UID != again[0] || all[5].ParentUID != uids[0] {
		t.Errorf("%v, %v", uids, again)
	}
	o.must(400, "POST", "/simulator/replay?uid=x")
	o.must(400, "POST", "/simulator/replay?count=0")
}
