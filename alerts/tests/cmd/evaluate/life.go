package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edges-exporter/edges_exporter/collector"
	"github.com/edges-exporter/edges_exporter/edges"
	"github.com/edges-exporter/edges_exporter/edges/simulator"
)

// life is some days of a workspace that an exporter follows.
type life struct {
	settings
	name      string
	start     time.Time
	days      int
	bumps     []string
	incidents []incident
}

// live runs the workspace and the exporter, and leaves blocks of what was
// exposed in the folder.
func (l *life) live(ctx context.Context, folder string) (err error) {
	clock := simulator.NewManualClock(l.start)
	w, err := l.workspace(clock)
	if err != nil {
		return err
	}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.ServeHTTP(hurried{rw}, r) }))
	defer server.Close()
	client, err := edges.NewClient(edges.Config{
		URL: server.URL + "/v1", Key: edges.FixedKey(simulator.DefaultAPIKey), Timeout: 30 * time.Second,
		MaxRetries: -1, // a retry waits in real time, of which there is little
		Logger:     slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	defer client.Close()
	c, err := collector.New(collector.Config{
		Client: client, Workspace: "sim", StorePath: filepath.Join(folder, "edges.db"),
		PollInterval: l.step, PollOverlap: 30 * time.Second, AuditInterval: 15 * time.Minute, Retention: 90 * 24 * time.Hour,
		ZeroHold: time.Nanosecond, MaxActions: 500, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := c.Close(); err == nil {
			err = cerr
		}
	}()

	handler := c.Handler(prometheus.NewRegistry())
	rec := newRecording(l.step)
	end := l.start.Add(time.Duration(l.days) * 24 * time.Hour)
	for day := 1; clock.Now().Before(end); day++ {
		path := filepath.Join(folder, "day.om")
		err := rec.file(path, func() error {
			for range int(24 * time.Hour / l.step) {
				clock.Advance(l.step)
				if err := l.tick(ctx, clock.Now(), w, c, handler, rec); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		// One block a day: promtool reads the file once for each block.
		cmd := exec.CommandContext(ctx, l.promtool, "tsdb", "create-blocks-from", "--max-block-duration=31d", "openmetrics", path, filepath.Join(folder, "blocks"))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("make blocks: %w: %s", err, out)
		}
		fmt.Fprintf(os.Stderr, "%s: day %d of %d has been lived\n", l.name, day, l.days)
	}
	return nil
}

// hurried answers without asking for pauses: they would be in real time.
type hurried struct{ http.ResponseWriter }

// WriteHeader sends the headers but for those that ask for a pause.
func (h hurried) WriteHeader(code int) {
	h.Header().Del("Retry-After")
	h.Header().Del("X-RateLimit-Remaining")
	h.ResponseWriter.WriteHeader(code)
}

// Unwrap is for http.ResponseController.
func (h hurried) Unwrap() http.ResponseWriter { return h.ResponseWriter }

func (l *life) workspace(clock simulator.Clock) (*simulator.Workspace, error) {
	var troubles []simulator.Trouble
	for _, text := range l.bumps {
		t, err := simulator.ParseTrouble(text)
		if err != nil {
			return nil, err
		}
		troubles = append(troubles, t)
	}
	for _, in := range l.incidents {
		if in.trouble == "" {
			continue
		}
		t, err := simulator.ParseTrouble(in.trouble)
		if err != nil {
			return nil, err
		}
		t.From, t.For = l.start.Add(in.at), in.lasts
		troubles = append(troubles, t)
	}
	return simulator.New(simulator.Config{
		Seed: l.seed, APIKey: simulator.DefaultAPIKey, Plan: "unlimited", Clock: clock,
		History: 7 * 24 * time.Hour, RunsPerDay: l.perDay, HistoryRunsPerDay: l.perDay, Troubles: troubles,
	})
}

// tick is one poll and one scrape, as far as the incidents let them be.
func (l *life) tick(ctx context.Context, now time.Time, w *simulator.Workspace, c *collector.Collector, handler http.Handler, rec *recording) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	stale := false
	for _, in := range l.incidents {
		since := now.Sub(l.start.Add(in.at))
		if since < 0 || since >= in.lasts {
			continue
		}
		if in.down {
			return rec.value("up", "0", now)
		}
		stale = stale || in.stale
		if in.rows && since < l.step {
			w.PutAll([]simulator.Run{{UID: "00000000-0000-4000-8000-000000000000", Status: edges.StatusFailed, Raw: json.RawMessage(`{"id":1,"uid":null}`)}})
		}
	}
	if !stale {
		// A poll that fails is what some incidents are about: edges_up says it.
		_ = c.Poll(ctx)
	}
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, httptest.NewRequestWithContext(ctx, http.MethodGet, "/metrics", nil))
	if answer.Code != http.StatusOK {
		return fmt.Errorf("scrape: %d", answer.Code)
	}
	if err := rec.value("up", "1", now); err != nil {
		return err
	}
	return rec.scrape(answer.Body.Bytes(), now)
}

// recording writes scrapes as OpenMetrics text. A sample that is like the one
// before is left out, but for one in a while, and the last one before a change:
// so the numbers are those of every scrape at a fraction of their size.
type recording struct {
	step   time.Duration
	series map[string]*last
	out    *bufio.Writer
	// scraped is when the scrape before this one was.
	scraped time.Time
}

type last struct {
	value   string
	written time.Time
	// scraped is when the series was last there.
	scraped time.Time
}

func newRecording(step time.Duration) *recording {
	return &recording{step: step, series: map[string]*last{}}
}

// file lets write fill a new file.
func (r *recording) file(path string, write func() error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	r.out = bufio.NewWriterSize(f, 1<<20)
	if err := write(); err != nil {
		f.Close() //nolint:errcheck // the first error is the one to tell
		return err
	}
	r.out.WriteString("# EOF\n") //nolint:errcheck // Flush tells
	if err := r.out.Flush(); err != nil {
		return err
	}
	return f.Close()
}

// scrape records an exposition in the text format.
func (r *recording) scrape(body []byte, now time.Time) error {
	for line := range bytes.Lines(body) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		// Only messages use the problem runs, of which there are new ones all
		// the time.
		if len(line) == 0 || line[0] == '#' || bytes.HasPrefix(line, []byte("edges_run_problem_")) {
			continue
		}
		cut := bytes.LastIndexByte(line, ' ')
		if s := r.series[string(line[:cut])]; s != nil && s.value == string(line[cut+1:]) && now.Sub(s.written) < keepAlive(string(line)) {
			s.scraped = now
			continue
		}
		if err := r.value(string(line[:cut]), string(line[cut+1:]), now); err != nil {
			return err
		}
	}
	r.scraped = now
	return nil
}

// keepAlive is how often an unchanged sample is written: more often than the
// five minutes after which Prometheus takes a series for gone. Buckets are read
// over an hour and more only.
func keepAlive(series string) time.Duration {
	if strings.Contains(series, "_bucket{") {
		return 20 * time.Minute
	}
	return 4 * time.Minute
}

func (r *recording) value(series, value string, now time.Time) error {
	s := r.series[series]
	if s == nil {
		s = &last{}
		r.series[series] = s
	} else if s.value != value && s.scraped.After(s.written) {
		if err := r.write(series, s.value, s.scraped); err != nil {
			return err
		}
	}
	s.scraped = now
	if s.value == value && now.Sub(s.written) < keepAlive(series) {
		return nil
	}
	s.value, s.written = value, now
	return r.write(series, value, now)
}

func (r *recording) write(series, value string, at time.Time) error {
	name, labels, ok := strings.Cut(strings.TrimSuffix(series, "}"), "{")
	if ok && labels != "" {
		labels += ","
	}
	_, err := fmt.Fprintf(r.out, "%s{%sinstance=\"exporter:10253\",job=\"edges\"} %s %d\n", name, labels, value, at.Unix())
	return err
}
