package collector

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"sync/atomic"
	"time"

	dto "github.com/prometheus/client_model/go"
	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"github.com/edges-exporter/edges_exporter/edges"
)

// beside is a collector of something that the list of runs does not show. It
// reads at its own pace, after the runs and before their backfill, what the
// budget can spare.
type beside interface {
	// name is its value of the collector label.
	name() string
	// pace is the time between two of its polls.
	pace() time.Duration
	// poll reads, and commits what it read at the desk. more tells that the
	// desk had no request to spare for the rest.
	poll(ctx context.Context, d *desk) (more bool, err error)
}

// Values of the collector label.
const (
	collectorSchedules = "schedules"
	collectorCallbacks = "callbacks"
	collectorCredits   = "credits"
)

// newBeside makes the collectors that are switched on, the cheapest first.
func newBeside(cfg *Config, s *store) ([]*sideline, error) {
	var out []*sideline
	if cfg.Credits {
		out = append(out, &sideline{beside: &creditsCollector{client: cfg.Client, every: creditsPace(cfg.PollInterval)}})
	}
	if cfg.Schedules {
		out = append(out, &sideline{beside: &schedulesCollector{client: cfg.Client, every: schedulesPace(cfg.PollInterval)}})
	}
	if cfg.Callbacks {
		k, err := newCallbacks(cfg, s, callbacksPace(cfg.PollInterval))
		if err != nil {
			return nil, err
		}
		out = append(out, &sideline{beside: k})
	}
	return out, nil
}

// How often each of them reads, by the time between two polls of runs.
func creditsPace(interval time.Duration) time.Duration   { return pace(interval, 20, 5*time.Minute) }
func schedulesPace(interval time.Duration) time.Duration { return pace(interval, 4, time.Minute) }
func callbacksPace(interval time.Duration) time.Duration { return pace(interval, 2, 30*time.Second) }

// pace is so many poll intervals, no more than usual, but at least one.
func pace(interval time.Duration, polls int, usual time.Duration) time.Duration {
	return max(interval, min(usual, time.Duration(polls)*interval))
}

// sideline is a collector beside the runs, and how it is doing.
type sideline struct {
	beside
	// due is when it polls next: at its pace, or at the next poll of the runs
	// if there was no request to spare for all; onPace is when it would at its
	// pace alone.
	due, onPace time.Time
	// failures counts the polls that failed since the last good one.
	failures int
	// tried is set once a poll has ended, up if the last one was good.
	tried, up   bool
	lastSuccess time.Time
}

const (
	// besideTime is how long a collector beside the runs may make requests at
	// least, and besideAnswer how long it may wait for an answer, also where
	// polls follow each other faster.
	besideTime   = time.Second
	besideAnswer = 5 * time.Second
	// maxBesideWait bounds how long one waits that fails again and again.
	maxBesideWait = 10 * time.Minute
)

var (
	errNoneToSpare = errors.New("no request to spare")
	errNextPoll    = errors.New("no answer before the next poll")
)

// pollBeside lets the collectors beside the runs read that are due. The error
// is one of the store; an API that does not answer them is none of the runs'
// business.
func (c *Collector) pollBeside(ctx context.Context, until time.Time) error {
	for _, s := range c.beside {
		started := time.Now()
		if started.Before(s.due) || !c.follower.spare() || ctx.Err() != nil {
			continue
		}
		d := &desk{collector: c, until: until, rest: started.Before(s.onPace)}
		if least := started.Add(besideTime); until.Before(least) {
			d.until = least
		}
		more, err := d.attend(ctx, s)
		if d.failed != nil {
			return d.failed
		}
		if ctx.Err() == nil {
			s.settle(started, err, c.cfg.Logger)
			s.plan(started, d, more && d.allowance == 0, c.cfg.PollInterval)
		}
	}
	return nil
}

// plan says when the next poll is due.
func (s *sideline) plan(started time.Time, d *desk, more bool, interval time.Duration) {
	if !d.rest || !s.up {
		// Half a poll less: its distance from the one before is not exact.
		s.onPace = started.Add(s.wait() - interval/2)
	}
	s.due = s.onPace
	if more && s.up {
		s.due = started
	}
}

// settle notes how a poll ended, and says so when that has changed.
func (s *sideline) settle(now time.Time, err error, logger *slog.Logger) {
	was, first := s.up, !s.tried
	s.tried, s.up = true, err == nil
	if err != nil {
		if s.failures++; first || was {
			logger.Warn("collector failed, the runs are not concerned", "collector", s.name(), "err", err)
		}
		return
	}
	if s.failures = 0; !first && !was {
		logger.Info("collector works again", "collector", s.name())
	}
	s.lastSuccess = now
}

// wait is the time to the next poll: longer after each failure, so that what
// the plan does not include costs few requests.
func (s *sideline) wait() time.Duration {
	wait := s.pace()
	for i := 0; i < s.failures && wait < maxBesideWait; i++ {
		wait = min(2*wait, maxBesideWait)
	}
	return wait
}

// desk is where a collector beside the runs works for the time of one poll.
type desk struct {
	collector *Collector
	until     time.Time
	// rest is set if only what the last poll had no requests for is to be read.
	rest bool
	// allowance is how many requests it may make, so that the backfill of the
	// runs gets on too; 0 is as many as the budget can spare.
	allowance int64
	requests  atomic.Int64
	ended     atomic.Bool
	cancel    context.CancelCauseFunc
	// failed is why a commit failed.
	failed error
}

// attend lets a collector poll, and ends that when the time is up or a call
// needs requests that cannot be spared.
func (d *desk) attend(ctx context.Context, s beside) (more bool, err error) {
	c := d.collector
	if b := c.cfg.Budget; b != nil && !c.state.complete() {
		d.allowance = int64(max(2, (b.PerMinute()-c.follower.reserve)/4))
	}
	ctx, d.cancel = context.WithCancelCause(ctx)
	defer d.cancel(nil)
	timer := time.AfterFunc(max(time.Until(d.until), besideAnswer), func() { d.cancel(errNextPoll) })
	defer timer.Stop()
	c.desk.Store(d)
	defer c.desk.Store(nil)
	return s.poll(ctx, d)
}

// attempted is called after each attempt on the wire.
func (c *Collector) attempted(a edges.Attempt) {
	c.recorder.attempt(a)
	if d := c.desk.Load(); d != nil {
		d.requests.Add(1)
		// A call that has failed would go on with requests that are not there
		// for it. One that has been answered does not notice.
		if !d.spare() {
			d.ended.Store(true)
			d.cancel(errNoneToSpare)
		}
	}
}

// spare reports whether the collector may make another request. The first one
// does not depend on the time: what is read makes progress, however slow the
// API is.
func (d *desk) spare() bool {
	if d.ended.Load() || d.allowance > 0 && d.requests.Load() >= d.allowance {
		return false
	}
	inTime := d.requests.Load() == 0 || time.Now().Before(d.until)
	return inTime && d.collector.follower.spare()
}

// commit stores what book books in one transaction, and then shows it.
func (d *desk) commit(book func(*booking) error) error {
	if d.failed == nil {
		d.failed = d.collector.commitWith(d.collector.state.clone(), nil, ownCounts{}, book)
	}
	return d.failed
}

// loadBeside reads what is shown beside the runs out of the store.
func (l *ledger) loadBeside(tx *bbolt.Tx) error {
	var err error
	if l.schedules, err = loadSchedules(tx); err != nil {
		return l.store.damaged(fmt.Errorf("schedules: %w", err))
	}
	if l.lastRuns, err = lastRunsOf(tx, l.schedules); err != nil {
		return l.store.damaged(fmt.Errorf("runs of schedules: %w", err))
	}
	l.keptLastRuns = tx.Bucket(bucketScheduleRuns).Stats().KeyN
	if l.credits, err = loadCredits(tx); err != nil {
		return l.store.damaged(fmt.Errorf("credits: %w", err))
	}
	l.oldestDelivery = oldestDelivery(tx)
	if n := tx.Bucket(bucketDeliveries).Stats().KeyN; int64(n) != l.value(keyOf(famCallbacksPending)) {
		return l.store.damaged(fmt.Errorf("%d callbacks are there, and should be %d", n, l.value(keyOf(famCallbacksPending))))
	}
	return nil
}

// birthBeside makes the series that every collector beside the runs has.
func (b *booking) birthBeside(collector string) {
	for _, d := range [...]edges.Defect{edges.DefectNoUID, edges.DefectBadTime, edges.DefectBadField, edges.DefectNotObject} {
		b.birth(b.named(famCollectorSkipped, collector, string(d)))
	}
}

// skipBeside counts a row beside the runs that cannot be understood, once.
func (b *booking) skipBeside(collector, uid string, created time.Time, defect edges.Defect) error {
	id := fnv.New64a()
	fmt.Fprintf(id, "%s|%s|%s|%d", collector, defect, uid, nanos(created))
	isNew, err := b.skipsFirst(id.Sum(nil))
	if err != nil || !isNew {
		return err
	}
	b.add(b.named(famCollectorSkipped, collector, string(defect)), 1, nil)
	uid = cleanLabel(uid)
	b.logs = append(b.logs, func(log *slog.Logger) {
		log.Warn("row not understood, skipped", "collector", collector, "uid", uid, "reason", defect)
	})
	return nil
}

// besideOf names the collector that a family belongs to, empty for a family of
// the runs or of the exporter itself.
func besideOf(id familyID) string {
	switch id {
	case famSchedules, famScheduleNext, famScheduleLast, famScheduleRuns:
		return collectorSchedules
	case famCallbacks, famCallbacksPending, famCallbackOldest, famCallbackRetries:
		return collectorCallbacks
	case famCreditsLeft, famCreditsUsed, famCreditsLimit, famCreditsStart, famCreditsEnd, famCreditsActionUsed:
		return collectorCredits
	}
	return ""
}

// besideMetrics are the samples of a family beside the runs that are not plain
// series, and none for a collector that is switched off. ok is false for all
// other families.
func (r *renderer) besideMetrics(f *family) (metrics []*dto.Metric, ok bool) {
	if owner := besideOf(f.id); owner != "" && !r.runs(owner) {
		return nil, true
	}
	switch f.id {
	case famScheduleNext, famScheduleLast:
		return r.schedules(f), true
	case famCreditsLeft, famCreditsUsed, famCreditsLimit, famCreditsStart, famCreditsEnd, famCreditsActionUsed:
		return r.credits(f), true
	case famCallbackOldest:
		if r.ledger.oldestDelivery == 0 {
			return nil, true
		}
		return r.gauge(unixSeconds(r.ledger.oldestDelivery)), true
	case famCollectorUp, famCollectorLastSuccess:
		return r.sidelines(f), true
	}
	return nil, false
}

// runs reports whether a collector beside the runs is switched on.
func (c *Collector) runs(name string) bool {
	for _, s := range c.beside {
		if s.name() == name {
			return true
		}
	}
	return false
}

func (r *renderer) sidelines(f *family) []*dto.Metric {
	var out []*dto.Metric
	for _, s := range r.beside {
		switch {
		case f.id == famCollectorUp && s.tried:
			out = append(out, r.labelled(f, boolean(s.up), s.name()))
		case f.id == famCollectorLastSuccess && !s.lastSuccess.IsZero():
			out = append(out, r.labelled(f, unixSeconds(s.lastSuccess.UnixNano()), s.name()))
		}
	}
	return out
}

// labelled is a gauge with the values of its family's labels.
func (r *renderer) labelled(f *family, v float64, values ...string) *dto.Metric {
	labels := []*dto.LabelPair{r.workspace}
	for i, v := range values {
		labels = append(labels, pair(f.labels[i].name(), v))
	}
	return &dto.Metric{Label: sortPairs(labels), Gauge: &dto.Gauge{Value: proto.Float64(v)}}
}
