package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.etcd.io/bbolt"

	"github.com/edges-exporter/edges_exporter/collector"
	"github.com/edges-exporter/edges_exporter/edges/simulator"
)

// eventually asks until ok says yes, while the process lives.
func eventually(t *testing.T, p *process, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if ok() {
			return
		}
		if p.ended() {
			t.Fatalf("%s does not come true before the process ends; it wrote:\n%.4000s", what, p.output)
		}
	}
	t.Fatalf("%s does not come true; the process wrote:\n%.4000s", what, p.output)
}

// get reads a page; an error answers with status 0.
func get(t *testing.T, url string, headers ...string) (status int, header http.Header, body string) {
	t.Helper()
	return getWith(t, http.DefaultClient, url, headers...)
}

func getWith(t *testing.T, client *http.Client, url string, headers ...string) (status int, header http.Header, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := client.Do(r)
	if err != nil {
		return 0, nil, err.Error()
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatalf("read %s: %v", url, err)
	}
	return answer.StatusCode, answer.Header, string(text)
}

// small is a workspace with a short past, for tests that do not count.
func small() simulator.Config {
	return simulator.Config{Seed: 3, History: 2 * time.Hour, RunsPerDay: 2000, HistoryRunsPerDay: 2000}
}

// What is wrong with the command line is said in one line that names it.
func TestUsage(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte(" \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	web := filepath.Join(t.TempDir(), "web.yml")
	if err := os.WriteFile(web, []byte("tls_server_config:\n  cert_file: nowhere.pem\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		env  []string
		args []string
		says []string
	}{
		{"no key", nil, nil, []string{"EDGES_API_KEY", "--edges.api-key-file"}},
		{"blank key", []string{"EDGES_API_KEY= "}, nil, []string{"EDGES_API_KEY", "--edges.api-key-file"}},
		{"no key file", nil, []string{"--edges.api-key-file=/no/such/file"}, []string{"/no/such/file"}},
		{"empty key file", nil, []string{"--edges.api-key-file=" + empty}, []string{empty, "no key"}},
		{"folder as key file", nil, []string{"--edges.api-key-file=" + t.TempDir()}, []string{"API key file"}},
		{"unknown flag", nil, []string{"--poll.speed=9"}, []string{"--poll.speed", "--help"}},
		{"unknown command", nil, []string{"server"}, []string{"server"}},
		{"too many arguments", nil, []string{"serve", "twice"}, []string{"twice"}},
		{"no duration", nil, []string{"--poll.interval=soon"}, []string{"--poll.interval", "soon"}},
		{"no number", nil, []string{"--edges.max-requests-per-minute=many"}, []string{"--edges.max-requests-per-minute", "many"}},
		{"no interval", nil, []string{"--poll.interval=0s"}, []string{"--poll.interval"}},
		{"no timeout", nil, []string{"--edges.timeout=0s"}, []string{"--edges.timeout"}},
		{"no retention", nil, []string{"--edges.retention=0s"}, []string{"--edges.retention"}},
		{"no audit", nil, []string{"--poll.audit-interval=0s"}, []string{"--poll.audit-interval"}},
		{"no budget", nil, []string{"--edges.max-requests-per-minute=0"}, []string{"--edges.max-requests-per-minute", "0"}},
		{"negative budget", nil, []string{"--edges.max-requests-per-minute=-5"}, []string{"--edges.max-requests-per-minute", "-5"}},
		{"no actions", nil, []string{"--metrics.max-actions=0"}, []string{"--metrics.max-actions"}},
		{"too many actions", nil, []string{"--metrics.max-actions=70000"}, []string{"--metrics.max-actions", "70000"}},
		{"too many problem runs", nil, []string{"--metrics.problem-runs=1001"}, []string{"--metrics.problem-runs", "1001"}},
		{"no workspace", nil, []string{"--edges.workspace="}, []string{"--edges.workspace"}},
		{"unreadable workspace", nil, []string{"--edges.workspace=\xff"}, []string{"--edges.workspace"}},
		{"path of the landing page", nil, []string{"--web.telemetry-path=/"}, []string{"--web.telemetry-path"}},
		{"path of the health page", nil, []string{"--web.telemetry-path=/-/healthy"}, []string{"--web.telemetry-path"}},
		{"path without a slash", nil, []string{"--web.telemetry-path=metrics"}, []string{"--web.telemetry-path"}},
		{"path with a pattern", nil, []string{"--web.telemetry-path=/{x"}, []string{"--web.telemetry-path"}},
		{"no level", nil, []string{"--log.level=loud"}, []string{"--log.level", "loud"}},
		{"no format", nil, []string{"--log.format=xml"}, []string{"--log.format", "xml"}},
		{"no such web configuration", nil, []string{"--web.config.file=/no/web.yml"}, []string{"--web.config.file", "/no/web.yml"}},
		{"bad web configuration", nil, []string{"--web.config.file=" + web}, []string{"--web.config.file", "key_file"}},
		{"bad value in the environment", []string{"EDGES_EXPORTER_POLL_INTERVAL=later"}, nil, []string{"EDGES_EXPORTER_POLL_INTERVAL", "later"}},
		{"bad URL", []string{"EDGES_API_KEY=k"}, []string{"--edges.url=ftp://example.com", "--web.listen-address=127.0.0.1:0"}, []string{"--edges.url", "ftp://example.com"}},
		{"unknown plan", nil, []string{"simulate", "--simulator.plan=iron"}, []string{"iron"}},
		{"unknown trouble", nil, []string{"demo", "--simulator.trouble=rain"}, []string{"--simulator.trouble", "rain"}},
		{"bad health URL", nil, []string{"healthcheck", "http://[::"}, []string{"http://[::"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := start(t, append([]string{"EDGES_API_KEY=", "EDGES_EXPORTER_STORAGE_PATH=" + t.TempDir()}, test.env...), test.args...)
			if code := p.wait(t); code != exitUsage {
				t.Errorf("exit code %d, want %d", code, exitUsage)
			}
			out := p.output.String()
			if strings.Count(out, "\n") != 1 || !strings.HasPrefix(out, name+": ") {
				t.Errorf("not one line with the program's name:\n%s", out)
			}
			for _, s := range test.says {
				if !strings.Contains(out, s) {
					t.Errorf("%q is not in: %s", s, out)
				}
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	for flag, wants := range map[string][]string{
		"--help":    {"serve", "demo", "simulate", "--edges.api-key-file", "EDGES_EXPORTER_EDGES_API_KEY_FILE"},
		"-h":        {"--edges.url"},
		"--version": {name + ", version ", "go version"},
	} {
		t.Run(flag, func(t *testing.T) {
			p := start(t, nil, flag)
			if code := p.wait(t); code != exitOK {
				t.Errorf("exit code %d", code)
			}
			for _, s := range wants {
				if !strings.Contains(p.output.String(), s) {
					t.Errorf("%q is not in:\n%s", s, p.output)
				}
			}
			if strings.Contains(p.output.String(), name+", version  ") {
				t.Errorf("the version is empty:\n%s", p.output)
			}
		})
	}
}

func TestAddressInUse(t *testing.T) {
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.Addr().String()
	for name, args := range map[string][]string{
		"serve":                     {"--web.listen-address=" + address},
		"serve, of two addresses":   {"--web.listen-address=127.0.0.1:0", "--web.listen-address=" + address},
		"simulate":                  {"simulate", "--simulator.listen-address=" + address},
		"demo, simulator's address": {"demo", "--simulator.listen-address=" + address, "--web.listen-address=127.0.0.1:0"},
		"demo, exporter's address":  {"demo", "--simulator.listen-address=127.0.0.1:0", "--web.listen-address=" + address},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, []string{"EDGES_API_KEY=k", "EDGES_EXPORTER_STORAGE_PATH=" + t.TempDir()}, args...)
			if code := p.wait(t); code != exitFailed {
				t.Errorf("exit code %d, want %d", code, exitFailed)
			}
			if !strings.Contains(p.output.String(), address) {
				t.Errorf("%s is not named in:\n%s", address, p.output)
			}
		})
	}
}

// A second exporter on the same store ends with a clear line, and the first
// goes on.
func TestStoreInUse(t *testing.T) {
	w := newWorld(t, small())
	first := w.exporter(t)
	w.backfilled(t)
	second := start(t, []string{"EDGES_API_KEY=k"}, "--web.listen-address=127.0.0.1:0", "--storage.path="+w.folder, "--edges.url="+w.api.URL)
	if code := second.wait(t); code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
	if out := second.output.String(); !strings.Contains(out, filepath.Join(w.folder, "edges.db")+" is in use by another process") {
		t.Errorf("it does not say that the store is in use:\n%s", out)
	}
	if _, err := w.scrape(t.Context()); err != nil {
		t.Errorf("the first exporter suffers: %v", err)
	}
	if code := first.terminate(t); code != exitOK {
		t.Errorf("exit code %d; it wrote:\n%s", code, first.output)
	}
}

// A store that cannot be used is refused with a message, and stays as it is.
func TestStoreRefused(t *testing.T) {
	w := newWorld(t, small())
	p := w.exporter(t)
	w.backfilled(t)
	if code := p.terminate(t); code != exitOK {
		t.Fatalf("exit code %d; it wrote:\n%s", code, p.output)
	}
	good, err := os.ReadFile(filepath.Join(w.folder, "edges.db"))
	if err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(filepath.Join(w.folder, "edges.db"), 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	var used int64
	if err := errors.Join(db.View(func(tx *bbolt.Tx) error { used = tx.Size(); return nil }), db.Close()); err != nil {
		t.Fatal(err)
	}
	truncated := func(n int) func(*testing.T, string) {
		return func(t *testing.T, file string) {
			t.Helper()
			if err := os.Truncate(file, int64(n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, test := range []struct {
		name  string
		spoil func(t *testing.T, file string)
		label string
		says  string
	}{
		{"another workspace", nil, "other", `belongs to workspace "default", not "other"`},
		{"newer format", func(t *testing.T, file string) {
			t.Helper()
			db, err := bbolt.Open(file, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			err = db.Update(func(tx *bbolt.Tx) error {
				b := []byte("999")
				b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
				return tx.Bucket([]byte("meta")).Put([]byte("format"), b)
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}, "default", "has format 999"},
		{"empty", truncated(0), "default", "is damaged"},
		{"only its beginning", truncated(5000), "default", "is damaged"},
		{"half", truncated(len(good) / 2), "default", "is damaged"},
		{"without its last page", truncated(int(used) - os.Getpagesize()), "default", "is damaged"},
		{"garbage", func(t *testing.T, file string) {
			t.Helper()
			if err := os.WriteFile(file, bytes.Repeat([]byte("not a store\n"), 5000), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "default", "is damaged"},
		{"garbage in the middle", func(t *testing.T, file string) {
			t.Helper()
			b := slices.Clone(good)
			for i := 4 * 4096; i < len(b); i++ {
				b[i] ^= 0x5a
			}
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "default", "is damaged"},
		{"not a file", func(t *testing.T, file string) {
			t.Helper()
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(file, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "default", "is not a file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			folder := t.TempDir()
			file := filepath.Join(folder, "edges.db")
			if err := os.WriteFile(file, good, 0o600); err != nil {
				t.Fatal(err)
			}
			if test.spoil != nil {
				test.spoil(t, file)
			}
			before, _ := os.ReadFile(file)
			p := start(t, []string{"EDGES_API_KEY=" + simulator.DefaultAPIKey},
				"--web.listen-address=127.0.0.1:0", "--storage.path="+folder, "--edges.url="+w.api.URL+"/v1", "--edges.workspace="+test.label)
			if code := p.wait(t); code != exitFailed {
				t.Errorf("exit code %d, want %d", code, exitFailed)
			}
			last := p.output.String()
			last = last[strings.LastIndex(strings.TrimSpace(last), "\n")+1:]
			for _, s := range []string{name + ": ", file, test.says, "--storage.path"} {
				if !strings.Contains(last, s) && (s != "--storage.path" || !strings.Contains(last, "move it away")) {
					t.Errorf("%q is not in the last line: %s", s, last)
				}
			}
			after, _ := os.ReadFile(file)
			if !bytes.Equal(before, after) {
				t.Error("the store was changed")
			}
		})
	}
}

// exposed fetches everything that an exporter shows.
func exposed(t *testing.T, address string) string {
	t.Helper()
	var all strings.Builder
	for _, path := range []string{"/", "/metrics", "/-/healthy", "/-/ready", "/nothing", "/debug/pprof/cmdline"} {
		status, header, body := get(t, "http://"+address+path)
		fmt.Fprintln(&all, path, status, header, body)
	}
	return all.String()
}

// With a key that the API refuses the exporter goes on and says so; a key,
// good or bad, is shown nowhere.
func TestKeys(t *testing.T) {
	w := newWorld(t, small())
	file := filepath.Join(t.TempDir(), "key")
	const wrong = "wr0ng-s3cret-key"
	put := func(key string) {
		t.Helper()
		// As tools do that replace secrets: the whole file at once.
		if err := os.WriteFile(file+".new", []byte(key+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	put(wrong)
	p := start(t, []string{"EDGES_API_KEY="}, "--edges.api-key-file="+file, "--edges.url="+w.api.URL+"/v1",
		"--web.listen-address="+w.address, "--storage.path="+w.folder, "--edges.max-requests-per-minute=1000",
		"--poll.interval=200ms", "--metrics.zero-hold=0s", "--log.level=debug")
	up := func(v float64) func() bool {
		return func() bool {
			s, err := w.scrape(t.Context())
			got, there := s["edges_up{}"]
			return err == nil && there && got == v
		}
	}
	eventually(t, p, "edges_requests_total with 401", func() bool {
		s, _ := w.scrape(t.Context())
		return s[`edges_api_requests_total{code="401",endpoint="runs"}`] > 1
	})
	eventually(t, p, "edges_up 0", up(0))
	if status, _, _ := get(t, "http://"+w.address+"/-/ready"); status != http.StatusServiceUnavailable {
		t.Errorf("ready answers %d before a poll has succeeded", status)
	}
	if status, _, _ := get(t, "http://"+w.address+"/-/healthy"); status != http.StatusOK {
		t.Errorf("healthy answers %d", status)
	}
	pages := exposed(t, w.address)
	if !strings.Contains(p.output.String(), "401") {
		t.Errorf("the log does not tell of the refused key:\n%s", p.output)
	}

	put(simulator.DefaultAPIKey)
	eventually(t, p, "edges_up 1 with the key replaced", up(1))
	if status, _, _ := get(t, "http://"+w.address+"/-/ready"); status != http.StatusOK {
		t.Errorf("ready answers %d", status)
	}
	pages += exposed(t, w.address)

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	eventually(t, p, "a warning of the missing file", func() bool { return strings.Contains(p.output.String(), "going on with the last key") })
	eventually(t, p, "edges_up 1 with the file gone", up(1))
	if code := p.terminate(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	for _, key := range []string{wrong, simulator.DefaultAPIKey} {
		if strings.Contains(p.output.String(), key) {
			t.Errorf("key %q is in the log:\n%.4000s", key, p.output)
		}
		if strings.Contains(pages, key) {
			t.Errorf("key %q is on a page", key)
		}
	}
}

// SIGTERM ends the process well, whatever it waits for.
func TestTerminate(t *testing.T) {
	for _, test := range []struct {
		name    string
		trouble string
		perMin  int
		client  bool
	}{
		{name: "while the API does not answer", trouble: "slow:delay=2m", perMin: 1000},
		{name: "while the API fails", trouble: "outage", perMin: 1000},
		{name: "while the API wants a pause", trouble: "storm:retry-after=2m", perMin: 1000},
		{name: "while the budget is used up", perMin: 1},
		{name: "while a client does not end its request", perMin: 1000, client: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, small())
			if test.trouble != "" {
				w.trouble(t, test.trouble)
				t.Cleanup(func() { w.ClearTrouble() })
			}
			p := start(t, []string{"EDGES_API_KEY=" + simulator.DefaultAPIKey}, "--edges.url="+w.api.URL+"/v1", "--edges.timeout=2m",
				"--web.listen-address="+w.address, "--storage.path="+w.folder, fmt.Sprint("--edges.max-requests-per-minute=", test.perMin), "--poll.interval=100ms")
			eventually(t, p, "a request", func() bool { return w.requestCount() > 0 })
			eventually(t, p, "a page", func() bool { s, _, _ := get(t, "http://"+w.address+"/-/healthy"); return s == http.StatusOK })
			if test.client {
				c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", w.address)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if _, err := fmt.Fprint(c, "GET /metrics HTTP/1.1\r\n"); err != nil {
					t.Fatal(err)
				}
			}
			// The promise is 5 seconds, which is what systems give a process
			// before they kill it.
			asked := time.Now()
			code := p.terminate(t)
			if took := time.Since(asked); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
			if code != exitOK {
				t.Errorf("exit code %d; it wrote:\n%s", code, p.output)
			}
			if !strings.Contains(p.output.String(), "msg=stopped") {
				t.Errorf("it does not say that it stopped:\n%s", p.output)
			}
		})
	}
}

func TestPages(t *testing.T) {
	w := newWorld(t, small())
	const workspace = `<i>"Us" & them</i>`
	p := w.exporter(t, "--edges.workspace="+workspace)
	w.backfilled(t)
	url := "http://" + w.address
	eventually(t, p, "readiness", func() bool { s, _, _ := get(t, url+"/-/ready"); return s == http.StatusOK })
	for path, want := range map[string]int{
		"/": http.StatusOK, "/-/healthy": http.StatusOK, "/-/ready": http.StatusOK, "/metrics": http.StatusOK,
		"/nothing": http.StatusNotFound, "/debug/pprof/": http.StatusNotFound, "/debug/pprof/heap": http.StatusNotFound,
	} {
		if got, _, body := get(t, url+path); got != want {
			t.Errorf("%s answers %d, want %d: %.200s", path, got, want, body)
		}
	}
	_, header, page := get(t, url+"/")
	if got := header.Get("Content-Type"); !strings.HasPrefix(got, "text/html") {
		t.Errorf("the landing page is %s", got)
	}
	for _, s := range []string{`href="/metrics"`, `href="/-/healthy"`, `href="/-/ready"`, "&lt;i&gt;&#34;Us&#34; &amp; them&lt;/i&gt;", "Runs in the ledger", "SUCCEEDED", "all read"} {
		if !strings.Contains(page, s) {
			t.Errorf("%q is not on the landing page:\n%s", s, page)
		}
	}
	if strings.Contains(page, "<i>") || strings.Contains(page, "debug/pprof") {
		t.Errorf("the landing page shows what it must not:\n%s", page)
	}
	_, _, text := get(t, url+"/metrics")
	if want := `workspace="<i>\"Us\" & them</i>"`; !strings.Contains(text, want) {
		t.Errorf("%s is not in the metrics", want)
	}
	for _, method := range []string{http.MethodPost, http.MethodDelete} {
		for _, path := range []string{"/", "/metrics", "/-/healthy"} {
			r, err := http.NewRequestWithContext(t.Context(), method, url+path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			if answer.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("%s %s answers %s", method, path, answer.Status)
			}
		}
	}
}

func TestProfilesAndPath(t *testing.T) {
	w := newWorld(t, small())
	p := w.exporter(t, "--web.enable-pprof", "--web.telemetry-path=/edges/numbers")
	url := "http://" + w.address
	eventually(t, p, "readiness", func() bool { s, _, _ := get(t, url+"/-/ready"); return s == http.StatusOK })
	for path, want := range map[string]int{
		"/debug/pprof/heap": http.StatusOK, "/edges/numbers": http.StatusOK, "/metrics": http.StatusNotFound,
	} {
		if got, _, _ := get(t, url+path); got != want {
			t.Errorf("%s answers %d, want %d", path, got, want)
		}
	}
	if _, _, page := get(t, url+"/"); !strings.Contains(page, `href="/edges/numbers"`) || !strings.Contains(page, "debug/pprof/heap") {
		t.Errorf("links are missing on the landing page:\n%s", page)
	}
}

// TLS and a password come from the exporter-toolkit's configuration file.
func TestTLSAndPassword(t *testing.T) {
	folder := t.TempDir()
	authority := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate
	defer authority.Close()
	pair := authority.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string][]byte{
		"cert.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}),
		"key.pem":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		// The hash is of "open sesame".
		"web.yml": []byte(`
tls_server_config:
  cert_file: cert.pem
  key_file: key.pem
basic_auth_users:
  prometheus: $2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy
`),
	} {
		if err := os.WriteFile(filepath.Join(folder, file), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld(t, small())
	p := w.exporter(t, "--web.config.file="+filepath.Join(folder, "web.yml"))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	url := "https://" + w.address
	eventually(t, p, "an answer over TLS", func() bool { s, _, _ := getWith(t, client, url+"/"); return s != 0 })
	right := "Basic cHJvbWV0aGV1czpvcGVuIHNlc2FtZQ=="
	for _, test := range []struct {
		name, url, auth string
		want            int
	}{
		{"no password", url + "/metrics", "", http.StatusUnauthorized},
		{"wrong password", url + "/metrics", "Basic cHJvbWV0aGV1czp3cm9uZw==", http.StatusUnauthorized},
		{"right password", url + "/metrics", right, http.StatusOK},
		{"no password for the health page", url + "/-/healthy", "", http.StatusUnauthorized},
		{"no TLS", "http://" + w.address + "/metrics", right, http.StatusBadRequest},
	} {
		if got, _, _ := getWith(t, client, test.url, "Authorization", test.auth); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
	health := start(t, nil, "healthcheck", url+"/-/healthy")
	if code := health.wait(t); code != exitOK {
		t.Errorf("health check: exit code %d: %s", code, health.output)
	}
	if code := p.terminate(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

func TestHealthcheck(t *testing.T) {
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "broken", http.StatusInternalServerError)
	}))
	defer broken.Close()
	w := newWorld(t, small())
	p := w.exporter(t)
	eventually(t, p, "health", func() bool { s, _, _ := get(t, "http://"+w.address+"/-/healthy"); return s == http.StatusOK })
	_, port, err := net.SplitHostPort(w.address)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		env  []string
		args []string
		want int
		says string
	}{
		{"healthy", nil, []string{"http://" + w.address + "/-/healthy"}, exitOK, ""},
		{"healthy, by the address listened on", nil, []string{"--web.listen-address=0.0.0.0:" + port}, exitOK, ""},
		{"healthy, by the environment", []string{"EDGES_EXPORTER_HEALTHCHECK_URL=http://" + w.address + "/-/healthy"}, nil, exitOK, ""},
		{"broken", nil, []string{broken.URL}, exitFailed, "500"},
		{"nobody there", nil, []string{"http://" + freeAddress(t)}, exitFailed, "connection refused"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := start(t, test.env, append([]string{"healthcheck"}, test.args...)...)
			if code := p.wait(t); code != test.want {
				t.Errorf("exit code %d, want %d", code, test.want)
			}
			out := p.output.String()
			if test.want == exitOK && out != "" || test.want != exitOK && (strings.Count(out, "\n") != 1 || !strings.Contains(out, test.says)) {
				t.Errorf("it says: %s", out)
			}
		})
	}
}

// Every flag can come from the environment.
func TestEnvironment(t *testing.T) {
	w := newWorld(t, small())
	second := freeAddress(t)
	p := start(t, []string{
		"EDGES_API_KEY=" + simulator.DefaultAPIKey,
		"EDGES_EXPORTER_EDGES_URL=" + w.api.URL + "/v1",
		"EDGES_EXPORTER_EDGES_WORKSPACE=from-env",
		"EDGES_EXPORTER_EDGES_MAX_REQUESTS_PER_MINUTE=77",
		"EDGES_EXPORTER_POLL_INTERVAL=200ms",
		"EDGES_EXPORTER_STORAGE_PATH=" + w.folder,
		"EDGES_EXPORTER_WEB_LISTEN_ADDRESS=" + w.address + "\n" + second,
		"EDGES_EXPORTER_WEB_TELEMETRY_PATH=/m",
		"EDGES_EXPORTER_LOG_FORMAT=json",
		"EDGES_EXPORTER_LOG_LEVEL=debug",
	})
	for _, address := range []string{w.address, second} {
		eventually(t, p, "metrics at "+address, func() bool {
			_, _, text := get(t, "http://"+address+"/m")
			return strings.Contains(text, `edges_up{workspace="from-env"} 1`) && strings.Contains(text, `edges_api_budget_requests_per_minute{workspace="from-env"} 77`)
		})
	}
	if code := p.terminate(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Stat(filepath.Join(w.folder, "edges.db")); err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(p.output.String()) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry["msg"] == nil {
			t.Errorf("not a line of JSON with a message: %s", line)
		}
	}
}

func TestSimulate(t *testing.T) {
	address := freeAddress(t)
	p := start(t, nil, "simulate", "--simulator.listen-address="+address, "--simulator.api-key=sesame", "--simulator.history=1d", "--simulator.plan=trial")
	url := "http://" + address + "/v1/runs"
	eventually(t, p, "an answer", func() bool { s, _, _ := get(t, url, "X-API-Key", "sesame"); return s == http.StatusOK })
	if s, _, body := get(t, url); s != http.StatusUnauthorized {
		t.Errorf("without the key: %d %s", s, body)
	}
	limited := false
	for range 40 {
		if s, _, _ := get(t, url, "X-API-Key", "sesame"); s == http.StatusTooManyRequests {
			limited = true
		}
	}
	if !limited {
		t.Error("the plan's rate limit does not hold")
	}
	if !strings.Contains(p.output.String(), address) {
		t.Errorf("it does not say where it is:\n%s", p.output)
	}
	if code := p.terminate(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

// nothing are the metrics that a demo may show without a value: what they count
// does not happen to everybody.
func nothing() []string {
	return []string{
		"edges_skipped_runs_total", "edges_audit_corrections_total", "edges_api_throttled_seconds_total", "edges_collector_skipped_rows_total",
	}
}

// The demo shows every metric, with values, in every format, and leaves nothing
// behind.
func TestDemo(t *testing.T) {
	address, temporary, folder := freeAddress(t), t.TempDir(), t.TempDir()
	t.Chdir(folder)
	p := start(t, []string{"TMPDIR=" + temporary, "EDGES_API_KEY="}, "demo", "--web.listen-address="+address, "--simulator.listen-address=127.0.0.1:0")
	url := "http://" + address + "/metrics"
	eventually(t, p, "the greeting", func() bool { return strings.Contains(p.output.String(), "The demo is running") })

	// Values show once a scrape has seen the series at 0.
	var missing []string
	eventually(t, p, "a value of every metric", func() bool {
		_, _, text := get(t, url)
		missing = withoutValue(t, text)
		return len(missing) == 0
	})
	for _, f := range []struct {
		name, accept, want string
	}{
		{"text", "text/plain;version=0.0.4", "text/plain; version=0.0.4"},
		{"OpenMetrics", "application/openmetrics-text;version=1.0.0", "application/openmetrics-text; version=1.0.0"},
		{"protobuf", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited", "application/vnd.google.protobuf"},
	} {
		for _, zipped := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, gzip %v", f.name, zipped), func(t *testing.T) {
				encoding := "identity"
				if zipped {
					encoding = "gzip"
				}
				status, header, body := get(t, url, "Accept", f.accept, "Accept-Encoding", encoding)
				if got := header.Get("Content-Type"); status != http.StatusOK || !strings.HasPrefix(got, f.want) {
					t.Fatalf("status %d, type %s, want %s", status, got, f.want)
				}
				if zipped {
					if header.Get("Content-Encoding") != "gzip" {
						t.Fatal("not compressed")
					}
					r, err := gzip.NewReader(strings.NewReader(body))
					if err != nil {
						t.Fatal(err)
					}
					b, err := io.ReadAll(r)
					if err != nil {
						t.Fatal(err)
					}
					body = string(b)
				}
				checkFormat(t, f.name, body)
			})
		}
	}
	for _, s := range []string{"run needs attention", "level=warn", "level=error", "panic"} {
		if strings.Contains(p.output.String(), s) {
			t.Errorf("the terminal is flooded with %q:\n%.3000s", s, p.output)
		}
	}
	if code := p.terminate(t); code != exitOK {
		t.Errorf("exit code %d; it wrote:\n%s", code, p.output)
	}
	for _, dir := range []string{temporary, folder} {
		left, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) > 0 {
			t.Errorf("the demo left %v in %s", left, dir)
		}
	}
}

// withoutValue names the metrics of which a text shows no series, or only zeros.
func withoutValue(t *testing.T, text string) []string {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("parse metrics: %v", err)
	}
	var out []string
	for _, m := range collector.Metrics() {
		f := families[m.Name]
		if f == nil {
			out = append(out, m.Name+" is missing")
			continue
		}
		if got := strings.ToLower(f.GetType().String()); got != m.Type || f.GetHelp() != m.Help {
			out = append(out, fmt.Sprintf("%s is a %s: %s", m.Name, got, f.GetHelp()))
		}
		sum := 0.0
		for _, s := range f.GetMetric() {
			sum += s.GetCounter().GetValue() + s.GetGauge().GetValue() + float64(s.GetHistogram().GetSampleCount())
			if got := labelNames(s); !slices.Equal(got, slices.Sorted(slices.Values(m.Labels))) {
				out = append(out, fmt.Sprintf("%s has the labels %v", m.Name, got))
			}
		}
		if sum == 0 && !slices.Contains(nothing(), m.Name) {
			out = append(out, m.Name+" is 0")
		}
	}
	for _, own := range []string{name + "_build_info", "go_goroutines", "process_cpu_seconds_total"} {
		if families[own] == nil {
			out = append(out, own+" is missing")
		}
	}
	return out
}

func labelNames(m *dto.Metric) []string {
	var out []string
	for _, l := range m.GetLabel() {
		out = append(out, l.GetName())
	}
	slices.Sort(out)
	return out
}

// checkFormat checks what is particular to a format.
func checkFormat(t *testing.T, format, body string) {
	t.Helper()
	switch format {
	case "text":
		if missing := withoutValue(t, body); len(missing) > 0 {
			t.Error(missing)
		}
	case "OpenMetrics":
		if !strings.HasSuffix(body, "\n# EOF\n") || strings.Count(body, "# EOF") != 1 {
			t.Error("it does not end with # EOF, once")
		}
		for _, m := range collector.Metrics() {
			if !strings.Contains(body, "# TYPE "+strings.TrimSuffix(m.Name, "_total")+" "+m.Type+"\n") {
				t.Errorf("%s is missing", m.Name)
			}
		}
		for _, s := range []string{` # {run_uid="`, "edges_runs_created_created{", "edges_run_duration_seconds_created{"} {
			if !strings.Contains(body, s) {
				t.Errorf("%s is missing", s)
			}
		}
	case "protobuf":
		decoder := expfmt.NewDecoder(strings.NewReader(body), expfmt.NewFormat(expfmt.TypeProtoDelim))
		found := map[string]*dto.MetricFamily{}
		for {
			f := &dto.MetricFamily{}
			if err := decoder.Decode(f); err != nil {
				if !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				break
			}
			found[f.GetName()] = f
		}
		for _, m := range collector.Metrics() {
			if found[m.Name] == nil {
				t.Errorf("%s is missing", m.Name)
				continue
			}
			for _, s := range found[m.Name].GetMetric() {
				if m.Type == "histogram" && (s.GetHistogram().Schema == nil || s.GetHistogram().CreatedTimestamp == nil || len(s.GetHistogram().GetBucket()) == 0) {
					t.Errorf("%s has no native histogram, no classic one, or no created timestamp: %v", m.Name, s)
					break
				}
				if m.Type == "counter" && s.GetCounter().CreatedTimestamp == nil {
					t.Errorf("%s has no created timestamp", m.Name)
					break
				}
			}
		}
	}
}

// The demo does what flags and variables say about its store and its log.
func TestDemoKeepsWhatItIsTold(t *testing.T) {
	for _, test := range []struct {
		name string
		env  func(folder string) []string
		args func(folder string) []string
	}{
		{name: "by flags", args: func(folder string) []string { return []string{"--storage.path=" + folder, "--log.level=info"} }},
		{name: "by variables", env: func(folder string) []string {
			return []string{"EDGES_EXPORTER_STORAGE_PATH=" + folder, "EDGES_EXPORTER_LOG_LEVEL=info"}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			folder, address := t.TempDir(), freeAddress(t)
			args := []string{"demo", "--simulator.history=1h", "--web.listen-address=" + address, "--simulator.listen-address=127.0.0.1:0"}
			var env []string
			if test.env != nil {
				env = test.env(folder)
			}
			if test.args != nil {
				args = append(args, test.args(folder)...)
			}
			p := start(t, env, args...)
			eventually(t, p, "the greeting", func() bool { return strings.Contains(p.output.String(), "The demo is running") })
			if code := p.terminate(t); code != exitOK {
				t.Errorf("exit code %d", code)
			}
			if _, err := os.Stat(filepath.Join(folder, "edges.db")); err != nil {
				t.Error(err)
			}
			if !strings.Contains(p.output.String(), "run needs attention") {
				t.Error("the log is quieter than it was told")
			}
		})
	}
}

// A demo whose workspace refuses it from the start does not spin, and ends when
// it is told.
func TestDemoInTrouble(t *testing.T) {
	address := freeAddress(t)
	p := start(t, nil, "demo", "--simulator.history=1h", "--simulator.trouble=revoked", "--web.listen-address="+address, "--simulator.listen-address=127.0.0.1:0")
	eventually(t, p, "an error", func() bool { return strings.Contains(p.output.String(), "poll failed") })
	if code := p.terminate(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if strings.Contains(p.output.String(), "The demo is running") {
		t.Error("it greets although it has nothing to show")
	}
}

// run can be told to end by its context alone.
func TestRunReturns(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	if code := run(ctx, []string{"healthcheck", "http://127.0.0.1:1/"}, &out, &out); code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(out.String(), "context canceled") {
		t.Errorf("it says: %s", out.String())
	}
}
