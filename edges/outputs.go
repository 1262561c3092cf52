package edges

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// maxOutputs is how many outputs the API gives in one answer.
const maxOutputs = 500

// OutputsPage is one answer of the list of a run's outputs.
type OutputsPage struct {
	// Outputs are the results, each as the API wrote it: what is in them
	// depends on the action.
	Outputs []json.RawMessage
	// Next is what ListOutputs takes for the part that follows; empty after
	// the last.
	Next string
	// Date is the server's clock when it answered, in whole seconds; zero if
	// it did not tell.
	Date time.Time
}

// ListOutputs reads one part of a run's outputs, GET /runs/{uid}/outputs, 500 of
// them: the first with an empty cursor, what follows with the Next of the part
// before. A cursor is an address that the API gave; one that points to another
// host, port or scheme is ErrRedirected, so that the key stays with the
// configured one.
func (c *Client) ListOutputs(ctx context.Context, runUID, cursor string) (OutputsPage, error) {
	target, err := c.outputsTarget(runUID, cursor)
	if err != nil {
		return OutputsPage{}, fmt.Errorf("list outputs: %w", err)
	}
	var page OutputsPage
	err = c.do(ctx, call{
		endpoint: endpointOutputs,
		target:   target,
		read: func(d *decoder, answer *http.Response) (err error) {
			page.Outputs, err = readRows(d, answer.Body, c.maxBytes, d.raw)
			page.Next = answer.Header.Get("X-Pagination-Next")
			page.Date = serverTime(answer.Header)
			return err
		},
	})
	if err != nil {
		return OutputsPage{}, fmt.Errorf("list outputs: %w", err)
	}
	return page, nil
}

// outputsTarget is where a part of the outputs is to be had.
func (c *Client) outputsTarget(runUID, cursor string) (*url.URL, error) {
	if err := checkUID(runUID); err != nil {
		return nil, err
	}
	first := c.target("runs", runUID, "outputs")
	if cursor == "" {
		first.RawQuery = url.Values{"limit": {strconv.Itoa(maxOutputs)}}.Encode()
		return first, nil
	}
	next, err := url.Parse(cursor)
	if err != nil {
		return nil, fmt.Errorf("%w: the cursor is no address", ErrBadQuery)
	}
	return c.within(first.ResolveReference(next))
}
