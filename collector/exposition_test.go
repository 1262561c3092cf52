package collector

import (
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/edges-exporter/edges_exporter/edges"
)

var update = flag.Bool("update", false, "write the golden files anew")

const (
	acceptText        = "text/plain;version=0.0.4"
	acceptOpenMetrics = "application/openmetrics-text;version=1.0.0"
	acceptProtobuf    = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
)

// scene is a small workspace in which something of everything has happened.
func scene(t *testing.T, changes ...func(*Config)) *rig {
	t.Helper()
	r, e := besideRig(t, changes...)
	e.schedules = []edges.Schedule{
		{UID: uid(9), Name: "every \"hour\"", ActionName: "visit", Status: edges.ScheduleActive, NextExecutionAt: start.Add(time.Hour), CreatedAt: start},
		{UID: uid(10), ActionName: "extract", Status: edges.SchedulePaused, LastExecutedAt: start.Add(-time.Hour), CreatedAt: start},
	}
	e.callbacks = []edges.Callback{callback(1, edges.CallbackPending, 0, start.Add(-time.Minute)), callback(2, edges.CallbackSuccess, 200, start.Add(-time.Second))}
	r.srv.put(
		row{uid: uid(1), action: "extract", mode: "ASYNC", status: "RUNNING", created: start.Add(-2 * time.Hour), started: start.Add(-time.Hour), updated: start.Add(-time.Hour)},
		row{uid: uid(2), action: "extract", mode: "LIVE", status: "SUCCEEDED", created: start.Add(-2 * time.Hour), started: start.Add(-2 * time.Hour), finished: start.Add(-time.Hour), updated: start.Add(-time.Hour)},
	)
	r.look()
	at := r.srv.advance(10 * time.Second)
	r.srv.put(
		row{uid: uid(3), action: "extract", mode: "ASYNC", status: "FAILED", errLabel: "LK_ERROR", outputs: 12, retries: 2, created: at.Add(-9 * time.Second), started: at.Add(-7 * time.Second), finished: at, updated: at},
		row{uid: uid(4), action: "visit \"x\"\\\n", mode: "ASYNC", schedule: uid(9), status: "SUCCEEDED", outputs: 3, created: at.Add(-5 * time.Second), started: at.Add(-4750 * time.Millisecond), finished: at, updated: at},
		row{uid: uid(5), action: "extract", mode: "ASYNC", status: "BLOCKED", errLabel: "LIMIT_REACHED", created: at.Add(-3 * time.Second), started: at.Add(-2 * time.Second), updated: at, postponed: at.Add(time.Hour)},
		row{uid: uid(6), status: "CREATED", created: at, updated: at},
	)
	e.do(func() { e.callbacks = append(e.callbacks, callback(3, edges.CallbackFailed, 404, at)) })
	r.due()
	r.look()
	return r
}

// clocked are numbers that depend on the exporter's own clock.
var clocked = regexp.MustCompile(`(?m)^(edges_poll_duration_seconds|edges_api_request_duration_seconds|edges_poll_last_success|edges_ledger_size|edges_api_throttled|edges_collector_last_success)(\S*) \S+.*$`)

// The whole page, letter by letter.
func TestExpositionGolden(t *testing.T) {
	for _, f := range []struct{ name, accept string }{{"exposition.txt", acceptText}, {"exposition.om.txt", acceptOpenMetrics}} {
		t.Run(f.name, func(t *testing.T) {
			r := scene(t)
			_, page := r.get(http.MethodGet, "Accept", f.accept)
			got := clocked.ReplaceAllString(string(page), "$1$2 *")
			got = regexp.MustCompile(`(?m)^(\S+_created\{.*\}) \S+$`).ReplaceAllString(got, "$1 *")
			golden := filepath.Join("testdata", f.name)
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				g, w := strings.Split(got, "\n"), strings.Split(string(want), "\n")
				for i := range min(len(g), len(w)) {
					if g[i] != w[i] {
						t.Fatalf("line %d is\n%s\nwant\n%s", i+1, g[i], w[i])
					}
				}
				t.Fatalf("%d lines, want %d", len(g), len(w))
			}
		})
	}
}

func TestExpositionLint(t *testing.T) {
	r := scene(t)
	_, page := r.get(http.MethodGet)
	problems, err := promlint.New(bytes.NewReader(page)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// What is exposed is what Metrics describes, and the other way round.
func TestExpositionIsDescribed(t *testing.T) {
	r := scene(t, func(c *Config) {
		b, err := edges.NewBudget(1000, "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		c.Budget = b
	})
	families := protobuf(t, r)
	described := map[string]bool{}
	for _, m := range Metrics() {
		described[m.Name] = true
		i := slices.IndexFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == m.Name })
		if i < 0 {
			t.Errorf("%s is described, but not exposed", m.Name)
			continue
		}
		f := families[i]
		if got := strings.ToLower(f.GetType().String()); got != m.Type {
			t.Errorf("%s is a %s, described as a %s", m.Name, got, m.Type)
		}
		if f.GetHelp() != m.Help || f.GetHelp() == "" {
			t.Errorf("%s has help %q, described as %q", m.Name, f.GetHelp(), m.Help)
		}
		for _, sample := range f.Metric {
			var names []string
			for _, l := range sample.Label {
				names = append(names, l.GetName())
			}
			want := slices.Sorted(slices.Values(m.Labels))
			if !slices.Equal(names, want) {
				t.Errorf("%s has labels %v, described with %v", m.Name, names, want)
			}
		}
	}
	for _, f := range families {
		if !described[f.GetName()] {
			t.Errorf("%s is exposed, but not described", f.GetName())
		}
	}
}

func protobuf(t *testing.T, r *rig) []*dto.MetricFamily {
	t.Helper()
	resp, page := r.get(http.MethodGet, "Accept", acceptProtobuf)
	return decode(t, page, expfmt.ResponseFormat(resp.Header))
}

func decode(t *testing.T, page []byte, format expfmt.Format) []*dto.MetricFamily {
	t.Helper()
	dec := expfmt.NewDecoder(bytes.NewReader(page), format)
	var out []*dto.MetricFamily
	for {
		f := &dto.MetricFamily{}
		if err := dec.Decode(f); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		out = append(out, f)
	}
}

// Native buckets hold exactly what was observed.
func TestNativeHistograms(t *testing.T) {
	r := newRig(t, func(c *Config) { c.NativeHistograms = true })
	r.poll()
	durations := []time.Duration{
		0, time.Millisecond, 2 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second,
		time.Second, 1001 * time.Millisecond, 1999 * time.Millisecond, 17 * time.Second, time.Hour, 25 * time.Hour, 40 * 24 * time.Hour,
	}
	at := r.srv.advance(10 * time.Second)
	for i, d := range durations {
		r.srv.put(row{uid: uid(i), action: "act", mode: "ASYNC", status: "SUCCEEDED", created: at.Add(-d), started: at.Add(-d), finished: at, updated: at})
	}
	r.look()
	seen := false
	for _, f := range protobuf(t, r) {
		if f.GetType() != dto.MetricType_HISTOGRAM {
			continue
		}
		for _, m := range f.Metric {
			h := m.Histogram
			if h.Schema == nil || len(h.PositiveSpan) == 0 {
				t.Errorf("%s %v has no native buckets", f.GetName(), m.Label)
				continue
			}
			if h.CreatedTimestamp == nil {
				t.Errorf("%s %v has no created timestamp", f.GetName(), m.Label)
			}
			counts := nativeCounts(t, h)
			total := h.GetZeroCount()
			for _, n := range counts {
				total += n
			}
			if total != h.GetSampleCount() {
				t.Errorf("%s %v: native buckets hold %d, the count is %d", f.GetName(), m.Label, total, h.GetSampleCount())
			}
			if n := h.Bucket[len(h.Bucket)-1]; n.GetCumulativeCount() != h.GetSampleCount() || !math.IsInf(n.GetUpperBound(), 1) {
				t.Errorf("%s %v: the last classic bucket is %v", f.GetName(), m.Label, n)
			}
			if f.GetName() != "edges_run_duration_seconds" || h.GetSampleCount() == 0 {
				continue
			}
			seen = true
			want, zero := map[int]uint64{}, uint64(0)
			for _, d := range durations {
				if d.Seconds() <= h.GetZeroThreshold() {
					zero++
					continue
				}
				// The bucket i has the bounds (base^(i-1), base^i].
				i := int(math.Ceil(math.Log2(d.Seconds()) * math.Exp2(float64(h.GetSchema()))))
				want[i]++
			}
			if fmt.Sprint(counts) != fmt.Sprint(want) || h.GetZeroCount() != zero {
				t.Errorf("native buckets are %v and zero %d, want %v and %d", counts, h.GetZeroCount(), want, zero)
			}
			for _, b := range h.Bucket {
				n := uint64(0)
				for _, d := range durations {
					if d.Seconds() <= b.GetUpperBound() {
						n++
					}
				}
				if b.GetCumulativeCount() != n {
					t.Errorf("the bucket up to %v holds %d, want %d", b.GetUpperBound(), b.GetCumulativeCount(), n)
				}
			}
		}
	}
	if !seen {
		t.Error("no duration was exposed")
	}
}

func nativeCounts(t *testing.T, h *dto.Histogram) map[int]uint64 {
	t.Helper()
	out := map[int]uint64{}
	index, last, k := 0, int64(0), 0
	for i, s := range h.PositiveSpan {
		if i > 0 && s.GetOffset() < 1 {
			t.Errorf("span %d begins %d after the one before", i, s.GetOffset())
		}
		index += int(s.GetOffset())
		for range s.GetLength() {
			last += h.PositiveDelta[k]
			k++
			if last <= 0 {
				t.Errorf("bucket %d holds %d", index, last)
			}
			out[index] = uint64(last)
			index++
		}
	}
	if k != len(h.PositiveDelta) {
		t.Errorf("%d deltas for %d buckets", len(h.PositiveDelta), k)
	}
	return out
}

// Without native histograms protobuf has classic buckets alone.
func TestClassicHistograms(t *testing.T) {
	r := scene(t)
	for _, f := range protobuf(t, r) {
		for _, m := range f.Metric {
			if m.Histogram != nil && (m.Histogram.Schema != nil || len(m.Histogram.PositiveSpan) > 0) {
				t.Errorf("%s has native buckets", f.GetName())
			}
		}
	}
}

// Counters of failures and buckets of durations lead to a run, and every
// counter says since when it counts.
func TestExemplarsAndCreatedTimestamps(t *testing.T) {
	r := scene(t)
	_, page := r.get(http.MethodGet, "Accept", acceptOpenMetrics)
	for _, want := range []string{
		`edges_run_transitions_total{action="extract",mode="ASYNC",status="FAILED",workspace="test"} 1.0 # {run_uid="` + uid(3) + `"} 1.0 `,
		`edges_run_errors_total{action="extract",error="LIMIT_REACHED",mode="ASYNC",status="BLOCKED",workspace="test"} 1.0 # {run_uid="` + uid(5) + `"} 1.0 `,
		`edges_run_duration_seconds_bucket{action="extract",mode="ASYNC",status="FAILED",workspace="test",le="10.0"} 1 # {run_uid="` + uid(3) + `"} 7.0 `,
		`edges_run_queue_duration_seconds_bucket{action="extract",mode="ASYNC",workspace="test",le="2.5"} 2 # {run_uid="` + uid(3) + `"} 2.0 `,
		`edges_run_transitions_created{action="extract",mode="ASYNC",status="FAILED",workspace="test"} `,
		`edges_run_duration_seconds_created{action="extract",mode="ASYNC",status="FAILED",workspace="test"} `,
	} {
		if !strings.Contains(string(page), want) {
			t.Errorf("no line begins with %s", want)
		}
	}
	if !strings.HasSuffix(string(page), "# EOF\n") || strings.Count(string(page), "# EOF") != 1 {
		t.Error("the page does not end in one # EOF")
	}
	now := time.Now()
	for _, f := range protobuf(t, r) {
		for _, m := range f.Metric {
			switch {
			case m.Counter != nil && m.Counter.CreatedTimestamp == nil, m.Histogram != nil && m.Histogram.CreatedTimestamp == nil:
				t.Errorf("%s %v has no created timestamp", f.GetName(), m.Label)
			case m.Counter != nil && m.Counter.CreatedTimestamp.AsTime().After(now):
				t.Errorf("%s %v was created in the future", f.GetName(), m.Label)
			}
		}
	}
}

// Every format holds the same numbers, with and without compression, whatever
// the process' own metrics are.
func TestFormatsAgree(t *testing.T) {
	r := scene(t)
	own := prometheus.NewRegistry()
	own.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	big := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "big", Help: strings.Repeat("long ", 50)}, []string{"x"})
	own.MustRegister(big)
	for size := range []int{0, 10, 3000} { // the end may be longer than one block
		for i := range []int{0, 10, 3000}[size] {
			big.WithLabelValues(fmt.Sprint(i) + strings.Repeat("x", 50)).Set(float64(i))
		}
		web := httptestServer(t, r.c.Handler(own))
		for _, accept := range []string{"", acceptText, acceptOpenMetrics, acceptProtobuf, "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3", "*/*"} {
			var plain []byte
			for _, encoding := range []string{"", "identity", "gzip", "br, gzip;q=0.5", "gzip;q=0", "GZIP"} {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, web, http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				if accept != "" {
					req.Header.Set("Accept", accept)
				}
				req.Header.Set("Accept-Encoding", encoding)
				resp, err := r.scraper.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Fatalf("%s, %v", resp.Status, err)
				}
				compressed := resp.Header.Get("Content-Encoding") == "gzip"
				if wanted := strings.HasPrefix(encoding, "gzip") && encoding != "gzip;q=0" || strings.HasPrefix(encoding, "br"); wanted != compressed && encoding != "GZIP" {
					t.Errorf("Accept-Encoding %q is answered with %q", encoding, resp.Header.Get("Content-Encoding"))
				}
				if compressed {
					src := bytes.NewReader(body)
					z, err := gzip.NewReader(src)
					if err != nil {
						t.Fatal(err)
					}
					z.Multistream(false) // one member holds all
					if body, err = io.ReadAll(z); err != nil {
						t.Fatalf("gzip: %v", err)
					}
					if src.Len() != 0 {
						t.Errorf("%d bytes follow the gzip member", src.Len())
					}
				}
				mine := edgesOnly(t, body, expfmt.ResponseFormat(resp.Header))
				if len(mine) < 1000 {
					t.Fatalf("Accept %q gives %d bytes of ours", accept, len(mine))
				}
				if plain == nil {
					plain = mine
				} else if !bytes.Equal(plain, mine) {
					t.Errorf("Accept %q with Accept-Encoding %q gives another page", accept, encoding)
				}
			}
		}
	}
}

// edgesOnly leaves out what may differ from one scrape to the next.
func edgesOnly(t *testing.T, page []byte, format expfmt.Format) []byte {
	t.Helper()
	var out []byte
	if format.FormatType() == expfmt.TypeProtoDelim {
		for _, f := range decode(t, page, format) {
			if strings.HasPrefix(f.GetName(), "edges_") {
				out = append(out, f.String()...)
			}
		}
		return bytes.ReplaceAll(out, []byte("  "), []byte(" ")) // String varies its spaces
	}
	for line := range bytes.Lines(page) {
		if bytes.HasPrefix(line, []byte("edges_")) || bytes.Contains(line, []byte(" edges_")) {
			out = append(out, line...)
		}
	}
	return out
}

func TestMethods(t *testing.T) {
	r := scene(t)
	resp, body := r.get(http.MethodHead)
	if resp.StatusCode != http.StatusOK || len(body) != 0 || resp.ContentLength <= 0 {
		t.Errorf("HEAD gives %s, %d bytes, Content-Length %d", resp.Status, len(body), resp.ContentLength)
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
		resp, _ := r.get(method)
		if resp.StatusCode != http.StatusMethodNotAllowed || !strings.Contains(resp.Header.Get("Allow"), "GET") {
			t.Errorf("%s gives %s, Allow %q", method, resp.Status, resp.Header.Get("Allow"))
		}
	}
	resp, _ = r.get(http.MethodGet, "Accept", acceptOpenMetrics)
	if ct := resp.Header.Get("Content-Type"); !strings.HasPrefix(ct, "application/openmetrics-text") {
		t.Errorf("Content-Type is %q", ct)
	}
}

// Scrapes and polls at the same time see whole commits: of a pair of numbers
// that change together, never one without the other.
func TestScrapesDuringPolls(t *testing.T) {
	r := newRig(t)
	r.poll()
	r.srv.put(fresh(1, r.srv.advance(time.Second)))
	r.look()
	stop, done := make(chan struct{}), sync.WaitGroup{}
	for _, accept := range []string{acceptText, acceptOpenMetrics, acceptProtobuf} {
		done.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				_, page := r.get(http.MethodGet, "Accept", accept, "Accept-Encoding", "gzip")
				if accept != acceptText || len(page) == 0 {
					continue
				}
				z, err := gzip.NewReader(bytes.NewReader(page))
				if err != nil {
					t.Error(err)
					return
				}
				plain, err := io.ReadAll(z)
				if err != nil {
					t.Error(err)
					return
				}
				got := parse(t, plain)
				runs, ledger := got.sum("edges_runs"), got.sum("edges_ledger_runs")
				made, ended := got.sum("edges_runs_created_total", "action=act1"), got.sum("edges_run_transitions_total", "status=SUCCEEDED", "action=act1")
				if runs != ledger || made != ended {
					t.Errorf("a scrape shows %v runs of %v, %v made and %v ended", runs, ledger, made, ended)
				}
			}
		})
	}
	for i := range 60 {
		now := r.srv.advance(time.Second)
		for k := range 50 {
			w := fresh(100+50*i+k, now)
			w.action = "act1"
			r.srv.put(w)
		}
		r.poll()
		_ = r.c.State()
		_ = r.c.Ready()
	}
	close(stop)
	done.Wait()
	r.settle()
	r.exact()
}

func TestReadyAndState(t *testing.T) {
	r := newRig(t)
	r.srv.put(past(1), past(2))
	if s := r.c.State(); r.c.Ready() || s.Up || s.Runs != 0 || !s.LastSuccess.IsZero() || s.Workspace != "test" {
		t.Errorf("before the first poll: ready %v, %+v", r.c.Ready(), s)
	}
	present(t, r.scrape(), samples{"edges_up{}": 0})
	r.srv.trouble(status(500))
	if err := r.tryPoll(); err == nil {
		t.Error("the poll succeeds")
	}
	if s := r.c.State(); r.c.Ready() || s.Up || s.LastError == "" || strings.Contains(s.LastError, apiKey) {
		t.Errorf("after a poll that failed: ready %v, %+v", r.c.Ready(), s)
	}
	r.srv.calm()
	r.poll()
	s := r.c.State()
	if !r.c.Ready() || !s.Up || s.LastError != "" || s.Runs != 2 || s.ByStatus["SUCCEEDED"] != 2 || !s.BackfillComplete ||
		!s.Watermark.Equal(start.Add(-30*time.Second)) || time.Since(s.LastSuccess) > time.Minute {
		t.Errorf("after a good poll: ready %v, %+v", r.c.Ready(), s)
	}
	present(t, r.scrape(), samples{"edges_up{}": 1})
}
