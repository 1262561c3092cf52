package collector

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/bbolt"

	"github.com/edges-exporter/edges_exporter/edges"
)

// ledger holds the last known version of every run within retention, on disk,
// and turns what is observed into changes of the aggregates.
type ledger struct {
	store *store
	*aggregates

	retention     time.Duration
	auditInterval time.Duration
	zeroHold      time.Duration
	problemRuns   int
	logger        *slog.Logger

	// workspaceUID is the workspace whose runs are in the ledger, empty until
	// one was seen.
	workspaceUID string
	// oldest is when the run that is longest in a status entered it, for the
	// series that have one.
	oldest map[seriesKey]int64
	// problems are the latest runs in a problem status, newest first.
	problems []problem
	// skipped is how many bad rows are remembered.
	skipped int
	// bytes is the size of the store's file.
	bytes int64
	// schedules are the schedules that are shown.
	schedules []schedule
	// scheduled is set if runs are counted by schedule too; lastRuns is when
	// the latest run of each schedule that is shown was made, keptLastRuns of
	// how many schedules that is known.
	scheduled    bool
	lastRuns     map[string]int64
	keptLastRuns int
	// credits is the latest consumption; nil before the first.
	credits *credits
	// oldestDelivery is when the oldest callback that has not ended was made, 0
	// if there is none.
	oldestDelivery int64
	// complete is set once no run from before T0 was left to be read at the
	// last commit: an answer that ends the backfill is still a part of it.
	complete bool
}

// problem is a run of edges_run_problem_timestamp_seconds.
type problem struct {
	uid                       string
	action, mode, status, err uint16
	entered                   int64
}

// observation is what one answer of the API showed.
type observation struct {
	rows []edges.Run
	// answer numbers the answers since the start, in the order of reading.
	answer uint64
	// now is the API's clock at the answer, in Unix nanoseconds.
	now int64
	// audited are the keys of the runs that were asked for by uid; nil for a
	// page of the list. Those that rows does not show are gone.
	audited [][]byte
}

// moved says how a run's place in the list changed.
type moved struct {
	// answer is the number of the answer that showed the run.
	answer uint64
	// known is false for a run that the ledger had not seen.
	known bool
	// from and to are its updated_at before and now, in Unix nanoseconds.
	from, to int64
}

// maxSkipped bounds how many bad rows are remembered. Beyond it all are
// forgotten, and may be counted again.
const maxSkipped = 10_000

// sweepRuns bounds how many runs one transaction takes out of the ledger.
const sweepRuns = 5_000

// openLedger reads the aggregates and the follower's state out of the store.
func openLedger(s *store, cfg *Config) (*ledger, state, error) {
	l := &ledger{
		store:         s,
		aggregates:    newAggregates(newDictionaries(cfg.MaxActions)),
		retention:     cfg.Retention,
		auditInterval: cfg.AuditInterval,
		zeroHold:      cfg.ZeroHold,
		problemRuns:   cfg.ProblemRuns,
		logger:        cfg.Logger,
		oldest:        map[seriesKey]int64{},
		scheduled:     cfg.Schedules,
	}
	var st state
	err := s.view(func(tx *bbolt.Tx) error {
		var err error
		if st, err = s.loadState(tx); err != nil {
			return err
		}
		if err := l.loadLabels(tx); err != nil {
			return s.damaged(fmt.Errorf("labels: %w", err))
		}
		if err := l.loadSeries(tx); err != nil {
			return s.damaged(fmt.Errorf("series: %w", err))
		}
		if uid := tx.Bucket(bucketMeta).Get(metaWorkspaceUID); uid != nil {
			body, err := unseal(uid)
			if err != nil {
				return s.damaged(fmt.Errorf("workspace: %w", err))
			}
			l.workspaceUID = string(body)
		}
		l.bytes, l.complete = tx.Size(), st.complete()
		l.skipped = tx.Bucket(bucketSkipped).Stats().KeyN
		for k := range l.series {
			if k.family == famRuns {
				l.setOldest(k, oldestOpen(tx, k))
			}
		}
		if l.problems, err = l.latestProblems(tx); err != nil {
			return err
		}
		return l.loadBeside(tx)
	})
	return l, st, err
}

func (l *ledger) loadLabels(tx *bbolt.Tx) error {
	stored := map[label][]string{}
	err := tx.Bucket(bucketLabels).ForEach(func(k, v []byte) error {
		name, err := unseal(v)
		if err != nil {
			return err
		}
		d := label(k[0])
		if int(binary.BigEndian.Uint16(k[1:])) != len(stored[d]) {
			return errors.New("a value is missing")
		}
		stored[d] = append(stored[d], string(name))
		return nil
	})
	if err != nil {
		return err
	}
	for which, names := range stored {
		d := l.dicts[which]
		if d == nil {
			continue
		}
		d.names, d.ids, d.saved = nil, map[string]uint16{}, len(names)
		for _, name := range names {
			d.add(name)
		}
	}
	return nil
}

func (l *ledger) loadSeries(tx *bbolt.Tx) error {
	err := tx.Bucket(bucketSeries).ForEach(func(k, v []byte) error {
		sk, ok := parseSeriesKey(k)
		f := l.families[sk.family]
		if !ok || f == nil {
			return errSeries
		}
		for i, name := range f.labels {
			if int(sk.values[i]) >= len(l.dicts[name].names) {
				return errSeries
			}
		}
		s, err := decodeSeries(k, v, f)
		if err != nil {
			return err
		}
		l.set(sk, s)
		return nil
	})
	if err != nil {
		return err
	}
	// A page that lost some of its entries looks like one that never had them.
	if n := len(l.series); n > 0 || tx.Bucket(bucketMeta).Get(metaSeries) != nil {
		if string(sealCount(n)) != string(tx.Bucket(bucketMeta).Get(metaSeries)) {
			return errSeries
		}
	}
	return nil
}

// commit takes observations and the exporter's own counts into the ledger in
// one transaction, together with the follower's state, and then into what is
// shown. If it fails, nothing has changed. beside, if not nil, books what was
// read beside the runs. moves is told of every run whose
// place in the list is new, before the state is written.
func (l *ledger) commit(st *state, seen []observation, own ownCounts, beside func(*booking) error, seenAt func(uint64) int64, moves func(moved)) error {
	ch := l.change(time.Now().UnixMilli())
	b := &booking{changes: ch, ledger: l, t0: st.T0, complete: l.complete, settled: st.settledBefore, moves: moves, opened: map[seriesKey]struct{}{}}
	var oldest map[seriesKey]int64
	var problems []problem
	var bytes int64
	err := l.store.update(func(tx *bbolt.Tx) error {
		b.begin(tx)
		if err := b.takeWorkspace(seen); err != nil {
			return err
		}
		if err := b.findUndated(seen); err != nil {
			return err
		}
		for i := range seen {
			if err := b.take(&seen[i]); err != nil {
				return err
			}
		}
		if st.Clock != 0 {
			b.now = st.Clock
			if err := b.sweep(st.Clock); err != nil {
				return err
			}
			if err := b.unpostpone(st.Clock); err != nil {
				return err
			}
		}
		if beside != nil {
			if err := beside(b); err != nil {
				return err
			}
		}
		own.book(ch)
		if own.result != "" {
			ch.release(seenAt, l.zeroHold.Milliseconds())
		}

		oldest = make(map[seriesKey]int64, len(b.opened))
		for k := range b.opened {
			oldest[k] = oldestOpen(tx, k)
		}
		if b.problemsChanged {
			var err error
			if problems, err = l.latestProblems(tx); err != nil {
				return err
			}
		}
		bytes = tx.Size()
		return b.save(st)
	})
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	ch.commit()
	for _, d := range l.dicts {
		d.saved = len(d.names)
	}
	for k, at := range oldest {
		l.setOldest(k, at)
	}
	if b.problemsChanged {
		l.problems = problems
	}
	l.workspaceUID, l.skipped, l.bytes, l.complete = b.workspaceUID, b.skippedNow, bytes, st.complete()
	for _, apply := range b.after {
		apply()
	}
	for _, log := range b.logs {
		log(l.logger)
	}
	return nil
}

// more reports whether a sweep left runs that are past retention.
func (l *ledger) more(now int64) (bool, error) {
	var more bool
	err := l.store.view(func(tx *bbolt.Tx) error {
		k, _ := tx.Bucket(bucketRuns).Cursor().First()
		more = k != nil && l.expired(keyTime(k), now)
		return nil
	})
	return more, err
}

// expired reports whether a run made at createdMS has left retention.
func (l *ledger) expired(createdMS, now int64) bool {
	return createdMS <= (now-int64(l.retention))/int64(time.Millisecond)
}

// unconfirmed returns the keys of up to limit runs in flight or BLOCKED that
// the API has not shown for the audit interval.
func (l *ledger) unconfirmed(now int64, limit int) ([][]byte, error) {
	var keys [][]byte
	until := (now - int64(l.auditInterval)) / int64(time.Second)
	err := l.store.view(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketAudit).Cursor()
		for k, _ := c.First(); k != nil && len(keys) < limit; k, _ = c.Next() {
			if int64(binary.BigEndian.Uint64(k)) > until { //nolint:gosec // written from an int64
				break
			}
			keys = append(keys, append([]byte(nil), k[8:]...))
		}
		return nil
	})
	return keys, err
}

func (l *ledger) setOldest(k seriesKey, at int64) {
	if at == 0 {
		delete(l.oldest, k)
		return
	}
	l.oldest[k] = at
}

// oldestOpen is when the run that is longest in a status entered it, 0 if
// there is none.
func oldestOpen(tx *bbolt.Tx, k seriesKey) int64 {
	prefix := openPrefix(k.values[0], k.values[1], k.values[2])
	found, _ := tx.Bucket(bucketOpen).Cursor().Seek(prefix)
	if len(found) < len(prefix)+8 || string(found[:len(prefix)]) != string(prefix) {
		return 0
	}
	return int64(binary.BigEndian.Uint64(found[len(prefix):])) //nolint:gosec // written from an int64
}

func (l *ledger) latestProblems(tx *bbolt.Tx) ([]problem, error) {
	var out []problem
	c := tx.Bucket(bucketProblems).Cursor()
	for k, _ := c.Last(); k != nil && len(out) < l.problemRuns; k, _ = c.Prev() {
		key := k[8:]
		r, err := decodeRecord(tx.Bucket(bucketRuns).Get(key), keyTime(key)*int64(time.Millisecond))
		if err != nil {
			return nil, l.store.damaged(fmt.Errorf("run %s: %w", keyUID(key), err))
		}
		out = append(out, problem{keyUID(key), r.action, r.mode, r.status, r.err, r.entered})
	}
	return out, nil
}

func openPrefix(action, mode, status uint16) []byte {
	b := make([]byte, 0, 14)
	b = binary.BigEndian.AppendUint16(b, action)
	b = binary.BigEndian.AppendUint16(b, mode)
	return binary.BigEndian.AppendUint16(b, status)
}

func timeKey(t int64, key []byte) []byte {
	b := make([]byte, 0, 8+len(key))
	b = binary.BigEndian.AppendUint64(b, uint64(t)) //nolint:gosec // times are after 1970
	return append(b, key...)
}
