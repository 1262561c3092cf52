// Package simulator is an Edges workspace that behaves like the real one, as
// far as a program can see over HTTP: the list of runs with its filters, sorts
// and moving pages, single runs and their outputs, launch, resume and cancel,
// schedules, callbacks and credits, rate limits, errors, and runs that live as
// runs do. It knows the truth about each of them, and lets
// things go wrong on demand.
//
// A workspace has no goroutine. Its state is brought up to its clock whenever
// somebody asks, event by event in the order of time, so that what happens in
// it depends on its seed and on nothing else: not on who asks when.
package simulator

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// None means that there is to be none of it, where it is a Config's History,
// Retention, WarmUp, RunsPerDay or HistoryRunsPerDay.
const None = -1

// Defaults of Config.
const (
	DefaultAPIKey            = "demo-key"
	DefaultHistory           = 90 * 24 * time.Hour
	DefaultRetention         = 90 * 24 * time.Hour
	DefaultRunsPerDay        = 60_000
	DefaultHistoryRunsPerDay = 170
	DefaultWarmUp            = 2 * time.Hour
)

// Config describes a workspace. The zero value is a lively one on the
// machine's clock, with 90 days of past and an API without roughness.
type Config struct {
	// Seed is where everything random in the workspace comes from: the same
	// seed, with the same times on the clock at the start, gives the same
	// runs.
	Seed uint64
	// APIKey is the one key that the API takes.
	APIKey string
	// Plan names the rate limit: trial, bronze, silver, gold, platinum,
	// diamond, titanium, or unlimited, which is the default.
	Plan string
	// RateLimitHints adds what the API may or may not send: Retry-After on a
	// 429, X-RateLimit-Limit and X-RateLimit-Reset on all answers.
	RateLimitHints bool
	// Clock is the workspace's time; the machine's by default.
	Clock Clock
	// Location is where people's days and schedules happen; UTC by default.
	Location *time.Location
	// History is how much past the workspace has at the start.
	History time.Duration
	// Retention is how long after its created_at a run stays in the API.
	Retention time.Duration
	// RunsPerDay is how many runs are launched on an average day, from
	// WarmUp before the start on. HistoryRunsPerDay is the same for the time
	// before; its default is not more than RunsPerDay.
	RunsPerDay, HistoryRunsPerDay float64
	// WarmUp is how long before the start the workspace has already had its
	// present pace, so that there are runs in all statuses.
	WarmUp time.Duration
	// LateCommitShare of the changes become visible only up to
	// LateCommitMax after their updated_at.
	LateCommitShare float64
	LateCommitMax   time.Duration
	// Ties is the share of the changes that happen at a full second, and so
	// share their updated_at with others. The runs of one launch share it
	// anyway.
	Ties float64
	// NullUpdatedAt is the share of new async and scheduled runs whose
	// updated_at is null until their first change.
	NullUpdatedAt float64
	// NullsFirst lets runs without updated_at stand before all others in
	// -updated_at, as some databases do; else created_at stands in.
	NullsFirst bool
	// NoRhythm makes all hours of the week alike, so that there is as much to
	// see at night as by day. Schedules keep their times.
	NoRhythm bool
	// SyncEvery is how often all runs that have ended since are stamped with
	// synced_at, and a new updated_at, in one millisecond. 0 for never.
	SyncEvery time.Duration
	// Credits is how many credits the workspace has for a month; by default
	// half as many again as its runs use at RunsPerDay.
	Credits float64
	// Troubles are there from the start.
	Troubles []Trouble
	// KeepTruth keeps every status entry, those of the past before the start
	// too. Without it, only the latest of those since the start are kept.
	KeepTruth bool
	// WorkspaceUID is made from the seed by default.
	WorkspaceUID string
	// NoGzip sends plain answers even to those who take gzip.
	NoGzip bool
	// Logger gets a line for what happens to the workspace from outside, and
	// at debug level one for each request; by default there is no log.
	Logger *slog.Logger
}

// Workspace is an Edges workspace. It is an http.Handler: the API is under
// /v1/, and what a person may do to the workspace under /simulator/.
type Workspace struct {
	config   Config
	clock    Clock
	location *time.Location
	log      *slog.Logger
	mux      *http.ServeMux
	packers  sync.Pool // of *gzip.Writer
	limit    int       // requests per minute, 0 for no limit

	// What follows from the configuration and never changes.
	seed                          uint64
	uid, secret                   string
	users                         []string
	retention, syncEvery, lateMax int64
	lateShare, ties, nullUpdated  float64
	runsPerDay, historyPerDay     float64
	warmFrom, startedAt           int64
	keepTruth                     bool

	mu sync.Mutex
	// now is the time up to which everything has happened, in Unix
	// milliseconds like all times inside.
	now       int64
	agenda    agenda
	actions   []*action
	byName    map[string]*action
	sources   []*source
	schedules []*schedule
	failures  map[string]*RunError
	unsynced  []*run
	// deliveries are the callbacks, the oldest first.
	deliveries []*delivery
	credits    credits

	byUID     map[string]*run
	byUpdated ranking // of the runs that are visible
	byCreated ranking
	bulk      bool // runs that are shown go to unranked first
	unranked  []*run
	nextID    int64
	lastOrd   uint64
	puts      uint64

	truth        truthLog
	troubles     []*Trouble
	troubleCount int
	pcg          *rand.PCG
	rng          *rand.Rand // over pcg, seeded for each use
	requests     *rand.Rand // for what befalls requests
	recent       []int64    // times of the requests of the last minute
	answered     map[int]int64
}

// New returns a workspace with its past made. The error says which part of the
// configuration makes no sense.
func New(config Config) (*Workspace, error) {
	limit, err := planLimit(config.Plan)
	if err != nil {
		return nil, err
	}
	for _, share := range []float64{config.LateCommitShare, config.Ties, config.NullUpdatedAt} {
		if !(share >= 0 && share <= 1) {
			return nil, fmt.Errorf("a share must be from 0 to 1, not %v", share)
		}
	}
	if !(config.Credits >= 0) || math.IsInf(config.Credits, 0) {
		return nil, fmt.Errorf("credits must be a number from 0 on, not %v", config.Credits)
	}
	if config.LateCommitMax < 0 || config.SyncEvery < 0 {
		return nil, errors.New("a duration must not be negative")
	}
	if config.SyncEvery > 0 && config.SyncEvery < time.Second {
		return nil, errors.New("SyncEvery must be a second or more")
	}

	w := &Workspace{
		config:      config,
		clock:       config.Clock,
		location:    config.Location,
		log:         config.Logger,
		limit:       limit,
		seed:        mix(config.Seed),
		uid:         config.WorkspaceUID,
		syncEvery:   config.SyncEvery.Milliseconds(),
		lateShare:   config.LateCommitShare,
		lateMax:     config.LateCommitMax.Milliseconds(),
		ties:        config.Ties,
		nullUpdated: config.NullUpdatedAt,
		keepTruth:   config.KeepTruth,
		actions:     actions(),
		byName:      make(map[string]*action),
		failures:    make(map[string]*RunError),
		byUID:       make(map[string]*run),
		nextID:      4_180_000,
		answered:    make(map[int]int64),
		pcg:         rand.NewPCG(0, 0),
	}
	if w.clock == nil {
		w.clock = &RealClock{}
	}
	if w.location == nil {
		w.location = time.UTC
	}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	if w.config.APIKey == "" {
		w.config.APIKey = DefaultAPIKey
	}
	if w.uid == "" {
		w.uid = uuid(mix(w.seed^1), mix(w.seed^2))
	}
	w.secret = uuid(mix(w.seed^3), mix(w.seed^4))[:13]
	for i := range uint64(4) {
		w.users = append(w.users, uuid(mix(w.seed^(16+i)), mix(w.seed^(32+i))))
	}
	w.rng = rand.New(w.pcg)                       //nolint:gosec // it has to be the same each time
	w.requests = rand.New(rand.NewPCG(w.seed, 5)) //nolint:gosec // as above
	for _, a := range w.actions {
		w.byName[a.name] = a
	}
	nullsFirst := config.NullsFirst
	w.byUpdated.cmp = func(a, b *run) int {
		return cmp.Or(cmp.Compare(a.shown.order(nullsFirst), b.shown.order(nullsFirst)), cmp.Compare(a.shown.created, b.shown.created), cmp.Compare(a.ord, b.ord))
	}
	w.byCreated.cmp = func(a, b *run) int {
		return cmp.Or(cmp.Compare(a.shown.created, b.shown.created), cmp.Compare(a.ord, b.ord))
	}

	w.runsPerDay = orDefault(config.RunsPerDay, DefaultRunsPerDay)
	w.historyPerDay = orDefault(config.HistoryRunsPerDay, min(DefaultHistoryRunsPerDay, w.runsPerDay))
	w.credits = w.newCredits()
	w.retention = math.MaxInt64
	if retention := orDefault(config.Retention, DefaultRetention); retention > 0 {
		w.retention = retention.Milliseconds()
	}
	history := orDefault(config.History, DefaultHistory)
	warmUp := orDefault(config.WarmUp, DefaultWarmUp)
	w.startedAt = w.clock.Now().UnixMilli()
	from := w.startedAt - history.Milliseconds()
	w.warmFrom = max(from, w.startedAt-warmUp.Milliseconds())
	if err := w.populate(from); err != nil {
		return nil, err
	}
	w.now = w.startedAt
	for _, t := range config.Troubles {
		if _, err := w.addTrouble(t); err != nil {
			return nil, fmt.Errorf("trouble %s: %w", t.Kind, err)
		}
	}
	w.now = from
	w.advance(w.startedAt)
	w.routes()
	w.log.Info("workspace made", "runs", w.byCreated.len(), "history", history.String(), "workspace_uid", w.uid)
	return w, nil
}

// orDefault returns what a setting stands for: 0 for its default, less for
// none.
func orDefault[T time.Duration | float64](v, otherwise T) T {
	switch {
	case v == 0:
		return otherwise
	case v < 0:
		return 0
	}
	return v
}

// Now returns the time up to which everything in the workspace has happened.
func (w *Workspace) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fromMillis(w.now)
}

// AdvanceTo lets everything happen that is due up to t, without waiting for
// the clock to get there. It does nothing when t is in the past.
func (w *Workspace) AdvanceTo(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.advance(t.UnixMilli())
}

// catchUp brings the workspace up to its clock.
func (w *Workspace) catchUp() { w.advance(w.clock.Now().UnixMilli()) }

func (w *Workspace) advance(until int64) {
	if until < w.now {
		return
	}
	for {
		e, ok := w.agenda.pop(until)
		if !ok {
			break
		}
		w.now = max(w.now, e.at)
		w.retire()
		w.happen(e)
	}
	w.now = until
	w.retire()
	w.endTroubles()
}

// retire takes out the runs and callbacks that are past retention. It has its turn before
// every event, or what happens to a very old run would depend on who asks when.
func (w *Workspace) retire() {
	w.retireDeliveries()
	for w.byCreated.len() > 0 {
		r := w.byCreated.at(0)
		if w.now-r.shown.created < w.retention {
			return
		}
		w.drop(r)
	}
}

// local returns t where the workspace's people live.
func (w *Workspace) local(t int64) time.Time { return time.UnixMilli(t).In(w.location) }

// draw returns a generator for the next decision about r. It is good until the
// next call, and gives the same for the same run and step whatever happens to
// other runs.
func (w *Workspace) draw(r *run) *rand.Rand {
	r.step++
	w.pcg.Seed(mix(w.seed^r.key), r.step)
	return w.rng
}

// chance draws a number from 0 to 1 for r, apart from draw.
func (w *Workspace) chance(r *run) float64 {
	r.step++
	return unit(mix(mix(w.seed^r.key) + r.step))
}

// failure returns the shared error of a label.
func (w *Workspace) failure(label string) *RunError {
	e, ok := w.failures[label]
	if !ok {
		e = failure(label)
		w.failures[label] = e
	}
	return e
}

// actionNamed returns the action of that name, a new one without a life if
// there is none.
func (w *Workspace) actionNamed(name string) *action {
	if a, ok := w.byName[name]; ok {
		return a
	}
	a := &action{id: int64(9000 + len(w.byName)), name: name, batch: 1}
	w.byName[name] = a
	return a
}

// add takes a new run in. Its row must be complete.
func (w *Workspace) add(r *run, at int64) {
	w.lastOrd++
	r.ord = w.lastOrd
	w.byUID[r.uid] = r
	r.visibleAt = at
	w.charge(r, r.outputs)
	if late := w.lateness(r, at); late > 0 {
		r.visibleAt += late
		w.commitLater(r)
	} else {
		w.show(r, &r.row)
	}
	w.enter(r, true)
}

// change changes a run's row by mutate and lets the API show it, at once or a
// little late. A status that was entered goes into the truth.
func (w *Workspace) change(r *run, at int64, mutate func()) {
	before := r.row
	late := w.lateness(r, at)
	if late == 0 && r.pending == 0 {
		w.byUpdated.remove(r)
		mutate()
		r.visibleAt = at
		w.byUpdated.insert(r)
		if created := r.created; created != before.created {
			r.created = before.created
			w.byCreated.remove(r)
			r.created = created
			w.byCreated.insert(r)
		}
	} else {
		if r.shown == &r.row {
			old := before
			r.shown = &old
		}
		mutate()
		// Changes of one row are committed in their order.
		r.visibleAt = max(r.visibleAt, at+late)
		w.commitLater(r)
	}
	w.charge(r, r.outputs-before.outputs)
	if entered(&before, &r.row) {
		w.enter(r, false)
	}
}

// entered reports whether the way from one row to another goes through an
// entry into a status: the status is another one, or the run has come back to
// it in between.
func entered(before, after *row) bool {
	switch {
	case before.status != after.status:
		return true
	case after.status.Ended():
		return before.finished != 0 && after.finished != 0 && before.finished != after.finished
	case after.status == "RUNNING":
		return before.started != 0 && after.started != 0 && before.started != after.started
	}
	return false
}

// lateness draws how much later than now a change becomes visible.
func (w *Workspace) lateness(r *run, at int64) int64 {
	share, most := w.lateShare, w.lateMax
	if t := w.trouble(KindLate, r.action.name, at); t != nil {
		share, most = t.Share, t.Delay.Milliseconds()
	}
	if share <= 0 || most <= 0 || w.chance(r) >= share {
		return 0
	}
	return 1 + int64(w.chance(r)*float64(most))
}

// commitLater plans that the row as it is now becomes visible at visibleAt.
func (w *Workspace) commitLater(r *run) {
	content := r.row
	r.pending++
	w.agenda.push(event{at: r.visibleAt, kind: eventPublish, run: r, shown: &content})
}

// publish makes a late commit visible.
func (w *Workspace) publish(r *run, content *row) {
	if r.removed {
		return
	}
	r.pending--
	w.hide(r)
	if r.pending == 0 {
		content = &r.row
	}
	w.show(r, content)
}

func (w *Workspace) show(r *run, content *row) {
	r.shown = content
	if w.bulk {
		w.unranked = append(w.unranked, r)
		return
	}
	w.byUpdated.insert(r)
	w.byCreated.insert(r)
}

func (w *Workspace) hide(r *run) {
	if r.shown == nil {
		return
	}
	w.byUpdated.remove(r)
	w.byCreated.remove(r)
	r.shown = nil
}

// rank puts the runs that were shown in bulk into their places.
func (w *Workspace) rank() {
	w.byUpdated.insertAll(w.unranked)
	w.byCreated.insertAll(w.unranked)
	w.unranked = nil
}

// drop removes a run for good.
func (w *Workspace) drop(r *run) {
	w.hide(r)
	delete(w.byUID, r.uid)
	r.removed = true
	r.gen++
}
