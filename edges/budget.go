package edges

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

const (
	// budgetWindow is the time for which a used slot stays used: the API's
	// minute, and a little for two clocks that do not run at the same speed.
	budgetWindow = time.Minute + 50*time.Millisecond
	// maxPerMinute bounds the file and the memory of a budget.
	maxPerMinute = 100_000
	// maxPause bounds how long an answer, or a stamp written before the clock
	// was set back, can keep every request waiting.
	maxPause = 10 * time.Minute
)

// ErrBudgetClosed is what Acquire returns once the budget is closed.
var ErrBudgetClosed = errors.New("request budget closed")

// Budget bounds the requests of everything that shares it, so that no more
// than a given number reach the API in any 60 seconds, wherever these 60
// seconds begin. Requests may come in bursts inside of that.
//
// It is a number of slots. A request takes one before it starts and gives it
// back when its answer has ended; 60 seconds later the slot is free again. Two
// requests of one slot are so at least 60 seconds apart at the server, however
// long each was on its way. With a file, the slots outlive the process, also
// one that was killed.
//
// Its methods may be called by any number of goroutines.
type Budget struct {
	window     time.Duration
	configured int
	file       *budgetFile
	damage     error

	mu      sync.Mutex
	limit   int // in force: configured, or less if the API said so
	closed  bool
	slots   int   // slots known so far; they may be more than the limit
	free    []int // of these, the ones that may be taken
	cooling []coolingSlot
	taken   int
	// pause is the time before which nothing starts.
	pause   time.Time
	waiting list.List // of *waiter, longest wait first
	timer   *time.Timer
	waited  time.Duration // by those who wait no longer
}

// coolingSlot is a slot whose answer has ended. Slots end in the order of
// time, so they also become free in the order in which they are queued.
type coolingSlot struct {
	slot   int
	freeAt time.Time
}

type waiter struct {
	since time.Time
	// granted is closed once slot or err is set.
	granted chan struct{}
	slot    int
	err     error
}

// NewBudget returns a budget of perMinute requests in any 60 seconds, 1 to
// 100,000. It remembers in the file at path what was used, so that a restart
// does not exceed it; with an empty path it remembers in memory only.
//
// A file that is damaged, or of another version, is no error: the budget then
// starts as if every slot had been used just now, writes the file anew, and
// Damage tells. Only one process may use a file at a time.
func NewBudget(perMinute int, path string) (*Budget, error) {
	return newBudget(perMinute, path, budgetWindow)
}

func newBudget(perMinute int, path string, window time.Duration) (*Budget, error) {
	if perMinute < 1 || perMinute > maxPerMinute {
		return nil, fmt.Errorf("request budget: %d a minute is not between 1 and %d", perMinute, maxPerMinute)
	}
	b := &Budget{window: window, configured: perMinute, limit: perMinute}
	if path == "" {
		return b, nil
	}
	file, used, err := openBudgetFile(path)
	if errors.Is(err, errBudgetFileDamaged) {
		b.damage = err
		used = budgetUse{slots: slices.Repeat([]slotUse{{state: slotTaken}}, perMinute)}
		file, err = createBudgetFile(path, used)
	}
	if err != nil {
		return nil, fmt.Errorf("request budget: %w", err)
	}
	b.file = file
	b.restore(used)
	return b, nil
}

// newUnlimitedBudget only knows pauses.
func newUnlimitedBudget() *Budget {
	return &Budget{configured: math.MaxInt, limit: math.MaxInt}
}

// Acquire waits until a request may start, in the order of the calls. The
// caller sends one request, and calls release when its answer has ended or
// failed, once; more calls do nothing. The slot is free again 60 seconds after
// that.
//
// It fails when ctx ends, when the budget is closed, or when the file cannot
// be written.
func (b *Budget) Acquire(ctx context.Context) (release func(), err error) {
	slot, err := b.acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("wait for a request slot: %w", err)
	}
	return sync.OnceFunc(func() { b.release(slot) }), nil
}

// Free is the number of requests that could start right now; 0 while paused.
func (b *Budget) Free() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.closed || now.Before(b.pause) {
		return 0
	}
	b.expire(now)
	return max(0, b.limit-b.busy()-b.waiting.Len())
}

// PerMinute is the budget in force: the configured one, or the API's own limit
// where that is lower.
func (b *Budget) PerMinute() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.limit
}

// Throttled is the time that all calls of Acquire have waited, until now, for
// a free slot or for the end of a pause.
func (b *Budget) Throttled() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	total, now := b.waited, time.Now()
	for e := b.waiting.Front(); e != nil; e = e.Next() {
		total += now.Sub(e.Value.(*waiter).since)
	}
	return total
}

// PauseUntil lets no request start before t, as Retry-After asks for, over
// restarts too. It never shortens a pause, and none is longer than 10 minutes.
func (b *Budget) PauseUntil(t time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	// Added to now, the pause follows the monotonic clock even if t does not.
	end := now.Add(min(t.Sub(now), maxPause))
	if b.closed || !end.After(now) || !end.After(b.pause) {
		return
	}
	b.pause = end
	if b.file != nil {
		// A pause that is not on disk still holds for this process; a disk
		// that cannot be written stops the next request by itself.
		_ = b.file.writePause(end)
	}
	b.serve(now)
}

// Damage tells why the file could not be used when the budget was made, and
// was written anew; nil if it was good, or new.
func (b *Budget) Damage() error {
	return b.damage
}

// Close ends every wait with ErrBudgetClosed and closes the file. A slot that
// is still taken counts as given back when the file is opened next.
func (b *Budget) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	if b.timer != nil {
		b.timer.Stop()
	}
	for b.waiting.Len() > 0 {
		b.grant(time.Now(), 0, ErrBudgetClosed)
	}
	if b.file == nil {
		return nil
	}
	if err := b.file.close(); err != nil {
		return fmt.Errorf("close request budget: %w", err)
	}
	return nil
}

// observeLimit takes note of the limit that the API says it has.
func (b *Budget) observeLimit(perMinute int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if perMinute < 1 || b.closed {
		return
	}
	b.limit = min(perMinute, b.configured)
	b.serve(time.Now())
}

func (b *Budget) acquire(ctx context.Context) (int, error) {
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return 0, ErrBudgetClosed
	}
	now := time.Now()
	b.expire(now)
	if b.waiting.Len() == 0 && b.mayStart(now) {
		defer b.mu.Unlock()
		return b.take(now)
	}
	w := &waiter{since: now, granted: make(chan struct{})}
	place := b.waiting.PushBack(w)
	b.serve(now)
	b.mu.Unlock()

	select {
	case <-w.granted:
		return w.slot, w.err
	case <-ctx.Done():
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-w.granted:
		// Granted at the very moment at which ctx ended: nothing was sent.
		if w.err == nil {
			b.giveBack(w.slot)
		}
	default:
		b.waiting.Remove(place)
		b.waited += time.Since(w.since)
	}
	return 0, context.Cause(ctx)
}

// serve grants slots to those who wait, and sees to it that it is called again
// when the next one can be granted.
func (b *Budget) serve(now time.Time) {
	b.expire(now)
	for b.waiting.Len() > 0 && b.mayStart(now) {
		slot, err := b.take(now)
		b.grant(now, slot, err)
	}
	if b.waiting.Len() == 0 {
		return
	}
	var next time.Time
	switch {
	case now.Before(b.pause):
		next = b.pause
	case len(b.cooling) > 0:
		next = b.cooling[0].freeAt
	default:
		return // every slot is taken: the next release calls again
	}
	if b.timer == nil {
		b.timer = time.AfterFunc(next.Sub(now), b.wake)
		return
	}
	b.timer.Reset(next.Sub(now))
}

func (b *Budget) wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.serve(time.Now())
	}
}

// grant ends the longest wait.
func (b *Budget) grant(now time.Time, slot int, err error) {
	w := b.waiting.Remove(b.waiting.Front()).(*waiter)
	w.slot, w.err = slot, err
	b.waited += now.Sub(w.since)
	close(w.granted)
}

func (b *Budget) mayStart(now time.Time) bool {
	return !now.Before(b.pause) && b.busy() < b.limit
}

func (b *Budget) busy() int {
	return b.taken + len(b.cooling)
}

// expire frees the slots whose time has passed.
func (b *Budget) expire(now time.Time) {
	n := 0
	for n < len(b.cooling) && !b.cooling[n].freeAt.After(now) {
		b.free = append(b.free, b.cooling[n].slot)
		n++
	}
	if n > 0 {
		b.cooling = append(b.cooling[:0], b.cooling[n:]...)
	}
}

// take uses a free slot. It is on disk before the request is on the wire, so
// a process that is killed in between has at most one slot less for a minute.
func (b *Budget) take(now time.Time) (int, error) {
	if len(b.free) == 0 {
		b.free = append(b.free, b.slots)
		b.slots++
	}
	slot := b.free[len(b.free)-1]
	if b.file != nil {
		if err := b.file.writeTaken(slot, now); err != nil {
			return 0, err
		}
	}
	b.free = b.free[:len(b.free)-1]
	b.taken++
	return slot, nil
}

func (b *Budget) release(slot int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	now := time.Now()
	b.taken--
	b.cooling = append(b.cooling, coolingSlot{slot: slot, freeAt: now.Add(b.window)})
	if b.file != nil {
		// If this fails, the file says that the slot is taken: that holds it
		// for longer, never for less.
		_ = b.file.writeReleased(slot, now)
	}
	b.serve(now)
}

// giveBack undoes take for a slot with which nothing was sent.
func (b *Budget) giveBack(slot int) {
	if b.closed {
		return
	}
	b.taken--
	b.free = append(b.free, slot)
	if b.file != nil {
		_ = b.file.writeUnused(slot) // as in release
	}
	b.serve(time.Now())
}

// restore takes over what an earlier process used. A slot that it took and did
// not release is released now: its request may still be on its way.
func (b *Budget) restore(used budgetUse) {
	now := time.Now()
	b.slots = len(used.slots)
	for i, slot := range used.slots {
		freeAt := now
		switch slot.state {
		case slotUnused:
		case slotTaken:
			freeAt = now.Add(b.window)
		case slotReleased:
			// A stamp in the future is from before the clock was set back.
			freeAt = now.Add(min(slot.at.Sub(now), 0) + b.window)
		}
		if freeAt.After(now) {
			b.cooling = append(b.cooling, coolingSlot{slot: i, freeAt: freeAt})
		} else {
			b.free = append(b.free, i)
		}
	}
	slices.SortFunc(b.cooling, func(x, y coolingSlot) int { return x.freeAt.Compare(y.freeAt) })
	b.pause = now.Add(min(used.pause.Sub(now), maxPause))
}
