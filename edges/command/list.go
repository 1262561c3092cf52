package command

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/common/model"

	"github.com/edges-exporter/edges_exporter/edges"
)

// Since is from when on runs are wanted: a time, or how long ago that is. The
// zero value is from the beginning. It can be a flag's value.
type Since struct {
	text string
	at   time.Time
	ago  time.Duration
}

// Set reads a duration such as 90m or 7d, a time such as 2026-11-23T15:04:05Z,
// or a date with or without a time, in this machine's time zone.
func (s *Since) Set(text string) error {
	if d, err := model.ParseDuration(text); err == nil {
		if d <= 0 {
			return fmt.Errorf("%q is no time ago", text)
		}
		*s = Since{text: text, ago: time.Duration(d)}
		return nil
	}
	at, err := parseTime(text, time.Local) // it is a person who writes the time
	if err != nil {
		return fmt.Errorf("%q is neither a duration, such as 2h or 7d, nor a time, such as 2026-11-23T15:04:05Z, 2026-11-23 15:04 or 2026-11-23", text)
	}
	*s = Since{text: text, at: at}
	return nil
}

// String is what was set.
func (s *Since) String() string { return s.text }

// parseTime reads a time as people and programs write it.
func parseTime(text string, zone *time.Location) (time.Time, error) {
	for _, layout := range []string{
		time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateTime, "2006-01-02 15:04", time.DateOnly,
	} {
		if at, err := time.ParseInLocation(layout, text, zone); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time", text)
}

// from is the time itself, by the API's clock if it is so long ago. It is zero
// for the beginning.
func (s *Since) from(clock time.Time) time.Time {
	if s.ago == 0 {
		return s.at
	}
	return clock.Add(-s.ago)
}

// RunsOptions are what ListRuns is asked for.
type RunsOptions struct {
	// Query are the filters and the order, -updated_at if it has none; its
	// Limit and Offset are not used.
	Query edges.RunsQuery
	// Since leaves out runs that have not changed since then. The list must
	// be in the order -updated_at then, and is read no further.
	Since Since
	// Limit is the most runs that are written; 0 for all.
	Limit  int
	Format Format
	// Budget is the client's, to say when it has to be waited for; may be nil.
	Budget *edges.Budget
}

// newestFirst is the order in which a list that moves can be read to its end,
// and no further than wanted.
const newestFirst = "-updated_at"

// maxPasses bounds how often the front of the list is read again.
const maxPasses = 10

// lateRows is how late a change may turn up in the list.
const lateRows = 30 * time.Second

// ListRuns writes the runs that match, as they are read, 100 in a request. No
// run is written twice. In the order -updated_at, runs that change while the
// list is read are not missed: they stand at the end then.
func ListRuns(ctx context.Context, client *edges.Client, o RunsOptions, t Terminal) error {
	if o.Limit < 0 {
		return usage("limit must not be negative, but is %d", o.Limit)
	}
	sorted := cmp.Or(first(o.Query.Sort), newestFirst)
	if o.Since != (Since{}) && sorted != newestFirst {
		return usage("since is by the time of the last change: it needs sort %s, not %s", newestFirst, sorted)
	}
	if len(o.Query.Sort) == 0 {
		o.Query.Sort = []string{newestFirst, "-created_at"}
	}
	out, err := runSheet(o.Format).printer(o.Format, t.Out)
	if err != nil {
		return err
	}
	waiting := false
	l := &runLister{
		o: o, out: out,
		pager: pager[edges.Run]{
			uid:  func(r edges.Run) string { return r.UID },
			size: pageSize(o.Limit),
			note: func() { t.noteBudget(o.Budget, &waiting) },
			seen: map[[16]byte]struct{}{},
			fetch: func(ctx context.Context, limit, offset int) (edges.RawPage[edges.Run], error) {
				query := o.Query
				query.Limit, query.Offset = limit, offset
				return client.ListRunsRaw(ctx, query)
			},
		},
	}
	if err := l.read(ctx, sorted == newestFirst, t); err != nil {
		return badQuery(err)
	}
	return out.end()
}

func first(sort []string) string {
	if len(sort) == 0 {
		return ""
	}
	return sort[0]
}

// pageSize is how many rows to ask for at once; two at least, so that parts can
// overlap.
func pageSize(limit int) int {
	if limit == 0 {
		return maxPage
	}
	return max(2, min(limit, maxPage))
}

// badQuery makes what a user asked for wrongly an error of the usage.
func badQuery(err error) error {
	if errors.Is(err, edges.ErrBadQuery) {
		return UsageError{err}
	}
	return err
}

// runLister reads a list of runs, in one pass or more.
type runLister struct {
	o       RunsOptions
	out     printer[edges.Run]
	pager   pager[edges.Run]
	written int
	// from is the time of Since.
	from time.Time
	// reached is the time of the newest change that the current pass began
	// with.
	reached time.Time
}

// read reads the list once, and then, in its moving order, what has jumped to
// its front meanwhile.
func (l *runLister) read(ctx context.Context, moving bool, t Terminal) error {
	var until time.Time
	for pass := 1; ; pass++ {
		l.reached = time.Time{}
		answers, err := l.pager.read(ctx, func(page edges.RawPage[edges.Run], fresh []bool) (bool, error) {
			return l.visit(page, fresh, until)
		})
		switch {
		case err != nil:
			return err
		case !moving || answers <= 1 || l.full() || l.reached.IsZero():
			return nil // one answer is of one moment
		case pass == maxPasses:
			fmt.Fprintln(t.Err, "the list changes faster than it can be read: the latest changes may be missing")
			return nil
		}
		until = l.reached.Add(-lateRows)
	}
}

func (l *runLister) full() bool { return l.o.Limit > 0 && l.written == l.o.Limit }

// visit writes a part's new rows, as far as they are wanted, and tells whether
// there can be more behind them.
func (l *runLister) visit(page edges.RawPage[edges.Run], fresh []bool, until time.Time) (more bool, err error) {
	clock := page.Date
	if clock.IsZero() {
		clock = l.o.Format.now()
	}
	if l.from.IsZero() {
		l.from = l.o.Since.from(clock)
	}
	var rows []edges.Run
	var raw []json.RawMessage
	more = true
	for i, row := range page.Rows {
		at := row.UpdatedAt
		if l.reached.IsZero() && !at.IsZero() {
			l.reached = at
			if at.After(clock) {
				l.reached = clock
			}
		}
		// Rows without a time of their last change may stand anywhere.
		if !at.IsZero() && (at.Before(l.from) || at.Before(until)) {
			more = false
		}
		if at.IsZero() {
			at = row.CreatedAt
		}
		if fresh[i] && !l.full() && !at.Before(l.from) {
			l.written++
			rows, raw = append(rows, row), append(raw, page.JSON[i])
		}
	}
	return more && !l.full(), l.out.rows(rows, raw)
}

// runSheet is how runs are written.
func runSheet(f Format) sheet[edges.Run] {
	return sheet[edges.Run]{
		uid: func(r edges.Run) string { return r.UID },
		columns: []column[edges.Run]{
			{title: "UID", cell: func(r edges.Run) string { return cmp.Or(r.UID, "?") }},
			{title: "STATUS", cell: func(r edges.Run) string { return dash(string(r.Status)) }},
			{title: f.title("UPDATED"), cell: func(r edges.Run) string { return f.time(changed(r)) }},
			{title: "OUT", right: true, cell: func(r edges.Run) string { return number(r.OutputCount) }},
			{title: "ACTION", cut: middle, cell: func(r edges.Run) string { return dash(r.ActionName) }},
			{title: "ERROR", cut: end, cell: trouble},
		},
		fields: []field[edges.Run]{
			{"uid", func(r edges.Run) string { return r.UID }},
			{"status", func(r edges.Run) string { return string(r.Status) }},
			{"action", func(r edges.Run) string { return r.ActionName }},
			{"mode", mode},
			{"error", func(r edges.Run) string { return r.ErrorLabel }},
			{"results", func(r edges.Run) string { return strconv.FormatInt(r.OutputCount, 10) }},
			{"retries", func(r edges.Run) string { return strconv.FormatInt(r.RetryCount, 10) }},
			{"created_at", func(r edges.Run) string { return stamp(r.CreatedAt) }},
			{"started_at", func(r edges.Run) string { return stamp(r.StartedAt) }},
			{"finished_at", func(r edges.Run) string { return stamp(r.FinishedAt) }},
			{"updated_at", func(r edges.Run) string { return stamp(r.UpdatedAt) }},
			{"postponed_until", func(r edges.Run) string { return stamp(r.PostponedUntil) }},
			{"schedule", func(r edges.Run) string { return r.ScheduledRunUID }},
			{"user", func(r edges.Run) string { return r.UserUID }},
		},
	}
}

// changed is when a run last changed, as far as is known.
func changed(r edges.Run) time.Time {
	if r.UpdatedAt.IsZero() {
		return r.CreatedAt
	}
	return r.UpdatedAt
}

// trouble is what is wrong with a run, or with its row.
func trouble(r edges.Run) string {
	if r.Defect != "" {
		return "row not understood: " + string(r.Defect)
	}
	return dash(r.ErrorLabel)
}

// mode is how a run was launched, as the metrics have it.
func mode(r edges.Run) string {
	if r.ScheduledRunUID != "" {
		return "SCHEDULE"
	}
	return cmp.Or(r.ExecutionMode, "unknown")
}

func dash(text string) string { return cmp.Or(text, "-") }

// unique are the uids in their order, each once: what is done to a run twice
// may be done wrongly.
func unique(uids []string) []string {
	var out []string
	for _, uid := range uids {
		if !slices.Contains(out, uid) {
			out = append(out, uid)
		}
	}
	return out
}
