package simulator_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
	"github.com/edges-exporter/edges_exporter/edges/simulator"
)

func debugLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func TestParseTrouble(t *testing.T) {
	for text, want := range map[string]simulator.Trouble{
		"failed:linkedin-extract-people:share=0.9:for=10m:error=LIMIT_REACHED": {
			Kind: simulator.KindFailed, Action: "linkedin-extract-people", Share: 0.9, For: 10 * time.Minute, Error: "LIMIT_REACHED",
		},
		"blocked":                         {Kind: simulator.KindBlocked, Share: 1, Error: "NOT_CONNECTED"},
		"stall:after=1m:for=2m":           {Kind: simulator.KindStall, After: time.Minute, For: 2 * time.Minute},
		"stuck:email-find:count=3":        {Kind: simulator.KindStuck, Action: "email-find", Count: 3},
		"stuck:action=email-find:count=3": {Kind: simulator.KindStuck, Action: "email-find", Count: 3},
		"slow-runs:factor=2.5":            {Kind: simulator.KindSlowRuns, Share: 1, Factor: 2.5},
		"outage:drop=true":                {Kind: simulator.KindOutage, Drop: true},
		"outage":                          {Kind: simulator.KindOutage, Code: 503},
		"storm:share=0.5:retry-after=7s":  {Kind: simulator.KindStorm, Share: 0.5, RetryAfter: 7 * time.Second},
		"late:share=0.3:delay=20s":        {Kind: simulator.KindLate, Share: 0.3, Delay: 20 * time.Second},
		"revoked\n":                       {Kind: simulator.KindRevoked},
		"quiet:from=2026-03-18T12:00:00Z:for=1h": {
			Kind: simulator.KindQuiet, From: time.Date(2026, 3, 18, 12, 0, 0, 0, time.UTC), For: time.Hour,
		},
	} {
		got, err := simulator.ParseTrouble(text)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v", text, got, err)
			continue
		}
		if again, err := simulator.ParseTrouble(got.String()); err != nil || again != got {
			t.Errorf("%s: written as %s it becomes %+v, %v", text, got, again, err)
		}
		data, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		var back simulator.Trouble
		if err := json.Unmarshal(data, &back); err != nil || back != got {
			t.Errorf("%s: written as %s it becomes %+v, %v", text, data, back, err)
		}
	}
	for _, text := range []string{
		"", "plague", "failed:a:b", "failed:share=2", "failed:share=NaN", "failed:share=x", "failed:count=3", "outage:code=200", "outage:code=500:drop=true",
		"stall:for=-1m", "stall:for=ten", "stuck:count=-1", "burst:factor=-1", "burst:factor=1e9", "failed:colour=red", "revoked:email-find", "quiet:from=noon",
	} {
		if got, err := simulator.ParseTrouble(text); err == nil {
			t.Errorf("%q is taken for %+v", text, got)
		}
	}
}

// counted is what happened to an action's runs in a time.
type counted struct {
	created, ended, waiting int
	entries                 map[edges.Status]int
	errors                  map[string]int
	outputs                 int64
	longest                 time.Duration
}

func count(o *office, action string, from time.Time) counted {
	c := counted{entries: map[edges.Status]int{}, errors: map[string]int{}}
	for e := range o.Entries(0) {
		if e.At.Before(from) || action != "" && e.Action != action {
			continue
		}
		c.entries[e.Status]++
		if e.New {
			c.created++
		}
		if e.Error != "" {
			c.errors[string(e.Status)+" "+e.Error]++
		}
		if e.Status.Ended() {
			c.ended++
		}
		if !e.FinishedAt.IsZero() && !e.StartedAt.IsZero() {
			c.longest = max(c.longest, e.FinishedAt.Sub(e.StartedAt))
		}
		if e.Status == edges.StatusSucceeded {
			c.outputs += e.Outputs
		}
	}
	for _, r := range o.Truth().Runs {
		if r.Action == action && r.Status.InFlight() && r.Status != edges.StatusRunning {
			c.waiting++
		}
	}
	return c
}

// TestRunTrouble lets each trouble befall one action for an hour, and looks at
// that hour, at the hour after, and at another action.
func TestRunTrouble(t *testing.T) {
	const action, other = "email-find", "company-enrich"
	config := simulator.Config{History: 2 * time.Hour, RunsPerDay: 40_000, KeepTruth: true}
	// The first minutes of an hour are left out: what began before goes on.
	look := func(o *office, action string) counted {
		return count(o, action, o.clock.Now().Add(5*time.Minute-time.Hour))
	}
	calm := open(t, config)
	calm.clock.Advance(time.Hour - time.Second)
	usual, usualOther := look(calm, action), look(calm, other)
	calm.clock.Advance(time.Hour)
	usualAfter := look(calm, action)
	for name, c := range map[string]struct {
		trouble       string
		during, after func(now, usual counted) bool
	}{
		"failed": {
			"failed:share=0.9:error=LIMIT_REACHED",
			func(now, _ counted) bool {
				n := float64(now.errors["FAILED LIMIT_REACHED"]) / float64(now.ended)
				return n > 0.8 && n < 0.97
			},
			func(now, _ counted) bool { return now.errors["FAILED LIMIT_REACHED"] == 0 },
		},
		"blocked": {
			"blocked",
			func(now, _ counted) bool {
				return now.errors["BLOCKED NOT_CONNECTED"] > 100 && now.entries[edges.StatusSucceeded] < 10
			},
			func(now, _ counted) bool { return now.entries[edges.StatusBlocked] == 0 },
		},
		"invalid": {
			"invalid:share=0.5",
			func(now, _ counted) bool { return now.errors["INVALID BAD_PARAMETERS"]*5 > now.created },
			func(now, _ counted) bool { return now.errors["INVALID BAD_PARAMETERS"] == 0 },
		},
		"stall": {
			"stall",
			func(now, usual counted) bool {
				// What is launched live does not wait.
				return now.waiting > usual.waiting+100 && now.entries[edges.StatusRunning]*2 < usual.entries[edges.StatusRunning]
			},
			func(now, usual counted) bool { return now.waiting < usual.waiting+10 && now.ended*20 > usual.ended*19 },
		},
		"slow": {
			"slow-runs:factor=100",
			func(now, usual counted) bool { return now.longest > 3*usual.longest && now.ended*2 < usual.ended*3 },
			func(now, usual counted) bool { return now.ended > usual.ended/2 },
		},
		"empty": {
			"empty",
			func(now, _ counted) bool { return now.entries[edges.StatusSucceeded] > 100 && now.outputs == 0 },
			func(now, _ counted) bool { return now.outputs > 100 },
		},
		"quiet": {
			"quiet",
			func(now, _ counted) bool { return now.created == 0 },
			func(now, _ counted) bool { return now.created > 100 },
		},
		"burst": {
			"burst:factor=2.5",
			func(now, usual counted) bool { return now.created > 2*usual.created && now.created < 3*usual.created },
			func(now, usual counted) bool { return now.created < 3*usual.created/2 },
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := open(t, config)
			trouble, err := simulator.ParseTrouble(c.trouble)
			if err != nil {
				t.Fatal(err)
			}
			trouble.Action, trouble.For = action, time.Hour
			if _, err := o.AddTrouble(trouble); err != nil {
				t.Fatal(err)
			}
			o.clock.Advance(time.Hour - time.Second)
			if now := look(o, action); !c.during(now, usual) {
				t.Errorf("during: %+v; without: %+v", now, usual)
			}
			if now := look(o, other); now.ended != usualOther.ended || now.created != usualOther.created {
				t.Errorf("%s has it too: %+v; without: %+v", other, now, usualOther)
			}
			o.clock.Advance(2 * time.Second)
			if left := o.Troubles(); len(left) != 0 {
				t.Errorf("still there: %v", left)
			}
			o.clock.Advance(time.Hour - 2*time.Second)
			if now := look(o, action); !c.after(now, usualAfter) {
				t.Errorf("after: %+v; without: %+v", now, usualAfter)
			}
		})
	}
}

func TestStuckRuns(t *testing.T) {
	o := open(t, simulator.Config{History: 2 * time.Hour, RunsPerDay: 10_000, KeepTruth: true})
	stuck, err := o.AddTrouble(simulator.Trouble{Kind: simulator.KindStuck, Action: "linkedin-visit-profile", Count: 3})
	if err != nil {
		t.Fatal(err)
	}
	o.clock.Advance(24 * time.Hour)
	held := func() (all []simulator.Run) {
		for _, r := range o.Truth().Runs {
			if r.Action == "linkedin-visit-profile" && r.Status == edges.StatusRunning && o.clock.Now().Sub(r.StartedAt) > 20*time.Hour {
				all = append(all, r)
			}
		}
		return all
	}
	if got := held(); len(got) != 3 {
		t.Fatalf("%d runs are stuck", len(got))
	}
	if n := o.ClearTrouble(stuck.ID + 1); n != 0 {
		t.Errorf("%d troubles cleared by an unknown id", n)
	}
	if n := o.ClearTrouble(stuck.ID); n != 1 {
		t.Errorf("%d troubles cleared", n)
	}
	o.clock.Advance(time.Minute)
	if got := held(); len(got) != 0 {
		t.Errorf("%d runs are still stuck", len(got))
	}
}

func TestTroubleAtATime(t *testing.T) {
	config := lively()
	// In the past, as a labelled incident.
	config.Troubles = []simulator.Trouble{{Kind: simulator.KindQuiet, From: start.Add(-20 * time.Hour), For: 10 * time.Hour}}
	config.History, config.HistoryRunsPerDay = 2*24*time.Hour, 3000
	o := open(t, config)
	created := func(from, to time.Duration) (n int) {
		for e := range o.Entries(0) {
			if e.New && e.Mode != edges.ModeLive && !e.At.Before(start.Add(from)) && e.At.Before(start.Add(to)) {
				n++
			}
		}
		return n
	}
	if n := created(-20*time.Hour, -10*time.Hour); n != 0 {
		t.Errorf("%d launches in the quiet hours", n)
	}
	if n := created(-30*time.Hour, -20*time.Hour); n < 50 {
		t.Errorf("%d launches before the quiet hours", n)
	}
	// And in the future.
	if _, err := o.AddTrouble(simulator.Trouble{Kind: simulator.KindRevoked, After: time.Minute, For: time.Minute}); err != nil {
		t.Fatal(err)
	}
	for _, code := range []int{200, 401, 200} {
		o.must(code, "GET", "/v1/runs")
		o.clock.Advance(time.Minute)
	}
}

func TestAnswerTrouble(t *testing.T) {
	for name, c := range map[string]struct {
		trouble string
		check   func(t *testing.T, a reply, err error)
	}{
		"outage":         {"outage", wantCode(503)},
		"outage of 500":  {"outage:code=500", wantCode(500)},
		"errors":         {"errors:share=1:code=502", wantCode(502)},
		"revoked":        {"revoked", wantCode(401)},
		"storm":          {"storm", wantHeader(429, "Retry-After", "")},
		"storm with end": {"storm:retry-after=7s", wantHeader(429, "Retry-After", "7")},
		"slow": {"slow:delay=1ms", func(t *testing.T, a reply, err error) {
			t.Helper()
			if err != nil || a.code != 200 || a.err != nil {
				t.Errorf("%d, %v, %v", a.code, err, a.err)
			}
		}},
		"no answer": {"outage:drop=true", func(t *testing.T, _ reply, err error) {
			t.Helper()
			if err == nil {
				t.Error("an answer came")
			}
		}},
		"cut": {"cut", func(t *testing.T, a reply, err error) {
			t.Helper()
			if err != nil {
				return // the connection broke before the header was through
			}
			if a.err == nil && json.Valid(a.body) {
				t.Errorf("whole: %d bytes", len(a.body))
			}
		}},
		"garbage": {"garbage", func(t *testing.T, a reply, err error) {
			t.Helper()
			var rows []map[string]any
			if err == nil && a.err == nil && json.Unmarshal(a.body, &rows) == nil {
				t.Errorf("a list: %s", a.body)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			o := open(t, still())
			o.fill(40)
			trouble, err := simulator.ParseTrouble(c.trouble)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := o.AddTrouble(trouble); err != nil {
				t.Fatal(err)
			}
			for n := range 12 {
				a, err := o.do("GET", "/v1/runs?limit="+itoa(20+n), nil)
				c.check(t, a, err)
			}
			o.must(200, "GET", "/simulator/state") // the control is not in trouble
			o.ClearTrouble()
			if rows := o.list("limit", "40"); len(rows) != 40 {
				t.Errorf("%d rows when it is over", len(rows))
			}
		})
	}
}

func wantCode(code int) func(*testing.T, reply, error) {
	return wantHeader(code, "Content-Type", "application/json; charset=utf-8")
}

func wantHeader(code int, name, value string) func(*testing.T, reply, error) {
	return func(t *testing.T, a reply, err error) {
		t.Helper()
		if err != nil || a.code != code || a.header.Get(name) != value {
			t.Fatalf("%d, %s %q, %v", a.code, name, a.header.Get(name), err)
		}
		checkProblem(t, a)
	}
}

// Cuts come both ways: with the connection, and with a length that fits.
func TestCutsComeBothWays(t *testing.T) {
	o := open(t, still())
	if _, err := o.AddTrouble(simulator.Trouble{Kind: simulator.KindCut}); err != nil {
		t.Fatal(err)
	}
	broken, short := 0, 0
	for n := range 40 {
		o.Put(simulator.Run{Action: "email-find" + strings.Repeat("x", n)})
		a, err := o.do("GET", "/v1/runs?limit=1", nil, "Accept-Encoding", "identity")
		switch {
		case err != nil || a.err != nil:
			broken++
		case !json.Valid(a.body):
			short++
		default:
			t.Fatalf("whole: %s", a.body)
		}
	}
	if broken == 0 || short == 0 {
		t.Errorf("%d broken, %d short", broken, short)
	}
}

func TestShareOfAnswers(t *testing.T) {
	o := open(t, still())
	if _, err := o.AddTrouble(simulator.Trouble{Kind: simulator.KindErrors, Share: 0.1}); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		if a, err := o.do("GET", "/v1/runs", nil); err != nil || a.code != 200 && a.code != 500 {
			t.Fatal(a.code, err)
		}
	}
	s := o.State()
	if n := s.Answers[http.StatusInternalServerError]; n < 60 || n > 140 || s.Answers[http.StatusOK] != 1000-n {
		t.Errorf("answers %v", s.Answers)
	}
}
