package simulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/edges-exporter/edges_exporter/edges"
)

// The bounds of a launch.
const (
	maxInputs      = 100_000
	maxLaunchBytes = 256 << 20
	maxLiveResults = 25
)

// launchBody is what a program sends to launch an action.
type launchBody struct {
	Input      json.RawMessage   `json:"input"`
	Inputs     []json.RawMessage `json:"inputs"`
	Parameters json.RawMessage   `json:"parameters"`
	Callback   json.RawMessage   `json:"callback"`
	Cron       string            `json:"cron"`
	ScheduleAt string            `json:"schedule_at"`
	Timezone   string            `json:"timezone"`
	Name       string            `json:"name"`
}

func (w *Workspace) launchEndpoints() []endpoint {
	return []endpoint{
		{method: http.MethodPost, path: "/v1/actions/{action}/run/live", group: groupRuns, prepare: w.launchWith(w.launchLive)},
		{method: http.MethodPost, path: "/v1/actions/{action}/run/async", group: groupRuns, prepare: w.launchWith(w.launchAsync)},
		{method: http.MethodPost, path: "/v1/actions/{action}/run/schedule", group: groupRuns, prepare: w.launchWith(w.launchSchedule)},
	}
}

// launchWith reads the body of a launch before the workspace is locked: it may
// be large, and come slowly.
func (w *Workspace) launchWith(launch func(*action, *launchBody) ([]byte, *problem)) func(http.ResponseWriter, *http.Request) func(*http.Request) ([]byte, *problem) {
	return func(rw http.ResponseWriter, r *http.Request) func(*http.Request) ([]byte, *problem) {
		body, p := readLaunch(rw, r)
		return func(r *http.Request) ([]byte, *problem) {
			a := w.byName[r.PathValue("action")]
			switch {
			case a == nil || a.share == 0:
				return nil, notFound("action")
			case p != nil:
				return nil, p
			case w.creditsLeft() == 0:
				return nil, &problem{http.StatusPaymentRequired, "NO_ACCESS", "the workspace has no credits left", nil}
			}
			return launch(a, body)
		}
	}
}

// readLaunch reads and checks what all ways of launching have in common.
func readLaunch(rw http.ResponseWriter, r *http.Request) (*launchBody, *problem) {
	text, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, maxLaunchBytes))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, &problem{http.StatusRequestEntityTooLarge, "BAD_INPUT", "the request is too large", nil}
	}
	body := &launchBody{}
	if err == nil {
		err = json.Unmarshal(text, body)
	}
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong):
		return nil, invalid(wrong.Field, wrong.Field+" has the wrong type")
	case err != nil:
		return nil, &problem{http.StatusBadRequest, "BAD_INPUT", "the body is not whole and valid JSON", nil}
	case !isObject(body.Parameters) && !isNull(body.Parameters):
		return nil, invalid("parameters", "parameters must be an object")
	}
	if isNull(body.Callback) {
		body.Callback = json.RawMessage("null")
		return body, nil
	}
	var callback struct {
		URL     string            `json:"url"`
		Headers map[string]string `json:"headers"`
	}
	if err := json.Unmarshal(body.Callback, &callback); err != nil {
		return nil, invalid("callback", "callback must be an object with a url and headers")
	}
	if u, err := url.Parse(callback.URL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, invalid("callback.url", "callback.url must be an address of the web")
	}
	return body, nil
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

func isObject(raw json.RawMessage) bool { return bytes.HasPrefix(raw, []byte{'{'}) }

// launchLive runs an action and answers its results, or why there are none. Its
// caller does not wait: the run is written down as one that has just ended, and
// has begun as long ago as it took.
func (w *Workspace) launchLive(a *action, body *launchBody) ([]byte, *problem) {
	switch {
	case body.Inputs != nil:
		return nil, invalid("inputs", "a live launch takes one input")
	case !isObject(body.Input):
		return nil, invalid("input", "input must be an object")
	}
	r := w.newRun(a, nil, w.users[0], body.of(body.Input), w.putKey(), w.now)
	r.mode = edges.ModeLive
	if w.refuseLaunch(r, w.now) {
		return nil, &problem{http.StatusUnprocessableEntity, r.failure.Label, r.failure.Message, nil}
	}
	r.status, r.started = edges.StatusRunning, w.now
	w.begin(r, w.now)
	r.gen++ // the end that begin has planned is now
	took := r.due - w.now
	r.created, r.started, r.due = r.created-took, r.started-took, w.now
	w.finish(r, w.now)
	w.log.Info("run launched", "run_uid", r.uid, "mode", r.mode)

	if r.status != edges.StatusSucceeded && r.status != edges.StatusPartialSucceeded {
		f := w.failure("GENERIC_ERROR")
		if r.failure != nil {
			f = r.failure
		}
		return nil, &problem{http.StatusFailedDependency, f.Label, f.Message, nil}
	}
	if a.results <= 1 {
		return appendOutput(nil, &r.row, r.key, 0), nil
	}
	results := make([]int, min(r.outputs, maxLiveResults))
	for i := range results {
		results[i] = i
	}
	return writePage(results, func(b []byte, i int) []byte { return appendOutput(b, &r.row, r.key, i) }), nil
}

// launchAsync makes one run on all the inputs.
func (w *Workspace) launchAsync(a *action, body *launchBody) ([]byte, *problem) {
	if p := body.checkInputs(); p != nil {
		return nil, p
	}
	for _, name := range []string{body.Cron, body.ScheduleAt} {
		if name != "" {
			return nil, invalid("cron", "an async launch is made at once")
		}
	}
	r := w.launchOn(a, nil, w.users[0], int64(len(body.Inputs)), body.of(body.Inputs[0]), w.putKey(), w.now)
	w.log.Info("run launched", "run_uid", r.uid, "mode", r.mode, "inputs", len(body.Inputs))
	return appendLaunched(r.uid, string(r.status)), nil
}

// launchSchedule makes a schedule, whose uid is answered like a run's.
func (w *Workspace) launchSchedule(a *action, body *launchBody) ([]byte, *problem) {
	if p := body.checkInputs(); p != nil {
		return nil, p
	}
	location := w.location
	if body.Timezone != "" {
		var err error
		if location, err = time.LoadLocation(body.Timezone); err != nil || body.Timezone == "Local" {
			return nil, invalid("timezone", fmt.Sprintf("%q is not the IANA name of a time zone", body.Timezone))
		}
	}
	index := len(w.schedules)
	key := w.putKey()
	sc := &schedule{
		uid: uuid(mix(w.seed^key), mix(key+0x5c5c)), name: body.Name, user: w.users[0], action: a, status: edges.ScheduleActive, cron: body.Cron,
		location: location, inputs: int64(len(body.Inputs)), extra: body.of(body.Inputs[0]), created: w.now, updated: w.now,
	}
	switch {
	case body.Cron != "" && body.ScheduleAt != "", body.Cron == "" && body.ScheduleAt == "":
		return nil, invalid("cron", "a schedule needs either cron or schedule_at")
	case body.Cron != "":
		times, err := cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow).Parse(body.Cron)
		if err != nil || strings.Contains(body.Cron, "=") {
			return nil, invalid("cron", fmt.Sprintf("%q is not a time in five fields", body.Cron))
		}
		sc.times = times
		w.schedules = append(w.schedules, sc)
		w.planFiring(index, w.now)
	default:
		at, err := parseScheduleAt(body.ScheduleAt, location)
		if err != nil {
			return nil, invalid("schedule_at", fmt.Sprintf("%q is not a time as in ISO 8601", body.ScheduleAt))
		}
		if sc.due = at.UnixMilli(); sc.due <= w.now {
			return nil, invalid("schedule_at", "schedule_at must be in the future")
		}
		w.schedules = append(w.schedules, sc)
		w.agenda.push(event{at: sc.due, kind: eventFire, source: index})
	}
	w.log.Info("schedule made", "schedule_uid", sc.uid, "inputs", len(body.Inputs))
	return appendLaunched(sc.uid, string(edges.StatusScheduled)), nil
}

// parseScheduleAt reads a time, which without an offset is one of the
// schedule's time zone.
func parseScheduleAt(text string, location *time.Location) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	at, err := time.ParseInLocation("2006-01-02T15:04:05", text, location)
	if err != nil {
		at, err = time.ParseInLocation("2006-01-02T15:04", text, location)
	}
	return at, err
}

// checkInputs checks the inputs of what is not live.
func (b *launchBody) checkInputs() *problem {
	switch {
	case !isNull(b.Input):
		return invalid("input", "only a live launch takes one input: use inputs")
	case len(b.Inputs) == 0:
		return &problem{http.StatusUnprocessableEntity, "MISSING_PARAMETER", "inputs must have an input", map[string]string{"parameter": "inputs"}}
	case len(b.Inputs) > maxInputs:
		return invalid("inputs", fmt.Sprintf("more than %d inputs", maxInputs))
	}
	for i, input := range b.Inputs {
		if !isObject(input) {
			return invalid(fmt.Sprintf("inputs[%d]", i), "an input must be an object")
		}
	}
	return nil
}

// of is what a run shows of its launch: of many inputs, the first.
func (b *launchBody) of(input json.RawMessage) *extra {
	parameters := append(json.RawMessage(`{"input":`), input...)
	if !isNull(b.Parameters) {
		parameters = append(append(parameters, `,"parameters":`...), b.Parameters...)
	}
	return &extra{parameters: append(parameters, '}'), callback: b.Callback}
}

// launchOn makes a run on some inputs.
func (w *Workspace) launchOn(a *action, sc *schedule, user string, inputs int64, about *extra, key uint64, at int64) *run {
	r := w.newRun(a, sc, user, about, key, at)
	r.inputs = inputs
	if !w.refuseLaunch(r, at) {
		w.queue(r, 0, at)
	}
	return r
}

// newRun is a run that has not been written down yet.
func (w *Workspace) newRun(a *action, sc *schedule, user string, about *extra, key uint64, at int64) *run {
	w.nextID++
	r := &run{key: key, uid: uuid(mix(w.seed^key), mix(key+0x51ed)), row: row{
		id: w.nextID, action: a, mode: edges.ModeAsync, status: edges.StatusCreated, user: user, created: at, updated: at, extra: about,
	}}
	if sc != nil {
		r.schedule = sc.uid
	}
	return r
}

// refuseLaunch writes a run down as INVALID, if trouble makes it so.
func (w *Workspace) refuseLaunch(r *run, at int64) bool {
	t := w.trouble(KindInvalid, r.action.name, at)
	if t == nil || !w.hit(t, r) {
		return false
	}
	r.status, r.finished, r.failure = edges.StatusInvalid, at, w.failure(t.Error)
	w.add(r, at)
	return true
}

func appendLaunched(uid, status string) []byte {
	b := append([]byte(nil), `{"run_uid":`...)
	b = appendString(b, uid)
	b = append(b, `,"status":`...)
	b = appendString(b, status)
	return append(b, '}')
}
