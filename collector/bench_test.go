package collector

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/edges-exporter/edges_exporter/edges"
)

var large = flag.Bool("large", false, "benchmarks with a million runs, which take minutes to prepare")

// The test binary plays other processes too, so that their CPU and memory are
// not counted with what is measured.
const (
	asServer  = "EDGES_COLLECTOR_TEST_SERVE"  // a list of so many runs
	asScraper = "EDGES_COLLECTOR_TEST_SCRAPE" // URL, Accept, number of scrapes
	asMemory  = "EDGES_COLLECTOR_TEST_MEMORY" // path of a store, URL of a list
)

// actAs does what another process asks for, and returns true if one did.
func actAs() bool {
	switch {
	case os.Getenv(asServer) != "":
		n, _ := strconv.Atoi(os.Getenv(asServer))
		serveList(n)
	case os.Getenv(asScraper) != "":
		part := strings.Split(os.Getenv(asScraper), " ")
		n, _ := strconv.Atoi(part[2])
		if err := scrapeMany(part[0], part[1], n); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case os.Getenv(asMemory) != "":
		path, url, _ := strings.Cut(os.Getenv(asMemory), " ")
		if err := useMemory(path, url); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		return false
	}
	return true
}

func serveList(n int) {
	s := &server{now: start, rows: map[string]*row{}}
	for i := range n {
		w := past(i)
		w.created, w.updated, w.finished = start.Add(-time.Duration(i)*5*time.Second-time.Minute), start.Add(-time.Duration(i)*5*time.Second), start.Add(-time.Duration(i)*5*time.Second)
		w.started = w.created
		w.action = fmt.Sprintf("action-%d", i%12)
		s.put(w)
	}
	s.http = httptest.NewServer(s)
	_, _ = fmt.Fprintln(os.Stdout, s.http.URL)
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent ends
}

func scrapeMany(url, accept string, n int) error {
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	for range n {
		req, err := http.NewRequest(http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		req.Header.Set("Accept", accept)
		req.Header.Set("Accept-Encoding", "gzip")
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Encoding") != "gzip" {
			return fmt.Errorf("%s, %q", resp.Status, resp.Header.Get("Content-Encoding"))
		}
	}
	return nil
}

// child starts the test binary as another process and returns its first line.
func child(b *testing.B, env, value string) string {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), env+"="+value)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	if env != asServer {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			b.Fatal(err)
		}
	}
	return strings.TrimSpace(line)
}

// cpu is the CPU time of this process, without its children.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchConfig(b *testing.B, url string) Config {
	b.Helper()
	client, err := edges.NewClient(edges.Config{URL: url + "/v1", Key: func() (string, error) { return apiKey, nil }, MaxRetries: -1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(client.Close)
	return Config{
		Client: client, Workspace: "test", StorePath: filepath.Join(b.TempDir(), "store"),
		PollInterval: time.Hour, PollOverlap: 30 * time.Second, AuditInterval: 15 * time.Minute, Retention: 90 * day,
		MaxActions: 500, ProblemRuns: 20, Logger: slog.New(slog.DiscardHandler),
	}
}

// runs makes n runs as a page of the list has them, from the given number on.
func runs(from, n int, status edges.Status, updated time.Time) []edges.Run {
	out := make([]edges.Run, n)
	for i := range out {
		k := from + i
		created := start.Add(-time.Duration(k) * time.Second)
		out[i] = edges.Run{
			UID: uid(k), ActionName: "action-" + strconv.Itoa(k%12), ExecutionMode: edges.ModeAsync, Status: status,
			OutputCount: 12, CreatedAt: created, StartedAt: created.Add(time.Second), UpdatedAt: created.Add(time.Minute),
		}
		if !updated.IsZero() {
			out[i].UpdatedAt = updated
		}
		if status.Ended() {
			out[i].FinishedAt = out[i].UpdatedAt
		}
	}
	return out
}

// fill puts n runs into a collector's ledger; one in a hundred is in flight.
func fill(tb testing.TB, c *Collector, n int) {
	tb.Helper()
	st := &state{T0: start.UnixNano(), Clock: start.UnixNano(), Wall: time.Now().UnixNano(), Settled: start.UnixNano(), Newest: start.UnixNano(), DeepAt: start.UnixNano()}
	const batch = 10_000
	for from := n; from > 0; from -= batch { // the oldest first: keys in order
		size := min(batch, from)
		rows := runs(from-size, size, edges.StatusSucceeded, time.Time{})
		for i := 0; i < len(rows); i += 100 {
			rows[i].Status, rows[i].FinishedAt = edges.StatusRunning, time.Time{}
		}
		for i := range len(rows) / 2 {
			rows[i], rows[len(rows)-1-i] = rows[len(rows)-1-i], rows[i]
		}
		if err := c.commit(st, []observation{{rows: rows, now: st.Clock}}, ownCounts{}); err != nil {
			tb.Fatal(err)
		}
	}
}

// BenchmarkApplyPage books one page of 100 rows in a ledger of 20,000 runs.
func BenchmarkApplyPage(b *testing.B) {
	for _, kind := range []string{"new", "changed", "unchanged"} {
		b.Run(kind, func(b *testing.B) {
			c, err := New(benchConfig(b, "http://127.0.0.1:1"))
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			fill(b, c, 20_000)
			st := c.state.clone()
			at := start
			b.ReportAllocs()
			before := cpu(b)
			n := 0
			for b.Loop() {
				var rows []edges.Run
				switch kind {
				case "new":
					rows = runs(30_000+100*n, 100, edges.StatusSucceeded, time.Time{})
				case "changed":
					at = at.Add(time.Second)
					rows = runs(500, 100, edges.StatusFailed, at)
				default:
					rows = runs(501, 98, edges.StatusSucceeded, time.Time{})
				}
				n++
				if err := c.commit(st, []observation{{rows: rows, now: st.Clock}}, ownCounts{}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(100*n), "µs-cpu/run")
		})
	}
}

// BenchmarkCommit commits batches of new runs as a backfill does, and the empty
// commit of a quiet poll.
func BenchmarkCommit(b *testing.B) {
	for _, size := range []int{0, 2000} {
		b.Run(fmt.Sprintf("%d runs", size), func(b *testing.B) {
			c, err := New(benchConfig(b, "http://127.0.0.1:1"))
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			fill(b, c, 20_000)
			st := c.state.clone()
			b.ReportAllocs()
			before := cpu(b)
			n := 0
			for b.Loop() {
				rows := runs(30_000+size*n, size, edges.StatusSucceeded, time.Time{})
				if err := c.commit(st, []observation{{rows: rows, now: st.Clock}}, ownCounts{}); err != nil {
					b.Fatal(err)
				}
				n++
			}
			took := float64((cpu(b) - before).Microseconds())
			if size > 0 {
				b.ReportMetric(took/float64(size*n), "µs-cpu/run")
			} else {
				b.ReportMetric(took/float64(n), "µs-cpu/op")
			}
		})
	}
}

// BenchmarkBackfill is a whole first start: HTTP, decoding, booking and
// commits; the server is another process.
func BenchmarkBackfill(b *testing.B) {
	const n = 50_000
	url := child(b, asServer, strconv.Itoa(n))
	first, err := New(benchConfig(b, url)) // the server encodes its rows once
	if err != nil {
		b.Fatal(err)
	}
	if err := errors.Join(first.Poll(b.Context()), first.Close()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	var took time.Duration
	rounds := 0
	for b.Loop() {
		before := cpu(b)
		c, err := New(benchConfig(b, url))
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Poll(b.Context()); err != nil {
			b.Fatal(err)
		}
		if s := c.State(); s.Runs != n || !s.BackfillComplete {
			b.Fatalf("the backfill read %d runs", s.Runs)
		}
		took += cpu(b) - before
		rounds++
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(took.Microseconds())/float64(n*rounds), "µs-cpu/run")
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(n*rounds), "µs/run")
}

// BenchmarkScrape measures the CPU of a scrape over HTTP with gzip; the scraper
// is another process.
func BenchmarkScrape(b *testing.B) {
	for _, series := range []int{1000, 10_000} {
		c, err := New(benchConfig(b, "http://127.0.0.1:1"))
		if err != nil {
			b.Fatal(err)
		}
		own := prometheus.NewRegistry()
		own.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
		web := httptest.NewServer(c.Handler(own))
		st := &state{T0: start.UnixNano(), Clock: start.UnixNano(), Wall: time.Now().UnixNano(), Settled: start.UnixNano(), Newest: start.UnixNano()}
		lines := 0
		for actions := 0; lines < series; actions++ {
			rows := runs(0, 20, edges.StatusFailed, start.Add(time.Minute))
			for i := range rows {
				rows[i].UID, rows[i].ActionName = uid(100*actions+i), fmt.Sprintf("linkedin-extract-action-%d", actions)
				rows[i].CreatedAt = start.Add(time.Second)
				rows[i].StartedAt = start.Add(time.Duration(i+2) * 777 * time.Millisecond)
			}
			if err := c.commit(st, []observation{{rows: rows, now: st.Clock}}, ownCounts{}); err != nil {
				b.Fatal(err)
			}
			c.publish()
			lines = samplesOf(b, web.URL)
		}
		// What was seen at 0 is released with the next commit.
		if err := c.commit(st, nil, ownCounts{}); err != nil {
			b.Fatal(err)
		}
		c.publish()
		for name, accept := range map[string]string{"text": acceptText, "openmetrics": acceptOpenMetrics} {
			b.Run(fmt.Sprintf("%d series/%s", series, name), func(b *testing.B) {
				// The first asks for the rendering, which later commits have ready.
				child(b, asScraper, web.URL+" "+accept+" 1")
				c.publish()
				before := cpu(b)
				b.ResetTimer()
				child(b, asScraper, fmt.Sprintf("%s %s %d", web.URL, accept, b.N))
				b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "µs-cpu/scrape")
				b.ReportMetric(float64(lines), "series")
			})
		}
		web.Close()
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func samplesOf(b *testing.B, url string) int {
	b.Helper()
	resp, err := http.Get(url)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	n := 0
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "edges_") {
			n++
		}
	}
	return n
}

// BenchmarkPublish renders a page as each commit does it, in the formats that
// scrapes ask for.
func BenchmarkPublish(b *testing.B) {
	c, err := New(benchConfig(b, "http://127.0.0.1:1"))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	web := httptest.NewServer(c.Handler(prometheus.NewRegistry()))
	defer web.Close()
	st := &state{T0: start.UnixNano(), Clock: start.UnixNano(), Settled: start.UnixNano()}
	rows := runs(0, 1200, edges.StatusFailed, start.Add(time.Minute))
	for i := range rows {
		rows[i].ActionName = fmt.Sprintf("linkedin-extract-action-%d", i%60)
	}
	if err := c.commit(st, []observation{{rows: rows, now: st.Clock}}, ownCounts{}); err != nil {
		b.Fatal(err)
	}
	if err := scrapeMany(web.URL, acceptOpenMetrics, 1); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		c.publish()
	}
	b.ReportMetric(float64(samplesOf(b, web.URL)), "series")
	http.DefaultClient.CloseIdleConnections()
}

// sizes are the numbers of runs in the ledger that are compared.
func sizes() []int {
	if *large {
		return []int{10_000, 100_000, 1_000_000}
	}
	return []int{10_000, 100_000}
}

// BenchmarkStart opens a store until it could be scraped.
func BenchmarkStart(b *testing.B) {
	for _, n := range sizes() {
		b.Run(fmt.Sprintf("%d runs", n), func(b *testing.B) {
			cfg := benchConfig(b, "http://127.0.0.1:1")
			c, err := New(cfg)
			if err != nil {
				b.Fatal(err)
			}
			fill(b, c, n)
			if err := c.Close(); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				c, err := New(cfg)
				if err != nil {
					b.Fatal(err)
				}
				if got := c.State().Runs; got != int64(n) {
					b.Fatalf("the store holds %d runs", got)
				}
				b.StopTimer()
				if err := c.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1000, "ms/start")
		})
	}
}

// BenchmarkMemory measures a process of its own that has opened the store,
// polled and been scraped.
func BenchmarkMemory(b *testing.B) {
	for _, n := range sizes() {
		b.Run(fmt.Sprintf("%d runs", n), func(b *testing.B) {
			url := child(b, asServer, "5000")
			cfg := benchConfig(b, url)
			c, err := New(cfg)
			if err != nil {
				b.Fatal(err)
			}
			fill(b, c, n)
			if err := c.Close(); err != nil {
				b.Fatal(err)
			}
			var heap, anonymous, file float64
			for b.Loop() {
				if _, err := fmt.Sscan(child(b, asMemory, cfg.StorePath+" "+url), &heap, &anonymous, &file); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(heap/(1<<20), "MiB-heap")
			b.ReportMetric(anonymous/(1<<20), "MiB-anonymous")
			b.ReportMetric(file/(1<<20), "MiB-store")
		})
	}
}

func useMemory(path, url string) error {
	client, err := edges.NewClient(edges.Config{URL: url + "/v1", Key: func() (string, error) { return apiKey, nil }, MaxRetries: -1})
	if err != nil {
		return err
	}
	c, err := New(Config{
		Client: client, Workspace: "test", StorePath: path, PollInterval: time.Minute, PollOverlap: 30 * time.Second,
		AuditInterval: 1000 * day, Retention: 90 * day, MaxActions: 500, ProblemRuns: 20, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	web := httptest.NewServer(c.Handler(prometheus.NewRegistry()))
	for range 3 {
		if err := c.Poll(context.Background()); err != nil {
			return err
		}
		if err := scrapeMany(web.URL, acceptOpenMetrics, 1); err != nil {
			return err
		}
	}
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintln(os.Stdout, m.HeapInuse, anonymousBytes(), info.Size())
	return c.Close()
}

// anonymousBytes is the memory of this process that no file stands behind.
func anonymousBytes() int64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "RssAnon: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	return 0
}
