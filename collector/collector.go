// Package collector follows a workspace's list of runs exactly, keeps a ledger
// of them on disk, and exposes what it counted to Prometheus. Data flows one
// way: the follower reads pages, the ledger turns them into committed changes,
// and a scrape reads what was rendered after the last commit.
package collector

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edges-exporter/edges_exporter/edges"
)

// Config is what a Collector needs; every field but Budget and the switches is
// required.
type Config struct {
	// Client reads the API; the collector listens to its attempts.
	Client *edges.Client
	// Budget is the client's request budget; nil means that there is none.
	Budget *edges.Budget
	// Workspace is the value of the workspace label.
	Workspace string
	// StorePath is the file of the store.
	StorePath string
	// PollInterval is the time between two polls.
	PollInterval time.Duration
	// PollOverlap is how late a row may turn up after its updated_at.
	PollOverlap time.Duration
	// AuditInterval is how long a run in flight may go unconfirmed.
	AuditInterval time.Duration
	// Retention is the age at which runs leave the API and the gauges.
	Retention time.Duration
	// ZeroHold is how long a new series is shown at 0, at least.
	ZeroHold time.Duration
	// MaxActions bounds the values of the action label.
	MaxActions int
	// ProblemRuns bounds edges_run_problem_timestamp_seconds.
	ProblemRuns int
	// NativeHistograms adds native buckets to the protobuf format.
	NativeHistograms bool
	// Schedules, Callbacks and Credits switch on what is read beside the runs.
	Schedules, Callbacks, Credits bool
	Logger                        *slog.Logger
}

// Collector follows one workspace. Poll and Run must not be called at the same
// time; the other methods are safe at any time.
type Collector struct {
	cfg      Config
	store    *store
	ledger   *ledger
	follower *follower
	recorder *recorder
	// beside are the collectors of what is not in the list of runs.
	beside []*sideline
	// desk is where one of them works just now.
	desk atomic.Pointer[desk]
	// throttled is how much of the budget's waiting time is committed.
	throttled time.Duration

	up          bool
	lastSuccess time.Time
	lastError   string
	// state is the committed state of the follower.
	state *state

	exposition *exposition
	published  time.Time
	ready      atomic.Bool
	summary    atomic.Pointer[State]
}

// State says in few words how the collector is doing.
type State struct {
	// Workspace is the value of the workspace label.
	Workspace string
	// Up is true if the last poll succeeded.
	Up bool
	// LastSuccess is when a poll last succeeded; zero if none did.
	LastSuccess time.Time
	// LastError is what the last poll failed with; empty if it succeeded.
	LastError string
	// Watermark is the time, by the API's clock, up to which everything that
	// happened is in the numbers; zero before the first poll.
	Watermark time.Time
	// BackfillComplete is true when every run within retention was read.
	BackfillComplete bool
	// Runs is the number of runs in the ledger.
	Runs int64
	// ByStatus is the number of runs in each status that has any.
	ByStatus map[string]int64
}

// New opens the store, or makes it. The error matches ErrStore when the store
// cannot be used as it is, and then says what to do.
func New(cfg Config) (*Collector, error) {
	s, err := openStore(cfg.StorePath, cfg.Workspace)
	if err != nil {
		return nil, err
	}
	l, st, err := openLedger(s, &cfg)
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	c := &Collector{
		cfg:        cfg,
		store:      s,
		ledger:     l,
		recorder:   &recorder{},
		state:      &st,
		exposition: newExposition(cfg.Logger),
	}
	if cfg.Budget != nil {
		c.throttled = cfg.Budget.Throttled()
	}
	cfg.Client.OnAttempt(c.attempted)
	c.follower = &follower{
		client: cfg.Client,
		read: func(ctx context.Context, limit, offset int) (edges.Page, error) {
			return cfg.Client.ListRuns(ctx, edges.RunsQuery{Limit: limit, Offset: offset, Sort: sortNewestFirst})
		},
		beside:    c.pollBeside,
		budget:    cfg.Budget,
		interval:  cfg.PollInterval,
		overlap:   cfg.PollOverlap,
		retention: cfg.Retention,
		reserve:   reserve(cfg.Budget, cfg.PollInterval),
		limit:     pageLimit,
		most:      pageLimit,
		book: &book{
			flush: c.flush, unconfirmed: l.unconfirmed,
			runs: func() int64 { return l.value(keyOf(famLedgerRuns)) },
		},
	}
	if c.beside, err = newBeside(&cfg, s); err != nil {
		return nil, errors.Join(err, s.close())
	}
	c.publish()
	return c, nil
}

// reserve is how many requests are kept back for the polls of the coming
// minute: one each, but no more than half of the budget.
func reserve(b *edges.Budget, interval time.Duration) int {
	if b == nil {
		return 0
	}
	polls := math.Ceil(float64(time.Minute) / float64(interval))
	return int(min(polls, float64(b.PerMinute()/2)))
}

// Run polls until ctx ends, and then returns nil. Any other end is an error
// that polling again cannot mend; it matches ErrStore.
func (c *Collector) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		next := time.Now().Add(c.cfg.PollInterval)
		if err := c.Poll(ctx); errors.Is(err, ErrStore) {
			return err
		}
		timer.Reset(time.Until(next))
	}
}

// Poll reads what is new, and as much of what is unread as the budget and the
// poll interval allow. What it read before an error is kept. A poll that ctx
// ended counts neither as success nor as error.
func (c *Collector) Poll(ctx context.Context) error {
	started := time.Now()
	f := c.follower
	f.book.begin(c.state.clone())
	err := f.poll(ctx)
	if f.book.failed {
		// The state is ahead of what is stored, and the rows between are lost:
		// go back to where both agree.
		f.book.begin(c.state.clone())
	}

	own := ownCounts{took: time.Since(started)}
	switch {
	case err == nil:
		own.result = resultSuccess
	case ctx.Err() == nil:
		own.result = resultError
	}
	if errors.Is(err, ErrStore) {
		return err
	}
	if cerr := c.commit(f.book.state, f.book.pending, own); cerr != nil {
		err = errors.Join(err, cerr)
	}
	for err == nil && c.state.Clock != 0 {
		more, merr := c.ledger.more(c.state.Clock)
		if merr != nil || !more {
			err = merr
			break
		}
		err = c.commit(c.state.clone(), nil, ownCounts{})
	}
	if ctx.Err() == nil {
		c.settle(err)
	}
	c.publish()
	return err
}

// settle notes how a poll ended.
func (c *Collector) settle(err error) {
	c.up = err == nil
	if err != nil {
		c.lastError = err.Error()
		c.cfg.Logger.Error("poll failed", "err", err)
		return
	}
	c.lastError, c.lastSuccess = "", time.Now()
	c.ready.Store(true)
}

// flush is called by the follower in the middle of a poll.
func (c *Collector) flush(st *state, seen []observation) error {
	if err := c.commit(st, seen, ownCounts{}); err != nil {
		return err
	}
	// Rendering is not free: a long backfill shows itself once a second.
	if time.Since(c.published) >= time.Second {
		c.publish()
	}
	return nil
}

// commit stores what was read, and makes it what is shown.
func (c *Collector) commit(st *state, seen []observation, own ownCounts) error {
	return c.commitWith(st, seen, own, nil)
}

// commitWith also stores what beside books, which may be nil.
func (c *Collector) commitWith(st *state, seen []observation, own ownCounts, beside func(*booking) error) error {
	var throttled time.Duration
	if c.cfg.Budget != nil {
		throttled = c.cfg.Budget.Throttled()
		own.throttled = throttled - c.throttled
	}
	own.attempts = c.recorder.take()
	if err := c.ledger.commit(st, seen, own, beside, c.exposition.seenAt, st.moved); err != nil {
		c.recorder.giveBack(own.attempts)
		return err
	}
	c.throttled = throttled
	c.state = st.clone()
	return nil
}

// Ready reports whether a poll has succeeded since the start.
func (c *Collector) Ready() bool { return c.ready.Load() }

// State returns how the collector was doing after the last commit.
func (c *Collector) State() State { return *c.summary.Load() }

// Handler serves /metrics: what was rendered after the last commit, and the
// process' own metrics from own, gathered at each scrape. It answers in the
// classic text format, OpenMetrics or protobuf, as the request prefers.
func (c *Collector) Handler(own prometheus.Gatherer) http.Handler {
	return &handler{exposition: c.exposition, own: own, logger: c.cfg.Logger}
}

// Close closes the store. Polling must have ended.
func (c *Collector) Close() error { return c.store.close() }
