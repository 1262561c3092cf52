package command

import (
	"cmp"
	"context"
	"encoding/json"

	"github.com/edges-exporter/edges_exporter/edges"
)

// SchedulesOptions are what ListSchedules is asked for.
type SchedulesOptions struct {
	// Query are the filters and the order; its Limit and Offset are not used.
	Query edges.SchedulesQuery
	// Limit is the most schedules that are written; 0 for all.
	Limit  int
	Format Format
	// Budget is the client's, to say when it has to be waited for; may be nil.
	Budget *edges.Budget
}

// ListSchedules writes the schedules that match, as they are read.
func ListSchedules(ctx context.Context, client *edges.Client, o SchedulesOptions, t Terminal) error {
	if o.Limit < 0 {
		return usage("limit must not be negative, but is %d", o.Limit)
	}
	out, err := scheduleSheet(o.Format).printer(o.Format, t.Out)
	if err != nil {
		return err
	}
	waiting, written := false, 0
	p := pager[edges.Schedule]{
		uid:  func(s edges.Schedule) string { return s.UID },
		size: pageSize(o.Limit),
		note: func() { t.noteBudget(o.Budget, &waiting) },
		seen: map[[16]byte]struct{}{},
		fetch: func(ctx context.Context, limit, offset int) (edges.RawPage[edges.Schedule], error) {
			query := o.Query
			query.Limit, query.Offset = limit, offset
			return client.ListSchedulesRaw(ctx, query)
		},
	}
	_, err = p.read(ctx, func(page edges.RawPage[edges.Schedule], fresh []bool) (bool, error) {
		var rows []edges.Schedule
		var raw []json.RawMessage
		for i, row := range page.Rows {
			if fresh[i] && (o.Limit == 0 || written < o.Limit) {
				written++
				rows, raw = append(rows, row), append(raw, page.JSON[i])
			}
		}
		return o.Limit == 0 || written < o.Limit, out.rows(rows, raw)
	})
	if err != nil {
		return badQuery(err)
	}
	return out.end()
}

// scheduleSheet is how schedules are written.
func scheduleSheet(f Format) sheet[edges.Schedule] {
	columns := []column[edges.Schedule]{
		{title: "UID", cell: func(s edges.Schedule) string { return cmp.Or(s.UID, "?") }},
		{title: "STATUS", cell: func(s edges.Schedule) string { return dash(string(s.Status)) }},
		{title: f.title("NEXT"), cell: func(s edges.Schedule) string { return f.time(s.NextExecutionAt) }},
	}
	if f.Times == "" || f.Times == TimesRelative { // there is no room for two long times
		columns = append(columns, column[edges.Schedule]{title: "LAST", cell: func(s edges.Schedule) string { return f.time(s.LastExecutedAt) }})
	}
	columns = append(
		columns,
		column[edges.Schedule]{title: "CRON", cell: func(s edges.Schedule) string { return dash(s.Cron) }},
		column[edges.Schedule]{title: "NAME OR ACTION", cut: middle, cell: func(s edges.Schedule) string { return dash(cmp.Or(s.Name, s.ActionName)) }},
	)
	return sheet[edges.Schedule]{
		uid:     func(s edges.Schedule) string { return s.UID },
		columns: columns,
		fields: []field[edges.Schedule]{
			{"uid", func(s edges.Schedule) string { return s.UID }},
			{"status", func(s edges.Schedule) string { return string(s.Status) }},
			{"name", func(s edges.Schedule) string { return s.Name }},
			{"action", func(s edges.Schedule) string { return s.ActionName }},
			{"cron", func(s edges.Schedule) string { return s.Cron }},
			{"timezone", func(s edges.Schedule) string { return s.Timezone }},
			{"next_execution_at", func(s edges.Schedule) string { return stamp(s.NextExecutionAt) }},
			{"last_executed_at", func(s edges.Schedule) string { return stamp(s.LastExecutedAt) }},
			{"postponed_until", func(s edges.Schedule) string { return stamp(s.PostponedUntil) }},
			{"created_at", func(s edges.Schedule) string { return stamp(s.CreatedAt) }},
			{"updated_at", func(s edges.Schedule) string { return stamp(s.UpdatedAt) }},
			{"user", func(s edges.Schedule) string { return s.UserUID }},
		},
	}
}
