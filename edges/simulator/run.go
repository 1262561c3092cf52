package simulator

import (
	"encoding/json"
	"math/bits"
	"strconv"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
)

// ModeSchedule is the mode of a run that a schedule started. The API has no
// such value: its rows say ASYNC and carry scheduled_run_uid.
const ModeSchedule = "SCHEDULE"

// Run is a run as a program that drives the workspace sees and sets it. A zero
// field is null in the API's answer (0 for the counts).
type Run struct {
	ID              int64           `json:"id"`
	UID             string          `json:"uid"`
	Action          string          `json:"action,omitempty"`
	Mode            string          `json:"mode,omitempty"` // LIVE or ASYNC
	Status          edges.Status    `json:"status,omitempty"`
	RetryCount      int64           `json:"retry_count"`
	OutputCount     int64           `json:"output_count"`
	Error           *RunError       `json:"error,omitempty"`
	UserUID         string          `json:"user_uid,omitempty"`
	ScheduledRunUID string          `json:"scheduled_run_uid,omitempty"`
	FlowRunID       int64           `json:"flow_run_id,omitempty"`
	PostponedUntil  time.Time       `json:"postponed_until,omitzero"`
	CreatedAt       time.Time       `json:"created_at,omitzero"`
	UpdatedAt       time.Time       `json:"updated_at,omitzero"`
	StartedAt       time.Time       `json:"started_at,omitzero"`
	FinishedAt      time.Time       `json:"finished_at,omitzero"`
	SyncedAt        time.Time       `json:"synced_at,omitzero"`
	Parameters      json.RawMessage `json:"parameters,omitempty"` // made up when absent
	Callback        json.RawMessage `json:"callback,omitempty"`   // made up when absent
	// Raw is written by the API in place of the row, to send what no good
	// server would: rows without a uid, odd types, unreadable times. The other
	// fields still decide where the row stands in the list.
	Raw json.RawMessage `json:"raw,omitempty"`
	// NoUpdatedAt keeps updated_at null; Put and Change set it otherwise.
	NoUpdatedAt bool `json:"no_updated_at,omitempty"`
}

// RunError is a run's last_error.
type RunError struct {
	Label   string          `json:"label"`
	Message string          `json:"message"`
	Params  json.RawMessage `json:"params,omitempty"`
}

// row is a run's content at one moment. Times are Unix milliseconds, 0 for
// null.
type row struct {
	id        int64
	action    *action
	status    edges.Status
	mode      string
	retries   int64
	outputs   int64
	failure   *RunError
	user      string
	schedule  string
	flow      int64
	postponed int64
	created   int64
	updated   int64
	started   int64
	finished  int64
	synced    int64
	extra     *extra
}

// extra is what only runs carry that a program put there.
type extra struct {
	parameters, callback, raw json.RawMessage
}

// run is a run of the workspace: what it is, what the API shows of it, and
// what is planned for it.
type run struct {
	row
	uid string
	// ord orders runs that are equal in all else.
	ord uint64
	// key is the origin of everything that is drawn for this run.
	key  uint64
	step uint64
	// shown is the content that the API shows: the run's own, an older one
	// while a late commit is pending, or nil while it shows nothing.
	shown     *row
	visibleAt int64
	pending   int
	gen       uint32
	removed   bool
	// stuckBy is the trouble that holds the run, 0 for none.
	stuckBy int
	// due is when the run in progress will end, and goal the results that it
	// will have then.
	due, goal int64
	// outcome is what the run in progress will come to.
	outcome outcome
	// inputs is on how many inputs a program has launched it; 0 for the runs
	// of the workspace's own life, which have one each.
	inputs int64
}

// order is the time by which the row stands in the list: created_at stands in
// for an updated_at that is null.
func (r *row) order(nullsFirst bool) int64 {
	if r.updated != 0 {
		return r.updated
	}
	if nullsFirst {
		return 1<<63 - 1
	}
	return r.created
}

func (r *run) export() Run {
	x := Run{
		ID: r.id, UID: r.uid, Action: r.action.name, Mode: r.mode, Status: r.status,
		RetryCount: r.retries, OutputCount: r.outputs,
		UserUID: r.user, ScheduledRunUID: r.schedule, FlowRunID: r.flow,
		PostponedUntil: fromMillis(r.postponed), CreatedAt: fromMillis(r.created), UpdatedAt: fromMillis(r.updated),
		StartedAt: fromMillis(r.started), FinishedAt: fromMillis(r.finished), SyncedAt: fromMillis(r.synced),
		NoUpdatedAt: r.updated == 0,
	}
	if r.failure != nil {
		shared := *r.failure
		x.Error = &shared
	}
	if r.extra != nil {
		x.Parameters, x.Callback, x.Raw = r.extra.parameters, r.extra.callback, r.extra.raw
	}
	return x
}

func (w *Workspace) rowOf(x Run) row {
	r := row{
		id: x.ID, action: w.actionNamed(x.Action), status: x.Status, mode: x.Mode,
		retries: x.RetryCount, outputs: x.OutputCount,
		user: x.UserUID, schedule: x.ScheduledRunUID, flow: x.FlowRunID,
		postponed: toMillis(x.PostponedUntil), created: toMillis(x.CreatedAt), updated: toMillis(x.UpdatedAt),
		started: toMillis(x.StartedAt), finished: toMillis(x.FinishedAt), synced: toMillis(x.SyncedAt),
	}
	if x.Error != nil {
		own := *x.Error
		r.failure = &own
	}
	if x.Parameters != nil || x.Callback != nil || x.Raw != nil {
		r.extra = &extra{x.Parameters, x.Callback, x.Raw}
	}
	return r
}

func toMillis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// modeLabel is the mode under which the exporter is expected to count the run.
func (r *row) modeLabel() string {
	switch {
	case r.schedule != "":
		return ModeSchedule
	case r.mode == "":
		return "unknown"
	}
	return r.mode
}

// appendRun writes the row of r that the API shows. Written by hand: the
// simulator often shares its processor with the program under test, and
// encoding/json would take most of the time of a page.
func (w *Workspace) appendRun(b []byte, r *run) []byte {
	s := r.shown
	if s.extra != nil && s.extra.raw != nil {
		return append(b, s.extra.raw...)
	}
	b = append(b, `{"id":`...)
	b = strconv.AppendInt(b, s.id, 10)
	b = append(b, `,"uid":`...)
	b = appendString(b, r.uid)
	b = append(b, `,"action_id":`...)
	if s.action.name == "" {
		b = append(b, `null,"action_name":null`...)
	} else {
		b = strconv.AppendInt(b, s.action.id, 10)
		b = append(b, `,"action_name":`...)
		b = appendString(b, s.action.name)
	}
	b = append(b, `,"execution_mode":`...)
	b = appendNullable(b, s.mode)
	b = append(b, `,"status":`...)
	b = appendNullable(b, string(s.status))
	b = append(b, `,"retry_count":`...)
	b = strconv.AppendInt(b, s.retries, 10)
	b = append(b, `,"output_count":`...)
	b = strconv.AppendInt(b, s.outputs, 10)
	b = append(b, `,"last_error":`...)
	if s.failure == nil {
		b = append(b, "null"...)
	} else {
		b = append(b, `{"label":`...)
		b = appendNullable(b, s.failure.Label)
		b = append(b, `,"message":`...)
		b = appendNullable(b, s.failure.Message)
		b = append(b, `,"params":`...)
		b = appendRaw(b, s.failure.Params)
		b = append(b, '}')
	}
	b = append(b, `,"parameters":`...)
	if s.extra != nil && s.extra.parameters != nil {
		b = appendRaw(b, s.extra.parameters)
	} else {
		b = appendParameters(b, s, r.key)
	}
	b = append(b, `,"callback":`...)
	switch {
	case s.extra != nil && s.extra.callback != nil:
		b = appendRaw(b, s.extra.callback)
	case s.mode == edges.ModeLive:
		b = append(b, "null"...)
	default:
		b = appendCallback(b, s, w.secret)
	}
	b = append(b, `,"user_uid":`...)
	b = appendNullable(b, s.user)
	b = append(b, `,"workspace_uid":`...)
	b = appendNullable(b, w.uid)
	b = append(b, `,"scheduled_run_uid":`...)
	b = appendNullable(b, s.schedule)
	b = append(b, `,"flow_run_id":`...)
	if s.flow == 0 {
		b = append(b, "null"...)
	} else {
		b = strconv.AppendInt(b, s.flow, 10)
	}
	b = appendTimes(b, s)
	b = append(b, `,"synced_at":`...)
	b = appendTime(b, s.synced)
	return append(b, '}')
}

// appendRunStatus writes the short form of the /status route.
func appendRunStatus(b []byte, r *run) []byte {
	s := r.shown
	b = append(b, `{"id":`...)
	b = strconv.AppendInt(b, s.id, 10)
	b = append(b, `,"uid":`...)
	b = appendString(b, r.uid)
	b = append(b, `,"status":`...)
	b = appendNullable(b, string(s.status))
	b = appendTimes(b, s)
	return append(b, '}')
}

func appendTimes(b []byte, s *row) []byte {
	b = append(b, `,"postponed_until":`...)
	b = appendTime(b, s.postponed)
	b = append(b, `,"created_at":`...)
	b = appendTime(b, s.created)
	b = append(b, `,"updated_at":`...)
	b = appendTime(b, s.updated)
	b = append(b, `,"started_at":`...)
	b = appendTime(b, s.started)
	b = append(b, `,"finished_at":`...)
	return appendTime(b, s.finished)
}

func appendTime(b []byte, ms int64) []byte {
	if ms == 0 {
		return append(b, "null"...)
	}
	return time.UnixMilli(ms).UTC().AppendFormat(b, `"2006-01-02T15:04:05.000Z"`)
}

func appendNullable(b []byte, s string) []byte {
	if s == "" {
		return append(b, "null"...)
	}
	return appendString(b, s)
}

func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			quoted, err := json.Marshal(s)
			if err != nil { // of a string there is none
				return append(b, "null"...)
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

func appendRaw(b []byte, raw json.RawMessage) []byte {
	if len(raw) == 0 {
		return append(b, "null"...)
	}
	return append(b, raw...)
}

// appendParameters makes up what the run was launched with: what the action
// takes, about someone who does not exist.
func appendParameters(b []byte, s *row, key uint64) []byte {
	h := mix(key)
	first := firstNames[h%uint64(len(firstNames))]
	last := lastNames[h>>16%uint64(len(lastNames))]
	b = append(b, `{"input":{"`...)
	b = append(b, s.action.inputField()...)
	b = append(b, `":"https://www.linkedin.com/in/`...)
	b = append(b, first...)
	b = append(b, '-')
	b = append(b, last...)
	b = append(b, '-')
	b = strconv.AppendUint(b, h&0xffffffff, 16)
	b = append(b, `"},"parameters":{"max_results":`...)
	b = strconv.AppendUint(b, 25*(1+h>>40%8), 10)
	b = append(b, `,"start_page":1,"skip_cache":false,"language":"en"},"identity_mode":"managed","identity_ids":["`...)
	b = appendUUID(b, h, mix(h))
	b = append(b, `"],"custom_data":{"list":"`...)
	b = append(b, last...)
	b = append(b, `-outreach","row":`...)
	b = strconv.AppendUint(b, h>>52, 10)
	return append(b, `}}`...)
}

func appendCallback(b []byte, s *row, secret string) []byte {
	b = append(b, `{"url":"https://hooks.example.com/edges/`...)
	b = strconv.AppendInt(b, s.action.id, 10)
	b = append(b, `","headers":{"Authorization":"Bearer cb-secret-`...)
	b = append(b, secret...)
	return append(b, `","X-Source":"edges"}}`...)
}

var (
	firstNames = [...]string{"ada", "bruno", "chloe", "dmitri", "elena", "farid", "greta", "hugo", "ines", "jonas", "kenza", "liam", "mara", "nils", "olga", "pablo"}
	lastNames  = [...]string{"abadi", "bergman", "castel", "duval", "eriksen", "fontaine", "garcia", "hoffmann", "ivanova", "jansen", "keller", "lambert", "moreau", "novak", "okafor", "petit"}
)

// mix spreads a number over 64 bits, so that neighbours have nothing in
// common (the finaliser of splitmix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// bits64 is a number as bits to mix.
func bits64[T int | int64](n T) uint64 {
	return uint64(n)
}

// uuid makes a version 4 UUID out of two numbers.
func uuid(a, b uint64) string { return string(appendUUID(make([]byte, 0, 36), a, b)) }

func appendUUID(dst []byte, a, b uint64) []byte {
	const digits = "0123456789abcdef"
	a = a&^0xf000 | 0x4000
	b = b&^(3<<62) | 2<<62
	for i := range 32 {
		switch i {
		case 8, 12, 16, 20:
			dst = append(dst, '-')
		}
		half := a
		if i >= 16 {
			half = b
		}
		dst = append(dst, digits[bits.RotateLeft64(half, 4*(i%16+1))&0xf])
	}
	return dst
}
