package command_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
	"github.com/edges-exporter/edges_exporter/edges/command"
	"github.com/edges-exporter/edges_exporter/edges/simulator"
)

func TestCheck(t *testing.T) {
	sound := func(context.Context) command.StoreReport { return command.StoreReport{Runs: 12_345, Bytes: 5 << 20} }
	options := func() command.CheckOptions {
		return command.CheckOptions{
			URL: "http://api", KeySource: "the key", PerMinute: 15, Storage: t.TempDir(), Store: sound,
			Uses: []command.Use{{What: "polls", PerMinute: 4}, {What: "credits", PerMinute: 0.2}},
		}
	}
	for _, test := range []struct {
		name   string
		plan   string
		clock  time.Duration
		change func(o *command.CheckOptions)
		bad    string
		lines  []string
	}{
		{"all good", "silver", 0, nil, "", []string{
			"ok    key        the key is good for http://api\n",
			"ok    clock      no more than 2 seconds from the API's\n",
			"ok    workspace  Simulated workspace, plan silver, uid ",
			"ok    limit      150 requests a minute, shared with your own programs (as documented for plan",
			"ok    credits    ",
			"ok    budget     at most 15 requests a minute, 10 % of the limit; when all is quiet 4.2 (polls 4,",
			"credits 0.2)\n",
			"is sound: 12,345 runs, 5 MiB\n",
			"disk       ",
		}},
		{"half of the limit", "trial", 0, nil, "", []string{"ok    budget     at most 15 requests a minute, 50 % of the limit"}},
		{"most of the limit", "trial", 0, func(o *command.CheckOptions) { o.PerMinute = 20 }, "", []string{"note  budget     at most 20 requests a minute, 67 % of the limit"}},
		{"more than the limit", "trial", 0, func(o *command.CheckOptions) { o.PerMinute = 31 }, "1 problem", []string{"bad   budget", "lower --edges.max-requests-per-minute"}},
		{"polls too often", "silver", 0, func(o *command.CheckOptions) { o.Uses[0].PerMinute = 60 }, "1 problem", []string{"bad   budget", "more than the budget"}},
		{"a clock ahead", "silver", -30 * time.Second, nil, "", []string{"note  clock", "s ahead of the API's"}},
		{"a clock far behind", "silver", time.Hour, nil, "1 problem", []string{"bad   clock", "behind the API's"}},
		{"no plan", "", 0, nil, "", []string{"note  limit      not known"}},
		{"no store yet", "silver", 0, func(o *command.CheckOptions) {
			o.Storage += "/below/this"
			o.Store = func(context.Context) command.StoreReport { return command.StoreReport{Absent: true} }
		}, "", []string{"ok    store", "none yet"}},
		{"a store in use", "silver", 0, func(o *command.CheckOptions) {
			o.Store = func(context.Context) command.StoreReport { return command.StoreReport{InUse: true, Bytes: 1} }
		}, "", []string{"ok    store", "in use by a running exporter", "1 MiB"}},
		{"a damaged store", "silver", 0, func(o *command.CheckOptions) {
			o.Store = func(context.Context) command.StoreReport {
				return command.StoreReport{Err: errors.New("edges.db is damaged")}
			}
		}, "1 problem", []string{"bad   store      edges.db is damaged"}},
		{"a temporary store", "silver", 0, func(o *command.CheckOptions) { o.Storage = "" }, "", []string{"note  store      a temporary one"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, err := simulator.New(simulator.Config{
				Plan: test.plan, Clock: simulator.NewRealClock(test.clock), History: simulator.None, RunsPerDay: simulator.None,
			})
			if err != nil {
				t.Fatal(err)
			}
			d := sit(t, w)
			o := options()
			if test.change != nil {
				test.change(&o)
			}
			err = command.Check(t.Context(), d.client, o, d.terminal())
			if test.bad == "" && err != nil || test.bad != "" && (err == nil || err.Error() != test.bad+" found" || !errors.As(err, &command.FailedError{})) {
				t.Errorf("error %v, want %s", err, test.bad)
			}
			fits(t, d.out.String())
			for _, s := range test.lines {
				if !strings.Contains(d.out.String(), s) {
					t.Errorf("%q is not in:\n%s", s, d.out.String())
				}
			}
			if n := strings.Count(d.out.String(), "\nbad "); test.bad == "" && n > 0 || test.bad != "" && n != 1 {
				t.Errorf("%d bad lines:\n%s", n, d.out.String())
			}
			if len(d.got()) != 3 || d.posts() > 0 || strings.Contains(d.out.String(), simulator.DefaultAPIKey) {
				t.Errorf("%d requests", len(d.got()))
			}
		})
	}
}

func TestCheckFails(t *testing.T) {
	for _, test := range []struct {
		name, line string
		handler    http.Handler
	}{
		{"a refused key", "bad   key        the key is refused by http://api\n", answers(http.StatusUnauthorized, `{}`)},
		{"a key that may not", "bad   key        the key is known to http://api, but may not read runs", answers(http.StatusForbidden, `{}`)},
		{"no API", "bad   API        http://api: ", http.HandlerFunc(drop)},
		{"another API", "bad   API        http://api: ", answers(http.StatusNotFound, `{}`)},
		{"only runs", "note  workspace  the API does not tell: ", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Date"] = nil
			if r.URL.Path != "/v1/runs" {
				w.WriteHeader(http.StatusForbidden)
			}
			w.Write([]byte("[]"))
		})},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := sit(t, test.handler)
			err := command.Check(t.Context(), d.client, command.CheckOptions{URL: "http://api", KeySource: "the key", PerMinute: 15}, d.terminal())
			if strings.HasPrefix(test.line, "bad") != errors.As(err, &command.FailedError{}) {
				t.Errorf("error %v", err)
			}
			if !strings.Contains(d.out.String(), test.line) {
				t.Errorf("%q is not in:\n%s", test.line, d.out.String())
			}
			// What needs no API is looked at all the same.
			if !strings.Contains(d.out.String(), "store ") || !strings.Contains(d.out.String(), "budget ") {
				t.Errorf("no store or budget in:\n%s", d.out.String())
			}
		})
	}
	d := sit(t, answers(http.StatusOK, "[]"))
	if err := command.Check(ended(t), d.client, command.CheckOptions{}, d.terminal()); err == nil {
		t.Error("no error after the end")
	}
	terminal := d.terminal()
	terminal.Out = full{}
	if err := command.Check(t.Context(), d.client, command.CheckOptions{}, terminal); !errors.Is(err, errFull) {
		t.Errorf("full disk: %v", err)
	}
}

// A limit that answers tell is taken for what it is.
func TestCheckLearnsTheLimit(t *testing.T) {
	d := sit(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Ratelimit-Limit", "10")
		if r.URL.Path == "/v1/workspaces/consumption" {
			w.Write([]byte(`{"credits_left":0,"credits_max":10,"current_month_end":"2026-12-01"}`))
			return
		}
		w.Write([]byte(`[]`))
	}))
	budget, err := edges.NewBudget(15, "")
	if err != nil {
		t.Fatal(err)
	}
	client, err := edges.NewClient(edges.Config{URL: d.url + "/v1", Key: edges.FixedKey("k"), Budget: budget})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	err = command.Check(t.Context(), client, command.CheckOptions{PerMinute: 15, Budget: budget}, d.terminal())
	if err == nil || err.Error() != "1 problem found" {
		t.Errorf("error %v", err)
	}
	for _, s := range []string{"10 requests a minute", "as the API tells", "bad   budget", "note  credits    0 of 10 left until 2026-12-01: launches are refused"} {
		if !strings.Contains(d.out.String(), s) {
			t.Errorf("%q is not in:\n%s", s, d.out.String())
		}
	}
}
