package simulator

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
)

// ErrNoCallback is the error of calls that name a callback that is not there.
var ErrNoCallback = errors.New("no such callback")

// The bounds of the list of callbacks, and how often a delivery is tried again.
const (
	maxCallbacks  = 20
	maxDeliveries = 4
)

// Callback is the delivery of a run's results to a webhook, as it really is.
type Callback struct {
	UID string `json:"uid"`
	// ParentUID is the callback of which it is a replay.
	ParentUID  string               `json:"parent_uid,omitempty"`
	RunUID     string               `json:"run_uid"`
	Action     string               `json:"action"`
	Status     edges.CallbackStatus `json:"status"`
	RetryCount int64                `json:"retry_count"`
	// HTTPStatus is what the webhook answered last, 0 if it has not.
	HTTPStatus int       `json:"http_status,omitempty"`
	CreatedAt  time.Time `json:"created_at"`
	// EndedAt is when it was delivered, or given up; zero while it is not.
	EndedAt time.Time `json:"ended_at,omitzero"`
}

// delivery is a callback.
type delivery struct {
	// key is the origin of its uid and of everything that is drawn for it.
	key    uint64
	parent string
	runUID string
	action *action
	url    string
	status edges.CallbackStatus
	// retries is how often it was tried again, and http the last answer, 0 for
	// none.
	retries int64
	http    int
	created int64
	ended   int64
}

// uid is made when it is asked for, which for most is never.
func (d *delivery) uid() string { return uuid(mix(d.key^0xca11), mix(d.key+0xbac4)) }

func (d *delivery) export() Callback {
	return Callback{
		UID: d.uid(), ParentUID: d.parent, RunUID: d.runUID, Action: d.action.name, Status: d.status, RetryCount: d.retries, HTTPStatus: d.http,
		CreatedAt: fromMillis(d.created), EndedAt: fromMillis(d.ended),
	}
}

// Callbacks returns the deliveries that are there, the oldest first.
func (w *Workspace) Callbacks() []Callback {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	all := make([]Callback, 0, len(w.deliveries))
	for _, d := range w.deliveries {
		all = append(all, d.export())
	}
	return all
}

// Deliver has the results of a run delivered, as at its end, and returns the
// callback's uid. Unknown uids give ErrNoRun.
func (w *Workspace) Deliver(runUID string) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	r := w.byUID[runUID]
	if r == nil {
		return "", fmt.Errorf("deliver the results of run %s: %w", runUID, ErrNoRun)
	}
	return w.deliver(r.uid, r.action, callbackURL(r), "", w.putKey(), w.now).uid(), nil
}

// ReplayCallback has a callback made again, and returns the uid of the new one.
// Unknown uids give ErrNoCallback.
func (w *Workspace) ReplayCallback(uid string) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	i := slices.IndexFunc(w.deliveries, func(d *delivery) bool { return d.uid() == uid })
	if i < 0 {
		return "", fmt.Errorf("replay callback %s: %w", uid, ErrNoCallback)
	}
	d := w.deliveries[i]
	return w.deliver(d.runUID, d.action, d.url, d.uid(), w.putKey(), w.now).uid(), nil
}

// hasCallback reports whether the results of a run that has come to rest are
// delivered.
func hasCallback(r *run) bool {
	switch r.status {
	case edges.StatusSucceeded, edges.StatusPartialSucceeded, edges.StatusFailed:
	default:
		return false
	}
	return r.mode != edges.ModeLive && (r.extra == nil || r.extra.callback == nil || string(r.extra.callback) != "null")
}

// callbackURL is where a run's results go.
func callbackURL(r *run) string {
	if r.extra == nil || r.extra.callback == nil {
		if r.action.hook == "" {
			r.action.hook = "https://hooks.example.com/edges/" + strconv.FormatInt(r.action.id, 10)
		}
		return r.action.hook
	}
	var callback struct {
		URL string `json:"url"`
	}
	// A program may have put anything there; what has no URL has none.
	_ = json.Unmarshal(r.extra.callback, &callback)
	return callback.URL
}

// deliver begins to deliver results.
func (w *Workspace) deliver(runUID string, a *action, url, parent string, key uint64, at int64) *delivery {
	d := &delivery{
		key: w.seed ^ key, parent: parent, runUID: runUID, action: a, url: url, status: edges.CallbackPending, created: at,
	}
	w.deliveries = append(w.deliveries, d)
	if at < w.warmFrom {
		// What is long over needs no life.
		_, d.http = w.webhook(d, at)
		d.status, d.ended = edges.CallbackSuccess, at+1500
		if d.http >= 300 {
			d.status, d.retries = edges.CallbackFailed, maxDeliveries-1
		}
		return d
	}
	w.agenda.push(event{at: at + 200 + int64(mix(key)%1800), kind: eventSend, delivery: d})
	return d
}

// trySending takes a delivery up, unless they have stalled.
func (w *Workspace) trySending(d *delivery, at int64) {
	if w.trouble(KindCallbacksStalled, d.action.name, at) != nil {
		w.agenda.push(event{at: at + 3000 + int64(mix(d.key^bits64(at))%7000), kind: eventSend, delivery: d})
		return
	}
	d.status = edges.CallbackRunning
	w.agenda.push(event{at: at + 100 + int64(mix(d.key^bits64(at))%1400), kind: eventSent, delivery: d})
}

// sent is the webhook's answer, or that there is none.
func (w *Workspace) sent(d *delivery, at int64) {
	ok, code := w.webhook(d, at)
	d.http = code
	switch {
	case ok:
		d.status, d.ended = edges.CallbackSuccess, at
	case d.retries+1 < maxDeliveries:
		wait := []int64{10_000, 60_000, 360_000}[min(d.retries, 2)]
		d.status = edges.CallbackPending
		d.retries++
		w.agenda.push(event{at: at + wait, kind: eventSend, delivery: d})
	default:
		d.status, d.ended = edges.CallbackFailed, at
		if d.parent == "" && unit(mix(d.key^0x2e91)) < 0.3 {
			w.pcg.Seed(mix(d.key), 0x2e91)
			w.agenda.push(event{at: w.whenSomebodyLooks(at, w.rng), kind: eventReplay, delivery: d})
		}
	}
}

// webhook is what the user's server answers to an attempt; code 0 for nothing.
func (w *Workspace) webhook(d *delivery, at int64) (ok bool, code int) {
	t := w.trouble(KindCallbacksFailing, d.action.name, at)
	if t != nil && unit(mix(d.key^mix(bits64(t.ID)))) < t.Share {
		return false, t.Code
	}
	switch u := unit(mix(d.key ^ 0x3ebb)); {
	case u < 0.001:
		return false, http.StatusNotFound
	case u < 0.01 && d.retries == 0 && at >= w.warmFrom:
		return false, http.StatusServiceUnavailable
	}
	return true, http.StatusOK
}

// retireDeliveries takes out the callbacks that are past retention.
func (w *Workspace) retireDeliveries() {
	n := 0
	for n < len(w.deliveries) && w.now-w.deliveries[n].created >= w.retention {
		n++
	}
	if n == 0 {
		return
	}
	clear(w.deliveries[:n])
	w.deliveries = w.deliveries[n:]
}

func (w *Workspace) callbackEndpoints() []endpoint {
	return []endpoint{{method: http.MethodGet, path: "/v1/runs/callbacks", group: groupRuns, handle: w.listCallbacks}}
}

func (w *Workspace) listCallbacks(r *http.Request) ([]byte, *problem) {
	v := r.URL.Query()
	part, p := parsePart(v, maxCallbacks, func(field string) bool { return callbackField(field) != nil })
	if p != nil {
		return nil, p
	}
	for _, s := range v["status"] {
		if !slices.Contains(edges.CallbackStatuses(), edges.CallbackStatus(s)) {
			return nil, invalid("status", fmt.Sprintf("%q is not a status of a callback", s))
		}
	}
	for _, u := range v["run_uid"] {
		if w.byUID[u] == nil && !isUUID(u) {
			return nil, invalid("run_uid", fmt.Sprintf("%q is not a UUID", u))
		}
	}
	// Without a sort the newest come first, as with -created_at: the list's
	// own order from the end, where nothing more is needed than the page.
	newest := len(part.sort) == 0 || len(part.sort) == 1 && part.sort[0] == sortKey{"created_at", true}
	if newest {
		part.sort = nil
	}
	var found []*delivery
	for _, d := range slices.Backward(w.deliveries) {
		if newest && len(found) == part.offset+part.limit {
			break
		}
		if anyOf(v["status"], string(d.status)) && anyOf(v["run_uid"], d.runUID) {
			found = append(found, d)
		}
	}
	return writePage(cutPage(found, part, callbackField), w.appendDelivery), nil
}

// callbackField returns how two callbacks compare in a field, or nil for a
// field that they cannot be sorted by.
func callbackField(name string) func(a, b *delivery) int {
	switch name {
	case "created_at":
		return func(a, b *delivery) int { return cmp.Compare(a.created, b.created) }
	case "retry_count":
		return func(a, b *delivery) int { return cmp.Compare(a.retries, b.retries) }
	case "http_status":
		return func(a, b *delivery) int { return cmp.Compare(a.http, b.http) }
	case "status":
		return func(a, b *delivery) int { return strings.Compare(string(a.status), string(b.status)) }
	case "uid":
		return func(a, b *delivery) int { return strings.Compare(a.uid(), b.uid()) }
	case "run_uid":
		return func(a, b *delivery) int { return strings.Compare(a.runUID, b.runUID) }
	}
	return nil
}

func (w *Workspace) appendDelivery(b []byte, d *delivery) []byte {
	b = append(b, `{"uid":`...)
	b = appendString(b, d.uid())
	b = append(b, `,"parent_uid":`...)
	b = appendNullable(b, d.parent)
	b = append(b, `,"retry_count":`...)
	b = strconv.AppendInt(b, d.retries, 10)
	b = append(b, `,"created_at":`...)
	b = appendTime(b, d.created)
	b = append(b, `,"status":`...)
	b = appendString(b, string(d.status))
	b = append(b, `,"callback_url":`...)
	b = appendNullable(b, d.url)
	b = append(b, `,"http_status":`...)
	if d.http == 0 {
		b = append(b, "null"...)
	} else {
		b = strconv.AppendInt(b, int64(d.http), 10)
	}
	b = append(b, `,"batch_uid":"`...)
	b = appendUUID(b, mix(d.key^0xba7c4), mix(d.key))
	b = append(b, `","run_uid":`...)
	b = appendString(b, d.runUID)
	b = append(b, `,"workspace_uid":`...)
	b = appendString(b, w.uid)
	return append(b, '}')
}
