package command_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
	"github.com/edges-exporter/edges_exporter/edges/command"
	"github.com/edges-exporter/edges_exporter/edges/simulator"
)

func TestGetRuns(t *testing.T) {
	d, w, _ := office(t)
	three(w)
	o := command.GetOptions{UIDs: []string{uid(1), uid(3), uid(1)}, Format: atNoon("", "utc")}
	if err := command.GetRuns(t.Context(), d.client, o, d.terminal()); err != nil {
		t.Fatal(err)
	}
	d.wrote(`run         00000000-0000-4000-8000-000000000001
action      linkedin-extract-people
mode        ASYNC
status      PARTIAL_SUCCEEDED
error       LK_MISSING_DATA: Some profiles were empty.
results     1,234
retries     0
created     2026-11-22 10:00:00 UTC (1d ago)
started     2026-11-22 10:00:00 UTC (1d ago)
finished    2026-11-22 11:00:00 UTC (1d ago)
updated     2026-11-22 11:00:00 UTC (1d ago)

run         00000000-0000-4000-8000-000000000003
action      linkedin-visit-profile
mode        SCHEDULE
status      RUNNING
results     0
retries     0
schedule    00000000-0000-4000-8000-000000000099
created     2026-11-23 11:59:51 UTC (9s ago)
started     2026-11-23 11:59:52 UTC (8s ago)
finished    -
updated     2026-11-23 11:59:52 UTC (8s ago)
`, "")

	o = command.GetOptions{UIDs: []string{uid(1), uid(404), uid(2)}, Format: command.Format{Output: "json"}}
	err := command.GetRuns(t.Context(), d.client, o, d.terminal())
	if !errors.As(err, &command.FailedError{}) || err.Error() != "1 of 3 runs not read" {
		t.Errorf("error %v", err)
	}
	out := d.out.String()
	if strings.Count(out, "\n") != 2 || strings.Contains(out, "s3cret") || !strings.Contains(out, "https://hooks.example.com/a") {
		t.Errorf("written: %s", out)
	}
	d.wrote(out, uid(404)+" not read: the workspace has no such run; runs are kept for 90 days\n")

	o.Format.Output = "csv"
	o.UIDs = []string{uid(2)}
	if err := command.GetRuns(t.Context(), d.client, o, d.terminal()); err != nil || strings.Count(d.out.String(), "\n") != 2 {
		t.Errorf("%v: %s", err, d.out.String())
	}
	o.Format.Output = "uid"
	if err := command.GetRuns(t.Context(), d.client, o, d.terminal()); !errors.As(err, &command.UsageError{}) {
		t.Errorf("form uid: %v", err)
	}
}

func TestGetRunsFits(t *testing.T) {
	d := sit(t, answers(http.StatusOK, `{"uid":"a","status":"BLOCKED","flow_run_id":7,"postponed_until":"2026-11-23T13:00:00Z","last_error":{"error_label":"X","message":"`+strings.Repeat("many words ", 30)+strings.Repeat("oneword", 30)+`"}}`))
	if err := command.GetRuns(t.Context(), d.client, command.GetOptions{UIDs: []string{"a"}, Format: atNoon("", "utc")}, d.terminal()); err != nil {
		t.Fatal(err)
	}
	fits(t, d.out.String())
	for _, s := range []string{"flow run    7\n", "(in 1h)\n", "error       X: many words"} {
		if !strings.Contains(d.out.String(), s) {
			t.Errorf("%q is not in:\n%s", s, d.out.String())
		}
	}
}

// A refused key is refused for all: the rest is not tried.
func TestGetRunsStops(t *testing.T) {
	d := sit(t, answers(http.StatusUnauthorized, `{}`))
	err := command.GetRuns(t.Context(), d.client, command.GetOptions{UIDs: []string{"a", "b", "c"}}, d.terminal())
	if err == nil || err.Error() != "3 of 3 runs not read" || len(d.got()) != 1 {
		t.Errorf("%v after %d requests", err, len(d.got()))
	}
}

func TestChangeRuns(t *testing.T) {
	d, w, _ := office(t)
	put := func(n int, status edges.Status, flow int64, mode string) {
		w.Put(simulator.Run{UID: uid(n), Action: "email-find", Mode: mode, Status: status, FlowRunID: flow})
	}
	put(1, edges.StatusBlocked, 0, edges.ModeAsync)
	put(2, edges.StatusBlocked, 77, edges.ModeAsync)
	put(3, edges.StatusRunning, 0, edges.ModeAsync)
	put(4, edges.StatusRunning, 0, edges.ModeLive)
	put(5, edges.StatusSucceeded, 0, edges.ModeAsync)
	err := command.ChangeRuns(t.Context(), d.writer, d.client, command.Resume, command.ChangeOptions{Yes: true, UIDs: []string{uid(1), uid(2), uid(1), uid(9), uid(5)}}, d.terminal())
	if !errors.As(err, &command.FailedError{}) || err.Error() != "3 of 4 runs not resumed" {
		t.Errorf("error %v", err)
	}
	said := d.err.String()
	for _, s := range []string{
		uid(2) + " not resumed: it is part of flow run 77, and a run of a flow cannot be resumed alone: resume the flow (API answered 422",
		uid(9) + " not resumed: the workspace has no such run",
		uid(5) + " not resumed: it is SUCCEEDED (API answered 422",
	} {
		if !strings.Contains(said, s) {
			t.Errorf("%q is not in:\n%s", s, said)
		}
	}
	d.wrote(uid(1)+" resumed: now SCHEDULED (email-find)\n", said)
	if run, err := w.Get(uid(1)); err != nil || run.Status != edges.StatusScheduled {
		t.Errorf("run is %v, %v", run.Status, err)
	}

	err = command.ChangeRuns(t.Context(), d.writer, d.client, command.Cancel, command.ChangeOptions{Yes: true, UIDs: []string{uid(4), uid(3)}}, d.terminal())
	if err == nil || err.Error() != "1 of 2 runs not cancelled" || !strings.HasPrefix(d.err.String(), uid(4)+" not cancelled: it is a live run; only async and scheduled runs can be cancelled (API answered 422") {
		t.Errorf("error %v: %s", err, d.err.String())
	}
	d.wrote(uid(3)+" cancelled: now STOPPED (email-find)\n", d.err.String())
}

// Nothing is done without a yes.
func TestChangeAsks(t *testing.T) {
	for answer, does := range map[string]bool{"y\n": true, "YES\n": true, " yes \n": true, "n\n": false, "\n": false, "": false, "yep\n": false, "y": true} {
		t.Run(strings.TrimSpace(answer), func(t *testing.T) {
			d, w, _ := office(t)
			w.Put(simulator.Run{UID: uid(1), Action: "email-find", Mode: edges.ModeAsync, Status: edges.StatusBlocked})
			err := command.ChangeRuns(t.Context(), d.writer, d.client, command.Resume, command.ChangeOptions{UIDs: []string{uid(1)}}, d.person(answer))
			if does && (err != nil || d.posts() != 1) || !does && (!errors.Is(err, command.ErrNotConfirmed) || len(d.got()) != 0) {
				t.Errorf("%v after %d requests", err, len(d.got()))
			}
			if !strings.HasPrefix(d.err.String(), "resume 1 run? [y/N] ") {
				t.Errorf("asked: %s", d.err.String())
			}
		})
	}
	d, _, _ := office(t)
	err := command.ChangeRuns(t.Context(), d.writer, d.client, command.Cancel, command.ChangeOptions{UIDs: []string{"a"}}, d.terminal())
	if !errors.As(err, &command.UsageError{}) || len(d.got()) != 0 {
		t.Errorf("nobody there: %v after %d requests", err, len(d.got()))
	}
	silent, typing := io.Pipe()
	terminal := d.person("")
	terminal.In = silent
	err = command.ChangeRuns(ended(t), d.writer, d.client, command.Cancel, command.ChangeOptions{UIDs: []string{"a"}}, terminal)
	if err == nil || len(d.got()) != 0 {
		t.Errorf("interrupted: %v after %d requests", err, len(d.got()))
	}
	typing.Close()
}

// What may have been carried out is not done again, and said.
func TestChangeOnce(t *testing.T) {
	for _, test := range []struct {
		name    string
		handler http.Handler
		posts   int
		says    string
	}{
		{"the connection breaks", http.HandlerFunc(drop), 2, "may have been carried out"},
		{"error 500", answers(http.StatusInternalServerError, `{"message":"oops"}`), 2, "runs get a"},
		{"garbage", answers(http.StatusOK, `<html>`), 2, "may have been carried out"},
		{"a refusal", answers(http.StatusForbidden, `{"message":"not yours"}`), 2, "not yours"},
		{"a refused key", answers(http.StatusUnauthorized, `{"message":"who are you"}`), 1, "1 run not tried"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := sit(t, test.handler)
			err := command.ChangeRuns(t.Context(), d.writer, d.client, command.Resume, command.ChangeOptions{Yes: true, UIDs: []string{"a", "b"}}, d.terminal())
			if !errors.As(err, &command.FailedError{}) || d.posts() != test.posts || !strings.Contains(d.err.String(), test.says) || d.out.Len() > 0 {
				t.Errorf("%v after %d posts: %s", err, d.posts(), d.err.String())
			}
			for line := range strings.Lines(d.err.String()) {
				if !strings.HasPrefix(line, "a not resumed: ") && !strings.HasPrefix(line, "b not resumed: ") && line != "1 run not tried\n" {
					t.Errorf("line %s", line)
				}
			}
		})
	}
}

// A rate limit is waited for: what was refused was not carried out.
func TestChangeWaitsForTheLimit(t *testing.T) {
	tries := 0
	d := sit(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if tries++; tries == 1 {
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		io.WriteString(w, `{"uid":"a","status":"STOPPED"}`)
	}))
	if err := command.ChangeRuns(t.Context(), d.writer, d.client, command.Cancel, command.ChangeOptions{Yes: true, UIDs: []string{"a"}}, d.terminal()); err != nil {
		t.Fatal(err)
	}
	d.wrote("a cancelled: now STOPPED\n", "")
}

func TestTimesOfOtherYears(t *testing.T) {
	d, w, _ := office(t)
	old := noon.AddDate(0, -11, 0).Add(-time.Hour)
	w.Put(simulator.Run{UID: uid(1), Action: "email-find", Mode: edges.ModeAsync, Status: edges.StatusRunning, UpdatedAt: old})
	for times, want := range map[string]string{"relative": "335d ago", "utc": "2025-12-23", "local": "2025-12-2"} {
		if err := command.ListRuns(t.Context(), d.client, command.RunsOptions{Format: atNoon("", times)}, d.terminal()); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(d.out.String(), want) {
			t.Errorf("%s: %q is not in:\n%s", times, want, d.out.String())
		}
		d.out.Reset()
	}
}
