package simulator_test

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
	"github.com/edges-exporter/edges_exporter/edges/simulator"
)

// lively is a workspace with some past, a day's pace, and everything that makes
// the list hard to follow.
func lively() simulator.Config {
	return simulator.Config{
		History: 3 * 24 * time.Hour, HistoryRunsPerDay: 150, RunsPerDay: 10_000, KeepTruth: true,
		LateCommitShare: 0.02, LateCommitMax: 5 * time.Second, Ties: 0.1, NullUpdatedAt: 0.05, SyncEvery: 10 * time.Minute,
	}
}

func TestDefaultPast(t *testing.T) {
	o := open(t, simulator.Config{})
	s := o.State()
	if s.Runs < 15_000 || s.Runs > 30_000 {
		t.Errorf("a past of %d runs", s.Runs)
	}
	rows := o.list("sort", "created_at", "limit", "1")
	if age := start.Sub(*rows[0].CreatedAt); age < 88*24*time.Hour || age >= 90*24*time.Hour {
		t.Errorf("the oldest run is %v old", age)
	}
	for _, status := range []edges.Status{edges.StatusRunning, edges.StatusBlocked, edges.StatusFailed, edges.StatusSucceeded, edges.StatusPartialSucceeded, edges.StatusStopped, edges.StatusInvalid} {
		if s.Statuses[status] == 0 {
			t.Errorf("no run is %s at the start", status)
		}
	}
	if truth := o.Truth(); len(truth.Entries) != 0 || truth.Missing < 50_000 || len(truth.Runs) != s.Runs {
		t.Errorf("%d entries kept of a past that is not asked for, %d missing", len(truth.Entries), truth.Missing)
	}
}

// everything is all that a workspace shows and knows.
func everything(o *office) []byte {
	var b bytes.Buffer
	for offset := 0; ; offset += 100 {
		a := o.must(200, "GET", "/v1/runs?limit=100&sort=-updated_at&offset="+itoa(offset))
		b.Write(a.body)
		if string(a.body) == "[]" {
			break
		}
	}
	b.Write(o.must(200, "GET", "/simulator/truth").body)
	return b.Bytes()
}

func TestSameSeedSameWorkspace(t *testing.T) {
	a, b := open(t, lively()), open(t, lively())
	a.clock.Advance(3 * time.Hour)
	// When somebody asks makes no difference.
	for range 100 {
		b.clock.Advance(3 * time.Hour / 100)
		b.uids("limit", "1")
	}
	b.clock.Set(start.Add(3 * time.Hour))
	x, y := everything(a), everything(b)
	if !bytes.Equal(x, y) {
		t.Errorf("workspaces of one seed differ: %d and %d bytes", len(x), len(y))
	}
	other := lively()
	other.Seed = 8
	c := open(t, other)
	c.clock.Advance(3 * time.Hour)
	if bytes.Equal(x, everything(c)) {
		t.Error("workspaces of two seeds are the same")
	}
}

// What happens at the edge of retention does not depend on who asks when
// either.
func TestSameSeedOverRetention(t *testing.T) {
	config := lively()
	config.Retention, config.HistoryRunsPerDay, config.RunsPerDay = 2*24*time.Hour, 600, 600
	a, b := open(t, config), open(t, config)
	a.clock.Advance(6 * 24 * time.Hour)
	for range 6 * 240 {
		b.clock.Advance(6 * time.Minute)
		b.AdvanceTo(b.clock.Now())
	}
	if !bytes.Equal(everything(a), everything(b)) {
		t.Error("workspaces of one seed differ")
	}
}

// Trouble in one action leaves the others' runs as they would have been.
func TestTroubleStaysInItsAction(t *testing.T) {
	a, b := open(t, lively()), open(t, lively())
	for _, kind := range []simulator.Kind{simulator.KindFailed, simulator.KindBurst, simulator.KindSlowRuns} {
		if _, err := b.AddTrouble(simulator.Trouble{Kind: kind, Action: "email-find"}); err != nil {
			t.Fatal(err)
		}
	}
	a.clock.Advance(2 * time.Hour)
	b.clock.Advance(2 * time.Hour)
	others := func(o *office) (all []string) {
		for e := range o.Entries(0) {
			if e.Action != "email-find" {
				all = append(all, fmt.Sprint(e.UID, e.Status, e.At, e.Outputs))
			}
		}
		slices.Sort(all)
		return all
	}
	x, y := others(a), others(b)
	if len(x) < 1000 || !slices.Equal(x, y) {
		t.Errorf("%d and %d entries, or different ones", len(x), len(y))
	}
}

func TestTruth(t *testing.T) {
	o := open(t, lively())
	o.clock.Advance(26 * time.Hour)
	truth := o.Truth()
	last := make(map[string]simulator.Entry)
	perStatus := make(map[edges.Status]int)
	for i, e := range truth.Entries {
		perStatus[e.Status]++
		before, known := last[e.UID]
		switch {
		case e.Seq != int64(i):
			t.Fatalf("entry %d has number %d", i, e.Seq)
		case e.New == known:
			t.Fatalf("entry %+v: new %v, after %+v", e, e.New, before)
		case e.Visible.Before(e.At):
			t.Fatalf("entry %+v shows before it happens", e)
		case known && (e.At.Before(before.At) || e.Visible.Before(before.Visible)):
			t.Fatalf("entry %+v before %+v", e, before)
		case e.Status.Ended() != !e.FinishedAt.IsZero():
			t.Fatalf("entry %+v: finished at", e)
		case e.Status.Problem() && e.Error == "", e.Status == edges.StatusSucceeded && e.Error != "":
			t.Fatalf("entry %+v: error", e)
		case e.Status == edges.StatusRunning && !e.At.Equal(e.StartedAt):
			t.Fatalf("entry %+v: started at", e)
		case !slices.Contains([]string{edges.ModeLive, edges.ModeAsync, simulator.ModeSchedule}, e.Mode):
			t.Fatalf("entry %+v: mode", e)
		case !e.StartedAt.IsZero() && e.StartedAt.Before(e.CreatedAt), !e.FinishedAt.IsZero() && !e.StartedAt.IsZero() && e.FinishedAt.Before(e.StartedAt):
			t.Fatalf("entry %+v: times", e)
		}
		last[e.UID] = e
	}
	for _, status := range edges.Statuses() {
		if perStatus[status] == 0 {
			t.Errorf("no run was ever %s", status)
		}
	}
	present := make(map[string]bool)
	for _, r := range truth.Runs {
		present[r.UID] = true
		e := last[r.UID]
		if e.Status != r.Status || e.Action != r.Action || !e.FinishedAt.Equal(r.FinishedAt) || r.OutputCount < e.Outputs || e.Retries != r.RetryCount {
			t.Fatalf("run %+v ends as %+v", r, e)
		}
		if r.Status.Ended() && r.OutputCount != e.Outputs {
			t.Fatalf("run %+v had %d results when it ended", r, e.Outputs)
		}
		if r.Status == edges.StatusBlocked && !r.PostponedUntil.IsZero() && r.PostponedUntil.Before(truth.Now) {
			t.Fatalf("run %+v should have been retried", r)
		}
	}
	for u, e := range last {
		if old := truth.Now.Sub(e.CreatedAt) >= simulator.DefaultRetention; present[u] == old {
			t.Fatalf("run %s of %v: there %v", u, e.CreatedAt, present[u])
		}
	}
	if from := len(truth.Entries) - 5; true {
		var tail []simulator.Entry
		for e := range o.Entries(int64(from)) {
			tail = append(tail, e)
		}
		if !slices.Equal(tail, truth.Entries[from:]) {
			t.Errorf("the last entries are %+v", tail)
		}
	}
}

// What the exporter can meet: everything that makes its work hard happens in
// ordinary life.
func TestLifeHasItAll(t *testing.T) {
	o := open(t, lively())
	o.clock.Advance(3 * 24 * time.Hour)
	truth := o.Truth()
	passed := make(map[string][]simulator.Entry)
	for _, e := range truth.Entries {
		passed[e.UID] = append(passed[e.UID], e)
	}
	met := make(map[string]int)
	for _, entries := range passed {
		first := entries[0]
		met["first in mode "+first.Mode]++
		if first.Mode == edges.ModeLive && first.Status.Ended() {
			met["live run already ended"]++
		}
		if first.Status == edges.StatusInvalid {
			met["invalid at once"]++
		}
		for i, e := range entries[1:] {
			before := entries[i]
			met[fmt.Sprintf("%s to %s", before.Status, e.Status)]++
			if e.Retries > before.Retries {
				met["retried"]++
			}
			if e.Visible.After(e.At.Add(time.Second)) {
				met["late"]++
			}
		}
		if n := len(slices.DeleteFunc(slices.Clone(entries), func(e simulator.Entry) bool { return e.Status != edges.StatusFailed })); n > 1 {
			met["failed twice"]++
		}
	}
	created, synced := make(map[time.Time]int), make(map[time.Time]int)
	for _, r := range truth.Runs {
		created[r.CreatedAt]++
		synced[r.SyncedAt]++
		if r.FlowRunID != 0 {
			met["of a flow"]++
		}
		if r.Status == edges.StatusSucceeded && r.OutputCount == 0 {
			met["empty success"]++
		}
	}
	for at, n := range created {
		if n > 20 {
			met["launch of more than 20"]++
		}
		_ = at
	}
	delete(synced, time.Time{})
	for _, n := range synced {
		if n > 50 {
			met["bulk stamp of more than 50"]++
		}
	}
	for _, want := range []string{
		"first in mode LIVE", "first in mode ASYNC", "first in mode SCHEDULE", "live run already ended", "invalid at once", "CREATED to QUEUED", "CREATED to SCHEDULED",
		"QUEUED to RUNNING", "SCHEDULED to RUNNING", "RUNNING to SUCCEEDED", "RUNNING to PARTIAL_SUCCEEDED", "RUNNING to FAILED", "RUNNING to BLOCKED", "RUNNING to STOPPED",
		"BLOCKED to RUNNING", "BLOCKED to SCHEDULED", "BLOCKED to STOPPED", "FAILED to SCHEDULED", "retried", "late", "failed twice", "of a flow", "empty success",
		"launch of more than 20", "bulk stamp of more than 50",
	} {
		if met[want] == 0 {
			t.Errorf("not met in %d runs: %s", len(passed), want)
		}
	}
	if t.Failed() {
		t.Log(slices.Sorted(maps.Keys(met)))
	}
}

func TestRhythm(t *testing.T) {
	launches := func(noRhythm bool) (night, day, weekday, weekend float64) {
		o := open(t, simulator.Config{History: simulator.None, RunsPerDay: 4_000, NoRhythm: noRhythm, KeepTruth: true})
		o.clock.Advance(14 * 24 * time.Hour)
		for e := range o.Entries(0) {
			if !e.New || e.Mode != edges.ModeLive { // people, not their launches' sizes
				continue
			}
			switch e.CreatedAt.Weekday() {
			case time.Saturday, time.Sunday:
				weekend += 1.0 / 4
			default:
				weekday += 1.0 / 10
				if h := e.CreatedAt.Hour(); h >= 1 && h < 5 {
					night++
				} else if h >= 10 && h < 14 {
					day++
				}
			}
		}
		return night, day, weekday, weekend
	}
	night, day, weekday, weekend := launches(false)
	if night == 0 || night*3 > day || weekend == 0 || weekend*1.3 > weekday {
		t.Errorf("%v launches at night and %v by day, %v on a working day and %v on the weekend", night, day, weekday, weekend)
	}
	night, day, weekday, weekend = launches(true)
	if night*1.3 < day || weekend*1.3 < weekday {
		t.Errorf("without rhythm: %v launches at night and %v by day, %v on a working day and %v on the weekend", night, day, weekday, weekend)
	}
}

func TestPace(t *testing.T) {
	o := open(t, simulator.Config{History: simulator.None, RunsPerDay: 5000, KeepTruth: true})
	o.clock.Advance(14 * 24 * time.Hour)
	if runs := float64(o.State().Runs) / 14; runs < 4300 || runs > 5700 {
		t.Errorf("%v runs a day instead of 5000", runs)
	}
}

func TestLaunch(t *testing.T) {
	o := open(t, still())
	for _, mode := range []string{edges.ModeLive, edges.ModeAsync, simulator.ModeSchedule} {
		u, err := o.Launch("linkedin-extract-people", mode)
		if err != nil {
			t.Fatal(err)
		}
		o.clock.Advance(10 * 24 * time.Hour)
		r, err := o.Get(u)
		if err != nil {
			t.Fatal(err)
		}
		if (r.ScheduledRunUID != "") != (mode == simulator.ModeSchedule) || (r.Mode == edges.ModeLive) != (mode == edges.ModeLive) || r.Status.InFlight() {
			t.Errorf("launched as %s: %+v", mode, r)
		}
	}
	for _, c := range [][2]string{{"no-such-action", "LIVE"}, {"email-find", "BATCH"}, {"company-enrich", simulator.ModeSchedule}} {
		if _, err := o.Launch(c[0], c[1]); err == nil {
			t.Errorf("launched %v", c)
		}
	}
	o.Put(simulator.Run{Action: "only-put"})
	if _, err := o.Launch("only-put", "LIVE"); err == nil {
		t.Error("launched an action without a life")
	}
}

func TestPutAndChange(t *testing.T) {
	o := open(t, still())
	u := o.Put(simulator.Run{Action: "first-of-its-kind", Mode: "ASYNC", Status: edges.StatusFailed, FinishedAt: start, Error: &simulator.RunError{Label: "LK_ERROR"}})
	change := func(f func(*simulator.Run)) {
		t.Helper()
		o.clock.Advance(time.Second)
		if err := o.Change(u, f); err != nil {
			t.Fatal(err)
		}
	}
	change(func(r *simulator.Run) { r.OutputCount = 4 })                                          // no entry
	change(func(r *simulator.Run) { r.FinishedAt = o.clock.Now() })                               // failed again
	change(func(r *simulator.Run) { r.Status, r.FinishedAt = edges.StatusStopped, time.Time{} })  // an end without its time
	change(func(r *simulator.Run) { r.FinishedAt = o.clock.Now() })                               // which comes later: no entry
	change(func(r *simulator.Run) { r.Status, r.StartedAt = edges.StatusRunning, o.clock.Now() }) // and so on
	change(func(r *simulator.Run) { r.UID = "ignored"; r.StartedAt = o.clock.Now() })
	old := start.Add(-time.Hour)
	change(func(r *simulator.Run) { r.UpdatedAt = old })
	var got []edges.Status
	for e := range o.Entries(0) {
		got = append(got, e.Status)
	}
	want := []edges.Status{edges.StatusFailed, edges.StatusFailed, edges.StatusStopped, edges.StatusRunning, edges.StatusRunning}
	if !slices.Equal(got, want) {
		t.Errorf("entries %v, want %v", got, want)
	}
	r, err := o.Get(u)
	if err != nil || !r.UpdatedAt.Equal(old) || r.OutputCount != 4 {
		t.Errorf("%+v, %v", r, err)
	}
	// Putting it again replaces it and keeps its id.
	o.Put(simulator.Run{UID: u, Action: "first-of-its-kind", Status: edges.StatusSucceeded})
	if again, err := o.Get(u); err != nil || again.Status != edges.StatusSucceeded || again.ID != r.ID || again.OutputCount != 0 {
		t.Errorf("%+v, %v", again, err)
	}
	// Of two with one uid in a list, the last counts.
	many := make([]simulator.Run, 300)
	for i := range many {
		many[i] = simulator.Run{UID: uid(i % 150), CreatedAt: start.Add(time.Duration(i*7919%300) * time.Second), OutputCount: int64(i)}
	}
	o.PutAll(many)
	rows := o.list("limit", "100", "sort", "uid", "sort", "id")
	for i, row := range rows {
		if row.UID != uid(i) || row.OutputCount != int64(150+i) {
			t.Fatalf("row %d: %+v", i, row)
		}
	}
}

func TestTruthIsBoundedUnlessKept(t *testing.T) {
	o := open(t, simulator.Config{History: simulator.None, RunsPerDay: 20_000})
	o.clock.Advance(4 * 24 * time.Hour)
	truth := o.Truth()
	if total := truth.Missing + int64(len(truth.Entries)); len(truth.Entries) < 50_000 || len(truth.Entries) > 100_000 || total < 200_000 {
		t.Errorf("%d entries kept of %d", len(truth.Entries), total)
	}
	if truth.Entries[0].Seq != truth.Missing {
		t.Errorf("the first entry kept is number %d, and %d are missing", truth.Entries[0].Seq, truth.Missing)
	}
}

func TestTimeDoesNotGoBack(t *testing.T) {
	o := open(t, lively())
	o.AdvanceTo(start.Add(time.Hour))
	before := o.State().Runs
	o.clock.Set(start.Add(-time.Hour))
	if got := o.State(); got.Runs != before || !got.Now.Equal(start.Add(time.Hour)) {
		t.Errorf("%d runs at %v", got.Runs, got.Now)
	}
}

// A real clock can start in the past and be brought to the present.
func TestRealClock(t *testing.T) {
	clock := simulator.NewRealClock(-15 * time.Minute)
	w, err := simulator.New(simulator.Config{Seed: 1, Clock: clock, History: time.Hour, KeepTruth: true})
	if err != nil {
		t.Fatal(err)
	}
	if age := time.Since(w.Now()); age < 15*time.Minute {
		t.Fatalf("it starts %v ago", age)
	}
	clock.Advance(15 * time.Minute)
	truth := w.Truth()
	if passed := truth.Now.Sub(truth.StartedAt); passed < 15*time.Minute {
		t.Errorf("only %v have passed", passed)
	}
}

// Many at once, on a clock that moves: for the race detector.
func TestConcurrentUse(t *testing.T) {
	o := open(t, lively())
	var wait sync.WaitGroup
	for i := range 6 {
		wait.Go(func() {
			for n := range 30 {
				o.clock.Advance(time.Second)
				for _, path := range []string{"/v1/runs?limit=50&sort=-updated_at&offset=" + itoa(n), "/v1/runs?status=FAILED", "/simulator/state"} {
					a, err := o.do(http.MethodGet, path, nil)
					if err != nil || a.code != http.StatusOK {
						t.Errorf("%s: %d, %v", path, a.code, err)
					}
				}
				u := o.Put(simulator.Run{Action: "email-find", Status: edges.StatusBlocked})
				a, err := o.do(http.MethodPost, "/v1/runs/"+u+"/resume", nil)
				// A put run may be late as others are, and not show yet.
				if err != nil || a.code != http.StatusOK && a.code != http.StatusNotFound {
					t.Errorf("resume: %d, %v", a.code, err)
				}
				switch i {
				case 0:
					o.RemoveLatest(1)
				case 1:
					if _, err := o.AddTrouble(simulator.Trouble{Kind: simulator.KindStall, For: time.Second}); err != nil {
						t.Error(err)
					}
				case 2:
					o.Touch(10)
				case 3:
					o.Truth()
				}
			}
		})
	}
	wait.Wait()
}

func TestNoSecretInTheLog(t *testing.T) {
	var log bytes.Buffer
	config := lively()
	config.APIKey, config.Logger = "the-api-key", debugLogger(&log)
	o := open(t, config)
	o.key = "the-api-key"
	o.list("limit", "100")
	o.key = "a-wrong-key"
	o.must(401, "GET", "/v1/runs")
	if !strings.Contains(log.String(), "code=401") {
		t.Fatalf("nothing in the log: %s", log.String())
	}
	for _, secret := range []string{"the-api-key", "a-wrong-key", "cb-secret"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%s is in the log", secret)
		}
	}
}
