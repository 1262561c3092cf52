package simulator

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
)

// ErrNoRun is the error of calls that name a run that is not there.
var ErrNoRun = errors.New("no such run")

// Actions returns the names of the workspace's actions, the busiest first.
func (w *Workspace) Actions() []string {
	names := make([]string, len(w.actions))
	for i, a := range w.actions {
		names[i] = a.name
	}
	return names
}

// UID returns the uid of the workspace itself.
func (w *Workspace) UID() string { return w.uid }

// Launch launches a run of one of the workspace's actions, in mode LIVE, ASYNC
// or SCHEDULE, and returns its uid. From then on it lives as its like do; a
// live run may show only when it is over.
func (w *Workspace) Launch(action, mode string) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	a := w.byName[action]
	if a == nil || a.share == 0 {
		return "", fmt.Errorf("launch %q: no such action", action)
	}
	var sc *schedule
	switch mode {
	case edges.ModeLive, edges.ModeAsync:
	case ModeSchedule:
		j := slices.IndexFunc(w.schedules, func(s *schedule) bool { return s.action == a && s.times != nil })
		if j < 0 {
			return "", fmt.Errorf("launch %q: the action has no schedule", action)
		}
		sc = w.schedules[j]
	default:
		return "", fmt.Errorf("launch %q: mode %q is not LIVE, ASYNC or SCHEDULE", action, mode)
	}
	return w.launch(a, mode == edges.ModeLive, sc, w.users[0], 0, 0, w.putKey(), w.now).uid, nil
}

// putKey returns the key of a run that does not come from the workspace's own
// life, so that its life stays what it is.
func (w *Workspace) putKey() uint64 {
	w.puts++
	return mix(w.seed^0x9e7) + w.puts
}

// Put puts a run into the workspace and returns its uid. The run is as the
// caller says and has no life of its own. A missing uid and id are made up, a
// missing created_at is now, as is updated_at unless NoUpdatedAt is set. A run
// with the same uid is replaced.
func (w *Workspace) Put(x Run) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	return w.put(x)
}

// PutAll puts runs in as Put does, in the same millisecond.
func (w *Workspace) PutAll(all []Run) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	uids := make([]string, len(all))
	w.bulk = true
	for i, x := range all {
		if w.byUID[x.UID] != nil {
			w.rank() // it may be one of these
		}
		uids[i] = w.put(x)
	}
	w.bulk = false
	w.rank()
	return uids
}

func (w *Workspace) put(x Run) string {
	key := w.putKey()
	if x.UID == "" {
		x.UID = uuid(mix(w.seed^key), mix(key+0x51ed))
	}
	now := fromMillis(w.now)
	if x.CreatedAt.IsZero() {
		x.CreatedAt = now
	}
	stamp(&x, now)
	if r := w.byUID[x.UID]; r != nil {
		r.gen++
		w.change(r, w.now, func() {
			if x.ID == 0 {
				x.ID = r.id
			}
			r.row = w.rowOf(x)
		})
		return x.UID
	}
	if x.ID == 0 {
		w.nextID++
		x.ID = w.nextID
	}
	w.add(&run{uid: x.UID, key: key, row: w.rowOf(x)}, w.now)
	return x.UID
}

// stamp sets updated_at where it is missing but not meant to be.
func stamp(x *Run, now time.Time) {
	if x.NoUpdatedAt {
		x.UpdatedAt = time.Time{}
	} else if x.UpdatedAt.IsZero() {
		x.UpdatedAt = now
	}
}

// Change changes a run by f and stamps it with the clock's time, unless f sets
// UpdatedAt or NoUpdatedAt. From then on the run has no life of its own. A uid
// that f changes is ignored. Unknown uids give ErrNoRun.
func (w *Workspace) Change(uid string, f func(*Run)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	r := w.byUID[uid]
	if r == nil {
		return fmt.Errorf("change run %s: %w", uid, ErrNoRun)
	}
	x := r.export()
	before := x.UpdatedAt
	x.NoUpdatedAt = false
	f(&x)
	if x.UpdatedAt.Equal(before) {
		x.UpdatedAt = time.Time{}
	}
	stamp(&x, fromMillis(w.now))
	r.gen++
	w.change(r, w.now, func() { r.row = w.rowOf(x) })
	return nil
}

// Resume does what the API's resume does, to any run. Unknown uids give
// ErrNoRun.
func (w *Workspace) Resume(uid string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	r := w.byUID[uid]
	if r == nil {
		return fmt.Errorf("resume run %s: %w", uid, ErrNoRun)
	}
	w.resume(r, w.now)
	return nil
}

// Remove takes runs out of the workspace, as if they had never been, and
// returns how many of them were there. What they did stays in the truth.
func (w *Workspace) Remove(uids ...string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	n := 0
	for _, uid := range uids {
		if r := w.byUID[uid]; r != nil {
			w.drop(r)
			n++
		}
	}
	return n
}

// RemoveLatest removes the n runs that were updated last, and returns their
// uids.
func (w *Workspace) RemoveLatest(n int) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	var uids []string
	for range min(n, w.byUpdated.len()) {
		r := w.byUpdated.at(w.byUpdated.len() - 1)
		uids = append(uids, r.uid)
		w.drop(r)
	}
	return uids
}

// Touch stamps the n runs that were updated last with one and the same
// updated_at and synced_at, without changing anything else, and returns how
// many there were.
func (w *Workspace) Touch(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	n = max(0, min(n, w.byUpdated.len()))
	latest := make([]*run, n)
	for i := range latest {
		latest[i] = w.byUpdated.at(w.byUpdated.len() - 1 - i)
	}
	for _, r := range latest {
		w.change(r, w.now, func() { r.synced, r.updated = w.now, w.now })
	}
	return n
}

// Get returns a run as it is, even if the API does not show its latest change
// yet. Unknown uids give ErrNoRun.
func (w *Workspace) Get(uid string) (Run, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	r := w.byUID[uid]
	if r == nil {
		return Run{}, fmt.Errorf("get run %s: %w", uid, ErrNoRun)
	}
	return r.export(), nil
}

// inOrder goes through all runs, the oldest first, also those that the API
// does not show yet.
func (w *Workspace) inOrder() iter.Seq[*run] {
	all := make([]*run, 0, len(w.byUID))
	for _, r := range w.byUID {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *run) int { return cmp.Compare(a.ord, b.ord) })
	return slices.Values(all)
}

// State is a workspace at a glance.
type State struct {
	Now           time.Time            `json:"now"`
	StartedAt     time.Time            `json:"started_at"`
	WorkspaceUID  string               `json:"workspace_uid"`
	Plan          string               `json:"plan"`
	Runs          int                  `json:"runs"`
	Statuses      map[edges.Status]int `json:"statuses"`
	Answers       map[int]int64        `json:"answers"` // by status code, 0 for dropped connections
	Troubles      []Trouble            `json:"troubles"`
	TruthEntries  int64                `json:"truth_entries"`
	PlannedEvents int                  `json:"planned_events"`
}

// State returns the workspace at a glance.
func (w *Workspace) State() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	s := State{
		Now: fromMillis(w.now), StartedAt: fromMillis(w.startedAt), WorkspaceUID: w.uid, Plan: w.config.Plan, Runs: w.byCreated.len(),
		Statuses: make(map[edges.Status]int), Answers: make(map[int]int64), Troubles: make([]Trouble, 0, len(w.troubles)),
		TruthEntries: w.truth.missing + int64(len(w.truth.entries)), PlannedEvents: len(w.agenda.heap),
	}
	if s.Plan == "" {
		s.Plan = "unlimited"
	}
	for _, status := range edges.Statuses() {
		s.Statuses[status] = 0
	}
	for i := range w.byCreated.len() {
		s.Statuses[w.byCreated.at(i).shown.status]++
	}
	for code, n := range w.answered {
		s.Answers[code] = n
	}
	for _, t := range w.troubles {
		s.Troubles = append(s.Troubles, *t)
	}
	return s
}
