package edges

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func mustBudget(t *testing.T, perMinute int, path string) *Budget {
	t.Helper()
	b, err := NewBudget(perMinute, path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustAcquire(t *testing.T, b *Budget) (release func()) {
	t.Helper()
	release, err := b.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return release
}

// use takes a slot and gives it back at once.
func use(t *testing.T, b *Budget, times int) {
	t.Helper()
	for range times {
		mustAcquire(t, b)()
	}
}

func TestBudgetRange(t *testing.T) {
	for _, n := range []int{-1, 0, maxPerMinute + 1} {
		if _, err := NewBudget(n, ""); err == nil || !strings.Contains(err.Error(), strconv.Itoa(n)) {
			t.Errorf("%d a minute: error %v, want one that names the number", n, err)
		}
	}
	for _, n := range []int{1, maxPerMinute} {
		if b := mustBudget(t, n, ""); b.PerMinute() != n || b.Free() != n {
			t.Errorf("%d a minute: %d in force, %d free", n, b.PerMinute(), b.Free())
		}
	}
}

func TestBudgetSlotIsFreeAMinuteAfterItsAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustBudget(t, 2, "")
		start := time.Now()
		first, second := mustAcquire(t, b), mustAcquire(t, b)
		if time.Since(start) != 0 {
			t.Error("a burst inside the budget waited")
		}
		if b.Free() != 0 {
			t.Errorf("%d free, want 0", b.Free())
		}
		time.Sleep(20 * time.Second)
		first()
		first() // does nothing
		time.Sleep(20 * time.Second)
		second()
		third := mustAcquire(t, b)
		if waited := time.Since(start); waited != 20*time.Second+budgetWindow {
			t.Errorf("third request after %v, want a minute after the first answer", waited)
		}
		if b.Throttled() != budgetWindow-20*time.Second {
			t.Errorf("throttled %v", b.Throttled())
		}
		third()
		mustAcquire(t, b)()
		if waited := time.Since(start); waited != 40*time.Second+budgetWindow {
			t.Errorf("fourth request after %v, want a minute after the second answer", waited)
		}
		time.Sleep(2 * budgetWindow)
		if b.Free() != 2 {
			t.Errorf("%d free after a quiet time, want 2", b.Free())
		}
	})
}

func TestBudgetIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustBudget(t, 1, "")
		use(t, b, 1)
		var mu sync.Mutex
		var order []int
		for i := range 20 {
			go func() {
				release := mustAcquire(t, b)
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				release()
			}()
			synctest.Wait()
		}
		if throttled := b.Throttled(); throttled != 0 {
			t.Errorf("throttled %v before any time passed", throttled)
		}
		time.Sleep(10 * time.Second)
		if throttled := b.Throttled(); throttled != 200*time.Second {
			t.Errorf("throttled %v, want 10 s each of the 20 that still wait", throttled)
		}
		time.Sleep(20 * budgetWindow)
		mu.Lock()
		defer mu.Unlock()
		if len(order) != 20 || !slices.IsSorted(order) {
			t.Errorf("served in the order %v", order)
		}
	})
}

// TestBudgetNewcomerWaitsBehindOthers asks at the moment at which a slot is free
// and those who wait for it do not know yet.
func TestBudgetNewcomerWaitsBehindOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustBudget(t, 1, "")
		use(t, b, 1)
		served := make(chan string, 2)
		go func() {
			release := mustAcquire(t, b)
			served <- "first"
			release()
		}()
		synctest.Wait()
		b.mu.Lock()
		b.timer.Stop()
		b.mu.Unlock()
		time.Sleep(2 * budgetWindow)
		release := mustAcquire(t, b)
		served <- "newcomer"
		release()
		if first := <-served; first != "first" {
			t.Errorf("the %s was served first", first)
		}
	})
}

func TestBudgetWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustBudget(t, 1, "")
		use(t, b, 1)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := b.Acquire(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 10*time.Second {
			t.Errorf("after %v: %v, want the context's end after 10 s", time.Since(start), err)
		}
		if b.Throttled() != 10*time.Second {
			t.Errorf("throttled %v, want 10 s", b.Throttled())
		}
		mustAcquire(t, b)()
		if time.Since(start) != budgetWindow {
			t.Errorf("next request after %v: who gave up must not take a slot", time.Since(start))
		}
		if _, err := b.Acquire(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a context that has ended: %v", err)
		}
	})
}

// TestBudgetGrantAtTheContextsEnd lets contexts end at the very moment at which
// slots become free: a slot must neither be lost nor be used twice.
func TestBudgetGrantAtTheContextsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustBudget(t, 5, filepath.Join(t.TempDir(), "budget"))
		defer b.Close()
		for range 50 {
			start := time.Now()
			use(t, b, 5)
			ctx, cancel := context.WithTimeout(t.Context(), budgetWindow)
			granted := make(chan bool, 5)
			for range 5 {
				go func() {
					release, err := b.Acquire(ctx)
					if err == nil {
						release()
					}
					granted <- err == nil
				}()
			}
			n := 0
			for range 5 {
				if <-granted {
					n++
				}
			}
			cancel()
			if got := b.Free(); got != 5-n {
				t.Fatalf("%d were granted, %d are free", n, got)
			}
			time.Sleep(time.Until(start.Add(3 * budgetWindow)))
			if b.Free() != 5 {
				t.Fatalf("%d free after a quiet time", b.Free())
			}
		}
	})
}

func TestBudgetPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustBudget(t, 5, "")
		start := time.Now()
		b.PauseUntil(start.Add(-time.Hour)) // is over
		if b.Free() != 5 {
			t.Errorf("%d free after a pause in the past", b.Free())
		}
		b.PauseUntil(start.Add(30 * time.Second))
		b.PauseUntil(start.Add(10 * time.Second)) // does not shorten
		if b.Free() != 0 {
			t.Errorf("%d free in a pause", b.Free())
		}
		mustAcquire(t, b)()
		if time.Since(start) != 30*time.Second || b.Throttled() != 30*time.Second {
			t.Errorf("request after %v, throttled %v, want 30 s", time.Since(start), b.Throttled())
		}
		if b.Free() != 4 {
			t.Errorf("%d free after the pause", b.Free())
		}

		// A pause that comes while others wait holds them, too.
		start = time.Now()
		b.PauseUntil(start.Add(5 * time.Second))
		go func() {
			time.Sleep(2 * time.Second)
			b.PauseUntil(start.Add(20 * time.Second))
		}()
		mustAcquire(t, b)()
		if time.Since(start) != 20*time.Second {
			t.Errorf("request after %v, want 20 s", time.Since(start))
		}

		start = time.Now()
		b.PauseUntil(start.Add(24 * time.Hour))
		mustAcquire(t, b)()
		if time.Since(start) != maxPause {
			t.Errorf("request after %v, want %v at most", time.Since(start), maxPause)
		}
	})
}

func TestBudgetObeysTheLimitOfTheAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustBudget(t, 10, "")
		use(t, b, 4)
		b.observeLimit(0) // is none
		b.observeLimit(-3)
		if b.PerMinute() != 10 || b.Free() != 6 {
			t.Errorf("%d in force, %d free", b.PerMinute(), b.Free())
		}
		b.observeLimit(3)
		if b.PerMinute() != 3 || b.Free() != 0 {
			t.Errorf("after a limit of 3: %d in force, %d free", b.PerMinute(), b.Free())
		}
		start := time.Now()
		go func() {
			time.Sleep(10 * time.Second)
			b.observeLimit(5)
		}()
		mustAcquire(t, b)()
		if time.Since(start) != 10*time.Second {
			t.Errorf("request after %v, want it when the limit is raised", time.Since(start))
		}
		b.observeLimit(1000)
		if b.PerMinute() != 10 || b.Free() != 5 {
			t.Errorf("after a limit of 1000: %d in force, %d free, want no more than configured", b.PerMinute(), b.Free())
		}
	})
}

func TestBudgetClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "budget")
		b := mustBudget(t, 1, path)
		release := mustAcquire(t, b)
		ended := make(chan error)
		go func() {
			_, err := b.Acquire(t.Context())
			ended <- err
		}()
		synctest.Wait()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, ErrBudgetClosed) {
			t.Errorf("who waits gets %v, want ErrBudgetClosed", err)
		}
		if _, err := b.Acquire(t.Context()); !errors.Is(err, ErrBudgetClosed) {
			t.Errorf("who comes later gets %v, want ErrBudgetClosed", err)
		}
		release()
		b.PauseUntil(time.Now().Add(time.Second))
		b.observeLimit(1)
		if err := b.Close(); err != nil || b.Free() != 0 {
			t.Errorf("second close: %v, %d free", err, b.Free())
		}

		b = mustBudget(t, 1, path)
		defer b.Close()
		start := time.Now()
		use(t, b, 1)
		if time.Since(start) != budgetWindow {
			t.Errorf("request %v after the next start, want the slot that was in use at the end to be held", time.Since(start))
		}
	})
}

func TestBudgetOutlivesTheProcess(t *testing.T) {
	for _, test := range []struct {
		name      string
		use       int // slots that were used and given back
		hold      int // slots that were in use when the process was killed
		pause     time.Duration
		down      time.Duration
		perMinute int
		free      int           // at the start
		allFree   time.Duration // until all are free
	}{
		{name: "nothing used", perMinute: 10, free: 10},
		{name: "at once", use: 4, perMinute: 10, free: 6, allFree: budgetWindow},
		{name: "after 20 s", use: 4, down: 20 * time.Second, perMinute: 10, free: 6, allFree: budgetWindow - 20*time.Second},
		{name: "after two minutes", use: 4, down: 2 * time.Minute, perMinute: 10, free: 10},
		{
			name: "killed with two on the way",
			use:  1, hold: 2, down: 20 * time.Second, perMinute: 10, free: 7, allFree: budgetWindow,
		},
		{name: "smaller budget", use: 8, down: 30 * time.Second, perMinute: 5, free: 0, allFree: budgetWindow - 30*time.Second},
		{name: "larger budget", use: 8, down: 30 * time.Second, perMinute: 20, free: 12, allFree: budgetWindow - 30*time.Second},
		{
			name:  "in a pause",
			pause: time.Minute, down: 10 * time.Second, perMinute: 10, free: 0, allFree: 50 * time.Second,
		},
		{
			name: "clock set back by a day",
			use:  4, pause: time.Minute, down: -24 * time.Hour, perMinute: 10, free: 0, allFree: maxPause,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "budget")
				b := mustBudget(t, 10, path)
				use(t, b, test.use)
				for range test.hold {
					mustAcquire(t, b)
				}
				b.PauseUntil(time.Now().Add(test.pause))
				// A killed process does nothing more; only the file is closed.
				if err := b.file.close(); err != nil {
					t.Fatal(err)
				}
				if test.down > 0 {
					time.Sleep(test.down)
				} else {
					shiftStamps(t, path, -test.down)
				}
				b = mustBudget(t, test.perMinute, path)
				defer b.Close()
				if b.Damage() != nil {
					t.Errorf("damage: %v", b.Damage())
				}
				if b.Free() != test.free {
					t.Errorf("%d free, want %d", b.Free(), test.free)
				}
				if test.allFree > 0 {
					// Stamps have whole milliseconds, and are never early.
					time.Sleep(test.allFree - time.Millisecond)
					if b.Free() == test.perMinute {
						t.Errorf("all are free before %v", test.allFree)
					}
					time.Sleep(2 * time.Millisecond)
				}
				if b.Free() != test.perMinute {
					t.Errorf("%d free after %v, want all %d", b.Free(), test.allFree, test.perMinute)
				}
			})
		})
	}
}

// shiftStamps moves every stamp of a file into the future.
func shiftStamps(t *testing.T, path string, by time.Duration) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := int(pauseOffset); at < len(content); at += recordBytes {
		slot, ok := parseRecord(content[at : at+recordBytes])
		if !ok {
			t.Fatalf("record at %d cannot be read", at)
		}
		copy(content[at:], record(slot.state, slot.at.Add(by)))
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestBudgetFileDamaged(t *testing.T) {
	good := []byte(budgetMagic)
	good = append(good, record(slotReleased, time.Unix(1, 0))...)
	good = append(good, record(slotReleased, time.Unix(1, 0))...)
	good = append(good, record(slotTaken, time.Unix(1, 0))...)
	if used, err := parseBudgetFile(good); err != nil || len(used.slots) != 2 {
		t.Fatalf("the good file: %+v, %v", used, err)
	}
	damaged := map[string][]byte{
		"empty":           {},
		"text":            []byte("this is not a budget at all\n"),
		"zeros":           make([]byte, 64),
		"no pause":        good[:pauseOffset],
		"half a record":   good[:len(good)-3],
		"a newer version": slices.Concat([]byte("EDGBUDG\x02"), good[pauseOffset:]),
		"too long":        slices.Concat(good, slices.Repeat(record(slotUnused, time.Time{}), maxPerMinute)),
	}
	for i := range good {
		for _, flip := range []byte{1, 0x80, 0xff} {
			flipped := slices.Clone(good)
			flipped[i] ^= flip
			damaged[fmt.Sprintf("byte %d with %#x", i, flip)] = flipped
		}
	}
	for name, content := range damaged {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "budget")
				if err := os.WriteFile(path, content, 0o600); err != nil {
					t.Fatal(err)
				}
				b := mustBudget(t, 3, path)
				if b.Damage() == nil || !strings.Contains(b.Damage().Error(), path) {
					t.Errorf("damage: %v, want an error that names the file", b.Damage())
				}
				if b.Free() != 0 {
					t.Errorf("%d free, want all to count as just used", b.Free())
				}
				if err := b.Close(); err != nil {
					t.Error(err)
				}

				time.Sleep(10 * time.Second)
				b = mustBudget(t, 3, path)
				defer b.Close()
				if b.Damage() != nil || b.Free() != 0 {
					t.Errorf("at the next start: damage %v, %d free", b.Damage(), b.Free())
				}
				time.Sleep(budgetWindow + time.Millisecond)
				if b.Free() != 3 {
					t.Errorf("%d free a minute later, want 3", b.Free())
				}
			})
		})
	}
}

func TestBudgetFileTrouble(t *testing.T) {
	dir := t.TempDir()
	for name, path := range map[string]string{
		"no such folder": filepath.Join(dir, "nowhere", "budget"),
		"a folder":       dir,
	} {
		if _, err := NewBudget(5, path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v, want one that names the path", name, err)
		}
	}

	b := mustBudget(t, 5, filepath.Join(dir, "budget"))
	use(t, b, 1)
	if err := b.file.close(); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := b.Acquire(t.Context()); !errors.Is(err, errBudgetFileWrite) {
			t.Fatalf("with a file that cannot be written: %v", err)
		}
	}
	if b.Free() != 4 {
		t.Errorf("%d free: a request that was not allowed must not take a slot", b.Free())
	}
}

// TestBudgetFileIsLeftAlone checks that opening a good file changes nothing in
// it: it may belong to a process that is running.
func TestBudgetFileIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "budget")
	running := mustBudget(t, 5, path)
	defer running.Close()
	mustAcquire(t, running)
	use(t, running, 1)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := mustBudget(t, 2, path)
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Errorf("the file was\n%x\nand is\n%x", before, after)
	}
}

// mostIn is the largest number of arrivals in any window.
func mostIn(window time.Duration, arrivals []time.Time) int {
	arrivals = slices.SortedFunc(slices.Values(arrivals), time.Time.Compare)
	most, from := 0, 0
	for i, at := range arrivals {
		for at.Sub(arrivals[from]) >= window {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}

func TestMostIn(t *testing.T) {
	at := func(seconds ...int) (times []time.Time) {
		for _, s := range seconds {
			times = append(times, time.Unix(int64(s), 0))
		}
		return times
	}
	for _, test := range []struct {
		arrivals []time.Time
		want     int
	}{
		{nil, 0},
		{at(5), 1},
		{at(0, 60, 120), 1},
		{at(0, 59, 118), 2},
		{at(118, 0, 59, 59), 3},
	} {
		if got := mostIn(time.Minute, test.arrivals); got != test.want {
			t.Errorf("%v: %d, want %d", test.arrivals, got, test.want)
		}
	}
}

// TestBudgetInAnyMinute uses a budget for some hours, from many sides at once, with
// slow and fast answers, callers who give up, pauses, and processes that are
// killed, and looks at every 60 seconds of what arrives.
func TestBudgetInAnyMinute(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { anyMinute(t, seed) })
		})
	}
}

func anyMinute(t *testing.T, seed uint64) {
	t.Helper()
	const perMinute, callers = 7, 12
	path := filepath.Join(t.TempDir(), "budget")
	random := rand.New(rand.NewPCG(seed, 1))
	var arrivals []time.Time
	for len(arrivals) < 1000 {
		b := mustBudget(t, perMinute, path)
		killed, kill := context.WithCancel(t.Context())
		var mu sync.Mutex // also over random
		roll := func(n int64) int64 {
			mu.Lock()
			defer mu.Unlock()
			return random.Int64N(n)
		}
		sleep := func(d time.Duration) bool {
			select {
			case <-killed.Done():
				return false
			case <-time.After(d):
				return true
			}
		}
		var group sync.WaitGroup
		for range callers {
			group.Go(func() {
				for killed.Err() == nil {
					ctx, cancel := context.WithTimeout(killed, time.Duration(roll(int64(2*time.Minute))))
					release, err := b.Acquire(ctx)
					cancel()
					if err != nil {
						continue
					}
					// On its way, at the server, and back.
					if !sleep(time.Duration(roll(int64(time.Second)))) {
						return
					}
					mu.Lock()
					arrivals = append(arrivals, time.Now())
					mu.Unlock()
					if !sleep(time.Duration(roll(1 + int64(time.Second)<<roll(6)))) {
						return
					}
					release()
					if roll(200) == 0 {
						b.PauseUntil(time.Now().Add(time.Duration(roll(int64(3 * time.Minute)))))
					}
					sleep(time.Duration(roll(1 + int64(time.Second)<<roll(5))))
				}
			})
		}
		time.Sleep(time.Duration(roll(int64(30*time.Minute)>>roll(12)) + 1))
		kill()
		group.Wait()
		if err := b.file.close(); err != nil { // but not the budget
			t.Fatal(err)
		}
		time.Sleep(time.Duration(roll(int64(time.Second))))
	}
	if most := mostIn(time.Minute, arrivals); most > perMinute {
		t.Errorf("%d requests arrived within 60 seconds, of %d in all", most, len(arrivals))
	} else if most < perMinute {
		t.Errorf("at most %d requests arrived within 60 seconds: bursts up to %d must be possible", most, perMinute)
	}
}

func BenchmarkBudgetAcquire(b *testing.B) {
	for name, path := range map[string]string{"memory": "", "file": filepath.Join(b.TempDir(), "budget")} {
		b.Run(name, func(b *testing.B) {
			budget, err := newBudget(1000, path, time.Nanosecond)
			if err != nil {
				b.Fatal(err)
			}
			defer budget.Close()
			b.ReportAllocs()
			for b.Loop() {
				release, err := budget.Acquire(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				release()
			}
		})
	}
}
