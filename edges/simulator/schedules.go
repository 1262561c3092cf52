package simulator

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/edges-exporter/edges_exporter/edges"
)

// ErrNoSchedule is the error of calls that name a schedule that is not there.
var ErrNoSchedule = errors.New("no such schedule")

// Schedule is a schedule as it really is.
type Schedule struct {
	UID      string               `json:"uid"`
	Name     string               `json:"name,omitempty"`
	Action   string               `json:"action"`
	Status   edges.ScheduleStatus `json:"status"`
	Cron     string               `json:"cron,omitempty"`
	Timezone string               `json:"timezone"`
	UserUID  string               `json:"user_uid"`
	// NextExecutionAt, LastExecutedAt and PostponedUntil are what the API
	// shows.
	NextExecutionAt time.Time `json:"next_execution_at,omitzero"`
	LastExecutedAt  time.Time `json:"last_executed_at,omitzero"`
	PostponedUntil  time.Time `json:"postponed_until,omitzero"`
	CreatedAt       time.Time `json:"created_at"`
	UpdatedAt       time.Time `json:"updated_at"`
	// Executed is how often it has run.
	Executed int64 `json:"executed"`
	// Missed are the latest 1,000 times at which it should have run and did
	// not, or did so late only.
	Missed []time.Time `json:"missed,omitempty"`
}

// keptMisses is how many missed times are kept of a schedule.
const keptMisses = 1000

// schedule launches runs of an action at set times.
type schedule struct {
	uid      string
	name     string
	user     string
	action   *action
	status   edges.ScheduleStatus
	cron     string
	location *time.Location
	// times is when it runs again and again; nil for one that runs once, or
	// never.
	times cron.Schedule
	// perWeek is how often it fires in a week, if it is the workspace's own.
	perWeek float64
	// inputs is on how many inputs a program has it launch a run; 0 for the
	// workspace's own schedules, which launch as many runs as they need.
	inputs int64
	extra  *extra

	// fired counts how often its time has come.
	fired    uint64
	executed int64
	// due is when its time comes next, and last when it ran last.
	due, last, postponed int64
	created, updated     int64
	missed               []int64
}

// addIdleSchedules adds some schedules that do not run any more.
func (w *Workspace) addIdleSchedules(from int64) {
	for i, status := range []edges.ScheduleStatus{edges.SchedulePaused, edges.ScheduleCancelled, edges.ScheduleCompleted} {
		key := mix(w.seed ^ bits64(i)<<32 ^ 0x1d1e)
		a := w.actions[i]
		w.schedules = append(w.schedules, &schedule{
			uid: uuid(key, mix(key)), name: "old " + a.name, user: w.users[i], action: a, status: status, cron: "0 6 * * *", location: w.location,
			created: from - 30*dayMillis, updated: from - dayMillis, last: from - dayMillis,
		})
	}
}

// planFiring plans the next time of a schedule.
func (w *Workspace) planFiring(index int, after int64) {
	sc := w.schedules[index]
	sc.due = 0
	if sc.times == nil {
		return
	}
	if next := sc.times.Next(time.UnixMilli(after).In(sc.location)); !next.IsZero() {
		sc.due = next.UnixMilli()
		w.agenda.push(event{at: sc.due, kind: eventFire, source: index})
	}
}

// fire is what happens when a schedule's time has come.
func (w *Workspace) fire(index int, at int64) {
	sc := w.schedules[index]
	sc.fired++
	switch t := w.missing(sc, index, at); {
	case sc.status != edges.ScheduleActive:
	case t == nil:
		w.execute(index, at)
	default:
		sc.missed = append(sc.missed, at)
		if len(sc.missed) >= 2*keptMisses {
			sc.missed = slices.Delete(sc.missed, 0, keptMisses)
		}
		if t.Delay > 0 {
			sc.postponed, sc.updated = at+t.Delay.Milliseconds(), at
			w.agenda.push(event{at: sc.postponed, kind: eventFireLate, source: index})
		}
	}
}

// missing returns the trouble that keeps a schedule from running, or nil.
func (w *Workspace) missing(sc *schedule, index int, at int64) *Trouble {
	t := w.trouble(KindMissSchedule, sc.action.name, at)
	if t == nil || unit(mix(w.seed^bits64(index)<<32^sc.fired^mix(bits64(t.ID)))) >= t.Share {
		return nil
	}
	return t
}

// fireLate lets a schedule run that was postponed, unless it has been postponed
// anew.
func (w *Workspace) fireLate(index int, at int64) {
	if sc := w.schedules[index]; sc.postponed == at {
		sc.postponed = 0
		if sc.status == edges.ScheduleActive {
			w.execute(index, at)
		}
	}
}

// execute is a schedule's launch.
func (w *Workspace) execute(index int, at int64) {
	sc := w.schedules[index]
	a := sc.action
	sc.executed++
	sc.last, sc.updated = at, at
	key := mix(w.seed^bits64(index)<<32^0xf1) + sc.fired<<16
	if sc.inputs > 0 {
		if sc.times == nil {
			sc.status = edges.ScheduleCompleted
		}
		w.launchOn(a, sc, sc.user, sc.inputs, sc.extra, key, at)
		return
	}
	w.pcg.Seed(key, 0)
	mean := w.pace(at) * 7 * a.share * a.scheduled / float64(len(a.crons)) / sc.perWeek
	n := min(poisson(mean, w.rng), 400)
	if w.trouble(KindQuiet, a.name, at) != nil {
		return
	}
	for i := range n {
		w.launch(a, false, sc, sc.user, 0, i, key+uint64(i), at)
	}
}

// next is the next_execution_at that the API shows.
func (w *Workspace) next(sc *schedule) int64 {
	if sc.status != edges.ScheduleActive {
		return 0
	}
	if n := len(sc.missed); n > 0 && sc.missed[n-1] > sc.last {
		// Whatever should have moved it on is what does not work.
		if t := w.trouble(KindMissSchedule, sc.action.name, w.now); t != nil && !t.Drop && t.Delay == 0 {
			first, _ := slices.BinarySearch(sc.missed, max(sc.last+1, t.from))
			if first < n {
				return sc.missed[first]
			}
		}
	}
	return sc.due
}

func (w *Workspace) exportSchedule(sc *schedule) Schedule {
	x := Schedule{
		UID: sc.uid, Name: sc.name, Action: sc.action.name, Status: sc.status, Cron: sc.cron, Timezone: sc.location.String(), UserUID: sc.user,
		NextExecutionAt: fromMillis(w.next(sc)), LastExecutedAt: fromMillis(sc.last), PostponedUntil: fromMillis(sc.postponed),
		CreatedAt: fromMillis(sc.created), UpdatedAt: fromMillis(sc.updated), Executed: sc.executed,
	}
	for _, at := range sc.missed[max(0, len(sc.missed)-keptMisses):] {
		x.Missed = append(x.Missed, fromMillis(at))
	}
	return x
}

// Schedules returns the schedules as they really are.
func (w *Workspace) Schedules() []Schedule {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	all := make([]Schedule, 0, len(w.schedules))
	for _, sc := range w.schedules {
		all = append(all, w.exportSchedule(sc))
	}
	return all
}

// SetScheduleStatus pauses a schedule, lets it go on, or ends it. Unknown uids
// give ErrNoSchedule.
func (w *Workspace) SetScheduleStatus(uid string, status edges.ScheduleStatus) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	sc := w.scheduleByUID(uid)
	if sc == nil {
		return fmt.Errorf("set the status of schedule %s: %w", uid, ErrNoSchedule)
	}
	sc.status, sc.updated = status, w.now
	return nil
}

func (w *Workspace) scheduleByUID(uid string) *schedule {
	i := slices.IndexFunc(w.schedules, func(sc *schedule) bool { return sc.uid == uid })
	if i < 0 {
		return nil
	}
	return w.schedules[i]
}

func (w *Workspace) scheduleEndpoints() []endpoint {
	const group = "schedules"
	return []endpoint{
		{method: http.MethodGet, path: "/v1/schedules", group: group, handle: w.listSchedules},
		{method: http.MethodGet, path: "/v1/schedules/{uid}", group: group, handle: w.getSchedule},
	}
}

func (w *Workspace) listSchedules(r *http.Request) ([]byte, *problem) {
	v := r.URL.Query()
	part, p := parsePart(v, maxLimit, func(field string) bool { return w.scheduleField(field) != nil })
	if p != nil {
		return nil, p
	}
	for _, s := range v["status"] {
		if !slices.Contains(edges.ScheduleStatuses(), edges.ScheduleStatus(s)) {
			return nil, invalid("status", fmt.Sprintf("%q is not a status of a schedule", s))
		}
	}
	for _, name := range []string{"uid", "user_uid"} {
		for _, u := range v[name] {
			if !isUUID(u) {
				return nil, invalid(name, fmt.Sprintf("%q is not a UUID", u))
			}
		}
	}
	var found []*schedule
	for _, sc := range slices.Backward(w.schedules) {
		if anyOf(v["uid"], sc.uid) && anyOf(v["status"], string(sc.status)) && anyOf(v["user_uid"], sc.user) {
			found = append(found, sc)
		}
	}
	return writePage(cutPage(found, part, w.scheduleField), w.appendSchedule), nil
}

func (w *Workspace) getSchedule(r *http.Request) ([]byte, *problem) {
	sc := w.scheduleByUID(r.PathValue("uid"))
	if sc == nil {
		return nil, notFound("schedule")
	}
	return w.appendSchedule(nil, sc), nil
}

// scheduleField returns how two schedules compare in a field, or nil for a
// field that they cannot be sorted by.
func (w *Workspace) scheduleField(name string) func(a, b *schedule) int {
	times := func(of func(*schedule) int64) func(a, b *schedule) int {
		return func(a, b *schedule) int { return cmp.Compare(of(a), of(b)) }
	}
	texts := func(of func(*schedule) string) func(a, b *schedule) int {
		return func(a, b *schedule) int { return strings.Compare(of(a), of(b)) }
	}
	switch name {
	case "created_at":
		return times(func(sc *schedule) int64 { return sc.created })
	case "updated_at":
		return times(func(sc *schedule) int64 { return sc.updated })
	case "next_execution_at":
		return times(w.next)
	case "last_executed_at":
		return times(func(sc *schedule) int64 { return sc.last })
	case "uid":
		return texts(func(sc *schedule) string { return sc.uid })
	case "name":
		return texts(func(sc *schedule) string { return sc.name })
	case "action_name":
		return texts(func(sc *schedule) string { return sc.action.name })
	case "status":
		return texts(func(sc *schedule) string { return string(sc.status) })
	}
	return nil
}

func (w *Workspace) appendSchedule(b []byte, sc *schedule) []byte {
	b = append(b, `{"uid":`...)
	b = appendString(b, sc.uid)
	b = append(b, `,"name":`...)
	b = appendNullable(b, sc.name)
	b = append(b, `,"action_id":`...)
	b = strconv.AppendInt(b, sc.action.id, 10)
	b = append(b, `,"action_name":`...)
	b = appendString(b, sc.action.name)
	b = append(b, `,"status":`...)
	b = appendString(b, string(sc.status))
	b = append(b, `,"cron":`...)
	b = appendNullable(b, sc.cron)
	b = append(b, `,"timezone":`...)
	b = appendString(b, sc.location.String())
	for _, t := range []struct {
		name string
		at   int64
	}{
		{"next_execution_at", w.next(sc)},
		{"last_executed_at", sc.last},
		{"postponed_until", sc.postponed},
		{"created_at", sc.created},
		{"updated_at", sc.updated},
	} {
		b = append(b, ',')
		b = appendString(b, t.name)
		b = append(b, ':')
		b = appendTime(b, t.at)
	}
	b = append(b, `,"user_uid":`...)
	b = appendString(b, sc.user)
	b = append(b, `,"workspace_uid":`...)
	b = appendString(b, w.uid)
	return append(b, '}')
}

// anyOf reports whether a filter lets a value through.
func anyOf(filter []string, value string) bool {
	return len(filter) == 0 || slices.Contains(filter, value)
}
