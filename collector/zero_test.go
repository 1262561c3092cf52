package collector

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// counters are the samples that are counted up.
func counters(s samples) samples {
	out := samples{}
	for k, v := range s {
		name, _, _ := strings.Cut(k, "{")
		for _, suffix := range []string{"_total", "_count", "_sum", "_bucket"} {
			if strings.HasSuffix(name, suffix) {
				out[k] = v
			}
		}
	}
	return out
}

// firstFailure is a run of an action never seen before, seen FAILED at once.
func firstFailure(at time.Time) row {
	return row{
		uid: uid(1), action: "act", mode: "ASYNC", status: "FAILED", errLabel: "LK_ERROR", outputs: 3, retries: 1,
		created: at.Add(-3 * time.Second), started: at.Add(-2 * time.Second), finished: at, updated: at,
	}
}

var afterFirstFailure = samples{
	entriesInto + "FAILED}": 1, errorsOf("FAILED", "LK_ERROR"): 1, createdOnes: 1, outputsOf: 3, retriesOf: 1,
	timeCount + "FAILED}": 1, timeSum + "FAILED}": 2, queueCount: 1, queueSum: 1,
}

func zeros(s samples) samples {
	out := samples{}
	for k := range s {
		out[k] = 0
	}
	return out
}

// present fails unless all samples are there with the given values.
func present(t *testing.T, got, want samples) {
	t.Helper()
	for k, v := range want {
		if g, ok := got[k]; !ok || g != v {
			t.Errorf("%s is %v (there: %v), want %v", k, g, ok, v)
		}
	}
}

// The first failure ever of an action is seen at 0 before it is seen at 1: so
// increase() sees it.
func TestFirstFailureEver(t *testing.T) {
	r := newRig(t)
	r.poll()
	r.scrape()
	r.srv.put(firstFailure(r.srv.advance(5 * time.Second)))
	r.poll()
	got := r.scrape()
	present(t, got, zeros(afterFirstFailure))
	present(t, got, samples{runsIn + "FAILED}": 1}) // gauges are not held
	// All statuses of the pair are born together.
	for _, status := range []string{"CREATED", "INVALID", "QUEUED", "SCHEDULED", "BLOCKED", "STOPPED", "RUNNING", "PARTIAL_SUCCEEDED", "SUCCEEDED"} {
		present(t, got, samples{entriesInto + status + "}": 0})
	}
	r.poll()
	present(t, r.scrape(), afterFirstFailure)
}

func TestNotReleasedBeforeAScrape(t *testing.T) {
	for name, look := range map[string]func(r *rig){
		"no scrape": func(*rig) {},
		"HEAD":      func(r *rig) { r.get(http.MethodHead) },
		"POST":      func(r *rig) { r.get(http.MethodPost) },
		"a restart": func(r *rig) { r.restart() },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.poll()
			r.scrape()
			r.srv.put(firstFailure(r.srv.advance(5 * time.Second)))
			for range 5 {
				r.srv.advance(5 * time.Second)
				r.poll()
				look(r)
			}
			present(t, r.scrape(), zeros(afterFirstFailure))
			r.poll()
			present(t, r.scrape(), afterFirstFailure)
		})
	}
}

func TestNotReleasedBeforeTheHold(t *testing.T) {
	r := newRig(t, func(c *Config) { c.ZeroHold = time.Hour })
	r.poll()
	r.srv.put(firstFailure(r.srv.advance(5 * time.Second)))
	for i := range 10 {
		r.srv.advance(5 * time.Second)
		r.poll()
		present(t, r.scrape(), zeros(afterFirstFailure))
		if i == 5 {
			r.restart()
		}
	}
	// The hold survives a restart: it is not begun again, nor forgotten.
	r.cfg.ZeroHold = 0
	r.restart()
	r.poll()
	present(t, r.scrape(), afterFirstFailure)
}

// A series is shown at 0 for at least the hold after the scrape that saw it,
// and not much longer.
func TestReleasedAfterTheHold(t *testing.T) {
	const hold = 300 * time.Millisecond
	r := newRig(t, func(c *Config) { c.ZeroHold = hold })
	r.poll()
	r.srv.put(firstFailure(r.srv.advance(5 * time.Second)))
	r.poll()
	var seen, released time.Time
	for released.IsZero() {
		before := time.Now()
		got := r.scrape()
		if seen.IsZero() {
			seen = before
		}
		if got[entriesInto+"FAILED}"] == 1 {
			released = time.Now()
		}
		r.poll()
	}
	if held := released.Sub(seen); held < hold {
		t.Errorf("held for %s, want at least %s", held, hold)
	}
}

// Committed, then shown: what a scrape has shown is in the file by then. The
// file of any moment, opened again, never shows less.
func TestShownIsCommitted(t *testing.T) {
	r := newRig(t)
	for i := range 300 {
		r.srv.put(past(i))
	}
	for i := range 12 {
		now := r.srv.advance(5 * time.Second)
		for k := range 30 {
			w := firstFailure(now.Add(-time.Duration(k) * time.Millisecond))
			w.uid, w.action = uid(1000+i*30+k), []string{"act", "b", "c", "d"}[i/3]
			r.srv.put(w)
		}
		r.poll()
		shown := counters(r.scrape())
		// A kill leaves the file as it is now.
		file, err := os.ReadFile(r.cfg.StorePath)
		if err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(t.TempDir(), "copy")
		if err := os.WriteFile(copied, file, 0o600); err != nil {
			t.Fatal(err)
		}
		after := reopened(t, r, copied)
		for k, v := range shown {
			if after[k] < v {
				t.Errorf("poll %d: %s goes back from %v to %v with a kill", i, k, v, after[k])
			}
		}
	}
}

// reopened scrapes a collector on another store, and then leaves the store.
func reopened(t *testing.T, r *rig, path string) samples {
	t.Helper()
	was, cfg := r.c, r.cfg
	defer func() { r.c, r.cfg = was, cfg }()
	r.cfg.StorePath = path
	r.open()
	defer r.close()
	known := r.shown
	defer func() { r.shown = known }()
	r.shown = samples{}
	for k, v := range known {
		r.shown[k] = v
	}
	return counters(r.scrape())
}

// A series that is released stays so, restarts included.
func TestReleasedStaysReleased(t *testing.T) {
	r := newRig(t)
	r.poll()
	r.srv.put(firstFailure(r.srv.advance(5 * time.Second)))
	r.look()
	r.cfg.ZeroHold = time.Hour
	r.restart()
	present(t, r.scrape(), afterFirstFailure)
	r.poll()
	present(t, r.scrape(), afterFirstFailure)
}
