package collector

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
)

// pageLimit is the largest page that the API gives.
const pageLimit = 100

// A batch is committed when it has so many rows or is so old, so that a crash
// in a long read costs little, and a fast read few transactions.
const (
	batchRows = 2_000
	batchAge  = time.Second
)

// auditRuns is how many runs an audit asks for in one request.
const auditRuns = 100

var sortNewestFirst = []string{"-updated_at", "-created_at"}

// follower reads the list of runs: what is new in front of it at every poll,
// and then what is still unread, youngest first, as far as the budget allows.
type follower struct {
	client *edges.Client
	// read asks for one part of the list, newest first.
	read     func(ctx context.Context, limit, offset int) (edges.Page, error)
	budget   *edges.Budget
	interval time.Duration
	overlap  time.Duration
	// retention is the age at which runs leave the API.
	retention time.Duration
	// reserve is how many requests of the budget the polls of a minute need.
	reserve int
	// polled is when the polls of the past minute began, the oldest first.
	polled []time.Time
	// may, if set, decides about a further request in the budget's place.
	may func() bool
	// beside, if set, reads what is not in the list, before the backfill.
	beside func(ctx context.Context, until time.Time) error
	// limit is the page size, most at best; an answer over the bound makes it
	// smaller for a while.
	limit, most int
	// full is the size of a page that may have another one behind it: most,
	// unless the API gives less than it is asked for. sized is set once that is
	// known.
	full  int
	sized bool
	// tooLarge counts the rows that were skipped since the last good answer.
	tooLarge int
	// answers counts the answers since the start.
	answers uint64
	// jumped is a change of the API's clock that the next answer may confirm.
	jumped time.Duration

	book *book
}

// book takes what the follower read, and commits it with the state that
// belongs to it.
type book struct {
	state   *state
	pending []observation
	rows    int
	since   time.Time
	// failed is set when a commit failed: the state is then ahead of the store.
	failed bool
	// flush commits the observations and the state.
	flush func(*state, []observation) error
	// runs is the number of runs in the ledger.
	runs func() int64
	// unconfirmed lists the runs that are due for an audit.
	unconfirmed func(now int64, limit int) ([][]byte, error)
}

// begin starts a poll from a state.
func (b *book) begin(st *state) {
	b.state, b.pending, b.rows, b.failed = st, nil, 0, false
}

// add takes an observation, and commits if the batch is full.
func (b *book) add(o observation) error {
	if len(b.pending) == 0 {
		b.since = time.Now()
	}
	b.pending = append(b.pending, o)
	b.rows += len(o.rows)
	if b.rows >= batchRows || time.Since(b.since) >= batchAge {
		return b.commit()
	}
	return nil
}

func (b *book) commit() error {
	if len(b.pending) == 0 {
		return nil
	}
	pending := b.pending
	b.pending, b.rows = nil, 0
	err := b.flush(b.state, pending)
	b.failed = err != nil
	return err
}

// poll reads the front of the list, and then what is unread until the next
// poll is due. What was read is in the book, whatever error comes back.
func (f *follower) poll(ctx context.Context) error {
	began := time.Now()
	until := began.Add(f.interval)
	f.polled = append(slices.DeleteFunc(f.polled, func(t time.Time) bool { return began.Sub(t) >= time.Minute }), began)
	if err := f.front(ctx); err != nil {
		return err
	}
	if err := f.fill(ctx, until, false); err != nil {
		return err
	}
	err := f.audit(ctx, until)
	if f.book.failed || ctx.Err() != nil {
		return err
	}
	if f.beside != nil {
		if besideErr := f.beside(ctx, until); besideErr != nil {
			return errors.Join(err, besideErr)
		}
	}
	// The old pages do not wait for an audit that is answered badly.
	return errors.Join(err, f.fill(ctx, until, true))
}

// front reads the first page. What lies between it and what was read before
// becomes the youngest stretch.
func (f *follower) front(ctx context.Context) error {
	rows, limit, now, err := f.list(ctx, 0)
	if err != nil {
		return err
	}
	p, err := survey(rows, limit)
	if err != nil {
		return f.unusable(rows, now, err)
	}
	st := f.book.state
	if p.rows == 0 && f.book.runs() > 0 {
		// Runs do not vanish all at once: an empty list moves no mark. What is
		// in flight will be audited.
		return nil
	}
	settled := now - int64(f.overlap)
	// A clock that was set back stamps new rows below older ones.
	st.Settled, st.Newest = min(st.Settled, settled), min(st.Newest, now)
	remainder := stretch{High: unknown, Offset: max(0, p.above), anchor: f.answers}
	if p.some {
		remainder.High = p.oldest
		st.covered(p.oldest, max(0, p.above), f.answers)
	}
	if p.above <= 0 {
		remainder.Tie, remainder.Offset = p.last, p.next()
	}
	// A list that is shorter than the ledger is either old runs gone early, or
	// an answer that leaves some out: it is no proof that there is no more.
	whole := p.ends() && int64(p.rows) >= f.book.runs()
	reaches := func(low int64) bool { return whole || p.some && p.oldest < low }
	switch {
	case st.T0 == 0:
		st.T0 = now
		st.Settled, st.DeepAt = settled, now
		remainder.Low, remainder.Backfill = now-int64(f.retention), true
		if !reaches(remainder.Low) {
			st.push(remainder)
		}
	case reaches(st.Settled):
		st.Settled, st.DeepAt = settled, now
	case now-st.DeepAt >= int64(f.overlap) || now < st.DeepAt:
		remainder.Low = st.Settled
		st.push(remainder)
		st.Settled, st.DeepAt = settled, now
	case !reaches(st.Newest):
		remainder.Low = max(st.Newest, st.Settled)
		st.push(remainder)
	}
	for i := range rows {
		if at := nanos(rows[i].UpdatedAt); at <= now && rows[i].Defect == "" {
			st.Newest = max(st.Newest, at)
		}
	}
	st.Newest = min(st.Newest, now)
	if err := f.book.add(observation{rows: rows, answer: f.answers, now: now}); err != nil {
		return err
	}
	if len(st.Stretches) == 0 {
		return nil
	}
	// The rows in front have moved what lies behind them.
	return f.book.commit()
}

// fill reads what is unread until the time is up or the budget's reserve is
// reached: the backfill, or all that is younger. However slow the API is, each
// poll reads a page of it.
func (f *follower) fill(ctx context.Context, until time.Time, backfill bool) error {
	for first := true; (first || time.Now().Before(until)) && f.spare(); first = false {
		st := f.book.state
		if len(st.Stretches) == 0 || st.Stretches[0].Backfill != backfill {
			break
		}
		if err := f.advance(ctx, &st.Stretches[0]); err != nil {
			return err
		}
	}
	return nil
}

// advance reads one page of a stretch, which is the youngest.
func (f *follower) advance(ctx context.Context, s *stretch) error {
	rows, limit, now, err := f.list(ctx, s.Offset)
	if err != nil {
		return err
	}
	p, err := survey(rows, limit)
	if err != nil {
		return f.unusable(rows, now, err)
	}
	v, stalled := s.read(&p, rows)
	s.anchor = f.answers
	if stalled == nil && v == done {
		f.book.state.Stretches = f.book.state.Stretches[1:]
	}
	if err := f.book.add(observation{rows: rows, answer: f.answers, now: now}); err != nil {
		return err
	}
	if v == done {
		// What was read may have moved the next stretch.
		return errors.Join(stalled, f.book.commit())
	}
	return stalled
}

// unusable books the rows of a page whose place in the list means nothing.
func (f *follower) unusable(rows []edges.Run, now int64, why error) error {
	return errors.Join(why, f.book.add(observation{rows: rows, answer: f.answers, now: now}))
}

// audit reads runs in flight again that the list has not shown for long, a
// hundred at each poll even if the time is up.
func (f *follower) audit(ctx context.Context, until time.Time) error {
	for first := true; (first || time.Now().Before(until)) && f.spare(); first = false {
		if err := f.book.commit(); err != nil {
			return err
		}
		keys, err := f.book.unconfirmed(f.book.state.Clock, min(auditRuns, f.limit, f.full))
		if err != nil || len(keys) == 0 {
			return err
		}
		asked := make(map[string]bool, len(keys))
		uids := make([]string, len(keys))
		for i, k := range keys {
			uids[i] = keyUID(k)
			asked[uids[i]] = true
		}
		answer, err := f.client.ListRuns(ctx, edges.RunsQuery{UID: uids, Limit: pageLimit})
		if err != nil {
			if errors.Is(err, edges.ErrTooLarge) && f.limit > 1 {
				f.limit /= 2
				continue
			}
			return fmt.Errorf("audit runs in flight: %w", err)
		}
		f.answers++
		for i := range answer.Runs {
			if uid := answer.Runs[i].UID; uid != "" && !asked[uid] {
				return fmt.Errorf("audit runs in flight: the API answered with run %q, which was not asked for", uid)
			}
		}
		if err := f.book.add(observation{rows: answer.Runs, answer: f.answers, now: f.clock(answer.Date), audited: keys}); err != nil {
			return err
		}
	}
	return f.book.commit()
}

// spare reports whether the budget allows a request beyond those that coming
// polls will need.
func (f *follower) spare() bool {
	if f.may != nil {
		return f.may()
	}
	return f.budget == nil || f.budget.Free() > f.keptBack(time.Now())
}

// keptBack is how many free requests are for the polls to come. Each poll of
// the past minute gives its own request back in time for one of them; one more
// is for a request that is late.
func (f *follower) keptBack(now time.Time) int {
	recent := 0
	for _, t := range f.polled {
		if now.Sub(t) < time.Minute {
			recent++
		}
	}
	return min(max(f.reserve-recent, 0)+1, f.reserve)
}

// list reads one page, and says with which limit and at which time by the
// API's clock. An answer over the bound is asked for again with a smaller
// limit, until a single row is too large: that one is skipped.
func (f *follower) list(ctx context.Context, offset int) (rows []edges.Run, limit int, now int64, err error) {
	for {
		limit = f.limit
		f.answers++
		answer, err := f.read(ctx, limit, offset)
		switch {
		case err == nil:
			f.limit, f.tooLarge = min(f.most, 2*limit), 0
			now := f.clock(answer.Date)
			if err := f.size(ctx, limit, offset, len(answer.Runs)); err != nil {
				return nil, 0, 0, err
			}
			return answer.Runs, min(limit, f.full), now, nil
		case !errors.Is(err, edges.ErrTooLarge):
			return nil, 0, 0, err
		case limit == 1 && f.tooLarge < maxTooLarge:
			f.limit = 2
			f.tooLarge++
			return []edges.Run{{Defect: defectTooLarge}}, 1, f.clock(time.Time{}), nil
		case limit == 1:
			return nil, 0, 0, err
		}
		f.limit = limit / 2
	}
}

// fewestRows is the smallest page that an API may have for its largest: its
// default is ten.
const fewestRows = 10

// size finds out, once, whether the API gives smaller pages than it is asked
// for. The first page of a long list would then look like all there is, and
// what lies behind it would be missing without a word. A page from the middle
// of the first one tells: it is shorter where the list ends, and as long where
// only the page did.
func (f *follower) size(ctx context.Context, limit, offset, rows int) error {
	if rows > min(limit, f.full) || f.full == 0 {
		f.full = f.most
	}
	if f.sized || offset != 0 || limit < f.most || rows < fewestRows {
		return nil
	}
	if rows < limit {
		f.answers++
		answer, err := f.read(ctx, limit, rows/2)
		// Nothing of it is booked: the latest number stays that of the page.
		f.answers--
		switch {
		case errors.Is(err, edges.ErrTooLarge):
			return nil
		case err != nil:
			return fmt.Errorf("tell a short list from a short page: %w", err)
		case len(answer.Runs) == rows:
			f.full = rows
		}
	}
	f.sized = true
	return nil
}

// maxTooLarge is how many rows in a row may be too large before it is the API's
// answers that are, and the poll fails.
const maxTooLarge = 3

// defectTooLarge marks a row whose answer is over the bound all by itself.
const defectTooLarge edges.Defect = "too_large"

// maxJump is how far the API's clock may run away from the exporter's between
// two answers before it has to be said twice. One odd Date header must neither
// empty the ledger nor have everything read again.
const maxJump = 5 * time.Minute

// clock returns the API's clock at an answer, in Unix nanoseconds.
func (f *follower) clock(date time.Time) int64 {
	st, wall := f.book.state, time.Now()
	expected := time.Unix(0, st.Clock).Add(wall.Sub(time.Unix(0, st.Wall)))
	switch {
	case st.Clock == 0 && date.IsZero():
		date = wall
	case st.Clock == 0:
	case date.IsZero():
		date = expected
	default:
		jump := date.Sub(expected)
		again := f.jumped != 0 && (jump > 0) == (f.jumped > 0)
		if f.jumped = 0; jump.Abs() > maxJump && !again {
			f.jumped, date = jump, expected
		}
	}
	st.Clock, st.Wall = date.UnixNano(), wall.UnixNano()
	return st.Clock
}
