package collector

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	"go.etcd.io/bbolt"

	"github.com/edges-exporter/edges_exporter/edges"
)

const (
	// maxSchedulePages bounds what is read of the list of schedules.
	maxSchedulePages = 200
	// maxLastRuns bounds of how many schedules the latest run is remembered.
	maxLastRuns = 10_000
	// maxScheduleRestarts is how often the list may move while it is read.
	maxScheduleRestarts = 3
)

// schedulesCollector reads the list of schedules, as a whole each time.
type schedulesCollector struct {
	client *edges.Client
	every  time.Duration
	// pass is what was read so far, nil when nothing is begun.
	pass *schedulesPass
	// pages is how many requests the last pass took.
	pages int
}

// schedulesPass is one reading of the list of schedules, oldest first: what is
// new comes last, so the pages stand still.
type schedulesPass struct {
	pages, restarts int
	// offset is where the next page begins: at the last row that was read,
	// whose uid is last.
	offset int
	last   string
	// counts are the schedules by action and status.
	counts map[[2]string]int64
	rows   []schedule
	bad    []edges.Schedule
}

// schedule is what is shown of a schedule. Times are Unix nanoseconds, 0 when
// the API gave none.
type schedule struct {
	UID, Name, Action string
	Paused            bool `json:",omitempty"`
	Next, Last        int64
}

var (
	errScheduleList  = errors.New("the API's list of schedules moves faster than it can be read, or does not follow its offset")
	errScheduleCount = errors.New("the API lists too many schedules")
)

func (*schedulesCollector) name() string { return collectorSchedules }

// pace is slower where the list takes many requests.
func (k *schedulesCollector) pace() time.Duration { return k.every * time.Duration(max(1, k.pages)) }

func (k *schedulesCollector) poll(ctx context.Context, d *desk) (more bool, err error) {
	p := k.pass
	if p == nil {
		p = &schedulesPass{counts: map[[2]string]int64{}}
	}
	k.pass = nil
	for first := true; first || d.spare(); first = false {
		page, err := k.client.ListSchedules(ctx, edges.SchedulesQuery{Limit: pageLimit, Offset: p.offset, Sort: []string{"created_at"}})
		if err != nil {
			return false, err
		}
		done, err := p.take(page.Schedules)
		if err != nil {
			return false, err
		}
		if done {
			k.pages = p.pages
			return false, d.commit(func(b *booking) error { return b.schedules(p) })
		}
	}
	k.pass = p
	return true, nil
}

// take adds a page, and reports whether it was the last.
func (p *schedulesPass) take(rows []edges.Schedule) (done bool, err error) {
	p.pages++
	ends, next := len(rows) < pageLimit, p.offset+len(rows)-1
	if p.offset > 0 {
		if len(rows) == 0 || rows[0].UID != p.last {
			if p.restarts++; p.restarts > maxScheduleRestarts {
				return false, errScheduleList
			}
			*p = schedulesPass{pages: p.pages, restarts: p.restarts, counts: map[[2]string]int64{}}
			return false, nil
		}
		rows = rows[1:]
	}
	for i := range rows {
		p.add(&rows[i])
	}
	if ends {
		return true, nil
	}
	if p.pages >= maxSchedulePages {
		return false, errScheduleCount
	}
	p.last, p.offset = rows[len(rows)-1].UID, next
	return false, nil
}

func (p *schedulesPass) add(row *edges.Schedule) {
	if row.Defect != "" {
		p.bad = append(p.bad, *row)
		return
	}
	p.counts[[2]string{row.ActionName, string(row.Status)}]++
	if row.Status != edges.ScheduleActive && row.Status != edges.SchedulePaused {
		return
	}
	p.rows = append(p.rows, schedule{
		UID: cleanLabel(row.UID), Name: cleanLabel(row.Name), Action: row.ActionName, Paused: row.Status == edges.SchedulePaused,
		Next: nanos(row.NextExecutionAt), Last: nanos(row.LastExecutedAt),
	})
	if len(p.rows) >= 2*maxSchedules {
		p.rows = soonest(p.rows)
	}
}

// soonest are the schedules that are shown of all: those due next, then those
// without a time, then the paused ones.
func soonest(all []schedule) []schedule {
	rank := func(s schedule) int {
		switch {
		case s.Paused:
			return 2
		case s.Next == 0:
			return 1
		}
		return 0
	}
	slices.SortFunc(all, func(x, y schedule) int {
		return cmp.Or(cmp.Compare(rank(x), rank(y)), cmp.Compare(x.Next, y.Next), cmp.Compare(x.UID, y.UID))
	})
	// A uid must not make a series twice, whatever the list shows.
	seen := map[string]bool{}
	all = slices.DeleteFunc(all, func(s schedule) bool {
		twice := seen[s.UID]
		seen[s.UID] = true
		return twice
	})
	return all[:min(len(all), maxSchedules)]
}

// schedules books the list of schedules.
func (b *booking) schedules(p *schedulesPass) error {
	b.birthBeside(collectorSchedules)
	for i := range p.bad {
		if err := b.skipBeside(collectorSchedules, p.bad[i].UID, p.bad[i].CreatedAt, p.bad[i].Defect); err != nil {
			return err
		}
	}
	counts := map[seriesKey]int64{}
	for of, n := range p.counts {
		for _, status := range edges.ScheduleStatuses() {
			b.birth(b.named(famSchedules, of[0], string(status)))
		}
		k := b.named(famSchedules, of[0], of[1])
		b.birth(k)
		counts[k] += n
	}
	for k := range b.series {
		if k.family == famSchedules && b.value(k) != counts[k] {
			b.get(k).value = counts[k]
		}
	}
	for k, n := range counts {
		b.get(k).value = n
	}
	shown := soonest(p.rows)
	for i := range shown {
		shown[i].Action = b.dicts[labelAction].name(b.dicts[labelAction].id(shown[i].Action))
		b.birthSchedule(shown[i].UID)
	}
	if err := b.saveSchedules(shown); err != nil {
		return err
	}
	if err := b.forgetLastRuns(); err != nil {
		return err
	}
	lastRuns, err := lastRunsOf(b.tx, shown)
	if err != nil {
		return b.ledger.store.damaged(fmt.Errorf("runs of schedules: %w", err))
	}
	b.after = append(b.after, func() { b.ledger.schedules, b.ledger.lastRuns = shown, lastRuns })
	return nil
}

func (b *booking) saveSchedules(shown []schedule) error {
	if err := b.tx.DeleteBucket(bucketSchedules); err != nil {
		return fmt.Errorf("schedules: %w", err)
	}
	bucket, err := b.tx.CreateBucket(bucketSchedules)
	if err != nil {
		return fmt.Errorf("schedules: %w", err)
	}
	for i := range shown {
		stored, err := sealJSON(&shown[i])
		if err != nil {
			return fmt.Errorf("schedule %s: %w", shown[i].UID, err)
		}
		if err := bucket.Put([]byte(shown[i].UID), stored); err != nil {
			return fmt.Errorf("schedule %s: %w", shown[i].UID, err)
		}
	}
	return nil
}

func loadSchedules(tx *bbolt.Tx) ([]schedule, error) {
	var out []schedule
	err := tx.Bucket(bucketSchedules).ForEach(func(_, v []byte) error {
		var s schedule
		if err := unsealJSON(v, &s); err != nil {
			return err
		}
		out = append(out, s)
		return nil
	})
	return out, err
}

// birthSchedule makes the series of a schedule's runs at once, so that none of
// them is born by its first event.
func (b *booking) birthSchedule(uid string) {
	id := b.dicts[labelSchedule].id(uid)
	for _, status := range edges.Statuses() {
		b.birth(keyOf(famScheduleRuns, id, b.dicts[labelStatus].id(string(status))))
	}
}

// enterScheduled counts an entry of a run that a schedule started. mark may be
// nil.
func (b *booking) enterScheduled(row *edges.Run, r *record, mark *dto.Exemplar) {
	if !b.ledger.scheduled || row.ScheduledRunUID == "" {
		return
	}
	b.birthSchedule(row.ScheduledRunUID)
	b.add(keyOf(famScheduleRuns, b.dicts[labelSchedule].id(row.ScheduledRunUID), r.status), 1, mark)
}

// noteScheduled remembers the latest run of a schedule, at a run's first sight.
func (b *booking) noteScheduled(row *edges.Run) error {
	if !b.ledger.scheduled || row.ScheduledRunUID == "" || row.CreatedAt.IsZero() {
		return nil
	}
	uid, at := cleanLabel(row.ScheduledRunUID), nanos(row.CreatedAt)
	last, err := lastRun(b.scheduleRuns, uid)
	switch {
	case err != nil:
		return b.ledger.store.damaged(err)
	case last >= at || last == 0 && b.ledger.keptLastRuns >= maxLastRuns:
		return nil
	}
	b.after = append(b.after, func() {
		if last == 0 {
			b.ledger.keptLastRuns++
		}
		for i := range b.ledger.schedules {
			if b.ledger.schedules[i].UID == uid {
				b.ledger.lastRuns[uid] = max(at, b.ledger.lastRuns[uid])
			}
		}
	})
	return b.scheduleRuns.Put([]byte(uid), seal(binary.AppendVarint(nil, at)))
}

// forgetLastRuns takes schedules out whose runs have all left retention.
func (b *booking) forgetLastRuns() error {
	var old [][]byte
	kept := 0
	err := b.scheduleRuns.ForEach(func(k, _ []byte) error {
		at, err := lastRun(b.scheduleRuns, string(k))
		if kept++; err == nil && b.ledger.expired(at/int64(time.Millisecond), b.now) {
			old = append(old, append([]byte(nil), k...))
		}
		return err
	})
	if err != nil {
		return b.ledger.store.damaged(fmt.Errorf("runs of schedules: %w", err))
	}
	for _, k := range old {
		if err := b.scheduleRuns.Delete(k); err != nil {
			return fmt.Errorf("runs of schedules: %w", err)
		}
	}
	b.after = append(b.after, func() { b.ledger.keptLastRuns = kept - len(old) })
	return nil
}

// lastRun is when the latest run of a schedule was made, 0 if none is known.
func lastRun(bucket *bbolt.Bucket, uid string) (int64, error) {
	stored := bucket.Get([]byte(uid))
	if stored == nil {
		return 0, nil
	}
	body, err := unseal(stored)
	if err != nil {
		return 0, fmt.Errorf("schedule %s: %w", uid, err)
	}
	in := reader{b: body}
	at := in.varint()
	if in.bad {
		return 0, fmt.Errorf("schedule %s: %w", uid, errSeries)
	}
	return at, nil
}

func lastRunsOf(tx *bbolt.Tx, shown []schedule) (map[string]int64, error) {
	out := map[string]int64{}
	for i := range shown {
		at, err := lastRun(tx.Bucket(bucketScheduleRuns), shown[i].UID)
		if err != nil {
			return nil, err
		}
		if at != 0 {
			out[shown[i].UID] = at
		}
	}
	return out, nil
}

func (r *renderer) schedules(f *family) []*dto.Metric {
	var out []*dto.Metric
	for i := range r.ledger.schedules {
		s := &r.ledger.schedules[i]
		at := s.Next
		switch {
		case f.id == famScheduleLast && s.Last != 0:
			at = s.Last
		case f.id == famScheduleLast:
			at = r.ledger.lastRuns[s.UID]
		case s.Paused:
			at = 0
		}
		if at != 0 {
			out = append(out, r.labelled(f, unixSeconds(at), s.UID, s.Name, s.Action))
		}
	}
	return out
}
