package simulator_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
	"github.com/edges-exporter/edges_exporter/edges/simulator"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestGetRun(t *testing.T) {
	o := open(t, still())
	o.fill(1)
	a := o.must(200, "GET", "/v1/runs/"+uid(0))
	r := decode[apiRun](t, a.body)
	if r.UID != uid(0) || *r.ActionName != "email-find" || r.WorkspaceUID != o.UID() || r.Parameters == nil {
		t.Errorf("got %s", a.body)
	}
	if !strings.HasPrefix(r.Callback.Headers["Authorization"], "Bearer cb-secret-") {
		t.Errorf("no secret to leak in %s", a.body)
	}
	if want := `"created_at":"2026-03-18T14:00:29.000Z"`; !bytes.Contains(a.body, []byte(want)) {
		t.Errorf("no %s in %s", want, a.body)
	}

	a = o.must(200, "GET", "/v1/runs/"+uid(0)+"/status")
	short := decode[map[string]any](t, a.body)
	for _, field := range []string{"id", "uid", "status", "postponed_until", "created_at", "updated_at", "started_at", "finished_at"} {
		if _, ok := short[field]; !ok {
			t.Errorf("no %s in %s", field, a.body)
		}
	}
	if len(short) != 8 {
		t.Errorf("%d fields in %s", len(short), a.body)
	}
}

func TestProblems(t *testing.T) {
	o := open(t, still())
	for name, c := range map[string]struct {
		code               int
		method, path, with string
	}{
		"no such run":            {404, "GET", "/v1/runs/" + uid(1), ""},
		"no such run's status":   {404, "GET", "/v1/runs/" + uid(1) + "/status", ""},
		"no such run to resume":  {404, "POST", "/v1/runs/" + uid(1) + "/resume", ""},
		"no such run to cancel":  {404, "POST", "/v1/runs/" + uid(1) + "/cancel", ""},
		"no such route":          {404, "GET", "/v1/flying", ""},
		"wrong method of list":   {405, "DELETE", "/v1/runs", ""},
		"wrong method of resume": {405, "GET", "/v1/runs/" + uid(1) + "/resume", ""},
		"wrong key":              {401, "GET", "/v1/runs", "other"},
		"no key":                 {401, "GET", "/v1/runs", "-"},
	} {
		t.Run(name, func(t *testing.T) {
			o.t, o.key = t, simulator.DefaultAPIKey
			if c.with != "" {
				o.key = strings.TrimPrefix(c.with, "-")
			}
			a := o.must(c.code, c.method, c.path)
			checkProblem(t, a)
			if c.code == 405 && a.header.Get("Allow") == "" {
				t.Error("no Allow")
			}
		})
	}
}

func TestDateIsTheClocks(t *testing.T) {
	o := open(t, still())
	o.clock.Set(time.Date(2031, 1, 2, 3, 4, 5, 6e8, time.UTC))
	for _, path := range []string{"/v1/runs", "/v1/runs/x"} {
		a, err := o.do("GET", path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.header.Values("Date"); len(got) != 1 || got[0] != "Thu, 02 Jan 2031 03:04:05 GMT" {
			t.Errorf("%s: Date is %q", path, got)
		}
	}
}

func TestResume(t *testing.T) {
	for name, c := range map[string]struct {
		run  simulator.Run
		code int
	}{
		"blocked":         {simulator.Run{Status: edges.StatusBlocked, PostponedUntil: start.Add(time.Hour)}, 200},
		"stopped":         {simulator.Run{Status: edges.StatusStopped, FinishedAt: start}, 200},
		"failed":          {simulator.Run{Status: edges.StatusFailed, FinishedAt: start}, 200},
		"running":         {simulator.Run{Status: edges.StatusRunning, StartedAt: start}, 422},
		"succeeded":       {simulator.Run{Status: edges.StatusSucceeded, FinishedAt: start}, 422},
		"a flow's":        {simulator.Run{Status: edges.StatusBlocked, FlowRunID: 3}, 422},
		"live and failed": {simulator.Run{Status: edges.StatusFailed, Mode: "LIVE", FinishedAt: start}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			o := open(t, still())
			c.run.Action, c.run.RetryCount, c.run.Error = "email-find", 3, &simulator.RunError{Label: "LK_ERROR"}
			u := o.Put(c.run)
			o.clock.Advance(time.Second)
			a := o.must(c.code, "POST", "/v1/runs/"+u+"/resume")
			if c.code != 200 {
				checkProblem(t, a)
				return
			}
			for _, body := range [][]byte{a.body, o.must(200, "GET", "/v1/runs/"+u).body} {
				r := decode[apiRun](t, body)
				if *r.Status != edges.StatusScheduled || r.LastError != nil || r.PostponedUntil != nil || r.RetryCount != 0 || !r.UpdatedAt.Equal(start.Add(time.Second)) {
					t.Errorf("got %s", body)
				}
			}
			// It runs again, and ends.
			o.clock.Advance(24 * time.Hour)
			var statuses []edges.Status
			for e := range o.Entries(0) {
				statuses = append(statuses, e.Status)
			}
			if len(statuses) < 4 || statuses[1] != edges.StatusScheduled || statuses[2] != edges.StatusRunning {
				t.Errorf("went through %v", statuses)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	for name, c := range map[string]struct {
		run  simulator.Run
		code int
	}{
		"running":   {simulator.Run{Mode: "ASYNC", Status: edges.StatusRunning, StartedAt: start}, 200},
		"queued":    {simulator.Run{Mode: "ASYNC", Status: edges.StatusQueued}, 200},
		"scheduled": {simulator.Run{Mode: "ASYNC", Status: edges.StatusScheduled, ScheduledRunUID: uid(4)}, 200},
		"blocked":   {simulator.Run{Mode: "ASYNC", Status: edges.StatusBlocked}, 200},
		"live":      {simulator.Run{Mode: "LIVE", Status: edges.StatusRunning, StartedAt: start}, 422},
		"ended":     {simulator.Run{Mode: "ASYNC", Status: edges.StatusFailed, FinishedAt: start}, 422},
	} {
		t.Run(name, func(t *testing.T) {
			o := open(t, still())
			c.run.Action = "email-find"
			u := o.Put(c.run)
			o.clock.Advance(time.Second)
			a := o.must(c.code, "POST", "/v1/runs/"+u+"/cancel")
			if c.code != 200 {
				checkProblem(t, a)
				return
			}
			if r := decode[apiRun](t, a.body); *r.Status != edges.StatusStopped || r.FinishedAt == nil {
				t.Errorf("got %s", a.body)
			}
		})
	}
}

// A cancelled run stays so: what was planned for it does not happen.
func TestCancelEndsALife(t *testing.T) {
	o := open(t, still())
	u, err := o.Launch("salesnavigator-search-companies", "ASYNC")
	if err != nil {
		t.Fatal(err)
	}
	o.clock.Advance(time.Second)
	o.must(200, "POST", "/v1/runs/"+u+"/cancel")
	o.clock.Advance(48 * time.Hour)
	if r, err := o.Get(u); err != nil || r.Status != edges.StatusStopped {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestGzip(t *testing.T) {
	for name, c := range map[string]struct {
		noGzip       bool
		accept, want string
	}{
		"asked for":      {false, "gzip", "gzip"},
		"one of several": {false, "br, gzip;q=0.8", "gzip"},
		"not asked for":  {false, "identity", ""},
		"switched off":   {true, "gzip", ""},
	} {
		t.Run(name, func(t *testing.T) {
			config := still()
			config.NoGzip = c.noGzip
			o := open(t, config)
			o.fill(50)
			plain, err := o.do("GET", "/v1/runs?limit=50", nil, "Accept-Encoding", "identity")
			if err != nil {
				t.Fatal(err)
			}
			a, err := o.do("GET", "/v1/runs?limit=50", nil, "Accept-Encoding", c.accept)
			if err != nil {
				t.Fatal(err)
			}
			if got := a.header.Get("Content-Encoding"); got != c.want {
				t.Fatalf("Content-Encoding %q, want %q", got, c.want)
			}
			body := a.body
			if c.want == "gzip" {
				z, err := gzip.NewReader(bytes.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				if body, err = io.ReadAll(z); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(body, plain.body) {
				t.Error("the bodies differ")
			}
		})
	}
}

func TestRateLimits(t *testing.T) {
	for plan, limit := range map[string]int{"trial": 30, "bronze": 60, "silver": 150, "Gold": 150, "platinum": 300, "diamond": 300, "titanium": 600} {
		t.Run(plan, func(t *testing.T) {
			config := still()
			config.Plan = plan
			o := open(t, config)
			for i := range limit {
				o.clock.Advance(10 * time.Millisecond)
				// All the routes of runs share the limit.
				code, path := 200, "/v1/runs"
				if i%3 == 2 {
					code, path = 404, "/v1/runs/"+uid(1)
				}
				a := o.must(code, "GET", path)
				if got := a.header.Get("X-Ratelimit-Remaining"); got != itoa(limit-1-i) {
					t.Fatalf("request %d: %s remaining", i, got)
				}
				if a.header.Get("Retry-After") != "" || a.header.Get("X-Ratelimit-Limit") != "" {
					t.Fatal("hints without being asked for")
				}
			}
			a := o.must(429, "GET", "/v1/runs")
			checkProblem(t, a)
			if a.header.Get("X-Ratelimit-Type") != "runs" || a.header.Get("X-Ratelimit-Remaining") != "0" {
				t.Errorf("headers %v", a.header)
			}
			// 60 seconds after the first request its place is free, and no
			// other.
			o.clock.Set(start.Add(time.Minute + 9*time.Millisecond))
			o.must(429, "GET", "/v1/runs")
			o.clock.Advance(time.Millisecond)
			o.must(200, "GET", "/v1/runs")
			o.must(429, "GET", "/v1/runs")
		})
	}
	t.Run("unlimited", func(t *testing.T) {
		o := open(t, still())
		for range 700 {
			o.must(200, "GET", "/v1/runs")
		}
	})
	t.Run("hints", func(t *testing.T) {
		config := still()
		config.Plan, config.RateLimitHints = "trial", true
		o := open(t, config)
		for range 30 {
			o.must(200, "GET", "/v1/runs")
		}
		o.clock.Advance(20500 * time.Millisecond)
		a := o.must(429, "GET", "/v1/runs")
		if a.header.Get("Retry-After") != "40" || a.header.Get("X-Ratelimit-Limit") != "30" || a.header.Get("X-Ratelimit-Reset") != "40" {
			t.Errorf("headers %v", a.header)
		}
	})
	t.Run("a refused key costs nothing", func(t *testing.T) {
		config := still()
		config.Plan = "trial"
		o := open(t, config)
		o.key = "wrong"
		for range 40 {
			o.must(401, "GET", "/v1/runs")
		}
		o.key = simulator.DefaultAPIKey
		o.must(200, "GET", "/v1/runs")
	})
}

func TestConfigIsChecked(t *testing.T) {
	for name, config := range map[string]simulator.Config{
		"plan":    {Plan: "tin"},
		"share":   {Ties: 1.5},
		"late":    {LateCommitShare: -1},
		"late by": {LateCommitMax: -time.Hour},
		"sync":    {SyncEvery: time.Millisecond},
		"trouble": {Troubles: []simulator.Trouble{{Kind: "plague"}}},
		"action":  {Troubles: []simulator.Trouble{{Kind: simulator.KindStall, Action: "unknown"}}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := simulator.New(config); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestUnknownRunsAreErrors(t *testing.T) {
	o := open(t, still())
	_, err := o.Get(uid(1))
	for name, err := range map[string]error{
		"get": err, "change": o.Change(uid(1), func(*simulator.Run) {}), "resume": o.Resume(uid(1)),
	} {
		if !errors.Is(err, simulator.ErrNoRun) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeyIsNotTheDefault(t *testing.T) {
	config := still()
	config.APIKey = "own"
	o := open(t, config)
	o.must(http.StatusUnauthorized, "GET", "/v1/runs")
	o.key = "own"
	o.must(http.StatusOK, "GET", "/v1/runs")
}
