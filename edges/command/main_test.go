package command_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"github.com/edges-exporter/edges_exporter/edges"
	"github.com/edges-exporter/edges_exporter/edges/command"
	"github.com/edges-exporter/edges_exporter/edges/simulator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noon is when the tests' workspace begins.
var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// request is what a server has got.
type request struct {
	method, path, query, body string
}

// desk is a server, and a terminal with what a person needs to work with it.
type desk struct {
	t        *testing.T
	url      string
	client   *edges.Client
	writer   *edges.Writer
	out, err bytes.Buffer

	mu       sync.Mutex
	requests []request
}

// sit begins to work with a server.
func sit(t *testing.T, handler http.Handler) *desk {
	t.Helper()
	d := &desk{t: t}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := request{method: r.Method, path: r.URL.Path, query: r.URL.RawQuery}
		if r.Method == http.MethodPost {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Errorf("read the body of %s: %v", r.URL, err)
			}
			got.body = string(body)
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		d.mu.Lock()
		d.requests = append(d.requests, got)
		d.mu.Unlock()
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	d.url = server.URL
	config := edges.Config{URL: server.URL + "/v1", Key: edges.FixedKey(simulator.DefaultAPIKey), Timeout: 20 * time.Second, MaxRetries: 1}
	client, err := edges.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	writer, err := edges.NewWriter(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(writer.Close)
	d.client, d.writer = client, writer
	return d
}

// office sits down at a simulated workspace in which nothing happens by itself.
func office(t *testing.T) (*desk, *simulator.Workspace, *simulator.ManualClock) {
	t.Helper()
	clock := simulator.NewManualClock(noon)
	w, err := simulator.New(simulator.Config{Seed: 7, Clock: clock, History: simulator.None, RunsPerDay: simulator.None})
	if err != nil {
		t.Fatal(err)
	}
	return sit(t, w), w, clock
}

// terminal is where no person sits.
func (d *desk) terminal() command.Terminal {
	return command.Terminal{In: strings.NewReader(""), Out: &d.out, Err: &d.err}
}

// person is where somebody types an answer.
func (d *desk) person(answer string) command.Terminal {
	return command.Terminal{In: strings.NewReader(answer), Out: &d.out, Err: &d.err, Person: true}
}

// got are the requests so far.
func (d *desk) got() []request {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]request(nil), d.requests...)
}

// posts counts the requests that may change something.
func (d *desk) posts() int {
	n := 0
	for _, r := range d.got() {
		if r.method == http.MethodPost {
			n++
		}
	}
	return n
}

// wrote compares what was written, and forgets it.
func (d *desk) wrote(out, err string) {
	d.t.Helper()
	if got := d.out.String(); got != out {
		d.t.Errorf("output is\n%s\nand not\n%s", got, out)
	}
	if got := d.err.String(); got != err {
		d.t.Errorf("errors are\n%s\nand not\n%s", got, err)
	}
	d.out.Reset()
	d.err.Reset()
}

// atNoon is a format whose now is noon.
func atNoon(output, times string) command.Format {
	return command.Format{Output: output, Times: times, Now: func() time.Time { return noon }}
}

func uid(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

// fill puts n runs in, uid(0) the oldest, a second apart.
func fill(w *simulator.Workspace, n int) {
	runs := make([]simulator.Run, n)
	for i := range runs {
		at := noon.Add(time.Duration(i-n) * time.Second)
		runs[i] = simulator.Run{
			UID: uid(i), Action: "email-find", Mode: edges.ModeAsync, Status: edges.StatusSucceeded, OutputCount: 1,
			CreatedAt: at, UpdatedAt: at, StartedAt: at, FinishedAt: at,
		}
	}
	w.PutAll(runs)
}

// fits reports lines that are too long for a terminal.
func fits(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 100 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

// answers is a server with one answer to everything.
func answers(code int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		io.WriteString(w, body)
	})
}

// hook is a server before which something happens.
func hook(handler http.Handler, before func(r *http.Request)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		before(r)
		handler.ServeHTTP(w, r)
	})
}

// drop breaks the connection once the request has been read.
func drop(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func ended(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
