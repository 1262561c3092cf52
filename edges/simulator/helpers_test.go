package simulator_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
	"github.com/edges-exporter/edges_exporter/edges/simulator"
)

// start is a Wednesday afternoon, when people work.
var start = time.Date(2026, 3, 18, 14, 0, 30, 0, time.UTC)

// office is a workspace behind a real server, with a clock that the test
// drives.
type office struct {
	*simulator.Workspace
	t     *testing.T
	clock *simulator.ManualClock
	http  *httptest.Server
	key   string
}

// open starts a workspace; without another setting it is empty and nothing
// happens in it.
func open(t *testing.T, config simulator.Config) *office {
	t.Helper()
	clock := simulator.NewManualClock(start)
	config.Clock = clock
	if config.Seed == 0 {
		config.Seed = 7
	}
	w, err := simulator.New(config)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(w)
	t.Cleanup(server.Close)
	return &office{Workspace: w, t: t, clock: clock, http: server, key: simulator.DefaultAPIKey}
}

func still() simulator.Config {
	return simulator.Config{History: simulator.None, RunsPerDay: simulator.None, KeepTruth: true}
}

// reply is an answer as it came over the wire.
type reply struct {
	code   int
	header http.Header
	body   []byte
	err    error // of reading the body
}

// do sends a request; err tells that no answer came.
func (o *office) do(method, path string, body io.Reader, header ...string) (reply, error) {
	o.t.Helper()
	r, err := http.NewRequestWithContext(o.t.Context(), method, o.http.URL+path, body)
	if err != nil {
		o.t.Fatal(err)
	}
	r.Header.Set("X-Api-Key", o.key)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := o.http.Client().Do(r)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, b, err}, nil
}

// must sends a request that has to get an answer with this code.
func (o *office) must(code int, method, path string) reply {
	o.t.Helper()
	a, err := o.do(method, path, nil)
	if err != nil {
		o.t.Fatal(err)
	}
	if a.err != nil {
		o.t.Fatalf("%s %s: %v", method, path, a.err)
	}
	if a.code != code {
		o.t.Fatalf("%s %s: got %d, want %d: %s", method, path, a.code, code, a.body)
	}
	return a
}

// apiRun is what the tests look at in a row.
type apiRun struct {
	ID            int64         `json:"id"`
	UID           string        `json:"uid"`
	ActionName    *string       `json:"action_name"`
	ExecutionMode *string       `json:"execution_mode"`
	Status        *edges.Status `json:"status"`
	RetryCount    int64         `json:"retry_count"`
	OutputCount   int64         `json:"output_count"`
	LastError     *struct {
		Label string `json:"label"`
	} `json:"last_error"`
	Parameters map[string]any `json:"parameters"`
	Callback   *struct {
		Headers map[string]string `json:"headers"`
	} `json:"callback"`
	WorkspaceUID    string     `json:"workspace_uid"`
	ScheduledRunUID *string    `json:"scheduled_run_uid"`
	PostponedUntil  *time.Time `json:"postponed_until"`
	CreatedAt       *time.Time `json:"created_at"`
	UpdatedAt       *time.Time `json:"updated_at"`
	StartedAt       *time.Time `json:"started_at"`
	FinishedAt      *time.Time `json:"finished_at"`
}

// list asks for a page, given "name", "value" pairs, and returns its rows.
func (o *office) list(pairs ...string) []apiRun {
	o.t.Helper()
	var rows []apiRun
	a := o.must(http.StatusOK, http.MethodGet, "/v1/runs?"+query(pairs...))
	if err := json.Unmarshal(a.body, &rows); err != nil {
		o.t.Fatalf("%v: %s", err, a.body)
	}
	return rows
}

// uids lists a page, and returns only the uids.
func (o *office) uids(pairs ...string) []string {
	o.t.Helper()
	var all []string
	for _, r := range o.list(pairs...) {
		all = append(all, r.UID)
	}
	return all
}

func query(pairs ...string) string {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return v.Encode()
}

// uid makes a readable UUID.
func uid(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

// fill puts n ended runs in, one a second, uid(0) the oldest.
func (o *office) fill(n int) {
	for i := range n {
		at := start.Add(time.Duration(i-n) * time.Second)
		o.Put(simulator.Run{
			UID: uid(i), Action: "email-find", Mode: edges.ModeAsync, Status: edges.StatusSucceeded,
			CreatedAt: at, UpdatedAt: at, StartedAt: at, FinishedAt: at,
		})
	}
}

func decode[T any](t *testing.T, body []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return v
}
