package collector

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"log/slog"
	"time"

	"go.etcd.io/bbolt"

	"github.com/edges-exporter/edges_exporter/edges"
)

// booking is one transaction of the ledger while it is being made.
type booking struct {
	*changes
	ledger *ledger

	tx                                      *bbolt.Tx
	runs, open, audit, postponed, problemed *bbolt.Bucket
	undated, skips, scheduleRuns            *bbolt.Bucket

	// t0 is the API's clock at the first good answer, complete is set when no
	// run from before it is left to be read.
	t0       int64
	complete bool
	// settled reports whether polls have read everything up to a time.
	settled func(updated int64) bool
	moves   func(moved)
	// now is the API's clock at the observation in hand, answer its number.
	now    int64
	answer uint64

	anyUndated      bool
	workspaceUID    string
	skippedNow      int
	opened          map[seriesKey]struct{}
	problemsChanged bool
	// logs are written after the commit.
	logs []func(*slog.Logger)
	// after is done after the commit: what is shown besides the series.
	after []func()
}

func (b *booking) begin(tx *bbolt.Tx) {
	b.tx = tx
	b.runs = tx.Bucket(bucketRuns)
	// Most rows of a backfill are put in one after the other, so pages may be
	// filled further than the half that suits random keys.
	b.runs.FillPercent = 0.8
	b.open = tx.Bucket(bucketOpen)
	b.audit = tx.Bucket(bucketAudit)
	b.postponed = tx.Bucket(bucketPostponed)
	b.problemed = tx.Bucket(bucketProblems)
	b.undated = tx.Bucket(bucketUndated)
	b.skips = tx.Bucket(bucketSkipped)
	b.scheduleRuns = tx.Bucket(bucketScheduleRuns)
	first, _ := b.undated.Cursor().First()
	b.anyUndated = first != nil
	b.workspaceUID = b.ledger.workspaceUID
	b.skippedNow = b.ledger.skipped
}

// takeWorkspace refuses rows of another workspace than the ledger's. A page
// counts as foreign when all its rows name one and the same other workspace;
// odd single rows are no proof.
func (b *booking) takeWorkspace(seen []observation) error {
	for _, o := range seen {
		page := onlyWorkspace(o.rows)
		switch {
		case page == "":
		case b.workspaceUID == "":
			b.workspaceUID = page
			if err := b.tx.Bucket(bucketMeta).Put(metaWorkspaceUID, seal([]byte(page))); err != nil {
				return err
			}
		case b.workspaceUID != page:
			return &storeError{path: b.ledger.store.path, what: fmt.Sprintf("holds the runs of workspace %s, but the API key belongs to workspace %s; it was left as it is: use that workspace's key, or give this one its own --storage.path", b.workspaceUID, page)}
		}
	}
	return nil
}

// onlyWorkspace is the workspace that all rows name which name one, empty if
// there is no such.
func onlyWorkspace(rows []edges.Run) string {
	only := ""
	for i := range rows {
		uid := rows[i].WorkspaceUID
		switch {
		case uid == "" || rows[i].Defect != "":
		case only == "":
			only = uid
		case only != uid:
			return ""
		}
	}
	return cleanLabel(only)
}

// findUndated looks for runs whose rows come without created_at now, although
// the ledger holds them with one. The key cannot be made then, so all keys are
// read once; what is found is remembered beside the runs that never had one.
func (b *booking) findUndated(seen []observation) error {
	wanted := map[string]bool{}
	for _, o := range seen {
		for i := range o.rows {
			r := &o.rows[i]
			if r.Defect == "" && r.CreatedAt.IsZero() && b.undated.Get([]byte(r.UID)) == nil {
				wanted[r.UID] = true
			}
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	found := map[string][]byte{}
	c := b.runs.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		if uid := keyUID(k); wanted[uid] {
			found[uid] = append([]byte(nil), k[:8]...)
		}
	}
	for uid, at := range found {
		if err := b.undated.Put([]byte(uid), at); err != nil {
			return err
		}
		b.anyUndated = true
	}
	return nil
}

// take books one observation.
func (b *booking) take(o *observation) error {
	b.now, b.answer = o.now, o.answer
	returned, nameless := map[string]bool{}, false
	for i := range o.rows {
		row := &o.rows[i]
		returned[row.UID] = true
		nameless = nameless || row.UID == ""
		if row.Defect != "" {
			if err := b.skip(row); err != nil {
				return err
			}
			continue
		}
		changed, err := b.run(row)
		if err != nil {
			return fmt.Errorf("run %s: %w", row.UID, err)
		}
		if o.audited != nil && changed && b.settled(nanos(row.UpdatedAt)) {
			b.add(b.named(famAudit, correctionChanged), 1, nil)
		}
	}
	for _, key := range o.audited {
		settle := b.lose
		// Any run may be the one behind a row without a uid: the next audit
		// will tell.
		if nameless || returned[keyUID(key)] {
			settle = b.found
		}
		if err := b.settleAudit(key, settle); err != nil {
			return err
		}
	}
	return nil
}

// settleAudit ends the audit of one run. An audited run without a record is
// damage: it would be asked for again and again.
func (b *booking) settleAudit(key []byte, settle func([]byte, *record) error) error {
	r, err := decodeRecord(b.runs.Get(key), keyTime(key)*int64(time.Millisecond))
	if err != nil {
		return b.ledger.store.damaged(fmt.Errorf("run %s: %w", keyUID(key), err))
	}
	if r.gone {
		return nil
	}
	return settle(key, &r)
}

// skip counts a row that cannot be understood, once.
func (b *booking) skip(row *edges.Run) error {
	id := fnv.New64a()
	fmt.Fprintf(id, "%s|%s|", row.Defect, row.UID)
	if row.UID == "" {
		fmt.Fprintf(id, "%d|%d|%d", row.ID, nanos(row.CreatedAt), nanos(row.UpdatedAt))
	}
	isNew, err := b.skipsFirst(id.Sum(nil))
	if err != nil || !isNew {
		return err
	}
	b.add(b.named(famSkipped, string(row.Defect)), 1, nil)
	uid, number, reason := cleanLabel(row.UID), row.ID, row.Defect
	b.logs = append(b.logs, func(log *slog.Logger) {
		log.Warn("run not understood, skipped", "run_uid", uid, "run_id", number, "reason", reason)
	})
	return nil
}

// skipsFirst notes a bad row, and reports whether it was not noted before.
func (b *booking) skipsFirst(key []byte) (bool, error) {
	if b.skips.Get(key) != nil {
		return false, nil
	}
	if b.skippedNow >= maxSkipped {
		if err := b.tx.DeleteBucket(bucketSkipped); err != nil {
			return false, err
		}
		fresh, err := b.tx.CreateBucket(bucketSkipped)
		if err != nil {
			return false, err
		}
		b.skips, b.skippedNow = fresh, 0
	}
	b.skippedNow++
	return true, b.skips.Put(key, []byte{})
}

// run books one row and reports whether it changed the ledger.
func (b *booking) run(row *edges.Run) (bool, error) {
	key, err := b.key(row)
	if err != nil || b.ledger.expired(keyTime(key), b.now) {
		return false, err
	}
	base := keyTime(key) * int64(time.Millisecond)
	stored := b.runs.Get(key)
	if stored == nil {
		return true, b.first(key, row)
	}
	old, err := decodeRecord(stored, base)
	if err != nil {
		return false, b.ledger.store.damaged(err)
	}
	if older(nanos(row.UpdatedAt), old.updated, b.now) {
		return false, nil
	}
	next := b.record(row, &old)
	next.undated = old.undated
	if next.sameContent(&old) && !old.gone {
		return false, b.confirm(key, &old)
	}
	b.count(row, &old, &next)
	if b.moves != nil {
		b.moves(moved{answer: b.answer, known: true, from: old.updated, to: next.updated})
	}
	if err := b.index(key, &old, -1); err != nil {
		return false, err
	}
	return true, b.put(key, &next)
}

// older reports whether a row is an older version than the ledger's. A version
// that the API stamped in the future is no measure.
func older(row, stored, now int64) bool {
	if stored == 0 || stored > now {
		return false
	}
	return row < stored
}

// key makes the run's key. A run without created_at takes the API's clock at
// its first sight, and keeps it.
func (b *booking) key(row *edges.Run) ([]byte, error) {
	created := row.CreatedAt.UnixMilli()
	if b.anyUndated || row.CreatedAt.IsZero() {
		if at := b.undated.Get([]byte(row.UID)); at != nil {
			created = keyTime(at)
		} else if row.CreatedAt.IsZero() {
			created = b.now / int64(time.Millisecond)
			b.anyUndated = true
			if err := b.undated.Put([]byte(row.UID), binary.BigEndian.AppendUint64(nil, uint64(created))); err != nil { //nolint:gosec // after 1970
				return nil, err
			}
		}
	}
	return runKey(make([]byte, 0, 25), created, row.UID), nil
}

// record makes the ledger's version of a row; old is nil at first sight.
func (b *booking) record(row *edges.Run, old *record) record {
	mode := row.ExecutionMode
	if row.ScheduledRunUID != "" {
		mode = modeSchedule
	}
	r := record{
		action:    b.dicts[labelAction].id(row.ActionName),
		mode:      b.dicts[labelMode].id(mode),
		status:    b.dicts[labelStatus].id(string(row.Status)),
		err:       b.dicts[labelError].id(row.ErrorLabel),
		updated:   nanos(row.UpdatedAt),
		started:   nanos(row.StartedAt),
		finished:  nanos(row.FinishedAt),
		postponed: nanos(row.PostponedUntil),
		retries:   row.RetryCount,
		outputs:   row.OutputCount,
		confirmed: b.now / int64(time.Second),
	}
	// A run does not change its action or mode: null is a gap in the answer.
	if old != nil && row.ActionName == "" {
		r.action = old.action
	}
	if old != nil && mode == "" {
		r.mode = old.mode
	}
	return r
}

func (r *record) sameContent(o *record) bool {
	return r.status == o.status && r.updated == o.updated && r.finished == o.finished && r.started == o.started &&
		r.err == o.err && r.postponed == o.postponed && r.retries == o.retries && r.outputs == o.outputs &&
		r.action == o.action && r.mode == o.mode
}

// first books a run that the ledger has not seen. Only here do times decide
// what is counted: what happened up to t0 is the baseline.
func (b *booking) first(key []byte, row *edges.Run) error {
	r := b.record(row, nil)
	r.undated = row.CreatedAt.IsZero()
	b.birthPair(&r)
	created := firstTime(row.CreatedAt, row.UpdatedAt)
	isNew := b.happened(created)
	if isNew {
		b.add(keyOf(famCreated, r.action, r.mode), 1, nil)
		b.addUp(keyOf(famOutputs, r.action, r.mode), r.outputs)
		b.addUp(keyOf(famRetries, r.action, r.mode), r.retries)
	}
	at := enteredAt(row)
	r.entered = b.orNow(at)
	if b.happened(at) {
		b.enter(row, &r)
		b.time(row, &r)
	} else {
		// The end was before t0: its duration is none of ours, even if it
		// becomes known only now.
		r.timed = row.Status.Ended()
	}
	if r.started != 0 {
		r.queued = true
		if b.happened(r.started) {
			b.observeQueue(row, &r)
		}
	}
	if b.moves != nil {
		b.moves(moved{answer: b.answer, to: r.updated})
	}
	b.add(keyOf(famLedgerRuns), 1, nil)
	if err := b.noteScheduled(row); err != nil {
		return err
	}
	return b.put(key, &r)
}

// orNow replaces an unknown time by the API's clock.
func (b *booking) orNow(at int64) int64 {
	if at == 0 {
		return b.now
	}
	return at
}

// happened reports whether something of a run at first sight is counted. With
// no time at all it is, unless it may be from before t0.
func (b *booking) happened(at int64) bool {
	if at == 0 {
		return b.complete
	}
	return at > b.t0
}

// count books the difference between the ledger's version and a newer one.
func (b *booking) count(row *edges.Run, old, r *record) {
	if r.action != old.action || r.mode != old.mode || r.status != old.status {
		b.birthPair(r)
	}
	r.queued, r.timed, r.entered = old.queued, old.timed, old.entered
	if entered(row.Status, old, r) {
		r.timed = false
		r.entered = b.orNow(enteredAt(row))
		b.enter(row, r)
	}
	b.time(row, r)
	if r.started != 0 && !r.queued {
		r.queued = true
		b.observeQueue(row, r)
	}
	b.addUp(keyOf(famOutputs, r.action, r.mode), r.outputs-old.outputs)
	b.addUp(keyOf(famRetries, r.action, r.mode), r.retries-old.retries)
}

// entered reports whether the newer version shows an entry into its status.
// The same status with another end, or another start where the status follows
// a start, was left and entered again between two polls. A time that was null
// and gets its value is no entry.
func entered(status edges.Status, old, r *record) bool {
	if r.status != old.status {
		return true
	}
	if old.finished != 0 && r.finished != 0 && old.finished != r.finished {
		return true
	}
	restarts := status == edges.StatusRunning || status == edges.StatusBlocked
	return restarts && old.started != 0 && r.started != 0 && old.started != r.started
}

// enter counts one entry into a status.
func (b *booking) enter(row *edges.Run, r *record) {
	if !row.Status.Problem() {
		b.add(keyOf(famTransitions, r.action, r.mode, r.status), 1, nil)
		b.enterScheduled(row, r, nil)
		return
	}
	mark := exemplar(row.UID, 1, r.entered)
	b.enterScheduled(row, r, mark)
	b.add(keyOf(famTransitions, r.action, r.mode, r.status), 1, mark)
	b.add(keyOf(famErrors, r.action, r.mode, r.status, r.err), 1, mark)
	if row.Status == edges.StatusPartialSucceeded {
		return
	}
	uid, action, status, errLabel := row.UID, cleanLabel(row.ActionName), row.Status, row.ErrorLabel
	if action == "" {
		action = b.dicts[labelAction].name(r.action)
	}
	if errLabel == "" {
		errLabel = b.dicts[labelError].name(valueID0)
	}
	b.logs = append(b.logs, func(log *slog.Logger) {
		log.Warn("run needs attention", "run_uid", uid, "action", action, "status", status, "error", errLabel)
	})
}

// time observes the duration of a run that has ended, once an end.
func (b *booking) time(row *edges.Run, r *record) {
	if r.timed || !row.Status.Ended() || r.started == 0 || r.finished < r.started {
		return
	}
	r.timed = true
	took := r.finished - r.started
	b.observe(keyOf(famDuration, r.action, r.mode, r.status), took, exemplar(row.UID, float64(took)/1e9, r.finished))
}

func (b *booking) observeQueue(row *edges.Run, r *record) {
	if waited := r.started - nanos(row.CreatedAt); !row.CreatedAt.IsZero() && waited >= 0 {
		b.observe(keyOf(famQueue, r.action, r.mode), waited, exemplar(row.UID, float64(waited)/1e9, r.started))
	}
}

// addUp counts growth; what shrinks (a resume sets retry_count back) is no growth.
func (b *booking) addUp(k seriesKey, n int64) {
	if n > 0 {
		b.add(k, n, nil)
	}
}

// birthPair makes every series of an action and mode at once, so that none of
// them is born by its first event.
func (b *booking) birthPair(r *record) {
	if !b.has(keyOf(famCreated, r.action, r.mode)) {
		for _, f := range [...]familyID{famCreated, famOutputs, famRetries, famQueue} {
			b.birth(keyOf(f, r.action, r.mode))
		}
		for _, status := range edges.Statuses() {
			id := b.dicts[labelStatus].id(string(status))
			b.birth(keyOf(famRuns, r.action, r.mode, id))
			b.birth(keyOf(famTransitions, r.action, r.mode, id))
			if status.Ended() {
				b.birth(keyOf(famDuration, r.action, r.mode, id))
			} else {
				b.birth(keyOf(famPostponed, r.action, r.mode, id))
			}
		}
	}
	b.birth(keyOf(famRuns, r.action, r.mode, r.status))
	b.birth(keyOf(famTransitions, r.action, r.mode, r.status))
}

// confirm keeps up when an audited run was last shown. Once in half the audit
// interval is enough, and spares a write at every poll.
func (b *booking) confirm(key []byte, r *record) error {
	if b.now/int64(time.Second)-r.confirmed < int64(b.ledger.auditInterval/time.Second)/2 {
		return nil
	}
	return b.found(key, r)
}

// found notes that the API has shown an audited run just now.
func (b *booking) found(key []byte, r *record) error {
	if r.gone || !b.audited(r) {
		return nil
	}
	if err := b.audit.Delete(timeKey(r.confirmed, key)); err != nil {
		return err
	}
	r.confirmed = b.now / int64(time.Second)
	if err := b.audit.Put(timeKey(r.confirmed, key), nil); err != nil {
		return err
	}
	return b.runs.Put(key, r.encode(nil, keyTime(key)*int64(time.Millisecond)))
}

// lose takes a run out of the gauges that the API does not know any more. Its
// record stays, so that its return is not counted again.
func (b *booking) lose(key []byte, r *record) error {
	if err := b.index(key, r, -1); err != nil {
		return err
	}
	r.gone = true
	b.add(b.named(famAudit, correctionGone), 1, nil)
	uid := keyUID(key)
	b.logs = append(b.logs, func(log *slog.Logger) {
		log.Info("run is gone from the API", "run_uid", uid)
	})
	return b.put(key, r)
}

// sweep takes runs out that are past retention.
func (b *booking) sweep(now int64) error {
	var old [][]byte
	c := b.runs.Cursor()
	for k, _ := c.First(); k != nil && len(old) < sweepRuns && b.ledger.expired(keyTime(k), now); k, _ = c.Next() {
		old = append(old, append([]byte(nil), k...))
	}
	for _, key := range old {
		r, err := decodeRecord(b.runs.Get(key), keyTime(key)*int64(time.Millisecond))
		if err != nil {
			return b.ledger.store.damaged(fmt.Errorf("run %s: %w", keyUID(key), err))
		}
		if err := b.index(key, &r, -1); err != nil {
			return err
		}
		if b.anyUndated {
			if err := b.undated.Delete([]byte(keyUID(key))); err != nil {
				return err
			}
		}
		if err := b.runs.Delete(key); err != nil {
			return err
		}
		b.add(keyOf(famLedgerRuns), -1, nil)
	}
	return nil
}

// unpostpone takes runs out of the postponed gauge whose time has come.
func (b *booking) unpostpone(now int64) error {
	c := b.postponed.Cursor()
	var due [][]byte
	for k, _ := c.First(); k != nil && int64(binary.BigEndian.Uint64(k)) <= now; k, _ = c.Next() { //nolint:gosec // written from an int64
		due = append(due, append([]byte(nil), k...))
	}
	for _, k := range due {
		key := k[8:]
		r, err := decodeRecord(b.runs.Get(key), keyTime(key)*int64(time.Millisecond))
		if err != nil {
			return b.ledger.store.damaged(fmt.Errorf("run %s: %w", keyUID(key), err))
		}
		if err := b.postponed.Delete(k); err != nil {
			return err
		}
		b.add(keyOf(famPostponed, r.action, r.mode, r.status), -1, nil)
	}
	return nil
}

// put writes a record and what points to it.
func (b *booking) put(key []byte, r *record) error {
	if !r.gone {
		if err := b.index(key, r, 1); err != nil {
			return err
		}
	}
	return b.runs.Put(key, r.encode(make([]byte, 0, 64), keyTime(key)*int64(time.Millisecond)))
}

// index adds a run to the gauges and to the buckets that point to it (n = 1),
// or takes it out (n = -1).
func (b *booking) index(key []byte, r *record, n int64) error {
	if r.gone {
		return nil
	}
	b.add(keyOf(famRuns, r.action, r.mode, r.status), n, nil)
	set := (*bbolt.Bucket).Delete
	if n > 0 {
		set = func(to *bbolt.Bucket, k []byte) error { return to.Put(k, nil) }
	}
	status := edges.Status(b.dicts[labelStatus].name(r.status))
	if status.InFlight() || status == edges.StatusBlocked {
		b.opened[keyOf(famRuns, r.action, r.mode, r.status)] = struct{}{}
		if err := set(b.open, append(openPrefix(r.action, r.mode, r.status), timeKey(r.entered, key)...)); err != nil {
			return err
		}
		if err := set(b.audit, timeKey(r.confirmed, key)); err != nil {
			return err
		}
	}
	if status.Problem() {
		b.problemsChanged = true
		if err := set(b.problemed, timeKey(r.entered, key)); err != nil {
			return err
		}
	}
	if r.postponed == 0 {
		return nil
	}
	k := timeKey(r.postponed, key)
	if counted := b.postponed.Get(k) != nil; counted == (n > 0) || n > 0 && r.postponed <= b.now {
		return nil
	}
	b.add(keyOf(famPostponed, r.action, r.mode, r.status), n, nil)
	return set(b.postponed, k)
}

func (b *booking) audited(r *record) bool {
	status := edges.Status(b.dicts[labelStatus].name(r.status))
	return status.InFlight() || status == edges.StatusBlocked
}

// save writes the changed aggregates, new label values and the state.
func (b *booking) save(st *state) error {
	labels := b.tx.Bucket(bucketLabels)
	for which, d := range b.dicts {
		for i := d.saved; i < len(d.names); i++ {
			k := binary.BigEndian.AppendUint16([]byte{byte(which)}, uint16(i)) //nolint:gosec // bounded
			if err := labels.Put(k, seal([]byte(d.names[i]))); err != nil {
				return err
			}
		}
	}
	bucket := b.tx.Bucket(bucketSeries)
	count := len(b.series)
	for k, s := range b.touched {
		if b.series[k] == nil {
			count++
		}
		key := k.bytes()
		if err := bucket.Put(key, s.encode(key)); err != nil {
			return err
		}
	}
	if count > len(b.series) {
		if err := b.tx.Bucket(bucketMeta).Put(metaSeries, sealCount(count)); err != nil {
			return err
		}
	}
	return saveState(b.tx, st)
}

// enteredAt is when a run entered the status that a row shows it in, as far as
// the row tells: 0 if it does not.
func enteredAt(row *edges.Run) int64 {
	switch {
	case row.Status.Ended():
		return firstTime(row.FinishedAt, row.UpdatedAt, row.CreatedAt)
	case row.Status == edges.StatusRunning:
		return firstTime(row.StartedAt, row.UpdatedAt, row.CreatedAt)
	case row.Status == edges.StatusCreated:
		return firstTime(row.CreatedAt, row.UpdatedAt)
	}
	return firstTime(row.UpdatedAt, row.CreatedAt)
}

// firstTime is the first of the times that is known, in Unix nanoseconds.
func firstTime(times ...time.Time) int64 {
	for _, t := range times {
		if !t.IsZero() {
			return t.UnixNano()
		}
	}
	return 0
}
