package command_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
	"github.com/edges-exporter/edges_exporter/edges/command"
)

// file writes a file of inputs.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// What is launched is what was given, in the API's words.
func TestLaunchBodies(t *testing.T) {
	paris, err := time.LoadLocation("Europe/Paris")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 24, 9, 0, 0, 0, paris)
	for _, test := range []struct {
		name       string
		o          command.LaunchOptions
		path, body string
		out        string
	}{
		{
			"live",
			command.LaunchOptions{Mode: "live", Input: ` {"a": 1}`, Parameters: []string{"n=5", "s=a=b", "q=\"5\"", "l=[1,2]", "z=007"}},
			"/v1/actions/email-find/run/live", `{"parameters":{"l":[1,2],"n":5,"q":"5","s":"a=b","z":"007"},"input": {"a": 1}}`, `{"run_uid":"r-1","status":"CREATED"}` + "\n",
		},
		{
			"async",
			command.LaunchOptions{Mode: "async", Input: `{}`, CallbackURL: "https://a.example.com/b?c=d&e"},
			"/v1/actions/email-find/run/async", `{"callback":{"url":"https://a.example.com/b?c=d\u0026e"},"inputs":[{}]}`, "run r-1 launched: email-find on 1 input, now CREATED\n",
		},
		{
			"array",
			command.LaunchOptions{Mode: "async", Inputs: file(t, "a.json", "\ufeff \n[ {\"a\":\"ü\"},\n{\"b\":[1]} ]\n")},
			"/v1/actions/email-find/run/async", `{"inputs":[{"a":"ü"},{"b":[1]}]}`, "run r-1 launched: email-find on 2 inputs, now CREATED\n",
		},
		{
			"lines",
			command.LaunchOptions{Mode: "async", Inputs: file(t, "a.jsonl", "{\"a\":1}\n\n{\"a\":2}")},
			"/v1/actions/email-find/run/async", `{"inputs":[{"a":1},{"a":2}]}`, "run r-1 launched: email-find on 2 inputs, now CREATED\n",
		},
		{
			"csv",
			command.LaunchOptions{Mode: "async", Inputs: file(t, "a.txt", "\ufeffurl, note \r\nhttps://a,\"x, \"\"y\"\"\n\"\r\n\r\nhttps://b,\r\n")},
			"/v1/actions/email-find/run/async", `{"inputs":[{"url":"https://a","note":"x, \"y\"\n"},{"url":"https://b"}]}`, "run r-1 launched: email-find on 2 inputs, now CREATED\n",
		},
		{
			"csv by its name",
			command.LaunchOptions{Mode: "async", Inputs: file(t, "a.CSV", "[a]\n1\n")},
			"/v1/actions/email-find/run/async", `{"inputs":[{"[a]":"1"}]}`, "run r-1 launched: email-find on 1 input, now CREATED\n",
		},
		{
			"standard input",
			command.LaunchOptions{Mode: "async", Inputs: "-"},
			"/v1/actions/email-find/run/async", `{"inputs":[{"in":1}]}`, "run r-1 launched: email-find on 1 input, now CREATED\n",
		},
		{
			"cron",
			command.LaunchOptions{Mode: "schedule", Input: `{}`, Cron: "0 9 * * 1-5", Timezone: "Europe/Paris"},
			"/v1/actions/email-find/run/schedule", `{"cron":"0 9 * * 1-5","timezone":"Europe/Paris","inputs":[{}]}`, "schedule r-1 made: email-find on 1 input, first at 2026-11-24 09:00 CET\n",
		},
		{
			"cron without a zone",
			command.LaunchOptions{Mode: "schedule", Input: `{}`, Cron: "30 14 * * *"},
			"/v1/actions/email-find/run/schedule", `{"cron":"30 14 * * *","timezone":"UTC","inputs":[{}]}`, "schedule r-1 made: email-find on 1 input, first at 2026-11-23 14:30 UTC\n",
		},
		{
			"at",
			command.LaunchOptions{Mode: "schedule", Input: `{}`, At: "2026-11-24 09:00", Timezone: "Europe/Paris"},
			"/v1/actions/email-find/run/schedule", `{"schedule_at":"` + at.UTC().Format("2006-01-02T15:04:05.000Z") + `","timezone":"Europe/Paris","inputs":[{}]}`, "schedule r-1 made: email-find on 1 input, first at 2026-11-24 09:00 CET\n",
		},
		{
			"json",
			command.LaunchOptions{Mode: "async", Input: `{}`, Output: "json"},
			"/v1/actions/email-find/run/async", `{"inputs":[{}]}`, `{"run_uid":"r-1","status":"CREATED"}` + "\n",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := sit(t, answers(http.StatusOK, `{"run_uid": "r-1", "status": "CREATED"}`))
			test.o.Action, test.o.Yes, test.o.Format = "email-find", true, atNoon("", "")
			terminal := d.terminal()
			terminal.In = strings.NewReader(`{"in":1}`)
			if err := command.Launch(t.Context(), d.writer, d.client, test.o, terminal); err != nil {
				t.Fatal(err)
			}
			got := d.got()
			if len(got) != 1 || got[0].path != test.path || got[0].body != test.body {
				t.Errorf("requests are %v, want %s with %s", got, test.path, test.body)
			}
			d.wrote(test.out, "")
		})
	}
}

// Nothing is sent of what cannot be right.
func TestLaunchRefusals(t *testing.T) {
	csv := file(t, "good.csv", "a\n1\n")
	for _, test := range []struct {
		name string
		o    command.LaunchOptions
		says string
	}{
		{"nothing to launch on", command.LaunchOptions{Mode: "async"}, "--input"},
		{"both", command.LaunchOptions{Mode: "async", Input: "{}", Inputs: csv}, "exclude"},
		{"many live", command.LaunchOptions{Mode: "live", Inputs: csv}, "--mode=async"},
		{"live with a callback", command.LaunchOptions{Mode: "live", Input: "{}", CallbackURL: "https://a"}, "--callback-url"},
		{"no object", command.LaunchOptions{Mode: "async", Input: `[1]`}, "object"},
		{"no JSON", command.LaunchOptions{Mode: "async", Input: `{"a":}`}, "object"},
		{"unknown mode", command.LaunchOptions{Mode: "later", Input: "{}"}, "later"},
		{"unknown form", command.LaunchOptions{Mode: "async", Input: "{}", Output: "csv"}, "csv"},
		{"callback nowhere", command.LaunchOptions{Mode: "async", Input: "{}", CallbackURL: "hooks.example.com"}, "--callback-url"},
		{"callback to a file", command.LaunchOptions{Mode: "async", Input: "{}", CallbackURL: "file://a/b"}, "--callback-url"},
		{"parameter without a value", command.LaunchOptions{Mode: "async", Input: "{}", Parameters: []string{"a"}}, "name=value"},
		{"parameter without a name", command.LaunchOptions{Mode: "async", Input: "{}", Parameters: []string{"=a"}}, "name=value"},
		{"parameter twice", command.LaunchOptions{Mode: "async", Input: "{}", Parameters: []string{"a=1", "a=2"}}, "twice"},
		{"async at a time", command.LaunchOptions{Mode: "async", Input: "{}", At: "2027-01-01"}, "--mode=schedule"},
		{"live in a zone", command.LaunchOptions{Mode: "live", Input: "{}", Timezone: "UTC"}, "--mode=schedule"},
		{"schedule without a time", command.LaunchOptions{Mode: "schedule", Input: "{}"}, "--cron or --at"},
		{"schedule with both", command.LaunchOptions{Mode: "schedule", Input: "{}", Cron: "* * * * *", At: "2027-01-01"}, "not both"},
		{"four fields", command.LaunchOptions{Mode: "schedule", Input: "{}", Cron: "* * * *"}, "five fields"},
		{"six fields", command.LaunchOptions{Mode: "schedule", Input: "{}", Cron: "* * * * * *"}, "five fields"},
		{"a word", command.LaunchOptions{Mode: "schedule", Input: "{}", Cron: "@daily"}, "five fields"},
		{"a zone in cron", command.LaunchOptions{Mode: "schedule", Input: "{}", Cron: "TZ=UTC 0 9 * * *"}, "five fields"},
		{"hour 24", command.LaunchOptions{Mode: "schedule", Input: "{}", Cron: "0 24 * * *"}, "five fields"},
		{"31 February", command.LaunchOptions{Mode: "schedule", Input: "{}", Cron: "0 0 31 2 *"}, "never comes"},
		{"unknown zone", command.LaunchOptions{Mode: "schedule", Input: "{}", Cron: "* * * * *", Timezone: "Mars/Base"}, "Mars/Base"},
		{"zone of this machine", command.LaunchOptions{Mode: "schedule", Input: "{}", Cron: "* * * * *", Timezone: "Local"}, "Local"},
		{"the past", command.LaunchOptions{Mode: "schedule", Input: "{}", At: "2026-11-23T11:59:59Z"}, "in the future"},
		{"no time", command.LaunchOptions{Mode: "schedule", Input: "{}", At: "soon"}, "soon"},
		{"wait for a schedule", command.LaunchOptions{Mode: "schedule", Input: "{}", Cron: "* * * * *", Wait: true}, "--wait"},
		{"no file", command.LaunchOptions{Mode: "async", Inputs: "/no/such/file"}, "/no/such/file"},
		{"empty file", command.LaunchOptions{Mode: "async", Inputs: file(t, "a", "  \n")}, "no inputs"},
		{"empty array", command.LaunchOptions{Mode: "async", Inputs: file(t, "a", "[]")}, "no inputs"},
		{"only names", command.LaunchOptions{Mode: "async", Inputs: file(t, "a.csv", "a,b\n")}, "no inputs"},
		{"no objects", command.LaunchOptions{Mode: "async", Inputs: file(t, "a", `[{},{},"x"]`)}, "input 3"},
		{"half an array", command.LaunchOptions{Mode: "async", Inputs: file(t, "a", `[{},{}`)}, "input 3"},
		{"array without commas", command.LaunchOptions{Mode: "async", Inputs: file(t, "a", `[{} {}]`)}, "input 2"},
		{"more than an array", command.LaunchOptions{Mode: "async", Inputs: file(t, "a", `[{}] [{}]`)}, "behind the end"},
		{"half a line", command.LaunchOptions{Mode: "async", Inputs: file(t, "a", "{}\n{\"a\":")}, "input 2"},
		{"a number after objects", command.LaunchOptions{Mode: "async", Inputs: file(t, "a", "{}\n5")}, "input 2"},
		{"a short line of CSV", command.LaunchOptions{Mode: "async", Inputs: file(t, "a", "a,b\n1,2\n3\n")}, "line 3"},
		{"an open quote", command.LaunchOptions{Mode: "async", Inputs: file(t, "a", "a,b\n1,\"2\n")}, "input 1"},
		{"a name twice", command.LaunchOptions{Mode: "async", Inputs: file(t, "a", "a,b, a\n1,2,3\n")}, "twice"},
		{"a column without a name", command.LaunchOptions{Mode: "async", Inputs: file(t, "a", "a,,b\n1,2,3\n")}, "column 2"},
		{"an input too large", command.LaunchOptions{Mode: "async", Inputs: file(t, "a", `[{"a":"`+strings.Repeat("x", 2<<20)+`"}]`)}, "larger than 1 MiB"},
		{"Latin 1 in CSV", command.LaunchOptions{Mode: "async", Inputs: file(t, "a", "a,b\n1,caf\xe9\n")}, "input 1: it is not in UTF-8"},
		{"Latin 1 in JSON", command.LaunchOptions{Mode: "async", Inputs: file(t, "a", "[{\"a\":\"caf\xe9\"}]")}, "input 1: it is not in UTF-8"},
		{"Latin 1 in a name", command.LaunchOptions{Mode: "async", Inputs: file(t, "a", "caf\xe9\n1\n")}, "not in UTF-8"},
		{"nobody to ask", command.LaunchOptions{Mode: "async", Input: "{}"}, "--yes"},
		{"inputs and answer from one source", command.LaunchOptions{Mode: "async", Inputs: "-"}, "--yes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := sit(t, answers(http.StatusOK, `{}`))
			test.o.Action, test.o.Format = "email-find", atNoon("", "")
			test.o.Yes = !strings.Contains(test.says, "--yes")
			err := command.Launch(t.Context(), d.writer, d.client, test.o, d.terminal())
			if !errors.As(err, &command.UsageError{}) || !strings.Contains(err.Error(), test.says) || len(d.got()) > 0 {
				t.Errorf("error %v after %d requests", err, len(d.got()))
			}
		})
	}
}

// A launch takes 100,000 inputs, and not one more.
func TestLaunchMany(t *testing.T) {
	many := func(n int) string {
		var lines strings.Builder
		lines.WriteString("n,url\n")
		for i := range n {
			lines.WriteString(strconv.Itoa(i) + ",https://www.example.com/people\n")
		}
		return file(t, "many.csv", lines.String())
	}
	d := sit(t, answers(http.StatusOK, `{"run_uid":"r"}`))
	o := command.LaunchOptions{Action: "email-find", Mode: "async", Inputs: many(100_000)}
	if err := command.Launch(t.Context(), d.writer, d.client, o, d.person("y\n")); err != nil {
		t.Fatal(err)
	}
	d.wrote("run r launched: email-find on 100,000 inputs\n", "launch email-find (async) on 100,000 inputs? [y/N] ")
	var sent struct {
		Inputs []struct {
			N string `json:"n"`
		} `json:"inputs"`
	}
	if err := json.Unmarshal([]byte(d.got()[0].body), &sent); err != nil || len(sent.Inputs) != 100_000 || sent.Inputs[99_999].N != "99999" {
		t.Errorf("%d inputs were sent, %v", len(sent.Inputs), err)
	}

	o.Inputs, o.Yes = many(100_001), true
	err := command.Launch(t.Context(), d.writer, d.client, o, d.terminal())
	if !errors.As(err, &command.UsageError{}) || !strings.Contains(err.Error(), "more than 100,000") || len(d.got()) != 1 {
		t.Errorf("one more: %v", err)
	}
}

// What is kept until it is sent does not stay, however the launch ends.
func TestLaunchLeavesNothing(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	for name, handler := range map[string]http.Handler{
		"good": answers(http.StatusOK, `{}`), "refused": answers(http.StatusForbidden, `{}`), "dropped": http.HandlerFunc(drop),
	} {
		d := sit(t, handler)
		for _, input := range []string{`[{}]`, `[{},5]`} {
			o := command.LaunchOptions{Action: "a", Mode: "async", Inputs: file(t, "in", input), Yes: true}
			_ = command.Launch(t.Context(), d.writer, d.client, o, d.terminal()) // how it ends is not what is tested
		}
		if left, err := os.ReadDir(folder); err != nil || len(left) > 1 { // t.TempDir's own
			t.Errorf("%s leaves %v, %v", name, left, err)
		}
	}
}

func TestLaunchOnce(t *testing.T) {
	for _, test := range []struct {
		name    string
		handler http.Handler
		says    []string
	}{
		{"the connection breaks", http.HandlerFunc(drop), []string{"may have been carried out", "runs list --action=a --since=10m"}},
		{"error 503", answers(http.StatusServiceUnavailable, `{}`), []string{"may have been carried out"}},
		{"no credits", answers(http.StatusPaymentRequired, `{"message":"no credits left"}`), []string{"no credits left"}},
		{"no such action", answers(http.StatusNotFound, `{}`), []string{`no action "a"`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := sit(t, test.handler)
			err := command.Launch(t.Context(), d.writer, d.client, command.LaunchOptions{Action: "a", Mode: "async", Input: "{}", Yes: true}, d.terminal())
			if err == nil || d.posts() != 1 {
				t.Fatalf("%v after %d posts", err, d.posts())
			}
			for _, s := range test.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%q is not in: %v", s, err)
				}
			}
		})
	}
	tries := 0
	d := sit(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if tries++; tries == 1 {
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		io.WriteString(w, `{"run_uid":"r"}`)
	}))
	if err := command.Launch(t.Context(), d.writer, d.client, command.LaunchOptions{Action: "a", Mode: "async", Input: `{"b":1}`, Yes: true}, d.terminal()); err != nil {
		t.Fatal(err)
	}
	if got := d.got(); len(got) != 2 || got[1].body != `{"inputs":[{"b":1}]}` {
		t.Errorf("requests are %v", got)
	}
}

// Against the simulated workspace, all three ways do what they say.
func TestLaunchForReal(t *testing.T) {
	d, _, clock := office(t)
	o := command.LaunchOptions{Action: "linkedin-extract-people", Mode: "live", Input: `{"linkedin_profile_url":"https://a"}`, Yes: true, Format: atNoon("", "")}
	if err := command.Launch(t.Context(), d.writer, d.client, o, d.terminal()); err != nil {
		t.Fatal(err)
	}
	if !json.Valid(d.out.Bytes()) || !strings.Contains(d.out.String(), "linkedin") {
		t.Errorf("results: %s", d.out.String())
	}
	d.out.Reset()
	o.Mode, o.Cron = "schedule", "0 9 * * *"
	if err := command.Launch(t.Context(), d.writer, d.client, o, d.terminal()); err != nil {
		t.Fatal(err)
	}
	schedule := strings.Fields(d.out.String())[1]
	d.out.Reset()
	if err := command.ListSchedules(t.Context(), d.client, command.SchedulesOptions{Format: atNoon("", "utc")}, d.terminal()); err != nil {
		t.Fatal(err)
	}
	if line := schedule + "  ACTIVE     Nov 24 09:00  0 9 * * *  "; !strings.Contains(d.out.String(), line) {
		t.Errorf("%s is not in:\n%s", line, d.out.String())
	}
	clock.Set(time.Date(2026, 11, 24, 9, 0, 5, 0, time.UTC))
	page, err := d.client.ListRuns(t.Context(), edges.RunsQuery{Sort: []string{"-created_at"}, Limit: 100})
	if err != nil || !slices.ContainsFunc(page.Runs, func(r edges.Run) bool { return r.ScheduledRunUID == schedule }) {
		t.Errorf("runs are %v, %v", page.Runs, err)
	}
}

func TestLaunchWaits(t *testing.T) {
	steps := func(rows ...string) http.Handler {
		looks := 0
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Method == http.MethodPost:
				io.WriteString(w, `{"run_uid":"r","status":"CREATED"}`)
			case strings.HasSuffix(r.URL.Path, "/status"):
				row := rows[min(looks, len(rows)-1)]
				looks++
				if code, err := strconv.Atoi(row); err == nil {
					w.WriteHeader(code)
					return
				}
				io.WriteString(w, row)
			default:
				io.WriteString(w, strings.TrimSuffix(rows[len(rows)-1], "}")+`,"output_count":1200,"last_error":{"label":"LK_ERROR","message":"no"},"callback":{"headers":{"a":"b"}},"started_at":"2026-11-23T12:00:00Z","finished_at":"2026-11-23T12:03:00Z"}`)
			}
		})
	}
	const tail = ": 1,200 results in 3m, LK_ERROR: no\n"
	for _, test := range []struct {
		name string
		rows []string
		err  string
		out  string
		log  string
	}{
		{"good", []string{`{"uid":"r","status":"QUEUED"}`, `{"uid":"r","status":"RUNNING"}`, `{"uid":"r","status":"RUNNING"}`, `{"uid":"r","status":"SUCCEEDED"}`}, "", "SUCCEEDED", "r QUEUED\nr RUNNING\nr SUCCEEDED\n"},
		{"partly", []string{`{"uid":"r","status":"PARTIAL_SUCCEEDED"}`}, "", "PARTIAL_SUCCEEDED", "r PARTIAL_SUCCEEDED\n"},
		{"not known yet", []string{"404", "404", `{"uid":"r","status":"SUCCEEDED"}`}, "", "SUCCEEDED", "r SUCCEEDED\n"},
		{"failed", []string{`{"uid":"r","status":"FAILED"}`}, "the run is FAILED", "FAILED", "r FAILED\n"},
		{"invalid", []string{`{"uid":"r","status":"INVALID"}`}, "the run is INVALID", "INVALID", "r INVALID\n"},
		{"stopped", []string{`{"uid":"r","status":"STOPPED"}`}, "the run is STOPPED", "STOPPED", "r STOPPED\n"},
		{"blocked for good", []string{`{"uid":"r","status":"BLOCKED","postponed_until":"2026-11-24T00:00:00Z"}`, `{"uid":"r","status":"RUNNING"}`, `{"uid":"r","status":"BLOCKED"}`}, "the run is BLOCKED", "BLOCKED", "r BLOCKED\nr RUNNING\nr BLOCKED\n"},
		{"never known", []string{"404"}, "the run goes on", "", ""},
		{"key revoked", []string{`{"uid":"r","status":"RUNNING"}`, "401"}, "the run goes on", "", "r RUNNING\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := sit(t, steps(test.rows...))
			o := command.LaunchOptions{Action: "a", Mode: "async", Input: "{}", Yes: true, Wait: true, Every: time.Millisecond}
			err := command.Launch(t.Context(), d.writer, d.client, o, d.terminal())
			if said := fmt.Sprint(err); (err == nil) != (test.err == "") || err != nil && !strings.HasPrefix(said, test.err) {
				t.Errorf("error %s, want %s", said, test.err)
			}
			out := "run r launched: a on 1 input, now CREATED\n"
			if test.out != "" {
				out += "run r " + test.out + tail
			}
			d.wrote(out, test.log)
			if d.posts() != 1 {
				t.Errorf("%d launches", d.posts())
			}
		})
	}

	d := sit(t, steps(`{"uid":"r","status":"RUNNING"}`, `{"uid":"r","status":"FAILED"}`))
	o := command.LaunchOptions{Action: "a", Mode: "async", Input: "{}", Yes: true, Wait: true, Every: time.Millisecond, Output: "json"}
	terminal := d.terminal()
	terminal.Screen = true
	if err := command.Launch(t.Context(), d.writer, d.client, o, terminal); !errors.As(err, &command.FailedError{}) {
		t.Errorf("error %v", err)
	}
	d.wrote(`{"uid":"r","status":"FAILED","output_count":1200,"last_error":{"label":"LK_ERROR","message":"no"},"callback":{"headers":{"a":"[redacted]"}},"started_at":"2026-11-23T12:00:00Z","finished_at":"2026-11-23T12:03:00Z"}`+"\n",
		"\r\x1b[Kr RUNNING, 0s\r\x1b[Kr FAILED, 0s\r\x1b[K")
}

// A person who does not want to wait any longer is told that the run goes on.
func TestLaunchInterrupted(t *testing.T) {
	d, w, _ := office(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	d2 := sit(t, hook(w, func(r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/status") {
			time.AfterFunc(20*time.Millisecond, interrupt)
		}
	}))
	o := command.LaunchOptions{Action: "email-find", Mode: "async", Input: "{}", Yes: true, Wait: true, Every: time.Hour}
	err := command.Launch(ctx, d2.writer, d2.client, o, d.terminal())
	if err == nil || !strings.HasPrefix(err.Error(), "the run goes on, look at it with: runs get ") {
		t.Errorf("error %v", err)
	}
	if run, err := d2.client.ListRuns(t.Context(), edges.RunsQuery{}); err != nil || len(run.Runs) != 1 {
		t.Errorf("%d runs, %v", len(run.Runs), err)
	}
}
