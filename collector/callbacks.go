package collector

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"go.etcd.io/bbolt"

	"github.com/edges-exporter/edges_exporter/edges"
)

const (
	// callbackLimit is the largest page of callbacks that the API gives.
	callbackLimit = 20
	// reread is of how many runs the callbacks are asked for in one request.
	reread = 20
	// deliveredFor is how long an ended callback is remembered after it can no
	// longer turn up late: an API whose clock is set back must not have it
	// counted twice.
	deliveredFor = time.Hour
)

var callbacksNewestFirst = []string{"-created_at"}

// callbacksCollector follows the list of callbacks. It is ordered by
// created_at, which never changes, so a change of a callback moves nothing, and
// shows only to who asks for it: what is new is read from the front, as of the
// runs, and what has not ended is asked for again by its run.
type callbacksCollector struct {
	client    *edges.Client
	store     *store
	every     time.Duration
	audit     time.Duration
	retention time.Duration
	// list reads what is new.
	list *follower
	// state is what is committed, next what the poll in hand makes of it.
	state, next *callbacksState
	desk        *desk
	// answers are those of the list that are not booked yet, by their number.
	answers map[uint64][]edges.Callback
	// seen are the keys of the callbacks that this poll has shown.
	seen map[string]bool
}

// callbacksState is what must be remembered over a restart.
type callbacksState struct {
	// List is how far the list was read, by created_at.
	List state
	// Forgotten is up to which created_at ended callbacks are not remembered
	// any more: everything up to here that has ended was counted, or is from
	// before T0. Unix nanoseconds.
	Forgotten int64
	// Open is what is still to be read of the list of the callbacks that have
	// not ended; nil once it was read. OpenAt is when that was begun.
	Open   *stretch `json:",omitempty"`
	OpenAt int64
	// Cursor is the key after which callbacks are asked for again next, and
	// Offset how far the answers about those were read.
	Cursor []byte `json:",omitempty"`
	Offset int    `json:",omitempty"`
}

func (st *callbacksState) clone() *callbacksState {
	c := *st
	c.List = *st.List.clone()
	if st.Open != nil {
		open := *st.Open
		c.Open = &open
	}
	return &c
}

// delivery is what is kept of a callback that has not ended.
type delivery struct {
	retries int64
	run     string
}

func newCallbacks(cfg *Config, s *store, every time.Duration) (*callbacksCollector, error) {
	k := &callbacksCollector{
		client: cfg.Client, store: s, every: every, audit: cfg.AuditInterval, retention: cfg.Retention,
		state: &callbacksState{},
	}
	k.list = &follower{
		read: k.read, budget: cfg.Budget, interval: cfg.PollInterval, overlap: cfg.PollOverlap,
		may:   func() bool { return k.desk.spare() },
		limit: callbackLimit, most: callbackLimit,
		book: &book{flush: k.flush, runs: k.kept},
	}
	err := s.view(func(tx *bbolt.Tx) error {
		stored := tx.Bucket(bucketMeta).Get(metaCallbacks)
		if stored == nil {
			return nil
		}
		if err := unsealJSON(stored, k.state); err != nil {
			return s.damaged(fmt.Errorf("state of callbacks: %w", err))
		}
		return nil
	})
	return k, err
}

func (*callbacksCollector) name() string { return collectorCallbacks }

func (k *callbacksCollector) pace() time.Duration { return k.every }

func (k *callbacksCollector) poll(ctx context.Context, d *desk) (more bool, err error) {
	k.desk, k.next = d, k.state.clone()
	k.answers, k.seen = map[uint64][]edges.Callback{}, map[string]bool{}
	f := k.list
	f.book.begin(&k.next.List)
	if !d.rest {
		err = f.front(ctx)
	}
	if err == nil {
		err = f.fill(ctx, d.until, false)
	}
	if err == nil {
		err = f.fill(ctx, d.until, true)
	}
	if cerr := f.book.commit(); cerr != nil {
		return false, cerr
	}
	if k.next.List.T0 == 0 {
		return false, err
	}
	all := false
	if err == nil {
		err = k.findOpen(ctx)
	}
	if err == nil {
		all, err = k.again(ctx)
	}
	more = len(k.next.List.Stretches) > 0 || k.next.Open != nil || !all
	return more, errors.Join(err, k.commit(nil))
}

// read asks for a part of the list, and gives the callbacks' places in it.
func (k *callbacksCollector) read(ctx context.Context, limit, offset int) (edges.Page, error) {
	answer, err := k.client.ListCallbacks(ctx, edges.CallbacksQuery{Limit: limit, Offset: offset, Sort: callbacksNewestFirst})
	if err != nil {
		return edges.Page{}, err
	}
	k.answers[k.list.answers] = answer.Callbacks
	return edges.Page{Runs: places(answer.Callbacks), Date: answer.Date}, nil
}

// places are the callbacks as rows of a list that is ordered by updated_at: all
// that matters of them for the reading.
func places(callbacks []edges.Callback) []edges.Run {
	rows := make([]edges.Run, len(callbacks))
	for i := range callbacks {
		c := &callbacks[i]
		rows[i] = edges.Run{UID: c.UID, UpdatedAt: c.CreatedAt, CreatedAt: c.CreatedAt, Defect: c.Defect}
	}
	return rows
}

// kept is how many callbacks the store remembers, which the list must show.
func (k *callbacksCollector) kept() int64 {
	n := 0
	// A store that cannot be read fails at the next commit.
	_ = k.store.view(func(tx *bbolt.Tx) error {
		first, _ := tx.Bucket(bucketDeliveries).Cursor().First()
		ended, _ := tx.Bucket(bucketDelivered).Cursor().First()
		if first != nil || ended != nil {
			n = 1
		}
		return nil
	})
	return int64(n)
}

// flush commits what was read of the list.
func (k *callbacksCollector) flush(_ *state, seen []observation) error {
	return k.commit(func(b *booking) error {
		for _, o := range seen {
			callbacks, ok := k.answers[o.answer]
			if !ok && len(o.rows) == 1 && o.rows[0].Defect != "" {
				callbacks = []edges.Callback{{Defect: o.rows[0].Defect}}
			}
			delete(k.answers, o.answer)
			for i := range callbacks {
				isNew, err := k.take(b, &callbacks[i], o.now, true)
				if err != nil {
					return err
				}
				if isNew {
					k.next.List.moved(moved{answer: o.answer, to: nanos(callbacks[i].CreatedAt)})
				}
			}
		}
		return nil
	})
}

// findOpen reads the list of the callbacks that have not ended: at the first
// start, since of those from before T0 the end counts, and then as often as
// runs in flight are audited.
func (k *callbacksCollector) findOpen(ctx context.Context) error {
	st := k.next
	now := st.List.Clock
	if st.Open == nil && (st.OpenAt == 0 || now < st.OpenAt || now-st.OpenAt >= int64(k.audit)) {
		st.Open, st.OpenAt = &stretch{High: unknown}, now
	}
	for st.Open != nil && k.desk.spare() {
		answer, err := k.client.ListCallbacks(ctx, edges.CallbacksQuery{
			Status: []edges.CallbackStatus{edges.CallbackPending, edges.CallbackRunning},
			Limit:  callbackLimit, Offset: st.Open.Offset, Sort: callbacksNewestFirst,
		})
		if err != nil {
			return fmt.Errorf("find callbacks that have not ended: %w", err)
		}
		for i := range answer.Callbacks {
			if row := &answer.Callbacks[i]; row.Defect == "" && row.Status.Ended() {
				return fmt.Errorf("find callbacks that have not ended: the API answered with %q, which is %s", row.UID, row.Status)
			}
		}
		rows := places(answer.Callbacks)
		p, err := survey(rows, callbackLimit)
		if err == nil {
			var v verdict
			if v, err = st.Open.read(&p, rows); err != nil || v == done {
				st.Open = nil
			}
		}
		if cerr := k.commit(func(b *booking) error { return k.takeAll(b, answer, true) }); cerr != nil {
			return cerr
		}
		if err != nil {
			return fmt.Errorf("find callbacks that have not ended: %w", err)
		}
	}
	return nil
}

// again asks for the callbacks that have not ended, by their runs, from where
// it was left off to the youngest. all is false if the budget had no more to
// spare.
func (k *callbacksCollector) again(ctx context.Context) (all bool, err error) {
	st := k.next
	for {
		wanted, last, err := k.group()
		switch {
		case err != nil:
			return false, err
		case len(wanted) == 0:
			st.Cursor, st.Offset = nil, 0
			return true, nil
		case !k.desk.spare():
			return false, nil
		}
		whole, err := k.ask(ctx, wanted)
		if err != nil {
			return false, fmt.Errorf("read callbacks again: %w", err)
		}
		if st.Offset != 0 {
			return false, nil
		}
		st.Cursor = last
		gone := wanted
		if !whole {
			gone = nil
		}
		if err := k.commit(func(b *booking) error { return k.lose(b, gone) }); err != nil {
			return false, err
		}
	}
}

// asked are callbacks that are asked for again: their keys by uid, and their
// runs.
type asked map[string]struct {
	key []byte
	run string
}

// group finds the callbacks to be asked for next, of as many runs as fit into a
// request, and the key of the last of them.
func (k *callbacksCollector) group() (wanted asked, last []byte, err error) {
	wanted = asked{}
	runs := map[string]bool{}
	err = k.store.view(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketDeliveries).Cursor()
		key, stored := c.Seek(k.next.Cursor)
		if key != nil && bytes.Equal(key, k.next.Cursor) {
			key, stored = c.Next()
		}
		for ; key != nil; key, stored = c.Next() {
			d, err := decodeDelivery(stored)
			if err != nil {
				return k.store.damaged(fmt.Errorf("callback %s: %w", keyUID(key), err))
			}
			switch {
			case k.seen[string(key)] || d.run == "":
				continue
			case !runs[d.run] && len(runs) == reread || len(wanted) == maxAskedCallbacks:
				return nil
			}
			runs[d.run] = true
			last = append([]byte(nil), key...)
			wanted[keyUID(key)] = struct {
				key []byte
				run string
			}{last, d.run}
		}
		return nil
	})
	return wanted, last, err
}

// maxAskedCallbacks bounds how many callbacks of the same few runs are asked
// for together.
const maxAskedCallbacks = 1_000

// ask reads the callbacks of the wanted ones' runs until all were found, and
// takes those out of wanted. whole is true if what is left in wanted is not in
// the list. If the budget has no more to spare, the state's Offset tells where
// to go on.
func (k *callbacksCollector) ask(ctx context.Context, wanted asked) (whole bool, err error) {
	st := k.next
	runs := map[string]bool{}
	for _, w := range wanted {
		runs[w.run] = true
	}
	uids := make([]string, 0, len(runs))
	for uid := range runs {
		uids = append(uids, uid)
	}
	whole = st.Offset == 0
	footing := ""
	for first := true; first || k.desk.spare(); first = false {
		answer, err := k.client.ListCallbacks(ctx, edges.CallbacksQuery{
			RunUID: uids, Limit: callbackLimit, Offset: st.Offset, Sort: callbacksNewestFirst,
		})
		if err != nil {
			return false, err
		}
		rows := answer.Callbacks
		for i := range rows {
			if uid := rows[i].RunUID; uid != "" && !runs[uid] {
				return false, fmt.Errorf("the API answered with a callback of run %q, which was not asked for", uid)
			}
		}
		if err := k.commit(func(b *booking) error { return k.takeAll(b, answer, false) }); err != nil {
			return false, err
		}
		if footing != "" && (len(rows) == 0 || rows[0].UID != footing) {
			whole = false
		}
		for i := range rows {
			delete(wanted, rows[i].UID)
		}
		if len(wanted) == 0 || len(rows) < callbackLimit {
			st.Offset = 0
			return whole, nil
		}
		footing = rows[len(rows)-1].UID
		st.Offset += len(rows) - 1
	}
	return false, nil
}

// commit stores what book books, which may be nil, with the state.
func (k *callbacksCollector) commit(book func(*booking) error) error {
	err := k.desk.commit(func(b *booking) error {
		b.birthCallbacks()
		if book != nil {
			if err := book(b); err != nil {
				return err
			}
		}
		if err := k.sweep(b); err != nil {
			return err
		}
		oldest := oldestDelivery(b.tx)
		b.after = append(b.after, func() { b.ledger.oldestDelivery = oldest })
		stored, err := sealJSON(k.next)
		if err != nil {
			return fmt.Errorf("state of callbacks: %w", err)
		}
		return b.tx.Bucket(bucketMeta).Put(metaCallbacks, stored)
	})
	if err == nil {
		k.state = k.next.clone()
	}
	return err
}

func (b *booking) birthCallbacks() {
	if b.has(keyOf(famCallbackRetries)) {
		return
	}
	b.birthBeside(collectorCallbacks)
	b.birth(keyOf(famCallbackRetries))
	b.birth(keyOf(famCallbacksPending))
	b.birth(b.named(famCallbacks, string(edges.CallbackSuccess), "200"))
	b.birth(b.named(famCallbacks, string(edges.CallbackFailed), ""))
	b.birth(b.named(famCallbacks, string(edges.CallbackFailed), "500"))
}

// takeAll books an answer that is no part of the reading of the list.
func (k *callbacksCollector) takeAll(b *booking, answer edges.CallbacksPage, mayBeNew bool) error {
	now := k.list.clock(answer.Date)
	for i := range answer.Callbacks {
		if _, err := k.take(b, &answer.Callbacks[i], now, mayBeNew); err != nil {
			return err
		}
	}
	return nil
}

// take books one callback, and reports whether it was not known before. One
// that has ended is counted once: when it is first seen so, if it is younger
// than T0 or was seen before.
func (k *callbacksCollector) take(b *booking, row *edges.Callback, now int64, mayBeNew bool) (isNew bool, err error) {
	defect := row.Defect
	if defect == "" && row.CreatedAt.IsZero() {
		defect = edges.DefectBadTime
	}
	if defect != "" {
		return false, b.skipBeside(collectorCallbacks, row.UID, row.CreatedAt, defect)
	}
	key := runKey(nil, row.CreatedAt.UnixMilli(), row.UID)
	open, ended := b.tx.Bucket(bucketDeliveries), b.tx.Bucket(bucketDelivered)
	k.seen[string(key)] = true
	if ended.Get(key) != nil || k.expired(keyTime(key), now) {
		return false, nil
	}
	stored := open.Get(key)
	if stored == nil {
		if !mayBeNew {
			return false, nil
		}
		return k.first(b, key, row)
	}
	old, err := decodeDelivery(stored)
	if err != nil {
		return false, b.ledger.store.damaged(fmt.Errorf("callback %s: %w", row.UID, err))
	}
	b.addUp(keyOf(famCallbackRetries), row.RetryCount-old.retries)
	if row.Status.Ended() {
		b.deliver(row)
		b.add(keyOf(famCallbacksPending), -1, nil)
		if err := open.Delete(key); err != nil {
			return false, err
		}
		return false, ended.Put(key, []byte{})
	}
	if row.RetryCount == old.retries {
		return false, nil
	}
	old.retries = row.RetryCount
	return false, open.Put(key, old.encode())
}

// first books a callback that is not known, and reports whether it is new, and
// not only forgotten or from before T0.
func (k *callbacksCollector) first(b *booking, key []byte, row *edges.Callback) (isNew bool, err error) {
	isNew = nanos(row.CreatedAt) > max(k.next.List.T0, k.next.Forgotten)
	if isNew {
		b.addUp(keyOf(famCallbackRetries), row.RetryCount)
	}
	switch {
	case !row.Status.Ended():
		b.add(keyOf(famCallbacksPending), 1, nil)
		d := delivery{retries: row.RetryCount, run: row.RunUID}
		return isNew, b.tx.Bucket(bucketDeliveries).Put(key, d.encode())
	case isNew:
		b.deliver(row)
		return true, b.tx.Bucket(bucketDelivered).Put(key, []byte{})
	}
	return false, nil
}

// deliver counts a callback that has ended.
func (b *booking) deliver(row *edges.Callback) {
	code := ""
	if row.HTTPStatus != 0 {
		code = strconv.Itoa(row.HTTPStatus)
	}
	b.add(b.named(famCallbacks, string(row.Status), code), 1, nil)
}

// lose takes callbacks out that the API does not know any more. They are
// remembered as long as the list may show them again.
func (k *callbacksCollector) lose(b *booking, gone asked) error {
	open, ended := b.tx.Bucket(bucketDeliveries), b.tx.Bucket(bucketDelivered)
	for uid, w := range gone {
		// One that is this young may only be late in this answer.
		if !k.next.List.settledBefore(keyTime(w.key)*int64(time.Millisecond)) || open.Get(w.key) == nil {
			continue
		}
		b.add(keyOf(famCallbacksPending), -1, nil)
		if err := open.Delete(w.key); err != nil {
			return err
		}
		if err := ended.Put(w.key, []byte{}); err != nil {
			return err
		}
		b.logs = append(b.logs, func(log *slog.Logger) {
			log.Info("callback is gone from the API", "callback_uid", uid)
		})
	}
	return nil
}

// sweep forgets the ended callbacks that the list cannot show as new any more,
// and those that never ended and are past retention.
func (k *callbacksCollector) sweep(b *booking) error {
	st := k.next
	line := st.List.Settled - int64(deliveredFor)
	for i := range st.List.Stretches {
		line = min(line, st.List.Stretches[i].Low)
	}
	st.Forgotten = max(st.Forgotten, line)
	_, err := dropOldest(b.tx.Bucket(bucketDelivered), func(ms int64) bool {
		return (ms+1)*int64(time.Millisecond) <= st.Forgotten
	})
	if err != nil {
		return err
	}
	n, err := dropOldest(b.tx.Bucket(bucketDeliveries), func(ms int64) bool { return k.expired(ms, st.List.Clock) })
	if n > 0 {
		b.add(keyOf(famCallbacksPending), -n, nil)
	}
	return err
}

// expired reports whether a callback made at createdMS is older than any run.
func (k *callbacksCollector) expired(createdMS, now int64) bool {
	return createdMS <= (now-int64(k.retention))/int64(time.Millisecond)
}

// dropOldest deletes the oldest keys of a bucket while their times are to go,
// as many as one transaction may.
func dropOldest(bucket *bbolt.Bucket, toGo func(ms int64) bool) (int64, error) {
	var old [][]byte
	c := bucket.Cursor()
	for k, _ := c.First(); k != nil && len(old) < sweepRuns && toGo(keyTime(k)); k, _ = c.Next() {
		old = append(old, append([]byte(nil), k...))
	}
	for _, k := range old {
		if err := bucket.Delete(k); err != nil {
			return 0, err
		}
	}
	return int64(len(old)), nil
}

// oldestDelivery is when the oldest callback that has not ended was made, in
// Unix nanoseconds, 0 if there is none.
func oldestDelivery(tx *bbolt.Tx) int64 {
	k, _ := tx.Bucket(bucketDeliveries).Cursor().First()
	if k == nil {
		return 0
	}
	return keyTime(k) * int64(time.Millisecond)
}

func (d *delivery) encode() []byte {
	return seal(append(binary.AppendVarint(nil, d.retries), d.run...))
}

func decodeDelivery(b []byte) (delivery, error) {
	body, err := unseal(b)
	if err != nil {
		return delivery{}, err
	}
	in := reader{b: body}
	d := delivery{retries: in.varint()}
	if in.bad {
		return delivery{}, errRecord
	}
	d.run = string(in.b)
	return d, nil
}
