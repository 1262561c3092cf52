package edges

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// testKey is looked for in every log line and error of these tests.
const testKey = "edg_key_that_nobody_may_see"

// testClient is a client that notes its attempts and its log, and fails the
// test if the key, or a filter's value, is in a line of it.
type testClient struct {
	*Client
	budget *Budget
	// after is called after each attempt.
	after func(Attempt)

	mu       sync.Mutex
	attempts []Attempt
	log      bytes.Buffer
}

func newTestClient(t *testing.T, base string, change ...func(*Config)) *testClient {
	t.Helper()
	c := &testClient{after: func(Attempt) {}}
	config := Config{
		URL:    base,
		Key:    func() (string, error) { return testKey, nil },
		Budget: mustBudget(t, 1000, ""),
		Logger: slog.New(slog.NewJSONHandler(lockedWriter{&c.mu, &c.log}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, f := range change {
		f(&config)
	}
	c.budget = config.Budget
	client, err := NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	client.firstWait = time.Millisecond
	client.OnAttempt(func(a Attempt) {
		c.mu.Lock()
		c.attempts = append(c.attempts, a)
		c.mu.Unlock()
		c.after(a)
	})
	c.Client = client
	t.Cleanup(func() {
		client.Close()
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, secret := range []string{testKey, "filter-value", "Bearer 2f1d8f"} {
			if strings.Contains(c.log.String(), secret) {
				t.Errorf("the log has %q in it:\n%s", secret, c.log.String())
			}
		}
		if lines := strings.Count(c.log.String(), `"msg":"request"`); lines != len(c.attempts) {
			t.Errorf("%d debug lines for %d attempts", lines, len(c.attempts))
		}
	})
	return c
}

type lockedWriter struct {
	mu *sync.Mutex
	to io.Writer
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(p)
}

// codes are the codes of the attempts so far.
func (c *testClient) codes() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	codes := []int{}
	for _, a := range c.attempts {
		codes = append(codes, a.Code)
	}
	return codes
}

// used is how many slots of the budget are used.
func (c *testClient) used() int {
	c.budget.mu.Lock()
	defer c.budget.mu.Unlock()
	return c.budget.busy()
}

func (c *testClient) logged() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.log.String()
}

// wantAttempts checks codes of attempts, and that each took one slot.
func (c *testClient) wantAttempts(t *testing.T, codes ...int) {
	t.Helper()
	if got := c.codes(); !slices.Equal(got, codes) {
		t.Errorf("attempts with codes %v, want %v", got, codes)
	}
	if c.used() != len(codes) {
		t.Errorf("%d slots of the budget used for %d attempts", c.used(), len(codes))
	}
}

func noRetries(c *Config) { c.MaxRetries = -1 }

// serve answers with each handler once, and with the last one from then on.
func serve(t *testing.T, handlers ...http.HandlerFunc) *httptest.Server {
	t.Helper()
	var mu sync.Mutex
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		handler := handlers[0]
		if len(handlers) > 1 {
			handlers = handlers[1:]
		}
		mu.Unlock()
		handler(w, r)
	}))
	t.Cleanup(server.Close)
	return server
}

func body(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}

func status(code int, text string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, text)
	}
}

// raw answers with the bytes of text and closes or, with reset, breaks the
// connection.
func raw(text string, reset bool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(conn, text)
		if reset {
			_ = conn.(*net.TCPConn).SetLinger(0)
		}
		conn.Close()
	}
}

const oneRun = `[{"uid":"u","status":"RUNNING"}]`

func TestNewClientRefuses(t *testing.T) {
	key := func() (string, error) { return testKey, nil }
	for _, test := range []struct{ url, want string }{
		{"", "https://"},
		{"api.edges.run/v1", "https://"},
		{"ftp://api.edges.run", "https://"},
		{"https://", "no host"},
		{"https:///v1", "no host"},
		{"https://api.edges.run/v1?key=1", "query"},
		{"https://api.edges.run/v1?", "query"},
		{"https://api.edges.run/v1#part", "fragment"},
		{"https://api.edges.run:port/v1", "parsed"},
		{"https://user:pass\nword@api.edges.run/v1", "parsed"},
		{"user:password@api.edges.run/v1", "https://"},
		{"ftp://user:password@api.edges.run/v1", "https://"},
	} {
		_, err := NewClient(Config{URL: test.url, Key: key})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: error %v, want one with %q", test.url, err, test.want)
		} else if strings.Contains(err.Error(), "pass") {
			t.Errorf("%q: error %v has the password in it", test.url, err)
		}
	}
	if _, err := NewClient(Config{URL: "https://api.edges.run/v1"}); err == nil {
		t.Error("no key: no error")
	}
}

func TestClientRequests(t *testing.T) {
	uids := make([]string, 100)
	for i := range uids {
		uids[i] = fmt.Sprintf("5e0d6c1e-8f7a-4c52-9d3b-%012d", i)
	}
	list := func(query RunsQuery) func(*Client) error {
		return func(c *Client) error { _, err := c.ListRuns(t.Context(), query); return err }
	}
	for _, test := range []struct {
		name string
		base string
		call func(*Client) error
		path string
		want url.Values
	}{
		{name: "no filter", base: "/v1", call: list(RunsQuery{}), path: "/v1/runs", want: url.Values{}},
		{name: "slash at the end", base: "/v1/", call: list(RunsQuery{}), path: "/v1/runs", want: url.Values{}},
		{name: "no path", base: "", call: list(RunsQuery{}), path: "/runs", want: url.Values{}},
		{name: "escaped base", base: "/a%2Fb/v1/", call: list(RunsQuery{}), path: "/a%2Fb/v1/runs", want: url.Values{}},
		{
			name: "every filter", base: "/v1", path: "/v1/runs",
			call: list(RunsQuery{
				Status: []Status{StatusFailed, StatusBlocked}, ActionName: []string{"a&b", "filter-value"}, ExecutionMode: []string{ModeLive, ModeAsync},
				UID: []string{"u1", "u2"}, UserUID: []string{"v"}, WorkspaceUID: []string{"w"}, FlowRunID: []int64{1, -2},
				Limit: 100, Offset: 200, Sort: []string{"-updated_at", "-created_at"},
			}),
			want: url.Values{
				"status": {"FAILED", "BLOCKED"}, "action_name": {"a&b", "filter-value"}, "execution_mode": {"LIVE", "ASYNC"},
				"uid": {"u1", "u2"}, "user_uid": {"v"}, "workspace_uid": {"w"}, "flow_run_id": {"1", "-2"},
				"limit": {"100"}, "offset": {"200"}, "sort": {"-updated_at", "-created_at"},
			},
		},
		{name: "100 uids", base: "/v1", call: list(RunsQuery{UID: uids, Limit: 100}), path: "/v1/runs", want: url.Values{"uid": uids, "limit": {"100"}}},
		{
			name: "one run", base: "/v1", path: "/v1/runs/u-1", want: url.Values{},
			call: func(c *Client) error { _, err := c.GetRun(t.Context(), "u-1"); return err },
		},
		{
			name: "one run's status", base: "/v1", path: "/v1/runs/u-1/status", want: url.Values{},
			call: func(c *Client) error { _, err := c.GetRunStatus(t.Context(), "u-1"); return err },
		},
		{
			name: "a uid that needs care", base: "/a%2Fb/v1", path: "/a%2Fb/v1/runs/..%2F%3Fx=%20%25%C3%A9/status", want: url.Values{},
			call: func(c *Client) error { _, err := c.GetRunStatus(t.Context(), "../?x= %é"); return err },
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got *http.Request
			server := serve(t, func(w http.ResponseWriter, r *http.Request) {
				got = r.Clone(t.Context())
				if strings.HasSuffix(r.URL.Path, "/runs") {
					_, _ = io.WriteString(w, oneRun)
				} else {
					_, _ = io.WriteString(w, `{"uid":"u-1"}`)
				}
			})
			c := newTestClient(t, server.URL+test.base)
			if err := test.call(c.Client); err != nil {
				t.Fatal(err)
			}
			if got.Method != http.MethodGet || got.URL.EscapedPath() != test.path {
				t.Errorf("%s %s, want GET %s", got.Method, got.URL.EscapedPath(), test.path)
			}
			if values := got.URL.Query(); !reflect.DeepEqual(values, test.want) {
				t.Errorf("query %v, want %v", values, test.want)
			}
			for name, want := range map[string]string{
				"X-Api-Key": testKey, "Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "edges_exporter", "Authorization": "",
			} {
				if got.Header.Get(name) != want {
					t.Errorf("header %s: %q, want %q", name, got.Header.Get(name), want)
				}
			}
			c.wantAttempts(t, 200)
		})
	}
}

func TestClientRefusesBadQueries(t *testing.T) {
	c := newTestClient(t, "http://127.0.0.1:1")
	for name, query := range map[string]RunsQuery{
		"negative limit":   {Limit: -1},
		"limit over 100":   {Limit: 101},
		"negative offset":  {Offset: -1},
		"11 sorts":         {Sort: slices.Repeat([]string{"status"}, 11)},
		"empty sort":       {Sort: []string{""}},
		"sort by nothing":  {Sort: []string{"-"}},
		"long sort":        {Sort: []string{strings.Repeat("s", 129)}},
		"empty status":     {Status: []Status{""}},
		"empty action":     {ActionName: []string{""}},
		"empty mode":       {ExecutionMode: []string{"LIVE", ""}},
		"empty uid":        {UID: []string{""}},
		"empty user":       {UserUID: []string{""}},
		"empty workspace":  {WorkspaceUID: []string{""}},
		"empty second uid": {UID: []string{"u", ""}},
	} {
		if _, err := c.ListRuns(t.Context(), query); !errors.Is(err, ErrBadQuery) {
			t.Errorf("%s: %v, want ErrBadQuery", name, err)
		}
	}
	for _, uid := range []string{"", ".", "..", strings.Repeat("u", 129)} {
		if _, err := c.GetRun(t.Context(), uid); !errors.Is(err, ErrBadQuery) {
			t.Errorf("run %q: %v, want ErrBadQuery", uid, err)
		}
		if _, err := c.GetRunStatus(t.Context(), uid); !errors.Is(err, ErrBadQuery) {
			t.Errorf("status of run %q: %v, want ErrBadQuery", uid, err)
		}
	}
	c.wantAttempts(t)
}

func TestClientAnswers(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	page := func(w http.ResponseWriter, date string) {
		w.Header()["Date"] = []string{date}
		_, _ = io.WriteString(w, `[{"uid":"a","status":"RUNNING"},7,{"uid":"b","created_at":"never"}]`)
	}
	c := newTestClient(t, serve(t,
		func(w http.ResponseWriter, _ *http.Request) { page(w, at.Format(http.TimeFormat)) },
		func(w http.ResponseWriter, _ *http.Request) { page(w, "yesterday") },
		func(w http.ResponseWriter, _ *http.Request) { w.Header()["Date"] = nil; _, _ = io.WriteString(w, "[]") },
		body(`{"id":5,"uid":"a","status":"BLOCKED","last_error":{"label":"LIMIT_REACHED"}}`),
		body(`{"id":5,"uid":"a","status":"QUEUED","postponed_until":"2026-01-02T03:04:05Z"}`),
		body(`{"status":"QUEUED"}`),
	).URL)
	got, err := c.ListRuns(t.Context(), RunsQuery{})
	want := Page{Date: at, Runs: []Run{{UID: "a", Status: StatusRunning}, {Defect: DefectNotObject}, {UID: "b", Defect: DefectBadTime}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	want.Date = time.Time{}
	if got, err = c.ListRuns(t.Context(), RunsQuery{}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("with an odd Date: %+v, %v", got, err)
	}
	if got, err = c.ListRuns(t.Context(), RunsQuery{}); err != nil || len(got.Runs) != 0 || !got.Date.IsZero() {
		t.Errorf("without Date: %+v, %v", got, err)
	}
	run, err := c.GetRun(t.Context(), "a")
	if err != nil || !reflect.DeepEqual(run, Run{ID: 5, UID: "a", Status: StatusBlocked, ErrorLabel: "LIMIT_REACHED"}) {
		t.Errorf("run: %+v, %v", run, err)
	}
	run, err = c.GetRunStatus(t.Context(), "a")
	if err != nil || !reflect.DeepEqual(run, Run{ID: 5, UID: "a", Status: StatusQueued, PostponedUntil: at}) {
		t.Errorf("status: %+v, %v", run, err)
	}
	run, err = c.GetRunStatus(t.Context(), "a")
	if err != nil || run.Defect != DefectNoUID {
		t.Errorf("status without uid: %+v, %v", run, err)
	}
	var endpoints []string
	for _, a := range c.attempts {
		endpoints = append(endpoints, a.Endpoint)
		if a.Duration <= 0 {
			t.Errorf("an attempt of %v", a.Duration)
		}
	}
	if !slices.Equal(endpoints, []string{"runs", "runs", "runs", "run", "run_status", "run_status"}) {
		t.Errorf("endpoints %v", endpoints)
	}
}

func TestClientErrorAnswers(t *testing.T) {
	standard := func(code int) string {
		return fmt.Sprintf(`{"error_label":"SOME_LABEL","error_scope":"run","error_ref":"ref-1","message":"it broke","status_code":%d,"params":{"message":"no"}}`, code)
	}
	for _, test := range []struct {
		code    int
		is      error // nil for none of the package's
		retried bool
	}{
		{400, nil, false},
		{401, ErrUnauthorized, false},
		{402, ErrNoAccess, false},
		{403, ErrNoAccess, false},
		{404, ErrNotFound, false},
		{408, nil, false},
		{409, nil, false},
		{422, nil, false},
		{424, nil, false},
		{429, ErrRateLimited, true},
		{304, nil, false},
		{500, ErrUnavailable, true},
		{502, ErrUnavailable, true},
		{503, ErrUnavailable, true},
		{504, ErrUnavailable, true},
		{599, ErrUnavailable, true},
	} {
		t.Run(strconv.Itoa(test.code), func(t *testing.T) {
			c := newTestClient(t, serve(t, status(test.code, standard(test.code))).URL, func(c *Config) { c.MaxRetries = 2 })
			_, err := c.ListRuns(t.Context(), RunsQuery{})
			var apiErr *APIError
			if !errors.As(err, &apiErr) {
				t.Fatalf("error %v, want an APIError", err)
			}
			want := APIError{StatusCode: test.code, Label: "SOME_LABEL", Scope: "run", Ref: "ref-1", Message: "it broke"}
			if test.code == 304 { // has no body
				want = APIError{StatusCode: test.code}
			}
			if *apiErr != want {
				t.Errorf("got %+v, want %+v", *apiErr, want)
			}
			for _, known := range []error{ErrUnauthorized, ErrNoAccess, ErrNotFound, ErrRateLimited, ErrUnavailable, ErrTooLarge, ErrMalformed, ErrTimeout, ErrRedirected} {
				if errors.Is(err, known) != errors.Is(test.is, known) {
					t.Errorf("is %q: %v", known, errors.Is(err, known))
				}
			}
			if !strings.HasPrefix(err.Error(), "list runs: ") || !strings.Contains(err.Error(), strconv.Itoa(test.code)) {
				t.Errorf("error text %q", err)
			}
			if test.retried {
				c.wantAttempts(t, test.code, test.code, test.code)
				if strings.Count(c.logged(), `"level":"WARN"`) != 2 {
					t.Errorf("two retries, and the log says:\n%s", c.logged())
				}
			} else {
				c.wantAttempts(t, test.code)
			}
		})
	}
}

func TestClientErrorBodies(t *testing.T) {
	for name, text := range map[string]string{
		"empty":        ``,
		"HTML":         `<html>` + testKey,
		"array":        `[1]`,
		"null":         `null`,
		"cut":          `{"error_label":"LABEL","message":"it br`,
		"odd fields":   `{"error_label":{"a":[1]},"error_scope":null,"error_ref":5,"message":true,"status_code":"x"}`,
		"key inside":   `{"message":"key ` + testKey + ` is not known","error_label":"` + testKey + `","error_ref":"` + testKey + `","error_scope":"` + testKey + `"}`,
		"key, escaped": `{"message":"key \u0065` + testKey[1:] + ` is not known"}`,
		"long":         `{"message":"` + strings.Repeat("long ", 1000) + `"}`,
		"endless":      `{"message":"` + strings.Repeat("long ", 100_000),
		"line ends":    `{"message":"one\ntwo\u0000\u001b[31m"}`,
		"deep":         strings.Repeat(`{"a":`, 13_000),
	} {
		t.Run(name, func(t *testing.T) {
			c := newTestClient(t, serve(t, status(401, text)).URL)
			_, err := c.ListRuns(t.Context(), RunsQuery{})
			if !errors.Is(err, ErrUnauthorized) {
				t.Fatalf("error %v, want ErrUnauthorized", err)
			}
			if text := err.Error(); len(text) > 1000 || strings.ContainsAny(text, "\n\x00\x1b") || strings.Contains(text, testKey) {
				t.Errorf("error text %q", text)
			}
			apiErr := asAPIError(err)
			if strings.Contains(fmt.Sprintf("%+v", apiErr), testKey) {
				t.Errorf("the error has the key in it: %+v", apiErr)
			}
			if name == "cut" && apiErr.Label != "LABEL" {
				t.Errorf("label %q: what was whole is lost", apiErr.Label)
			}
		})
	}
}

func TestClientReadsTheStartOfAnErrorOnly(t *testing.T) {
	text := `{"error_label":"EARLY","params":"` + strings.Repeat("x", maxErrorBytes) + `","message":"late"}`
	c := newTestClient(t, serve(t, status(403, text)).URL)
	_, err := c.ListRuns(t.Context(), RunsQuery{})
	if got, want := asAPIError(err), (APIError{StatusCode: 403, Label: "EARLY"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	c.wantAttempts(t, 403)
}

// zipped compresses a text.
func zipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, text)
	z.Close()
	return b.String()
}

func TestClientRetries(t *testing.T) {
	page := string(benchmarkPage())
	packed := zipped(page)
	stall := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, page[:5000])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	for _, test := range []struct {
		name  string
		first http.HandlerFunc
		code  int
		is    error
	}{
		{"garbage", body("<html>bad gateway</html>"), 200, ErrMalformed},
		{"empty", body(""), 200, ErrMalformed},
		{"no content", status(204, ""), 204, ErrMalformed},
		{"envelope", body(`{"data":[]}`), 200, ErrMalformed},
		{"null", body(`null`), 200, ErrMalformed},
		{"two lists", body(`[][]`), 200, ErrMalformed},
		{"cut JSON", body(page[:5000]), 200, ErrMalformed},
		{"cut body", raw("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"+page[:5000], false), 200, ErrMalformed},
		{"cut body that is a list already", raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[]", false), 200, ErrMalformed},
		{"cut chunk", raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n[]", false), 200, ErrMalformed},
		{"last chunk missing", raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n", false), 200, ErrMalformed},
		{"cut gzip", status(200, packed[:len(packed)/2], "Content-Encoding", "gzip"), 200, ErrMalformed},
		{"gzip without its sum", status(200, packed[:len(packed)-8], "Content-Encoding", "gzip"), 200, ErrMalformed},
		{"gzip with a wrong sum", status(200, packed[:len(packed)-8]+"\x00\x00\x00\x00\x00\x00\x00\x00", "Content-Encoding", "gzip"), 200, ErrMalformed},
		{"no gzip at all", status(200, page, "Content-Encoding", "gzip"), 200, ErrMalformed},
		{"reset in the body", raw("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"+page[:5000], true), 200, ErrMalformed},
		{"reset", raw("", true), 0, nil},
		{"closed", raw("", false), 0, nil},
		{"no HTTP", raw("SSH-2.0-OpenSSH_9.2\r\n", false), 0, nil},
		{"key in the status line", raw(testKey+"\r\n\r\n", false), 0, nil},
		{"headers over the bound", raw("HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 2*maxHeaderBytes)+"\r\nContent-Length: 2\r\n\r\n[]", false), 0, nil},
		{"stalled body", stall, 200, ErrTimeout},
		{"no answer", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 0, ErrTimeout},
	} {
		t.Run(test.name, func(t *testing.T) {
			short := func(c *Config) {
				if errors.Is(test.is, ErrTimeout) {
					c.Timeout = time.Second
				}
			}
			c := newTestClient(t, serve(t, test.first, status(200, packed, "Content-Encoding", "gzip")).URL, short)
			got, err := c.ListRuns(t.Context(), RunsQuery{})
			if err != nil || len(got.Runs) != 100 {
				t.Fatalf("%d rows, error %v", len(got.Runs), err)
			}
			c.wantAttempts(t, test.code, 200)
			if log := c.logged(); strings.Count(log, `"level":"WARN"`) != 1 || !strings.Contains(log, `"reason":"`) {
				t.Errorf("the log does not tell of one retry and its reason:\n%s", log)
			}

			c = newTestClient(t, serve(t, test.first).URL, short, noRetries)
			_, err = c.ListRuns(t.Context(), RunsQuery{})
			if err == nil || test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("without retries: error %v, want %v", err, test.is)
			}
			if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v looks as if the caller had given up", err)
			}
			if err != nil && (strings.Contains(err.Error(), testKey) || len(err.Error()) > 500) {
				t.Errorf("error text %q", err)
			}
			c.wantAttempts(t, test.code)
		})
	}
}

func TestClientRefusedConnection(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	c := newTestClient(t, server.URL, func(c *Config) { c.MaxRetries = 1 })
	if _, err := c.ListRuns(t.Context(), RunsQuery{}); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("error %v", err)
	}
	c.wantAttempts(t, 0, 0)
}

func TestClientGivesUp(t *testing.T) {
	c := newTestClient(t, serve(t, status(500, "")).URL)
	if _, err := c.ListRuns(t.Context(), RunsQuery{}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("error %v", err)
	}
	c.wantAttempts(t, 500, 500, 500, 500, 500)
}

func TestClientTooLarge(t *testing.T) {
	endlessRows := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "[")
		for {
			if _, err := io.WriteString(w, `{"uid":"u","parameters":{"a":"`+strings.Repeat("x", 1000)+`"}},`); err != nil {
				return
			}
		}
	}
	zeros := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		for range 64 {
			if _, err := z.Write(bytes.Repeat([]byte(" "), 1<<20)); err != nil {
				return
			}
		}
		z.Close()
	}
	for name, handler := range map[string]http.HandlerFunc{
		"rows without end": endlessRows,
		"gzip bomb":        zeros,
		"too many rows":    body("[" + strings.Repeat("0,", maxRows) + "0]"),
	} {
		t.Run(name, func(t *testing.T) {
			c := newTestClient(t, serve(t, handler).URL, func(c *Config) { c.MaxAnswerBytes = 4 << 20 })
			_, err := c.ListRuns(t.Context(), RunsQuery{})
			if !errors.Is(err, ErrTooLarge) || errors.Is(err, ErrMalformed) {
				t.Errorf("error %v, want ErrTooLarge", err)
			}
			c.wantAttempts(t, 200)
		})
	}
}

func TestClientRedirects(t *testing.T) {
	var mu sync.Mutex
	var strangers []string
	stranger := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		strangers = append(strangers, r.URL.String()+" "+r.Header.Get("X-Api-Key"))
		_, _ = io.WriteString(w, oneRun)
	})
	redirect := func(code int, to string) http.HandlerFunc { return status(code, "", "Location", to) }
	host := func(server *httptest.Server) string { return strings.TrimPrefix(server.URL, "http://") }

	t.Run("to another host", func(t *testing.T) {
		for _, code := range []int{301, 302, 303, 307, 308} {
			for _, to := range []string{stranger.URL + "/v1/runs", "//" + host(stranger) + "/v1/runs", "https://" + host(stranger), "ftp://" + host(stranger)} {
				c := newTestClient(t, serve(t, redirect(code, to)).URL)
				_, err := c.ListRuns(t.Context(), RunsQuery{})
				if !errors.Is(err, ErrRedirected) || !strings.Contains(err.Error(), host(stranger)) {
					t.Errorf("%d to %s: error %v, want ErrRedirected with the host's name", code, to, err)
				}
				c.wantAttempts(t, code)
			}
		}
	})
	t.Run("to another name of the same host", func(t *testing.T) {
		var server *httptest.Server
		server = serve(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, strings.Replace(server.URL, "127.0.0.1", "localhost", 1)+"/v1/runs", http.StatusFound)
		})
		c := newTestClient(t, server.URL)
		if _, err := c.ListRuns(t.Context(), RunsQuery{}); !errors.Is(err, ErrRedirected) {
			t.Errorf("error %v, want ErrRedirected", err)
		}
		c.wantAttempts(t, 302)
	})
	t.Run("from https to http", func(t *testing.T) {
		server := httptest.NewTLSServer(redirect(302, stranger.URL))
		defer server.Close()
		server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+r.Host+"/v1/runs", http.StatusFound)
		})
		c := newTestClient(t, server.URL)
		c.transport.TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig
		if _, err := c.ListRuns(t.Context(), RunsQuery{}); !errors.Is(err, ErrRedirected) {
			t.Errorf("error %v, want ErrRedirected", err)
		}
		c.wantAttempts(t, 302)
	})
	t.Run("nowhere", func(t *testing.T) {
		for _, to := range []string{"", "http://[::1/", "https://"} {
			c := newTestClient(t, serve(t, redirect(302, to)).URL)
			if _, err := c.ListRuns(t.Context(), RunsQuery{}); !errors.Is(err, ErrRedirected) {
				t.Errorf("to %q: error %v, want ErrRedirected", to, err)
			}
			c.wantAttempts(t, 302)
		}
	})
	t.Run("to a host with the key in its name", func(t *testing.T) {
		c := newTestClient(t, serve(t, redirect(302, "http://"+testKey+".example/")).URL)
		if _, err := c.ListRuns(t.Context(), RunsQuery{}); !errors.Is(err, ErrRedirected) || strings.Contains(err.Error(), testKey) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("within the host", func(t *testing.T) {
		var keys []string
		c := newTestClient(t, serve(t,
			redirect(308, "/v2/runs?limit=1#part"),
			func(w http.ResponseWriter, r *http.Request) {
				keys = append(keys, r.URL.String()+" "+r.Header.Get("X-Api-Key"))
				http.Redirect(w, r, "http://"+strings.ToUpper(r.Host)+"/v3/runs", http.StatusTemporaryRedirect)
			},
			func(w http.ResponseWriter, r *http.Request) {
				keys = append(keys, r.URL.String()+" "+r.Header.Get("X-Api-Key"))
				_, _ = io.WriteString(w, oneRun)
			},
		).URL)
		page, err := c.ListRuns(t.Context(), RunsQuery{})
		if err != nil || len(page.Runs) != 1 {
			t.Errorf("%+v, %v", page, err)
		}
		if want := []string{"/v2/runs?limit=1 " + testKey, "/v3/runs " + testKey}; !slices.Equal(keys, want) {
			t.Errorf("got %v, want %v", keys, want)
		}
		c.wantAttempts(t, 308, 307, 200)
	})
	t.Run("in a circle", func(t *testing.T) {
		c := newTestClient(t, serve(t, redirect(302, "/v1/runs")).URL)
		if _, err := c.ListRuns(t.Context(), RunsQuery{}); !errors.Is(err, ErrRedirected) {
			t.Errorf("error %v, want ErrRedirected", err)
		}
		c.wantAttempts(t, 302, 302, 302, 302)
	})
	mu.Lock()
	defer mu.Unlock()
	if len(strangers) > 0 {
		t.Errorf("requests at another host: %v", strangers)
	}
}

func TestClientKey(t *testing.T) {
	var seen []string
	note := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			seen = append(seen, r.Header.Get("X-Api-Key"))
			w.WriteHeader(code)
			_, _ = io.WriteString(w, oneRun)
		}
	}
	n := 0
	c := newTestClient(t, serve(t, note(500), note(401), note(200)).URL, func(c *Config) {
		c.Key = func() (string, error) {
			n++
			return fmt.Sprintf("%s-%d", testKey, n), nil
		}
	})
	if _, err := c.ListRuns(t.Context(), RunsQuery{}); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("error %v, want ErrUnauthorized", err)
	}
	if _, err := c.ListRuns(t.Context(), RunsQuery{}); err != nil {
		t.Error(err)
	}
	if want := []string{testKey + "-1", testKey + "-2", testKey + "-3"}; !slices.Equal(seen, want) {
		t.Errorf("keys %v, want %v", seen, want)
	}
	c.wantAttempts(t, 500, 401, 200)
}

func TestClientBadKey(t *testing.T) {
	missing := errors.New("open key: no such file")
	for _, test := range []struct {
		name string
		key  string
		err  error
		want string
	}{
		{name: "empty", want: "EDGES_API_KEY or --edges.api-key-file"},
		{name: "line end", key: testKey + "\n", want: "line end"},
		{name: "header injection", key: testKey + "\r\nX-Other: 1", want: "line end"},
		{name: "space", key: testKey + " x", want: "space"},
		{name: "control character", key: testKey + "\x00", want: "character"},
		{name: "not ASCII", key: testKey + "é", want: "character"},
		{name: "cannot be read", err: missing, want: "no such file"},
		{name: "cannot be read, and says so with it", key: testKey, err: fmt.Errorf("key %s: %w", testKey, missing), want: "[redacted]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newTestClient(t, "http://127.0.0.1:1", func(c *Config) {
				c.Key = func() (string, error) { return test.key, test.err }
			})
			_, err := c.ListRuns(t.Context(), RunsQuery{})
			if !errors.Is(err, ErrBadKey) || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), testKey) {
				t.Errorf("error %v, want ErrBadKey with %q", err, test.want)
			}
			if test.err != nil && !errors.Is(err, missing) {
				t.Errorf("error %v does not wrap its cause", err)
			}
			c.wantAttempts(t)
		})
	}
}

func TestClientShowsNoSecret(t *testing.T) {
	known := func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "user" || password != "pass-word" {
			w.WriteHeader(http.StatusUnauthorized)
		}
		_, _ = io.WriteString(w, oneRun)
	}
	server := serve(t, known, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://other:user@"+r.Host+"/v2/runs", http.StatusFound)
	}, known, raw("", true))
	base := strings.Replace(server.URL, "http://", "http://user:pass-word@", 1)
	config := Config{URL: base, Key: func() (string, error) { return testKey, nil }}
	c := newTestClient(t, base, noRetries)
	if _, err := c.ListRuns(t.Context(), RunsQuery{}); err != nil {
		t.Errorf("with a user in the URL: %v", err)
	}
	if _, err := c.ListRuns(t.Context(), RunsQuery{}); err != nil {
		t.Errorf("with a user in the URL, redirected: %v", err)
	}
	_, err := c.ListRuns(t.Context(), RunsQuery{})
	if err == nil {
		t.Error("no error from a connection that was reset")
	}
	var log bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewJSONHandler(&log, nil), slog.NewTextHandler(&log, nil)} {
		slog.New(handler).Info("made", "client", c.Client, "config", config, "err", err)
	}
	for _, text := range []string{
		log.String(), c.logged(), fmt.Sprint(err), c.String(), fmt.Sprintf("%v %+v %#v %s %q", c.Client, c.Client, c.Client, c.Client, c.Client),
		fmt.Sprintf("%v %+v %#v %s %q", config, config, config, config, config),
		fmt.Sprintf("%v %+v %#v", &config, &config, &config),
	} {
		if strings.Contains(text, "pass-word") || strings.Contains(text, testKey) {
			t.Errorf("a secret shows: %s", text)
		}
	}
	if !strings.Contains(c.String(), strings.TrimPrefix(server.URL, "http://")) {
		t.Errorf("%s does not name the host", c.Client)
	}
}

// TestClientCountsWhatTheTransportRepeats lets idle connections die when they
// are used, which the transport answers with a request of its own.
func TestClientCountsWhatTheTransportRepeats(t *testing.T) {
	server := newMortalServer(t)
	c := newTestClient(t, server.url)
	for range 3 {
		if _, err := c.ListRuns(t.Context(), RunsQuery{}); err != nil {
			t.Fatal(err)
		}
	}
	// The first connection dies at its second request, the second one, too.
	if got := server.requests(); got != 5 {
		t.Errorf("%d requests at the server, want 5", got)
	}
	c.wantAttempts(t, 200, 0, 200, 0, 200)

	// With two slots, the repeated request has to wait for the minute, and
	// when the caller does not wait, it must not be sent.
	server = newMortalServer(t)
	c = newTestClient(t, server.url, func(c *Config) { c.Budget = mustBudget(t, 2, "") })
	if _, err := c.ListRuns(t.Context(), RunsQuery{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c.after = func(Attempt) { time.AfterFunc(10*time.Millisecond, cancel) }
	if _, err := c.ListRuns(ctx, RunsQuery{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the context's end", err)
	}
	if got := server.requests(); got != 2 {
		t.Errorf("%d requests at the server, want 2", got)
	}
	c.wantAttempts(t, 200, 0)
}

// TestClientSendsNothingWithoutSlot is the hardest case of the above: while the
// repeated request waits in vain, another connection is idle and ready for it.
func TestClientSendsNothingWithoutSlot(t *testing.T) {
	for range 20 { // the transport may or may not take the connection
		server := newMortalServer(t)
		c := newTestClient(t, server.url, func(c *Config) { c.Budget = mustBudget(t, 3, "") })
		server.together(2)
		var group sync.WaitGroup
		for range 2 {
			group.Go(func() {
				if _, err := c.ListRuns(t.Context(), RunsQuery{}); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		server.together(0)
		ctx, cancel := context.WithCancel(t.Context())
		c.after = func(Attempt) { time.AfterFunc(time.Millisecond, cancel) }
		if _, err := c.ListRuns(ctx, RunsQuery{}); !errors.Is(err, context.Canceled) {
			t.Fatalf("error %v, want the context's end", err)
		}
		c.Close()
		server.close() // what was sent has arrived
		if got := server.requests(); got != 3 {
			t.Fatalf("%d requests at the server with a budget of 3", got)
		}
		c.wantAttempts(t, 200, 200, 0)
	}
}

// TestClientClosesWhatItMayNotUse checks what makes the above certain even if
// the transport is about to write: it gets a connection that is closed.
func TestClientClosesWhatItMayNotUse(t *testing.T) {
	for _, denied := range []bool{false, true} {
		ours, theirs := net.Pipe()
		t.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		w := &wire{denied: denied}
		httptrace.ContextClientTrace(w.trace(t.Context())).GotConn(httptrace.GotConnInfo{Conn: ours})
		if _, err := ours.Write([]byte("GET / HTTP/1.1\r\n\r\n")); (err != nil) != denied {
			t.Errorf("denied is %v, write says %v", denied, err)
		}
	}
}

// mortalServer answers the first request of every connection, and closes the
// connection when it has read a second one.
type mortalServer struct {
	url      string
	listener net.Listener
	group    sync.WaitGroup

	mu    sync.Mutex
	cond  *sync.Cond
	count int
	want  int // answer only once so many requests have come
}

func newMortalServer(t *testing.T) *mortalServer {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &mortalServer{url: "http://" + listener.Addr().String(), listener: listener}
	s.cond = sync.NewCond(&s.mu)
	s.group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.group.Go(func() { s.serve(conn) })
		}
	})
	t.Cleanup(func() { listener.Close() })
	return s
}

func (s *mortalServer) serve(conn net.Conn) {
	defer conn.Close()
	buffer := make([]byte, 64<<10)
	for first := true; ; first = false {
		n, err := conn.Read(buffer) // a request is one small write
		if n == 0 || err != nil {
			return
		}
		s.mu.Lock()
		s.count++
		s.cond.Broadcast()
		for s.count < s.want {
			s.cond.Wait()
		}
		s.mu.Unlock()
		if !first {
			return
		}
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(oneRun), oneRun)
	}
}

func (s *mortalServer) together(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.want = n
}

func (s *mortalServer) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// close ends once every connection has ended.
func (s *mortalServer) close() {
	s.listener.Close()
	s.group.Wait()
}

func TestClientStopsWithItsContext(t *testing.T) {
	arrived := make(chan struct{}, 1)
	server := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	})
	c := newTestClient(t, server.URL)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	if _, err := c.ListRuns(ctx, RunsQuery{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the context's end", err)
	}
	c.wantAttempts(t, 0)

	// While waiting for a retry, it also tells what the last answer was.
	c = newTestClient(t, serve(t, status(503, "", "Retry-After", "600")).URL)
	ctx, cancel = context.WithCancel(t.Context())
	c.after = func(Attempt) { time.AfterFunc(10*time.Millisecond, cancel) }
	_, err := c.ListRuns(ctx, RunsQuery{})
	if !errors.Is(err, context.Canceled) || !errors.Is(err, ErrUnavailable) {
		t.Errorf("error %v, want the context's end and the last answer", err)
	}
	c.wantAttempts(t, 503)
}

func TestClientSpeaksHTTP1(t *testing.T) {
	proto := ""
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proto = r.Proto
		_, _ = io.WriteString(w, oneRun)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	c := newTestClient(t, server.URL)
	if _, err := c.ListRuns(t.Context(), RunsQuery{}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("with an unknown certificate: %v", err)
	}
	c.wantAttempts(t, 0) // and not tried again

	c = newTestClient(t, server.URL)
	c.transport.TLSClientConfig.RootCAs = server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	if _, err := c.ListRuns(t.Context(), RunsQuery{}); err != nil || proto != "HTTP/1.1" {
		t.Errorf("%s, error %v", proto, err)
	}
}

func TestClientTogether(t *testing.T) {
	page := string(benchmarkPage())
	c := newTestClient(t, serve(t, body(page)).URL)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 10 {
				got, err := c.ListRuns(t.Context(), RunsQuery{})
				if err != nil || len(got.Runs) != 100 || got.Runs[99].UID != "5e0d6c1e-8f7a-4c52-9d3b-000000000063" {
					t.Errorf("%d rows, error %v", len(got.Runs), err)
				}
			}
		})
	}
	group.Wait()
	if c.used() != 80 {
		t.Errorf("%d slots used for 80 requests", c.used())
	}
	if n := len(c.decoders); n < 1 || n > keptDecoders {
		t.Errorf("%d decoders are kept", n)
	}
}

func TestClientWithoutBudget(t *testing.T) {
	c, err := NewClient(Config{URL: serve(t, status(200, oneRun, "X-RateLimit-Limit", "1")).URL, Key: func() (string, error) { return testKey, nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.OnAttempt(nil)
	for range 200 {
		if _, err := c.ListRuns(t.Context(), RunsQuery{}); err != nil {
			t.Fatal(err)
		}
	}
	if c.budget.PerMinute() != math.MaxInt {
		t.Errorf("no budget, but %d a minute are in force", c.budget.PerMinute())
	}
	if len(c.budget.free) > 1 || len(c.budget.cooling) > 1 {
		t.Errorf("no budget, but %d slots are remembered", len(c.budget.free)+len(c.budget.cooling))
	}
}

func TestClientTellsOfADamagedBudget(t *testing.T) {
	b := mustBudget(t, 5, "")
	b.damage = errBudgetFileDamaged
	c := newTestClient(t, "http://127.0.0.1:1", func(c *Config) { c.Budget = b })
	if !strings.Contains(c.logged(), `"level":"WARN"`) || !strings.Contains(c.logged(), "damaged") {
		t.Errorf("log: %s", c.logged())
	}
}
