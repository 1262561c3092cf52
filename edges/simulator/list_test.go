package simulator_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
	"github.com/edges-exporter/edges_exporter/edges/simulator"
)

func TestListFilters(t *testing.T) {
	o := open(t, still())
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	o.PutAll([]simulator.Run{
		{UID: uid(1), Action: "email-find", Mode: "LIVE", Status: edges.StatusSucceeded, UserUID: uid(91), CreatedAt: at(1)},
		{UID: uid(2), Action: "email-find", Mode: "ASYNC", Status: edges.StatusFailed, UserUID: uid(92), CreatedAt: at(2)},
		{UID: uid(3), Action: "company-enrich", Mode: "ASYNC", Status: edges.StatusBlocked, FlowRunID: 5, CreatedAt: at(3)},
		{UID: uid(4), Action: "own-action", Mode: "", Status: "", FlowRunID: 6, CreatedAt: at(4)},
	})
	for name, c := range map[string]struct {
		query []string
		want  []int
	}{
		"none":                  {nil, []int{1, 2, 3, 4}},
		"status":                {[]string{"status", "FAILED"}, []int{2}},
		"statuses":              {[]string{"status", "FAILED", "status", "BLOCKED"}, []int{2, 3}},
		"action":                {[]string{"action_name", "email-find"}, []int{1, 2}},
		"actions":               {[]string{"action_name", "own-action", "action_name", "company-enrich"}, []int{3, 4}},
		"unknown action":        {[]string{"action_name", "nothing"}, nil},
		"mode":                  {[]string{"execution_mode", "ASYNC"}, []int{2, 3}},
		"modes":                 {[]string{"execution_mode", "ASYNC", "execution_mode", "LIVE"}, []int{1, 2, 3}},
		"uid":                   {[]string{"uid", uid(3)}, []int{3}},
		"uids, one unknown":     {[]string{"uid", uid(3), "uid", uid(77), "uid", uid(1), "uid", uid(1)}, []int{1, 3}},
		"user":                  {[]string{"user_uid", uid(92), "user_uid", uid(1)}, []int{2}},
		"flow":                  {[]string{"flow_run_id", "5"}, []int{3}},
		"flows":                 {[]string{"flow_run_id", "5", "flow_run_id", "6"}, []int{3, 4}},
		"another workspace":     {[]string{"workspace_uid", uid(55)}, []int{1, 2, 3, 4}},
		"all must hold":         {[]string{"action_name", "email-find", "execution_mode", "ASYNC"}, []int{2}},
		"uid and status":        {[]string{"uid", uid(1), "uid", uid(2), "status", "FAILED"}, []int{2}},
		"with a page":           {[]string{"action_name", "email-find", "limit", "1", "offset", "1"}, []int{2}},
		"beyond the end":        {[]string{"offset", "4"}, nil},
		"far beyond the end":    {[]string{"offset", "9007199254740992"}, nil},
		"an unknown parameter":  {[]string{"colour", "red"}, []int{1, 2, 3, 4}},
		"the largest page":      {[]string{"limit", "100"}, []int{1, 2, 3, 4}},
		"filter without a rank": {[]string{"action_name", "email-find", "sort", "id"}, []int{1, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			o.t = t
			var want []string
			for _, n := range c.want {
				want = append(want, uid(n))
			}
			args := c.query
			if !slices.Contains(args, "sort") {
				args = append([]string{"sort", "created_at"}, args...)
			}
			if got := o.uids(args...); !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestListRefuses(t *testing.T) {
	o := open(t, still())
	sorts := strings.Repeat("sort=created_at&", 10)
	for name, c := range map[string]struct {
		query string
		code  int
	}{
		"limit 0":           {"limit=0", 422},
		"limit 101":         {"limit=101", 422},
		"limit of words":    {"limit=many", 400},
		"negative offset":   {"offset=-1", 422},
		"offset of words":   {"offset=1.5", 400},
		"unknown status":    {"status=DONE", 422},
		"unknown mode":      {"execution_mode=SCHEDULE", 422},
		"uid that is none":  {"uid=42", 422},
		"user that is none": {"user_uid=x", 422},
		"flow of words":     {"flow_run_id=a", 422},
		"unknown sort":      {"sort=-colour", 422},
		"eleven sorts":      {sorts + "sort=id", 422},
		"a very long sort":  {"sort=" + strings.Repeat("a", 129), 422},
		"ten sorts":         {strings.TrimSuffix(sorts, "&"), 200},
	} {
		t.Run(name, func(t *testing.T) {
			o.t = t
			a := o.must(c.code, http.MethodGet, "/v1/runs?"+c.query)
			if c.code != http.StatusOK {
				checkProblem(t, a)
			}
		})
	}
}

// checkProblem looks whether an answer has the API's error format.
func checkProblem(t *testing.T, a reply) {
	t.Helper()
	var p map[string]json.RawMessage
	if err := json.Unmarshal(a.body, &p); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	for _, field := range []string{"error_label", "error_scope", "error_ref", "message", "status_code", "params"} {
		if len(p[field]) == 0 || string(p[field]) == `""` || string(p[field]) == "null" {
			t.Errorf("no %s in %s", field, a.body)
		}
	}
	if got := decode[struct {
		Code int `json:"status_code"`
	}](t, a.body); got.Code != a.code {
		t.Errorf("status_code %d in an answer with %d", got.Code, a.code)
	}
}

func TestListSorts(t *testing.T) {
	config := still()
	config.History, config.HistoryRunsPerDay = 5*24*time.Hour, 100
	config.WarmUp, config.NullUpdatedAt, config.Ties = simulator.None, 0.5, 0.3
	o := open(t, config)
	truth := o.Truth()
	if len(truth.Runs) < 300 {
		t.Fatalf("only %d runs to sort", len(truth.Runs))
	}
	type key func(a, b *simulator.Run) int
	updated := func(r *simulator.Run) time.Time {
		if r.UpdatedAt.IsZero() {
			return r.CreatedAt
		}
		return r.UpdatedAt
	}
	byUpdated := func(a, b *simulator.Run) int { return updated(a).Compare(updated(b)) }
	byCreated := func(a, b *simulator.Run) int { return a.CreatedAt.Compare(b.CreatedAt) }
	byStarted := func(a, b *simulator.Run) int { return a.StartedAt.Compare(b.StartedAt) }
	byStatus := func(a, b *simulator.Run) int { return strings.Compare(string(a.Status), string(b.Status)) }
	byAction := func(a, b *simulator.Run) int { return strings.Compare(a.Action, b.Action) }
	byOutputs := func(a, b *simulator.Run) int { return int(a.OutputCount - b.OutputCount) }
	byID := func(a, b *simulator.Run) int { return int(a.ID - b.ID) }
	down := func(k key) key { return func(a, b *simulator.Run) int { return -k(a, b) } }
	for name, c := range map[string]struct {
		sorts []string
		keys  []key
	}{
		"default":           {nil, []key{down(byCreated)}},
		"updated":           {[]string{"updated_at"}, []key{byUpdated}},
		"updated, down":     {[]string{"-updated_at"}, []key{down(byUpdated)}},
		"the poll's":        {[]string{"-updated_at", "-created_at"}, []key{down(byUpdated), down(byCreated)}},
		"both up":           {[]string{"updated_at", "created_at"}, []key{byUpdated, byCreated}},
		"one up, one down":  {[]string{"-updated_at", "created_at"}, []key{down(byUpdated), byCreated}},
		"created":           {[]string{"created_at"}, []key{byCreated}},
		"created, down":     {[]string{"-created_at"}, []key{down(byCreated)}},
		"started":           {[]string{"-started_at"}, []key{down(byStarted)}},
		"status and id":     {[]string{"status", "-id"}, []key{byStatus, down(byID)}},
		"three of them":     {[]string{"action_name", "-output_count", "-created_at"}, []key{byAction, down(byOutputs), down(byCreated)}},
		"created, then id ": {[]string{"-created_at", "-id"}, []key{down(byCreated), down(byID)}},
	} {
		t.Run(name, func(t *testing.T) {
			o.t = t
			runs := make(map[string]*simulator.Run)
			for i := range truth.Runs {
				runs[truth.Runs[i].UID] = &truth.Runs[i]
			}
			seen := make(map[string]bool)
			var last *simulator.Run
			for offset := 0; ; offset += 100 {
				args := []string{"limit", "100", "offset", itoa(offset)}
				for _, s := range c.sorts {
					args = append(args, "sort", s)
				}
				page := o.uids(args...)
				for _, u := range page {
					r := runs[u]
					if r == nil || seen[u] {
						t.Fatalf("run %s is unknown or came twice", u)
					}
					seen[u] = true
					if last != nil {
						for _, k := range c.keys {
							d := k(last, r)
							if d > 0 {
								t.Fatalf("%s stands before %s", last.UID, r.UID)
							}
							if d < 0 {
								break
							}
						}
					}
					last = r
				}
				if len(page) < 100 {
					break
				}
			}
			if len(seen) != len(runs) {
				t.Errorf("%d rows for %d runs", len(seen), len(runs))
			}
		})
	}
}

func TestListDefaultsToTenRows(t *testing.T) {
	o := open(t, still())
	if a := o.must(200, "GET", "/v1/runs"); string(a.body) != "[]" {
		t.Errorf("an empty workspace answers %s", a.body)
	}
	o.fill(12)
	got := o.uids()
	if len(got) != 10 || got[0] != uid(11) {
		t.Errorf("got %v", got)
	}
}

// Pages move while they are read: that is what makes the list hard to follow.
func TestPagesMove(t *testing.T) {
	page := func(o *office, n int) []string {
		return o.uids("sort", "-updated_at", "sort", "-created_at", "limit", "10", "offset", itoa(n*10))
	}
	t.Run("an update repeats a row", func(t *testing.T) {
		o := open(t, still())
		o.fill(30)
		first := page(o, 0)
		if err := o.Change(uid(3), func(r *simulator.Run) { r.OutputCount = 5 }); err != nil {
			t.Fatal(err)
		}
		if second := page(o, 1); second[0] != first[9] {
			t.Errorf("second page begins with %s, not with the first one's last row %s", second[0], first[9])
		}
		if got := page(o, 0)[0]; got != uid(3) {
			t.Errorf("the updated run is not in front, but %s", got)
		}
	})
	t.Run("a removal skips a row", func(t *testing.T) {
		o := open(t, still())
		o.fill(30)
		page(o, 0)
		if n := o.Remove(uid(25), uid(99)); n != 1 {
			t.Errorf("%d runs removed", n)
		}
		if second := page(o, 1); second[0] != uid(18) {
			t.Errorf("second page begins with %s; %s should have slipped through", second[0], uid(18))
		}
		o.must(404, "GET", "/v1/runs/"+uid(25))
	})
	t.Run("a new run pushes", func(t *testing.T) {
		o := open(t, still())
		o.fill(30)
		first := page(o, 0)
		o.Put(simulator.Run{Action: "email-find", Status: edges.StatusCreated})
		if second := page(o, 1); second[0] != first[9] {
			t.Errorf("second page begins with %s", second[0])
		}
	})
}

func TestTiesInNoOrder(t *testing.T) {
	config := still()
	o := open(t, config)
	o.fill(30)
	if n := o.Touch(20); n != 20 {
		t.Fatalf("touched %d", n)
	}
	rows := o.list("sort", "-updated_at", "limit", "30")
	for _, r := range rows[:20] {
		if !r.UpdatedAt.Equal(start) {
			t.Fatalf("run %s was updated at %v", r.UID, r.UpdatedAt)
		}
	}
	args := []string{"sort", "-updated_at", "limit", "15"}
	fixed := o.uids(args...)
	if again := o.uids(args...); !slices.Equal(fixed, again) {
		t.Error("ties change their order without being told to")
	}

	if _, err := o.AddTrouble(simulator.Trouble{Kind: simulator.KindShuffle}); err != nil {
		t.Fatal(err)
	}
	different, crossed := false, false
	inFront, inBack := make(map[string]bool), make(map[string]bool)
	for range 20 {
		front := o.uids(args...)
		for _, u := range front {
			inFront[u] = true
		}
		different = different || !slices.Equal(front, fixed)
		back := o.uids(append(slices.Clone(args), "offset", "15")...)
		if !slices.Equal(back[5:], rowUIDs(rows[20:])) {
			t.Fatalf("rows without a tie have moved: %v", back)
		}
		for _, u := range back[:5] {
			inBack[u] = true
			crossed = crossed || slices.Contains(front, u)
		}
		both := slices.Concat(front, back[:5])
		sort.Strings(both)
		for _, u := range both {
			if !slices.Contains(rowUIDs(rows[:20]), u) {
				t.Fatalf("run %s came from outside of the ties", u)
			}
		}
	}
	if !different || !crossed {
		t.Errorf("order changed: %v, a run on both sides of a page's border: %v", different, crossed)
	}
	if len(inFront) != 20 || len(inBack) < 15 {
		t.Errorf("of the 20 ties only %d ever came to the front page, and %d to the back", len(inFront), len(inBack))
	}
	// created_at tells these runs apart: with it there is only one order.
	full := append(slices.Clone(args), "sort", "-created_at")
	if a, b := o.uids(full...), o.uids(full...); !slices.Equal(a, b) {
		t.Error("runs that are no ties are shuffled")
	}
}

func rowUIDs(rows []apiRun) []string {
	var all []string
	for _, r := range rows {
		all = append(all, r.UID)
	}
	return all
}

func TestLateCommit(t *testing.T) {
	config := still()
	config.LateCommitShare, config.LateCommitMax = 1, 10*time.Second
	o := open(t, config)
	u := o.Put(simulator.Run{Action: "email-find", Status: edges.StatusRunning, StartedAt: start})
	if got := o.uids(); len(got) != 0 {
		t.Fatal("a late run is there at once")
	}
	o.must(404, "GET", "/v1/runs/"+u)
	o.clock.Advance(10 * time.Second)
	if got := o.uids(); len(got) != 1 {
		t.Fatal("a late run does not come")
	}

	o.clock.Advance(time.Minute)
	changed := o.clock.Now()
	if err := o.Change(u, func(r *simulator.Run) { r.Status, r.FinishedAt = edges.StatusSucceeded, changed }); err != nil {
		t.Fatal(err)
	}
	if got := o.list("sort", "-updated_at")[0]; *got.Status != edges.StatusRunning {
		t.Errorf("the change shows at once: %s", *got.Status)
	}
	// One that came between is newer, and shows later.
	o.clock.Advance(time.Millisecond)
	o.Put(simulator.Run{UID: uid(9), Action: "email-find", Status: edges.StatusCreated})
	if err := o.Change(u, func(r *simulator.Run) { r.OutputCount = 3 }); err != nil {
		t.Fatal(err)
	}
	o.clock.Advance(20 * time.Second)
	rows := o.list("sort", "-updated_at")
	if len(rows) != 2 || *rows[0].Status != edges.StatusSucceeded && *rows[1].Status != edges.StatusSucceeded {
		t.Fatalf("got %+v", rows)
	}
	var entry simulator.Entry
	for e := range o.Entries(0) {
		if e.Status == edges.StatusSucceeded {
			entry = e
		}
	}
	if !entry.At.Equal(changed) || !entry.Visible.After(changed) || entry.Visible.After(changed.Add(10*time.Second)) {
		t.Errorf("entered at %v, visible at %v", entry.At, entry.Visible)
	}
	final, err := o.Get(u)
	if err != nil || final.OutputCount != 3 || final.Status != edges.StatusSucceeded {
		t.Errorf("%+v, %v", final, err)
	}
}

// Whatever is late, what shows in the end is the last change, and the times at
// which the changes of one run show are in their order.
func TestLateCommitsSettle(t *testing.T) {
	config := simulator.Config{History: simulator.None, RunsPerDay: 40_000, LateCommitShare: 0.5, LateCommitMax: 20 * time.Second, Ties: 0.2, KeepTruth: true}
	o := open(t, config)
	o.clock.Advance(time.Hour)
	visible := make(map[string]time.Time)
	for e := range o.Entries(0) {
		if e.Visible.Before(visible[e.UID]) {
			t.Fatalf("run %s shows %s before the status that it had before", e.UID, e.Status)
		}
		visible[e.UID] = e.Visible
	}
	if _, err := o.AddTrouble(simulator.Trouble{Kind: simulator.KindQuiet}); err != nil {
		t.Fatal(err)
	}
	o.clock.Advance(30 * 24 * time.Hour)
	shown := make(map[string]edges.Status)
	for offset := 0; ; offset += 100 {
		page := o.list("sort", "-updated_at", "limit", "100", "offset", itoa(offset))
		for _, r := range page {
			shown[r.UID] = *r.Status
		}
		if len(page) < 100 {
			break
		}
	}
	truth := o.Truth()
	if len(shown) != len(truth.Runs) || len(shown) < 1000 {
		t.Fatalf("%d rows for %d runs", len(shown), len(truth.Runs))
	}
	for _, r := range truth.Runs {
		if shown[r.UID] != r.Status {
			t.Errorf("run %s is %s and shows %s", r.UID, r.Status, shown[r.UID])
		}
	}
}

func TestNullUpdatedAt(t *testing.T) {
	for name, nullsFirst := range map[string]bool{"created_at stands in": false, "nulls first": true} {
		t.Run(name, func(t *testing.T) {
			config := still()
			config.NullsFirst = nullsFirst
			o := open(t, config)
			o.fill(3)
			o.Put(simulator.Run{UID: uid(50), Status: edges.StatusCreated, CreatedAt: start.Add(-1500 * time.Millisecond), NoUpdatedAt: true})
			rows := o.list("sort", "-updated_at")
			at := slices.IndexFunc(rows, func(r apiRun) bool { return r.UID == uid(50) })
			want := 1
			if nullsFirst {
				want = 0
			}
			if at != want || rows[at].UpdatedAt != nil || rows[at].CreatedAt == nil {
				t.Errorf("stands at %d, want %d: %+v", at, want, rows[at])
			}
		})
	}
	t.Run("of fresh runs", func(t *testing.T) {
		o := open(t, simulator.Config{History: simulator.None, RunsPerDay: 100_000, NullUpdatedAt: 0.5})
		nulls := 0
		for range 200 {
			o.clock.Advance(137 * time.Millisecond)
			for _, r := range o.list("status", "CREATED", "limit", "100") {
				if r.UpdatedAt == nil {
					nulls++
				}
			}
		}
		if nulls == 0 {
			t.Error("no fresh run without updated_at was met")
		}
	})
}

func TestRetention(t *testing.T) {
	o := open(t, still())
	const day = 24 * time.Hour
	o.Put(simulator.Run{UID: uid(1), Action: "email-find", Status: edges.StatusSucceeded, CreatedAt: start.Add(-89 * day), FinishedAt: start.Add(-80 * day)})
	o.Put(simulator.Run{UID: uid(2), Action: "email-find", Status: edges.StatusBlocked, CreatedAt: start.Add(-88 * day)})
	o.clock.Advance(day - time.Millisecond)
	if got := o.uids("sort", "id"); len(got) != 2 {
		t.Fatalf("got %v", got)
	}
	// An update does not make a run younger.
	if err := o.Change(uid(1), func(r *simulator.Run) { r.OutputCount++ }); err != nil {
		t.Fatal(err)
	}
	o.clock.Advance(time.Millisecond)
	if got := o.uids(); !slices.Equal(got, []string{uid(2)}) {
		t.Fatalf("got %v", got)
	}
	o.must(404, "GET", "/v1/runs/"+uid(1))
	o.clock.Advance(day)
	if got := o.uids(); len(got) != 0 {
		t.Fatalf("got %v", got)
	}
}

// A row may be anything that a broken server would send.
func TestRawRows(t *testing.T) {
	o := open(t, still())
	o.fill(2)
	o.Put(simulator.Run{UID: uid(5), Raw: json.RawMessage(`{"id":"x"}`), CreatedAt: start.Add(-time.Second), UpdatedAt: start.Add(-1500 * time.Millisecond)})
	a := o.must(200, "GET", "/v1/runs?sort=-updated_at")
	rows := decode[[]json.RawMessage](t, a.body)
	if len(rows) != 3 || string(rows[1]) != `{"id":"x"}` {
		t.Errorf("got %s", a.body)
	}
}

func TestOddTextSurvives(t *testing.T) {
	o := open(t, still())
	odd := "tab\t quote\" back\\slash é 漢 \x00"
	u := o.Put(simulator.Run{Action: odd, Status: "NEW_STATUS", Mode: "BATCH", Error: &simulator.RunError{Label: odd, Message: odd, Params: json.RawMessage(`{"a":[1]}`)}})
	a := o.must(200, "GET", "/v1/runs/"+u)
	got := decode[struct {
		ActionName string `json:"action_name"`
		Status     string `json:"status"`
		LastError  struct {
			Label   string `json:"label"`
			Message string `json:"message"`
			Params  struct {
				A []int `json:"a"`
			} `json:"params"`
		} `json:"last_error"`
	}](t, a.body)
	if got.ActionName != odd || got.Status != "NEW_STATUS" || got.LastError.Label != odd || got.LastError.Message != odd || got.LastError.Params.A[0] != 1 {
		t.Errorf("got %+v", got)
	}
}
