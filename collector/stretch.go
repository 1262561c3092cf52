package collector

import (
	"errors"
	"math"

	"github.com/edges-exporter/edges_exporter/edges"
)

// state is what the follower must remember over a restart. It is committed
// together with the runs that were read. Times are Unix nanoseconds by the
// API's clock.
type state struct {
	// T0 is the API's clock at the first good answer, 0 before it.
	T0 int64
	// Newest is the newest updated_at that was read, no later than the API's
	// clock. A poll reads from the front down to it.
	Newest int64
	// Settled is up to where rows can no longer turn up late: what has an
	// updated_at up to here and lies in no stretch is in the ledger.
	Settled int64
	// DeepAt is when the front was last read down to Settled.
	DeepAt int64
	// Clock is the API's clock at the last answer, Wall the exporter's own
	// clock at that moment.
	Clock, Wall int64
	// Stretches are what is unread, youngest first.
	Stretches []stretch
}

// stretch is a part of the list, by updated_at, that is still to be read: all
// rows from High down to Low, both included.
type stretch struct {
	Low, High int64
	// Offset is where in the list the reading goes on: at a row that is
	// strictly newer than High. It is a guess, since the list moves.
	Offset int
	// Tie is the last row read, where a whole page had one updated_at, so
	// that no strictly newer row can be the footing.
	Tie string `json:",omitempty"`
	// Backfill marks what was in the list before T0.
	Backfill bool `json:",omitempty"`

	// anchor is the number of the answer from which Offset was last taken.
	anchor uint64
	search search
	stall  int
	// lost is how often the footing was lost since High was reached.
	lost int
	// filled is set when the last page had no row strictly newer than its last,
	// so that the next one cannot begin with one.
	filled bool
	// blind is set when the row before Offset was too large to be read: no page
	// can show it and join on it.
	blind bool
}

// search narrows down the offset of a stretch while the guess is off. Offsets
// below shallow are known to be too small, offsets from deep on too large.
type search struct {
	on            bool
	shallow, deep int
	step          int
	tries         int
}

const unknown = math.MaxInt64

// maxStretches bounds the follower's memory in a workspace that is busier than
// the budget for long. Beyond it, neighbours become one.
const maxStretches = 64

// complete reports whether everything from before T0 was read.
func (st *state) complete() bool {
	if st.T0 == 0 {
		return false
	}
	for i := range st.Stretches {
		if st.Stretches[i].Backfill {
			return false
		}
	}
	return true
}

// settledBefore reports whether polls have read all rows of this updated_at.
func (st *state) settledBefore(updated int64) bool {
	if updated > st.Settled {
		return false
	}
	for i := range st.Stretches {
		if s := &st.Stretches[i]; updated >= s.Low && updated <= s.High {
			return false
		}
	}
	return true
}

// watermark is the time up to which everything that happened is in the
// numbers, apart from the backfill: what happened before T0 fills only gauges.
func (st *state) watermark() int64 {
	w := st.Settled
	for i := range st.Stretches {
		if s := &st.Stretches[i]; !s.Backfill {
			w = min(w, s.Low)
		}
	}
	return w
}

// clone copies the state, so that what is not committed can be dropped.
func (st *state) clone() *state {
	c := *st
	c.Stretches = append([]stretch(nil), st.Stretches...)
	return &c
}

// push adds an unread stretch in front. Younger stretches that it overlaps
// become part of it; the backfill stays by itself.
func (st *state) push(s stretch) {
	kept := []stretch{}
	for _, o := range st.Stretches {
		if !o.Backfill && o.High >= s.Low {
			s.Low = min(s.Low, o.Low)
			continue
		}
		kept = append(kept, o)
	}
	st.Stretches = append([]stretch{s}, kept...)
	if len(st.Stretches) <= maxStretches {
		return
	}
	// Join the two oldest that are not the backfill: the gap between them is
	// read again, which changes nothing.
	last := len(st.Stretches) - 1
	if st.Stretches[last].Backfill {
		last--
	}
	st.Stretches[last-1].Low = st.Stretches[last].Low
	st.Stretches = append(st.Stretches[:last], st.Stretches[last+1:]...)
}

// covered takes what a read from the front covers out of the stretches: all
// rows newer than down. offset is the place of a row strictly newer than down
// in that answer.
func (st *state) covered(down int64, offset int, answer uint64) {
	kept := st.Stretches[:0]
	for _, s := range st.Stretches {
		if s.Low > down {
			continue
		}
		if s.High > down {
			s.High, s.Offset, s.Tie, s.anchor, s.search = down, offset, "", answer, search{}
		}
		kept = append(kept, s)
	}
	st.Stretches = kept
}

// moved shifts the stretches' offsets by a run that came from at or below a
// stretch's edge, or is new, and now stands above it. Where the offset comes
// from the same answer as the run, or from a later one, it is right already.
func (st *state) moved(m moved) {
	for i := range st.Stretches {
		s := &st.Stretches[i]
		if s.anchor < m.answer && m.to > s.High && (!m.known || m.from <= s.High) {
			s.Offset++
		}
	}
}

// page is what the follower needs to know of an answer of the list.
type page struct {
	rows  int
	limit int
	// newest and oldest are the first and last known updated_at; some is
	// false when no row has one.
	newest, oldest int64
	some           bool
	// above is the place of the last row strictly newer than oldest, -1 if
	// there is none.
	above int
	// lead is how many rows without a known updated_at come first.
	lead int
	// last is the uid of the last row that has one, lastAt its place.
	last   string
	lastAt int
}

var (
	errUnsorted = errors.New("the API's list is not sorted newest first as asked for")
	errStalled  = errors.New("the API's list makes no progress: its pages do not follow their offset")
)

// survey looks at the order of a page's rows. Rows without a readable
// updated_at have a place in the list, but say nothing about its order.
func survey(rows []edges.Run, limit int) (page, error) {
	p := page{rows: len(rows), limit: limit, above: -1}
	for i := range rows {
		at := nanos(rows[i].UpdatedAt)
		if rows[i].Defect != "" || at == 0 {
			continue
		}
		switch {
		case !p.some:
			p.newest, p.oldest, p.some, p.lead = at, at, true, i
		case at > p.oldest:
			return page{}, errUnsorted
		case at < p.oldest:
			p.oldest = at
		}
	}
	for i := range rows {
		if at := nanos(rows[i].UpdatedAt); rows[i].Defect == "" && at > p.oldest {
			p.above = i
		}
	}
	for i := range rows {
		if rows[i].UID != "" {
			p.last, p.lastAt = rows[i].UID, i
		}
	}
	return p, nil
}

// next is how far behind the page's first row the next one begins that joins
// on its last row: there, or at the end if no row has a uid.
func (p *page) next() int {
	if p.last == "" {
		return max(1, p.rows-1)
	}
	return max(1, p.lastAt)
}

// ends reports whether the page is the last of the list.
func (p *page) ends() bool { return p.rows < p.limit }

// verdict is what a page read at a stretch's offset means for the stretch.
type verdict int

const (
	// joined: the page follows what was read, and the stretch got shorter.
	joined verdict = iota
	// done: the page reached the stretch's end.
	done
	// astray: the offset was off, and is a better guess now.
	astray
)

// read fits a page into a stretch, which was read at its offset.
//
// The list is sorted by updated_at, so a page whose first row is strictly
// newer than High holds every row from there to its own end: nothing can lie
// between it and what was read before, whatever rows came, went or moved
// meanwhile, and in whatever order ties come.
func (s *stretch) read(p *page, rows []edges.Run) (verdict, error) {
	switch {
	case p.rows == 0 && s.Offset == 0:
		return done, nil
	case p.rows == 0:
		return s.deeperThan()
	case !s.footing(p, rows):
		return s.deeperThan()
	case p.some && p.oldest > s.High && p.ends():
		return done, nil
	case p.some && p.oldest > s.High:
		return s.shallowerThan(p)
	}
	stalled := p.some && p.oldest == s.High && s.Tie == ""
	s.blind, s.filled = p.limit == 1, p.above <= 0
	if p.some {
		if p.oldest != s.High {
			s.lost = 0
		}
		s.High = p.oldest
	}
	s.search = search{}
	if p.ends() || p.some && p.oldest < s.Low {
		return done, nil
	}
	s.Tie = ""
	advanced := false
	if p.above > 0 {
		s.Offset += p.above
		if stalled && s.stall > 1 && s.lost == 0 {
			// The list moves on as fast as it is read: run after it, unless
			// that has led too far before.
			s.Offset += p.above * 3 / 4
		}
	} else {
		// No row in the page is fit to join on but the last itself.
		s.Tie = p.last
		s.Offset += p.next()
		advanced, stalled = true, true
	}
	if !stalled {
		s.stall = 0
		return joined, nil
	}
	// The largest bulk of equal stamps that the API allows is 100,000 runs.
	if s.stall++; s.stall > 5+3*maxLost && !advanced || s.stall > 1_100 {
		s.stall = 0
		return joined, errStalled
	}
	return joined, nil
}

// footing reports whether a page joins what was read before.
func (s *stretch) footing(p *page, rows []edges.Run) bool {
	if s.Offset == 0 || p.some && p.newest > s.High {
		return true
	}
	// A page of one row overlaps no other. It joins if it is the next one.
	if s.search.on {
		return p.limit == 1 && s.search.shallow >= 0 && s.Offset == s.search.shallow+1
	}
	if p.limit == 1 || s.blind {
		return true
	}
	for i := range rows {
		if s.Tie != "" && rows[i].UID == s.Tie {
			return true
		}
	}
	// Rows in front were removed, and reading again from a row strictly newer
	// finds the place. If that did not help, then more rows than a page holds
	// are ties that come in another order in each answer, or are not to be
	// understood: their places are all that is left to go by, and what lies
	// behind them must not wait for ever.
	return s.filled && s.lost > maxLost && (!p.some || p.lead > 0 || p.newest == s.High || s.High == unknown)
}

// maxLost is how often rows that leave no footing are read again from a row
// strictly newer.
const maxLost = 2

// maxTries bounds how often one poll looks for a stretch's place.
const maxTries = 40

// deeperThan moves the offset towards the front: the page began behind the
// place where the stretch does.
func (s *stretch) deeperThan() (verdict, error) {
	f := &s.search
	if !f.on {
		s.lost++
	}
	f.begin()
	f.deep = s.Offset
	if f.shallow >= 0 {
		return s.halve()
	}
	s.Offset = max(0, s.Offset-f.step)
	f.step *= 4
	return s.tried()
}

// shallowerThan moves the offset away from the front: the page ended before
// the place where the stretch begins.
func (s *stretch) shallowerThan(p *page) (verdict, error) {
	f := &s.search
	f.begin()
	f.shallow = s.Offset
	if f.deep >= 0 {
		return s.halve()
	}
	if p.limit < pageLimit && f.deep < 0 && f.tries == 0 {
		// Small pages are asked for where large rows are: not far from here.
		f.step = 1
	}
	f.step = max(f.step, p.rows-1)
	s.Offset += f.step
	f.step *= 2
	return s.tried()
}

func (s *stretch) halve() (verdict, error) {
	f := &s.search
	if f.deep-f.shallow <= 1 {
		// The list moved under the search.
		s.Offset = max(0, f.shallow-10)
		*f = search{tries: f.tries}
		f.begin()
		return s.tried()
	}
	s.Offset = f.shallow + (f.deep-f.shallow)/2
	return s.tried()
}

func (s *stretch) tried() (verdict, error) {
	s.Tie = ""
	if s.search.tries++; s.search.tries > maxTries {
		s.search = search{}
		return astray, errStalled
	}
	return astray, nil
}

func (f *search) begin() {
	if !f.on {
		*f = search{on: true, shallow: -1, deep: -1, step: 10, tries: f.tries}
	}
}
