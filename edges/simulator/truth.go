package simulator

import (
	"iter"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
)

// Entry is the entry of a run into a status.
type Entry struct {
	// Seq numbers the entries from 0 in the order in which they happened.
	Seq    int64  `json:"seq"`
	UID    string `json:"uid"`
	Action string `json:"action"`
	// Mode is LIVE, ASYNC, SCHEDULE for runs that a schedule started, or
	// unknown.
	Mode   string       `json:"mode"`
	Status edges.Status `json:"status"`
	// Error is the label of last_error on entry.
	Error string `json:"error,omitempty"`
	// New tells the entry with which the run came into being.
	New bool `json:"new,omitempty"`
	// At is when the status was entered: finished_at for an end, started_at
	// for RUNNING, created_at for CREATED, else updated_at, or created_at
	// where that is null.
	At time.Time `json:"at"`
	// Visible is when the API began to show it. An entry that the run's next
	// one has overtaken by then was never seen: both have the same Visible.
	Visible    time.Time `json:"visible"`
	CreatedAt  time.Time `json:"created_at"`
	StartedAt  time.Time `json:"started_at,omitzero"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
	// Outputs and Retries are the run's counts on entry.
	Outputs int64 `json:"outputs"`
	Retries int64 `json:"retries"`
}

// Truth is what has really happened in a workspace.
type Truth struct {
	// Now is when the truth was told; everything up to it has happened.
	Now time.Time `json:"now"`
	// StartedAt is when the workspace began to live; what is older is its
	// made-up past.
	StartedAt time.Time `json:"started_at"`
	// Missing is how many of the entries from the first on are not kept.
	Missing int64 `json:"missing"`
	// Entries are the entries that are kept, in the order in which they
	// happened.
	Entries []Entry `json:"entries"`
	// Runs are the runs that are there, the oldest first, as they are, even
	// if the API does not show their latest change yet.
	Runs []Run `json:"runs"`
	// Callbacks are the deliveries that are there, the oldest first.
	Callbacks []Callback `json:"callbacks"`
	// Schedules are the schedules, with what they have missed.
	Schedules []Schedule `json:"schedules"`
}

// truthLog keeps entries, all of them or at least the latest keptEntries.
type truthLog struct {
	entries []entry
	missing int64
}

// keptEntries is how many entries are kept without KeepTruth.
const keptEntries = 50_000

type entry struct {
	uid                                     string
	action                                  *action
	mode                                    string
	status                                  edges.Status
	label                                   string
	at, visible, created, started, finished int64
	outputs, retries                        int64
	isNew                                   bool
}

// enter writes down that r has come into its status.
func (w *Workspace) enter(r *run, isNew bool) {
	e := entry{
		uid: r.uid, action: r.action, mode: r.modeLabel(), status: r.status, visible: r.visibleAt,
		created: r.created, started: r.started, finished: r.finished, outputs: r.outputs, retries: r.retries, isNew: isNew,
		at: r.updated,
	}
	if r.failure != nil {
		e.label = r.failure.Label
	}
	switch {
	case r.status.Ended() && r.finished != 0:
		e.at = r.finished
	case r.status == edges.StatusRunning && r.started != 0:
		e.at = r.started
	case r.status == edges.StatusCreated:
		e.at = r.created
	}
	if e.at == 0 {
		e.at = r.created
	}
	log := &w.truth
	if !w.keepTruth && (w.now < w.startedAt || len(log.entries) >= 2*keptEntries) {
		drop := max(0, len(log.entries)-keptEntries)
		if w.now < w.startedAt {
			log.missing++
			return
		}
		log.missing += int64(drop)
		log.entries = append(log.entries[:0], log.entries[drop:]...)
	}
	log.entries = append(log.entries, e)
}

func (e *entry) export(seq int64) Entry {
	return Entry{
		Seq: seq, UID: e.uid, Action: e.action.name, Mode: e.mode, Status: e.status, Error: e.label, New: e.isNew,
		At: fromMillis(e.at), Visible: fromMillis(e.visible), CreatedAt: fromMillis(e.created),
		StartedAt: fromMillis(e.started), FinishedAt: fromMillis(e.finished), Outputs: e.outputs, Retries: e.retries,
	}
}

// Truth tells what has really happened up to the clock's present.
func (w *Workspace) Truth() Truth { return w.truthFrom(0, true) }

// truthFrom tells the truth without the entries before number seq, and with or
// without the runs, callbacks and schedules.
func (w *Workspace) truthFrom(seq int64, runs bool) Truth {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	t := Truth{
		Now: fromMillis(w.now), StartedAt: fromMillis(w.startedAt), Missing: w.truth.missing,
		Entries: make([]Entry, 0, max(0, w.truth.missing+int64(len(w.truth.entries))-max(seq, w.truth.missing))), Runs: []Run{}, Callbacks: []Callback{}, Schedules: []Schedule{},
	}
	for e := range w.entries(seq) {
		t.Entries = append(t.Entries, e)
	}
	if runs {
		t.Runs = make([]Run, 0, len(w.byUID))
		for r := range w.inOrder() {
			t.Runs = append(t.Runs, r.export())
		}
		for _, d := range w.deliveries {
			t.Callbacks = append(t.Callbacks, d.export())
		}
		for _, sc := range w.schedules {
			t.Schedules = append(t.Schedules, w.exportSchedule(sc))
		}
	}
	return t
}

// Entries goes through the entries that are kept, from number seq on, without
// a copy of them all. The workspace stands still meanwhile: the loop must not
// call it.
func (w *Workspace) Entries(seq int64) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.catchUp()
		w.entries(seq)(yield)
	}
}

func (w *Workspace) entries(seq int64) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for i := max(0, seq-w.truth.missing); i < int64(len(w.truth.entries)); i++ {
			if !yield(w.truth.entries[i].export(w.truth.missing + i)) {
				return
			}
		}
	}
}
