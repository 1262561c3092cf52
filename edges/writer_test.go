package edges

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func newTestWriter(t *testing.T, base string, change ...func(*Config)) (*Writer, *testClient) {
	t.Helper()
	c := newTestClient(t, base, change...)
	return newWriter(c.Client), c
}

// hangUp reads the whole request, and closes the connection without an answer.
func hangUp(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	panic(http.ErrAbortHandler)
}

const resumed = `{"id":7,"uid":"r-1","status":"SCHEDULED","execution_mode":"ASYNC"}`

func TestWriterRequests(t *testing.T) {
	const launch = `{"inputs":[{"a":"1"},{"a":"2"}]}`
	tests := []struct {
		name string
		call func(context.Context, *Writer) error
		path string
		body string
		// length is the Content-Length, -1 for none.
		length   int64
		endpoint string
	}{
		{"resume", func(ctx context.Context, w *Writer) error { _, err := w.Resume(ctx, "r-1"); return err }, "/v1/runs/r-1/resume", "", 0, "resume"},
		{"cancel", func(ctx context.Context, w *Writer) error { _, err := w.Cancel(ctx, "r/1"); return err }, "/v1/runs/r%2F1/cancel", "", 0, "cancel"},
		{"launch of a known length", func(ctx context.Context, w *Writer) error {
			_, err := w.Launch(ctx, "email-find", LaunchAsync, strings.NewReader(launch))
			return err
		}, "/v1/actions/email-find/run/async", launch, int64(len(launch)), "launch"},
		{"launch of a part of a file", func(ctx context.Context, w *Writer) error {
			body := strings.NewReader("header" + launch)
			_, _ = body.Seek(6, io.SeekStart)
			_, err := w.Launch(ctx, "email-find", LaunchSchedule, body)
			return err
		}, "/v1/actions/email-find/run/schedule", launch, int64(len(launch)), "launch"},
		{"launch of a stream", func(ctx context.Context, w *Writer) error {
			_, err := w.Launch(ctx, "email-find", LaunchLive, io.MultiReader(strings.NewReader(launch)))
			return err
		}, "/v1/actions/email-find/run/live", launch, -1, "launch"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			server := serve(t, func(w http.ResponseWriter, r *http.Request) {
				got, _ := io.ReadAll(r.Body)
				if r.Method != http.MethodPost || r.URL.EscapedPath() != test.path || string(got) != test.body || r.ContentLength != test.length {
					t.Errorf("%s %s with %d bytes %q", r.Method, r.URL.EscapedPath(), r.ContentLength, got)
				}
				if r.Header.Get("X-Api-Key") != testKey || test.body != "" && r.Header.Get("Content-Type") != "application/json" {
					t.Errorf("headers %v", r.Header)
				}
				if !r.Close {
					t.Error("the connection is meant to be used again")
				}
				_, _ = io.WriteString(w, resumed)
			})
			w, c := newTestWriter(t, server.URL+"/v1")
			if err := test.call(t.Context(), w); err != nil {
				t.Fatal(err)
			}
			c.wantAttempts(t, 200)
			if c.attempts[0].Endpoint != test.endpoint {
				t.Errorf("endpoint %q", c.attempts[0].Endpoint)
			}
		})
	}
}

// A request that the API may have got is sent once, whatever comes back.
func TestWriterNeverSendsTwice(t *testing.T) {
	tests := []struct {
		name    string
		handler http.HandlerFunc
		code    int
		is      error
		unknown bool
	}{
		{"no answer", hangUp, 0, io.EOF, true},
		{"server error", status(500, ""), 500, ErrUnavailable, true},
		{"gateway timeout", status(504, ""), 504, ErrUnavailable, true},
		{"unavailable with a time to come back", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusServiceUnavailable)
		}, 503, ErrUnavailable, true},
		{"answer that is cut", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"uid":"r-1"`)
		}, 200, ErrMalformed, true},
		{"answer of something else", body("<!doctype html>"), 200, ErrMalformed, true},
		{"answer that is too large", body(`{"uid":"` + strings.Repeat("x", 70_000) + `"}`), 200, ErrTooLarge, true},
		{"answer too late", func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		}, 0, ErrTimeout, true},
		{"redirect within the host", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, 307, ErrRedirected, false},
		{"refused as it is", status(422, ""), 422, nil, false},
		{"key refused", status(401, ""), 401, ErrUnauthorized, false},
		{"failed upstream", status(424, ""), 424, nil, false},
	}
	for _, test := range tests {
		for _, call := range []struct {
			name string
			do   func(context.Context, *Writer) error
		}{
			{"resume", func(ctx context.Context, w *Writer) error { _, err := w.Resume(ctx, "r-1"); return err }},
			{"launch", func(ctx context.Context, w *Writer) error {
				_, err := w.Launch(ctx, "email-find", LaunchAsync, strings.NewReader(`{"inputs":[{}]}`))
				return err
			}},
		} {
			t.Run(test.name+", "+call.name, func(t *testing.T) {
				server := serve(t, test.handler)
				w, c := newTestWriter(t, server.URL, func(c *Config) {
					c.MaxAnswerBytes = 64 << 10
					if errors.Is(test.is, ErrTimeout) {
						c.Timeout = 50 * time.Millisecond
					}
				})
				err := call.do(t.Context(), w)
				if err == nil || test.is != nil && !errors.Is(err, test.is) {
					t.Errorf("error %v, want %v", err, test.is)
				}
				if errors.Is(err, ErrOutcomeUnknown) != test.unknown {
					t.Errorf("outcome unknown: %t, of %v", !test.unknown, err)
				}
				c.wantAttempts(t, test.code)
			})
		}
	}
}

// A request that the API has certainly not carried out is sent again, whole.
func TestWriterTriesAgain(t *testing.T) {
	const text = `{"inputs":[{}]}`
	var bodies []string
	server := serve(t,
		func(w http.ResponseWriter, r *http.Request) {
			got, _ := io.ReadAll(r.Body)
			bodies = append(bodies, string(got))
			w.WriteHeader(http.StatusTooManyRequests)
		},
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }, // without reading
		func(w http.ResponseWriter, r *http.Request) {
			got, _ := io.ReadAll(r.Body)
			bodies = append(bodies, string(got))
			_, _ = io.WriteString(w, `{"run_uid":"r-9","status":"CREATED"}`)
		})
	w, c := newTestWriter(t, server.URL)
	reader := bytes.NewReader([]byte("before" + text))
	_, _ = reader.Seek(6, io.SeekStart)
	launched, err := w.Launch(t.Context(), "email-find", LaunchAsync, reader)
	if err != nil || launched.RunUID != "r-9" || launched.Status != StatusCreated {
		t.Fatalf("%+v, %v", launched, err)
	}
	c.wantAttempts(t, 429, 429, 200)
	if len(bodies) != 2 || bodies[0] != text || bodies[1] != text {
		t.Errorf("sent %q", bodies)
	}
}

func TestWriterStreamIsSentOnce(t *testing.T) {
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusTooManyRequests)
	})
	w, c := newTestWriter(t, server.URL)
	_, err := w.Launch(t.Context(), "email-find", LaunchAsync, io.MultiReader(strings.NewReader("{}")))
	if !errors.Is(err, ErrRateLimited) || errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("error %v", err)
	}
	c.wantAttempts(t, 429)
}

func TestWriterWithoutConnection(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	address := server.URL
	server.Close()
	for name, reader := range map[string]io.Reader{"file": strings.NewReader("{}"), "stream": io.MultiReader(strings.NewReader("{}"))} {
		t.Run(name, func(t *testing.T) {
			w, c := newTestWriter(t, address, func(c *Config) { c.MaxRetries = 2 })
			_, err := w.Launch(t.Context(), "email-find", LaunchAsync, reader)
			if err == nil || errors.Is(err, ErrOutcomeUnknown) {
				t.Errorf("error %v", err)
			}
			c.wantAttempts(t, 0, 0, 0)
		})
	}
}

func TestWriterGivesUpWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	server := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		cancel()
		<-r.Context().Done()
	})
	w, c := newTestWriter(t, server.URL)
	_, err := w.Cancel(ctx, "r-1")
	if !errors.Is(err, context.Canceled) || !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("error %v", err)
	}
	c.wantAttempts(t, 0)

	// Before anything was sent, there is nothing to doubt.
	_, err = w.Cancel(ctx, "r-1")
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("error %v", err)
	}
	c.wantAttempts(t, 0)
}

// An input that cannot be read to its end must not look like the API's fault.
func TestWriterUnreadableBody(t *testing.T) {
	server := serve(t, hangUp)
	w, c := newTestWriter(t, server.URL)
	broken := errors.New("line 50000 is no JSON")
	_, err := w.Launch(t.Context(), "email-find", LaunchAsync, io.MultiReader(strings.NewReader(`{"inputs":[`), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) || errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("error %v", err)
	}
	c.wantAttempts(t, 0)
}

// A reader that hangs must not hold a launch whose context has ended.
func TestWriterHangingBody(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	defer reader.Close()
	server := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = r.Body.Read(make([]byte, 1))
		cancel()
		_, _ = io.Copy(io.Discard, r.Body) // until the connection ends
	})
	w, _ := newTestWriter(t, server.URL)
	go func() { _, _ = writer.Write([]byte(`{"inputs":[`)) }()
	if _, err := w.Launch(ctx, "email-find", LaunchAsync, reader); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestWriterRefusesByItself(t *testing.T) {
	w, c := newTestWriter(t, "http://127.0.0.1:9")
	for name, call := range map[string]func() error{
		"no uid":      func() error { _, err := w.Resume(t.Context(), ""); return err },
		"uid of dots": func() error { _, err := w.Cancel(t.Context(), ".."); return err },
		"no action":   func() error { _, err := w.Launch(t.Context(), "", LaunchLive, strings.NewReader("{}")); return err },
		"other mode":  func() error { _, err := w.Launch(t.Context(), "a", "later", strings.NewReader("{}")); return err },
		"no body":     func() error { _, err := w.Launch(t.Context(), "a", LaunchLive, nil); return err },
	} {
		if err := call(); !errors.Is(err, ErrBadQuery) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	c.wantAttempts(t)
}

func TestWriterAnswers(t *testing.T) {
	t.Run("run", func(t *testing.T) {
		for text, want := range map[string]Run{
			resumed:                             {ID: 7, UID: "r-1", Status: StatusScheduled, ExecutionMode: ModeAsync},
			"":                                  {UID: "r-1"},
			`{"message":"ok"}`:                  {UID: "r-1"},
			`{"uid":"r-1","created_at":"soon"}`: {UID: "r-1", Defect: DefectBadTime},
		} {
			w, _ := newTestWriter(t, serve(t, body(text)).URL)
			if run, err := w.Resume(t.Context(), "r-1"); err != nil || run != want {
				t.Errorf("%s: %+v, %v", text, run, err)
			}
		}
	})
	t.Run("launch", func(t *testing.T) {
		for _, test := range []struct {
			mode   LaunchMode
			text   string
			uid    string
			status Status
		}{
			{LaunchAsync, `{"run_uid":"r-1","status":"CREATED"}`, "r-1", StatusCreated},
			{LaunchAsync, `{"uid":"r-1"}`, "r-1", ""},
			{LaunchSchedule, ` {"uid":"s-1","status":"ACTIVE"}`, "s-1", "ACTIVE"},
			{LaunchLive, `{"uid":"a-person","name":"Ada"}`, "", ""},
			{LaunchLive, `[{"name":"Ada"},{"name":"Bob"}]`, "", ""},
			{LaunchLive, `"text"`, "", ""},
			{LaunchAsync, ``, "", ""},
		} {
			w, _ := newTestWriter(t, serve(t, body(test.text)).URL)
			got, err := w.Launch(t.Context(), "a", test.mode, strings.NewReader("{}"))
			if err != nil || got.RunUID != test.uid || got.Status != test.status || string(got.Body) != test.text {
				t.Errorf("%s %s: %+v %s, %v", test.mode, test.text, got, got.Body, err)
			}
		}
	})
}

func TestNewWriter(t *testing.T) {
	if _, err := NewWriter(Config{URL: "ftp://x"}); err == nil {
		t.Error("a bad URL is taken")
	}
	w, err := NewWriter(Config{URL: "http://127.0.0.1:9", Key: FixedKey(testKey), MaxRetries: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	attempts := 0
	w.OnAttempt(func(Attempt) { attempts++ })
	if _, err := w.Resume(t.Context(), "r-1"); err == nil || attempts != 1 {
		t.Errorf("%v after %d attempts", err, attempts)
	}
	if w.client.timeout != writerTimeout || !w.client.transport.DisableKeepAlives {
		t.Error("not set up to write")
	}
}
