package collector

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/edges-exporter/edges_exporter/edges"
)

func TestMain(m *testing.M) {
	if actAs() {
		return
	}
	goleak.VerifyTestMain(m)
}

// rig is a collector in front of a server, and a scraper behind it.
type rig struct {
	t   testing.TB
	srv *server
	cfg Config
	c   *Collector
	web *httptest.Server
	// scraper is a client of its own, so that its connections can be closed.
	scraper *http.Client
	// answering is held for reading by each scrape's handler until it returns:
	// what a scrape saw is noted after its last byte was sent.
	answering sync.RWMutex
	log       *lines
	// pages bounds how many list requests a poll may make; 0 is no bound.
	pages int
	// keys are the names in samples of the series that were read, by those on
	// the page.
	keys map[string]string
	// shown is the highest value that each counter was shown with.
	shown samples
}

// lines collects a log.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// newRig starts a collector on a fresh store. Zero-hold is 0: a series shows
// its value with the poll after a scrape that has seen its 0.
func newRig(t testing.TB, changes ...func(*Config)) *rig {
	t.Helper()
	r := &rig{
		t: t, srv: newServer(t), log: &lines{}, keys: map[string]string{}, shown: samples{},
		scraper: &http.Client{Transport: &http.Transport{DisableCompression: true}},
	}
	r.cfg = Config{
		Workspace:     "test",
		StorePath:     filepath.Join(t.TempDir(), "store"),
		PollInterval:  time.Hour, // as long as a poll may take: no poll here is cut short by time
		PollOverlap:   30 * time.Second,
		AuditInterval: 15 * time.Minute,
		Retention:     90 * 24 * time.Hour,
		MaxActions:    500,
		ProblemRuns:   20,
		Logger:        slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, change := range changes {
		change(&r.cfg)
	}
	own := prometheus.NewRegistry()
	r.web = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.answering.RLock()
		defer r.answering.RUnlock()
		r.c.Handler(own).ServeHTTP(w, q)
	}))
	r.open()
	t.Cleanup(func() {
		r.close()
		r.scraper.CloseIdleConnections()
		r.web.Close()
		if out := r.log.String(); strings.Contains(out, secret) || strings.Contains(out, apiKey) {
			t.Error("a secret is in the log")
		}
	})
	return r
}

// client makes a client that tries each request once, so that tests need not
// wait for it.
func (r *rig) client() *edges.Client {
	r.t.Helper()
	client, err := edges.NewClient(edges.Config{
		URL: r.srv.http.URL + "/v1", Key: func() (string, error) { return apiKey, nil },
		Timeout: 10 * time.Second, MaxRetries: -1, Logger: r.cfg.Logger,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return client
}

func (r *rig) open() {
	r.t.Helper()
	r.cfg.Client = r.client()
	c, err := New(r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.c = c
}

func (r *rig) close() {
	r.t.Helper()
	if r.c == nil {
		return
	}
	if err := r.c.Close(); err != nil {
		r.t.Error(err)
	}
	r.cfg.Client.Close()
	r.c = nil
}

func (r *rig) restart() {
	r.t.Helper()
	r.close()
	r.open()
}

// poll polls once, and the poll must succeed.
func (r *rig) poll() {
	r.t.Helper()
	if err := r.tryPoll(); err != nil {
		r.t.Fatalf("poll: %v", err)
	}
}

// tryPoll polls once, with a fresh budget if there is a bound on pages. The
// server takes from the budget, so that no poll waits for it.
func (r *rig) tryPoll() error {
	r.t.Helper()
	if r.pages > 0 {
		budget, err := edges.NewBudget(r.pages, "")
		if err != nil {
			r.t.Fatal(err)
		}
		defer budget.Close()
		var mu sync.Mutex
		taken := 0
		outer := r.srv.hook()
		r.srv.between(func(n int, q url.Values) {
			mu.Lock()
			if taken++; taken <= r.pages {
				if _, err := budget.Acquire(r.t.Context()); err != nil {
					r.t.Error(err)
				}
			}
			mu.Unlock()
			if outer != nil {
				outer(n, q)
			}
		})
		defer r.srv.between(outer)
		r.c.follower.budget, r.c.follower.reserve = budget, 0
		defer func() { r.c.follower.budget = nil }()
	}
	return r.c.Poll(r.t.Context())
}

// leap lets a long time pass: a jump of the clock by more than five minutes
// has to be said twice.
func (r *rig) leap(d time.Duration) {
	r.t.Helper()
	r.srv.advance(d)
	r.poll()
	r.poll()
}

// look polls and scrapes until everything that was counted shows.
func (r *rig) look() samples {
	r.t.Helper()
	r.poll()
	r.scrape()
	r.poll()
	return r.scrape()
}

// settle lets everything become visible, be read and be shown.
func (r *rig) settle() samples {
	r.t.Helper()
	pages := r.pages
	r.pages = 0
	defer func() { r.pages = pages }()
	r.poll()
	for range 3 {
		r.srv.advance(r.cfg.PollOverlap + time.Second)
		r.poll()
	}
	return r.look()
}

// get asks for the metrics page.
func (r *rig) get(method string, header ...string) (*http.Response, []byte) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.web.URL, http.NoBody)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := r.scraper.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	r.answering.Lock() // waits for the handlers
	defer r.answering.Unlock()
	return resp, body
}

// samples are the values of a scrape by name and labels.
type samples map[string]float64

// scrape reads the metrics as a scraper does, and checks what must hold for
// any two scrapes: no counter goes back, and none appears above 0.
func (r *rig) scrape() samples {
	r.t.Helper()
	resp, body := r.get(http.MethodGet)
	if resp.StatusCode != http.StatusOK {
		r.t.Fatalf("scrape: %s: %s", resp.Status, body)
	}
	if bytes.Contains(body, []byte(secret)) || bytes.Contains(body, []byte(apiKey)) {
		r.t.Fatal("a secret is in the metrics")
	}
	out := r.read(body)
	for k, v := range out {
		name, _, _ := strings.Cut(k, "{")
		monotonic := strings.HasSuffix(name, "_total") || strings.HasSuffix(name, "_count") ||
			strings.HasSuffix(name, "_sum") || strings.HasSuffix(name, "_bucket")
		if !monotonic {
			continue
		}
		old, known := r.shown[k]
		if !known && v != 0 {
			r.t.Errorf("%s is born at %v", k, v)
		}
		if v < old {
			r.t.Errorf("%s goes back from %v to %v", k, old, v)
		}
		r.shown[k] = v
	}
	for k := range r.shown {
		if _, ok := out[k]; !ok {
			r.t.Errorf("%s is not shown any more", k)
			delete(r.shown, k)
		}
	}
	return out
}

// read reads a page of which most series were there before: only what is new is
// left to the library, and then the whole page is too, to compare. Thousands of
// pages are read, under the race detector.
func (r *rig) read(page []byte) samples {
	r.t.Helper()
	out, news := make(samples, len(r.keys)), false
	for line := range bytes.Lines(page) {
		if line[0] == '#' {
			continue
		}
		cut := bytes.LastIndexByte(line, ' ')
		key, ok := r.keys[string(line[:cut])]
		if !ok {
			news = true
			for key = range parse(r.t, line) {
				r.keys[string(line[:cut])] = key
			}
		}
		v, err := strconv.ParseFloat(string(bytes.TrimSpace(line[cut:])), 64)
		if err != nil {
			r.t.Fatalf("scrape: %v", err)
		}
		out[key] = v
	}
	if news {
		if whole := parse(r.t, page); !maps.Equal(out, whole) {
			r.t.Fatalf("read line by line, the page has %v, and as a whole %v", out, whole)
		}
	}
	return out
}

// parse reads a page in the classic text format.
func parse(t testing.TB, page []byte) samples {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(page))
	if err != nil {
		t.Fatalf("scrape: %v", err)
	}
	return flatten(families)
}

func flatten(families map[string]*dto.MetricFamily) samples {
	out := samples{}
	for _, f := range families {
		for _, m := range f.Metric {
			key := func(suffix string, more ...string) string {
				pairs := slices.Clone(more)
				for _, l := range m.Label {
					if l.GetName() != "workspace" {
						pairs = append(pairs, l.GetName()+"="+l.GetValue())
					}
				}
				slices.Sort(pairs)
				return f.GetName() + suffix + "{" + strings.Join(pairs, ",") + "}"
			}
			switch {
			case m.Counter != nil:
				out[key("")] = m.Counter.GetValue()
			case m.Gauge != nil:
				out[key("")] = m.Gauge.GetValue()
			case m.Untyped != nil: // a line on its own
				out[key("")] = m.Untyped.GetValue()
			case m.Histogram != nil:
				out[key("_count")] = float64(m.Histogram.GetSampleCount())
				out[key("_sum")] = m.Histogram.GetSampleSum()
				for _, b := range m.Histogram.Bucket {
					out[key("_bucket", fmt.Sprintf("le=%v", b.GetUpperBound()))] = float64(b.GetCumulativeCount())
				}
			}
		}
	}
	return out
}

// sum adds up all samples of a name that have the given labels, as name=value.
func (s samples) sum(name string, labels ...string) float64 {
	total := 0.0
	for k, v := range s {
		n, rest, _ := strings.Cut(k, "{")
		if n != name {
			continue
		}
		have := strings.Split(strings.TrimSuffix(rest, "}"), ",")
		all := true
		for _, l := range labels {
			all = all && slices.Contains(have, l)
		}
		if all {
			total += v
		}
	}
	return total
}

// values returns the distinct values of a label in a family.
func (s samples) values(name, label string) []string {
	found := map[string]bool{}
	for k := range s {
		n, rest, _ := strings.Cut(k, "{")
		for pair := range strings.SplitSeq(strings.TrimSuffix(rest, "}"), ",") {
			if v, ok := strings.CutPrefix(pair, label+"="); ok && n == name {
				found[v] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// want compares samples, each given by its whole key.
func (s samples) want(t testing.TB, want samples) {
	t.Helper()
	for _, k := range slices.Sorted(maps.Keys(want)) {
		got, ok := s[k]
		if !ok && want[k] != 0 {
			t.Errorf("%s is missing, want %v", k, want[k])
		} else if math.Abs(got-want[k]) > 1e-9*math.Abs(want[k]) {
			t.Errorf("%s is %v, want %v", k, got, want[k])
		}
	}
}

// held returns the ledger's records by uid.
func (r *rig) held() map[string]record {
	r.t.Helper()
	out := map[string]record{}
	err := r.c.store.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketRuns).ForEach(func(k, v []byte) error {
			rec, err := decodeRecord(v, keyTime(k)*int64(time.Millisecond))
			if err != nil {
				return err
			}
			if _, twice := out[keyUID(k)]; twice {
				return errors.New("run " + keyUID(k) + " is in the ledger twice")
			}
			out[keyUID(k)] = rec
			return nil
		})
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// behind lists the visible rows, updated up to a time, that the ledger does
// not hold as they are.
func (r *rig) behind(upTo time.Time) []string {
	r.t.Helper()
	held := r.held()
	var out []string
	for _, w := range r.srv.visible() {
		if w.raw != "" || w.updated.After(upTo) || !w.created.IsZero() && !w.created.After(r.srv.clock().Add(-r.cfg.Retention)) {
			continue
		}
		h, ok := held[w.uid]
		if !ok {
			out = append(out, fmt.Sprintf("%s (%s, updated %s) is missing", w.uid, w.status, w.updated.Format(time.TimeOnly)))
			continue
		}
		status := r.c.ledger.dicts[labelStatus].name(h.status)
		if status != w.status || h.updated != nanos(w.updated) || h.started != nanos(w.started) || h.finished != nanos(w.finished) ||
			h.outputs != w.outputs || h.retries != w.retries || h.gone {
			out = append(out, fmt.Sprintf("%s is %s updated %s (gone: %v), want %s updated %s", w.uid,
				status, time.Unix(0, h.updated).UTC().Format(time.StampMilli), h.gone, w.status, w.updated.Format(time.StampMilli)))
		}
	}
	slices.Sort(out)
	return out
}

// exact fails unless ledger and gauges hold the server's rows, and of other
// rows only those that were removed.
func (r *rig) exact(removed ...string) samples {
	r.t.Helper()
	far := r.srv.clock().Add(1000 * time.Hour)
	if b := r.behind(far); len(b) > 0 {
		r.t.Errorf("%d runs are not in the ledger as they are, such as:\n%s", len(b), strings.Join(b[:min(5, len(b))], "\n"))
	}
	want := map[string]float64{}
	visible := map[string]bool{}
	for _, w := range r.srv.visible() {
		visible[w.uid] = true
		if w.raw == "" && (w.created.IsZero() || w.created.After(r.srv.clock().Add(-r.cfg.Retention))) {
			want[gaugeKey(w)]++
		}
	}
	gone := 0
	for uid, h := range r.held() {
		switch {
		case visible[uid]:
		case !slices.Contains(removed, uid):
			r.t.Errorf("run %s is in the ledger, but not in the list", uid)
		case !h.gone:
			l := r.c.ledger
			want[fmt.Sprintf("edges_runs{action=%s,mode=%s,status=%s}", l.dicts[labelAction].name(h.action), l.dicts[labelMode].name(h.mode), l.dicts[labelStatus].name(h.status))]++
		default:
			gone++
		}
	}
	got := r.scrape()
	r.consistent(got)
	for k, v := range got {
		if strings.HasPrefix(k, "edges_runs{") && v != want[k] {
			r.t.Errorf("%s is %v, want %v", k, v, want[k])
		}
		delete(want, k)
	}
	for k, v := range want {
		r.t.Errorf("%s is missing, want %v", k, v)
	}
	return got
}

// consistent checks what must hold after any poll: the ledger's runs are those
// of the gauges and the tombstones, and nothing is negative.
func (r *rig) consistent(got samples) {
	r.t.Helper()
	held, gone := r.held(), 0
	for _, h := range held {
		if h.gone {
			gone++
		}
	}
	total := got.sum("edges_ledger_runs")
	if int(total) != len(held) {
		r.t.Errorf("edges_ledger_runs is %v, the ledger holds %d", total, len(held))
	}
	if runs := got.sum("edges_runs"); int(runs) != len(held)-gone {
		r.t.Errorf("the sum of edges_runs is %v, the ledger holds %d of which %d are gone", runs, len(held), gone)
	}
	for k, v := range got {
		if v < 0 {
			r.t.Errorf("%s is %v", k, v)
		}
	}
}

func gaugeKey(w row) string {
	return "edges_runs{action=" + or(w.action, "unknown") + ",mode=" + modeOf(w) + ",status=" + or(w.status, "unknown") + "}"
}

func modeOf(w row) string {
	if w.schedule != "" {
		return "SCHEDULE"
	}
	return or(w.mode, "unknown")
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func contextOf(t *testing.T) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, cancel
}

// httptestServer serves a handler until the test ends.
func httptestServer(t testing.TB, h http.Handler) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}
