package collector

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// filled makes a store with some hundred runs, in which everything is shown.
func filled(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	for i := range 250 {
		w := past(i)
		if i%10 == 0 {
			w.status, w.finished = "RUNNING", time.Time{}
		}
		w.workspace = uid(0xaaa)
		r.srv.put(w)
	}
	r.poll()
	for i := range 50 {
		w := firstFailure(r.srv.advance(time.Second))
		w.uid, w.workspace = uid(1000+i), uid(0xaaa)
		r.srv.put(w)
	}
	r.settle()
	// One meta page that is damaged looks like a commit that a crash cut off:
	// the one before it counts. Two commits without a change make them equal.
	r.poll()
	r.poll()
	return r
}

// runNumbers are the numbers made of runs.
func runNumbers(s samples) samples {
	out := maps.Clone(s)
	maps.DeleteFunc(out, func(k string, _ float64) bool {
		return !strings.HasPrefix(k, "edges_run") && !strings.HasPrefix(k, "edges_ledger_runs") && !strings.HasPrefix(k, "edges_backfill")
	})
	return out
}

// refused fails unless New refuses the store with an error that says what to
// do, and leaves the file as it is.
func refused(t *testing.T, cfg Config, says ...string) {
	t.Helper()
	before, err := os.ReadFile(cfg.StorePath)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(cfg)
	if err == nil {
		_ = c.Close()
		t.Fatal("the store is opened")
	}
	if !errors.Is(err, ErrStore) {
		t.Errorf("%v does not match ErrStore", err)
	}
	for _, s := range append(says, cfg.StorePath) {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("the error %q does not say %q", err, s)
		}
	}
	after, err := os.ReadFile(cfg.StorePath)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Error("the refused store is changed")
	}
}

func TestStoreReopened(t *testing.T) {
	r := filled(t)
	before := runNumbers(r.scrape())
	for range 3 {
		r.restart()
		if after := runNumbers(r.scrape()); !maps.Equal(before, after) {
			t.Error("the numbers change with a restart")
		}
	}
	r.look()
	r.exact()
}

func TestStoreOfAnotherWorkspaceLabel(t *testing.T) {
	r := filled(t)
	r.close()
	cfg := r.cfg
	cfg.Workspace = "other"
	refused(t, cfg, `"test"`, `"other"`)
	r.open()
}

// A key of another workspace: its rows name another workspace_uid.
func TestStoreOfAnotherWorkspace(t *testing.T) {
	r := filled(t)
	before := runNumbers(r.scrape())
	now := r.srv.advance(5 * time.Second)
	r.srv.mu.Lock()
	r.srv.rows, r.srv.order = map[string]*row{}, nil
	r.srv.mu.Unlock()
	for i := range 120 {
		w := fresh(9000+i, now)
		w.workspace = uid(0xbbb)
		r.srv.put(w)
	}
	err := r.tryPoll()
	if !errors.Is(err, ErrStore) || !strings.Contains(err.Error(), uid(0xbbb)) {
		t.Errorf("the poll returns %v", err)
	}
	if after := runNumbers(r.scrape()); !maps.Equal(before, after) {
		t.Error("runs of another workspace are in the numbers")
	}
	if err := r.c.Run(t.Context()); !errors.Is(err, ErrStore) {
		t.Errorf("Run returns %v", err)
	}
	r.restart()
	if after := runNumbers(r.scrape()); !maps.Equal(before, after) {
		t.Error("runs of another workspace are in the store")
	}
}

func TestStoreOfANewerVersion(t *testing.T) {
	r := filled(t)
	r.close()
	db, err := bbolt.Open(r.cfg.StorePath, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketMeta).Put(metaFormat, seal([]byte(fmt.Sprint(storeFormat+1))))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	refused(t, r.cfg, fmt.Sprintf("format %d", storeFormat+1))
}

func TestStoreIsNoStore(t *testing.T) {
	dir := t.TempDir()
	foreign := filepath.Join(dir, "foreign")
	db, err := bbolt.Open(foreign, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{"empty": "", "text": "hello", "zeros": strings.Repeat("\x00", 100_000), "long text": strings.Repeat("hello ", 50_000)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := newRig(t)
	for _, name := range []string{"empty", "text", "zeros", "long text", "foreign"} {
		t.Run(name, func(t *testing.T) {
			cfg := r.cfg
			cfg.StorePath = filepath.Join(dir, name)
			refused(t, cfg)
		})
	}
	t.Run("folder", func(t *testing.T) {
		cfg := r.cfg
		cfg.StorePath = dir
		if _, err := New(cfg); !errors.Is(err, ErrStore) {
			t.Errorf("a folder gives %v", err)
		}
	})
	t.Run("a file for a folder", func(t *testing.T) {
		cfg := r.cfg
		cfg.StorePath = filepath.Join(dir, "text", "store")
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "text") {
			t.Errorf("a file in the path gives %v", err)
		}
	})
}

// A crash while the store was made leaves a half-made file beside it.
func TestStoreHalfMade(t *testing.T) {
	whole := filled(t)
	whole.close()
	body, err := os.ReadFile(whole.cfg.StorePath)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{0, 1, 4095, 4096, 10_000, 16_384} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			cfg := whole.cfg
			cfg.StorePath = filepath.Join(t.TempDir(), "new", "store")
			if err := os.MkdirAll(filepath.Dir(cfg.StorePath), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(cfg.StorePath+".new", body[:size], 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if runs := c.State().Runs; runs != 0 {
				t.Errorf("a fresh store has %d runs", runs)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			left, err := os.ReadDir(filepath.Dir(cfg.StorePath))
			if err != nil || len(left) != 1 {
				t.Errorf("the folder holds %v (%v), want the store alone", left, err)
			}
		})
	}
}

func TestStoreIsLocked(t *testing.T) {
	r := filled(t)
	cfg := r.cfg
	cfg.Client = r.client()
	defer cfg.Client.Close()
	started := time.Now()
	_, err := New(cfg)
	if !errors.Is(err, ErrStore) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a store in use gives %v", err)
	}
	if took := time.Since(started); took > 30*time.Second {
		t.Errorf("that took %s", took)
	}
	r.look()
	r.exact()
}

// A store that lost its end is refused, at whatever length, or has everything.
func TestStoreCut(t *testing.T) {
	r := filled(t)
	want := runNumbers(r.scrape())
	r.close()
	body, err := os.ReadFile(r.cfg.StorePath)
	if err != nil {
		t.Fatal(err)
	}
	lengths := []int{0, 1, 15, 16, 17, 63, 64, 80, 100, 4095, 4096, 4097, 8191, 8192, 8193, len(body) - 1, len(body) - 4096, len(body) / 2}
	for n := 12_288; n < len(body); n += len(body)/40 + 13 {
		lengths = append(lengths, n)
	}
	for _, n := range lengths {
		damagedStore(t, r, body[:n], want, fmt.Sprintf("cut to %d bytes", n))
	}
}

// A store with wrong bytes is refused, or has right numbers: it never ends the
// process, and never makes numbers up.
func TestStoreFlipped(t *testing.T) {
	r := filled(t)
	want := runNumbers(r.scrape())
	r.close()
	body, err := os.ReadFile(r.cfg.StorePath)
	if err != nil {
		t.Fatal(err)
	}
	var places []int
	for n := 0; n < 8192; n += 7 { // both meta pages
		places = append(places, n%4096+n/4096*4096)
	}
	for page := 2; page*4096 < len(body); page++ {
		for _, n := range []int{0, 3, 8, 9, 10, 12, 13, 16, 20, 24, 28, 32, 40, 100, 1000, 2048, 4000, 4090} {
			places = append(places, page*4096+n)
		}
	}
	places = slices.Compact(slices.Sorted(slices.Values(places)))
	step := max(1, len(places)/150)
	for i := 0; i < len(places); i += step {
		flipped := slices.Clone(body)
		flipped[places[i]] ^= byte(1 + i%255)
		damagedStore(t, r, flipped, want, fmt.Sprintf("byte %d of %d flipped with %#x", places[i], len(body), byte(1+i%255)))
	}
}

// damagedStore opens a store that may be damaged.
func damagedStore(t *testing.T, r *rig, body []byte, want samples, how string) {
	t.Helper()
	cfg := r.cfg
	cfg.StorePath = filepath.Join(t.TempDir(), "store")
	if err := os.WriteFile(cfg.StorePath, body, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Client, cfg.PollInterval = r.client(), time.Second
	defer cfg.Client.Close()
	c, err := New(cfg)
	if err != nil {
		if !errors.Is(err, ErrStore) {
			t.Errorf("%s: %v does not match ErrStore", how, err)
		}
		after, err := os.ReadFile(cfg.StorePath)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(body, after) {
			t.Errorf("%s: the refused store is changed", how)
		}
		return
	}
	r.c = c
	_, page := r.get(http.MethodGet)
	got := runNumbers(parse(t, page))
	// These two are looked up in indexes of runs, which carry no checksums:
	// they are what the next changes make of them.
	indexed := func(k string, _ float64) bool {
		return strings.HasPrefix(k, "edges_run_oldest") || strings.HasPrefix(k, "edges_run_problem")
	}
	want = maps.Clone(want)
	maps.DeleteFunc(got, indexed)
	maps.DeleteFunc(want, indexed)
	if !maps.Equal(got, want) {
		for k, v := range want {
			if got[k] != v {
				t.Errorf("%s: %s is %v, want %v", how, k, got[k], v)
				break
			}
		}
	}
	// Whether it is noticed now or not: the process lives.
	_ = c.Poll(t.Context())
	_ = c.Close()
	r.c = nil
}

// A commit that fails changes nothing, and the next poll does it again.
func TestStoreCannotBeWritten(t *testing.T) {
	r := filled(t)
	before := runNumbers(r.scrape())
	path := r.c.store.path
	// The file is gone from under the database: writes fail from now on.
	if err := r.c.store.db.Close(); err != nil {
		t.Fatal(err)
	}
	w := firstFailure(r.srv.advance(5 * time.Second))
	w.uid, w.workspace = uid(7000), uid(0xaaa)
	r.srv.put(w)
	for range 3 {
		if err := r.tryPoll(); err == nil {
			t.Error("a poll succeeds that cannot be committed")
		}
		if after := runNumbers(r.scrape()); !maps.Equal(before, after) {
			t.Error("numbers change that are not committed")
		}
	}
	r.c = nil
	r.cfg.StorePath = path
	r.open()
	r.look()
	r.exact()
}

func TestStoreInAFolderThatCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ro")
	if err := os.Mkdir(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	cfg := r.cfg
	cfg.StorePath = filepath.Join(dir, "store")
	c, err := New(cfg)
	if os.Geteuid() == 0 { // root may write anywhere
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		return
	}
	if err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("a folder that cannot be written gives %v", err)
	}
}
