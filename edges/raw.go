package edges

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// RawPage is one answer of a list with its rows as the API wrote them, for
// those who want what this package does not keep. Such a row may hold the
// user's secrets, as in callback.headers: it is for whoever holds the key, not
// for logs.
type RawPage[T any] struct {
	// Rows are the rows as they were read, and JSON the same as they were
	// written, in the API's order.
	Rows []T
	JSON []json.RawMessage
	// Date is the server's clock when it answered, in whole seconds; zero if
	// it did not tell.
	Date time.Time
}

// ListRunsRaw is ListRuns with the rows as the API wrote them.
func (c *Client) ListRunsRaw(ctx context.Context, query RunsQuery) (RawPage[Run], error) {
	if err := query.validate(); err != nil {
		return RawPage[Run]{}, fmt.Errorf("list runs: %w", err)
	}
	page, err := listRaw(ctx, c, c.listCall(endpointRuns, c.target("runs"), query.values()), (*decoder).run)
	if err != nil {
		return RawPage[Run]{}, fmt.Errorf("list runs: %w", err)
	}
	return page, nil
}

// GetRunRaw is GetRun with the run as the API wrote it.
func (c *Client) GetRunRaw(ctx context.Context, uid string) (Run, json.RawMessage, error) {
	if err := checkUID(uid); err != nil {
		return Run{}, nil, fmt.Errorf("get run: %w", err)
	}
	var run Run
	var text json.RawMessage
	err := c.do(ctx, call{
		endpoint: endpointRun,
		target:   c.target("runs", uid),
		read: func(d *decoder, answer *http.Response) error {
			run = Run{}
			if err := d.object(answer.Body, c.maxBytes, func() error { return d.raw(&text) }); err != nil {
				return err
			}
			return again(d, text, &run, (*decoder).run)
		},
	})
	if err != nil {
		return Run{}, nil, fmt.Errorf("get run: %w", err)
	}
	return run, text, nil
}

// ListSchedulesRaw is ListSchedules with the rows as the API wrote them.
func (c *Client) ListSchedulesRaw(ctx context.Context, query SchedulesQuery) (RawPage[Schedule], error) {
	if err := query.validate(); err != nil {
		return RawPage[Schedule]{}, fmt.Errorf("list schedules: %w", err)
	}
	page, err := listRaw(ctx, c, c.listCall(endpointSchedules, c.target("schedules"), query.values()), (*decoder).schedule)
	if err != nil {
		return RawPage[Schedule]{}, fmt.Errorf("list schedules: %w", err)
	}
	return page, nil
}

// ListCallbacksRaw is ListCallbacks with the rows as the API wrote them.
func (c *Client) ListCallbacksRaw(ctx context.Context, query CallbacksQuery) (RawPage[Callback], error) {
	if err := query.validate(); err != nil {
		return RawPage[Callback]{}, fmt.Errorf("list callbacks: %w", err)
	}
	page, err := listRaw(ctx, c, c.listCall(endpointCallbacks, c.target("runs", "callbacks"), query.values()), (*decoder).callback)
	if err != nil {
		return RawPage[Callback]{}, fmt.Errorf("list callbacks: %w", err)
	}
	return page, nil
}

// listRaw makes the call of a list, and reads each row of it both ways.
func listRaw[T any](ctx context.Context, c *Client, call call, read func(*decoder, *T) error) (RawPage[T], error) {
	var page RawPage[T]
	call.read = func(d *decoder, answer *http.Response) error {
		rows, err := readRows(d, answer.Body, c.maxBytes, d.raw)
		if err != nil {
			return err
		}
		page = RawPage[T]{Rows: make([]T, len(rows)), JSON: rows, Date: serverTime(answer.Header)}
		for i, text := range rows {
			if err := again(d, text, &page.Rows[i], read); err != nil {
				return err
			}
		}
		return nil
	}
	if err := c.do(ctx, call); err != nil {
		return RawPage[T]{}, err
	}
	return page, nil
}

// again reads a value that has been read as it is written into what is empty.
func again[T any](d *decoder, text []byte, into *T, read func(*decoder, *T) error) error {
	d.whole.ResetBytes(text)
	d.json = d.whole
	if err := read(d, into); err != nil {
		return d.failure(err)
	}
	return nil
}
