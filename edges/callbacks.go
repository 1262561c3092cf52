package edges

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// maxCallbacks is how many callbacks the API gives in one answer.
const maxCallbacks = 20

// CallbackStatus is the state of a callback, in the API's own words. The API
// may grow new ones, which are passed through as they are.
type CallbackStatus string

// The four statuses of a callback that the API documents.
const (
	CallbackPending CallbackStatus = "PENDING"
	CallbackRunning CallbackStatus = "RUNNING"
	CallbackFailed  CallbackStatus = "FAILED"
	CallbackSuccess CallbackStatus = "SUCCESS"
)

// CallbackStatuses returns the four documented statuses of a callback.
func CallbackStatuses() []CallbackStatus {
	return []CallbackStatus{CallbackPending, CallbackRunning, CallbackFailed, CallbackSuccess}
}

// Ended reports whether the callback has been delivered, or given up. One that
// is delivered again is a callback of its own, with a ParentUID.
func (s CallbackStatus) Ended() bool {
	return s == CallbackFailed || s == CallbackSuccess
}

// Callback is one row of GET /v1/runs/callbacks: the delivery of a run's
// results to the user's webhook. A field that was null or missing has its zero
// value.
type Callback struct {
	// UID identifies the delivery.
	UID string
	// ParentUID is the callback of which this one is a replay.
	ParentUID string
	Status    CallbackStatus
	// RetryCount is how often the delivery was tried again.
	RetryCount int64
	// HTTPStatus is what the webhook answered last; 0 if it has not answered.
	HTTPStatus int
	// Target is the webhook's scheme and host, as in https://example.com. The
	// rest of the URL, which may hold a secret, is not kept.
	Target string
	// BatchUID is the batch of results that is delivered.
	BatchUID string
	// RunUID is the run whose results they are.
	RunUID       string
	WorkspaceUID string
	CreatedAt    time.Time
	// Defect says why the row could not be understood; what is known of it
	// besides must not be used. Empty for a good row.
	Defect Defect
}

// CallbacksQuery are the filters, the order and the part of the list that
// ListCallbacks asks for. Values of one filter are alternatives; different
// filters must all hold. The zero value leaves all to the API.
type CallbacksQuery struct {
	Status []CallbackStatus
	RunUID []string
	// Limit is the number of rows, 1 to 20; 0 leaves it to the API (10).
	Limit int
	// Offset is the number of rows to leave out before the first.
	Offset int
	// Sort are up to 10 field names, "-" in front for descending order.
	Sort []string
}

// CallbacksPage is one answer of the list of callbacks.
type CallbacksPage struct {
	// Callbacks are the rows in the API's order, the ones that were not
	// understood in their places too: their Defect is set.
	Callbacks []Callback
	// Date is the server's clock when it answered, in whole seconds; zero if
	// it did not tell.
	Date time.Time
}

// ListCallbacks reads one part of the list of callbacks, GET /runs/callbacks. A
// row that cannot be understood is no error: see Callback.Defect.
func (c *Client) ListCallbacks(ctx context.Context, query CallbacksQuery) (CallbacksPage, error) {
	if err := query.validate(); err != nil {
		return CallbacksPage{}, fmt.Errorf("list callbacks: %w", err)
	}
	call := c.listCall(endpointCallbacks, c.target("runs", "callbacks"), query.values())
	var page CallbacksPage
	call.read = func(d *decoder, answer *http.Response) (err error) {
		page.Callbacks, err = readRows(d, answer.Body, c.maxBytes, d.callback)
		page.Date = serverTime(answer.Header)
		return err
	}
	if err := c.do(ctx, call); err != nil {
		return CallbacksPage{}, fmt.Errorf("list callbacks: %w", err)
	}
	return page, nil
}

func (q CallbacksQuery) validate() error {
	if err := validatePart(q.Limit, maxCallbacks, q.Offset, q.Sort); err != nil {
		return err
	}
	if err := validateFilter("status", q.Status); err != nil {
		return err
	}
	return validateFilter("run_uid", q.RunUID)
}

func (q CallbacksQuery) values() url.Values {
	v := url.Values{}
	setFilter(v, "status", q.Status)
	setFilter(v, "run_uid", q.RunUID)
	setPart(v, q.Limit, q.Offset, q.Sort)
	return v
}

// callback reads one element of the list of callbacks.
func (d *decoder) callback(c *Callback) error {
	defect, err := d.row(func(field string) (kind int, ok bool, err error) {
		switch field {
		case "uid":
			kind = fieldUID
			c.UID, ok, err = d.uid()
		case "parent_uid":
			kind = fieldKept
			c.ParentUID, ok, err = d.uid()
		case "status":
			kind = fieldKept
			var status string
			status, ok, err = d.word()
			c.Status = CallbackStatus(status)
		case "retry_count":
			kind = fieldKept
			c.RetryCount, ok, err = d.count()
		case "http_status":
			kind = fieldKept
			c.HTTPStatus, ok, err = d.httpStatus()
		case "callback_url":
			var text []byte
			text, ok, err = d.text()
			c.Target = origin(text)
		case "batch_uid":
			c.BatchUID, ok, err = d.uid()
		case "run_uid":
			kind = fieldKept
			c.RunUID, ok, err = d.uid()
		case "workspace_uid":
			c.WorkspaceUID, ok, err = d.word()
		case "created_at":
			kind = fieldTime
			c.CreatedAt, ok, err = d.time()
		default:
			return d.skip()
		}
		return kind, ok, err
	})
	c.Defect = defect
	if c.UID == "" && defect != DefectNotObject {
		c.Defect = DefectNoUID
	}
	return err
}

// httpStatus reads a status code. What no server can have answered is 0.
func (d *decoder) httpStatus() (code int, ok bool, err error) {
	n, ok, err := d.count()
	if n < 100 || n > 999 {
		return 0, ok, err
	}
	return int(n), ok, err
}

// origin is a URL's scheme and host, or empty for what is no such URL.
func origin(text []byte) string {
	u, err := url.Parse(string(text))
	if err != nil || u.Scheme == "" || u.Host == "" {
		return ""
	}
	return cleanText([]byte(u.Scheme+"://"+u.Host), maxHostBytes)
}
