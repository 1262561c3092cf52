package simulator

import (
	"sync"
	"sync/atomic"
	"time"
)

// Clock tells the workspace what time it is. The workspace never looks at the
// machine's time by itself, so whoever holds the clock decides how fast it
// lives. Time that a clock takes back is ignored.
type Clock interface {
	Now() time.Time
}

// RealClock is the machine's clock, moved by an offset. Its zero value is the
// machine's clock as it is.
type RealClock struct {
	offset atomic.Int64
}

// NewRealClock returns the machine's clock moved by offset; a negative one is
// in the past, from where Advance can bring it to the present.
func NewRealClock(offset time.Duration) *RealClock {
	c := &RealClock{}
	c.offset.Store(int64(offset))
	return c
}

// Now returns the machine's time plus the offset.
func (c *RealClock) Now() time.Time { return time.Now().Add(time.Duration(c.offset.Load())) }

// Advance moves the clock by d, on top of the time that passes anyway.
func (c *RealClock) Advance(d time.Duration) { c.offset.Add(int64(d)) }

// ManualClock stands still until it is moved.
type ManualClock struct {
	mu  sync.Mutex
	now time.Time
}

// NewManualClock returns a clock that stands at t.
func NewManualClock(t time.Time) *ManualClock { return &ManualClock{now: t} }

// Now returns the time at which the clock stands.
func (c *ManualClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock by d.
func (c *ManualClock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Set moves the clock to t.
func (c *ManualClock) Set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = t
}
