package simulator

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/edges-exporter/edges_exporter/edges"
)

const dayMillis = 24 * 60 * 60 * 1000

// source is where an action's live and async launches come from. Each has a
// generator of its own, so that nothing that happens elsewhere in the
// workspace changes when its runs are launched.
type source struct {
	action   *action
	rng      *rand.Rand
	launched uint64
}

// populate sets up the sources and schedules, from which everything that
// happens by itself follows.
func (w *Workspace) populate(from int64) error {
	for i, a := range w.actions {
		s := &source{action: a, rng: rand.New(rand.NewPCG(w.seed, mix(uint64(i)+1)))} //nolint:gosec // it has to be the same each time
		w.sources = append(w.sources, s)
		w.planArrival(i, from)
		for _, spec := range a.crons {
			times, err := cron.ParseStandard(spec)
			if err != nil {
				return fmt.Errorf("schedule of %s: %w", a.name, err)
			}
			key := mix(w.seed ^ uint64(len(w.schedules))<<32 ^ 0x5c)
			sc := &schedule{
				uid: uuid(key, mix(key)), user: w.users[key%uint64(len(w.users))], action: a, cron: spec, times: times,
				status: edges.ScheduleActive, location: w.location, created: from, updated: from,
			}
			week := time.Date(2024, 1, 1, 0, 0, 0, 0, w.location).Add(-time.Minute)
			for t := times.Next(week); t.Sub(week) <= 7*24*time.Hour; t = times.Next(t) {
				sc.perWeek++
			}
			w.schedules = append(w.schedules, sc)
			w.planFiring(len(w.schedules)-1, from)
		}
	}
	w.addIdleSchedules(from)
	if w.syncEvery > 0 {
		w.agenda.push(event{at: from + w.syncEvery, kind: eventSync})
	}
	return nil
}

// pace returns the runs per day at t, before rhythm.
func (w *Workspace) pace(t int64) float64 {
	if t < w.warmFrom {
		return w.historyPerDay
	}
	return w.runsPerDay
}

// launchesPerMilli is how often an action is launched, live or async, when it
// has perDay runs in all.
func (a *action) launchesPerMilli(perDay float64) float64 {
	return perDay / dayMillis * a.share * (a.live + (1-a.live-a.scheduled)/a.batch)
}

// planArrival plans the next launch of a source: a Poisson process whose rate
// follows the rhythm, by thinning.
func (w *Workspace) planArrival(source int, after int64) {
	s := w.sources[source]
	t := float64(after)
	for {
		rate := s.action.launchesPerMilli(w.pace(int64(t))) * busiest
		next := math.Inf(1)
		if rate > 0 {
			next = t + s.rng.ExpFloat64()/rate
		}
		if warm := float64(w.warmFrom); t < warm && next >= warm {
			t = warm // the pace changes here: from there on anew
			continue
		}
		if math.IsInf(next, 1) {
			return
		}
		t = next
		if s.rng.Float64()*busiest < w.busy(s.action, int64(t)) {
			w.agenda.push(event{at: int64(t) + 1, kind: eventArrive, source: source})
			return
		}
	}
}

// happen lets one event happen, at its own time.
func (w *Workspace) happen(e event) {
	switch e.kind {
	case eventArrive:
		w.arrive(e.source, e.at)
		w.planArrival(e.source, e.at)
	case eventFire:
		w.fire(e.source, e.at)
		w.planFiring(e.source, e.at)
	case eventFireLate:
		w.fireLate(e.source, e.at)
	case eventSend:
		w.trySending(e.delivery, e.at)
	case eventSent:
		w.sent(e.delivery, e.at)
	case eventReplay:
		w.deliver(e.delivery.runUID, e.delivery.action, e.delivery.url, e.delivery.uid(), mix(e.delivery.key^0x2e91a), e.at)
	case eventSync:
		w.sync(e.at)
		w.agenda.push(event{at: e.at + w.syncEvery, kind: eventSync})
	case eventPublish:
		w.publish(e.run, e.shown)
	default:
		if !e.run.removed && e.run.gen == e.gen {
			w.live(e.run, e.kind, e.at)
		}
	}
}

// live lets a run do the next thing of its life.
func (w *Workspace) live(r *run, kind eventKind, at int64) {
	switch kind {
	case eventQueue:
		w.accept(r, at)
	case eventStart:
		w.start(r, at)
	case eventProgress:
		w.progress(r, at)
	case eventFinish:
		w.finish(r, at)
	case eventResume:
		w.resume(r, at)
	case eventStop:
		w.stop(r, at)
	default: // the others are none of a run's
	}
}

// plan puts an event of r on the agenda. A share of them falls on the next
// full second, where it ties with others.
func (w *Workspace) plan(r *run, kind eventKind, at int64) {
	if w.ties > 0 && w.chance(r) < w.ties {
		at = (at + 999) / 1000 * 1000
	}
	w.agenda.push(event{at: at, kind: kind, run: r, gen: r.gen})
}

// arrive is a launch by the workspace's own programs or people.
func (w *Workspace) arrive(source int, at int64) {
	s := w.sources[source]
	a := s.action
	launches := 1
	if w.trouble(KindQuiet, a.name, at) != nil {
		launches = 0
	} else if t := w.trouble(KindBurst, a.name, at); t != nil {
		launches = int(t.Factor + unit(mix(w.seed^bits64(at))))
	}
	// The same is drawn from the source whatever the trouble, so that life goes
	// on as it would have gone without it.
	live := s.rng.Float64() < a.live/(a.live+(1-a.live-a.scheduled)/a.batch)
	n := 1
	if !live {
		n = min(1+int(s.rng.ExpFloat64()*(a.batch-0.5)), int(10*a.batch)+1)
	}
	user := w.users[s.rng.IntN(len(w.users))]
	flow := int64(0)
	if !live && s.rng.Float64() < 0.03 {
		flow = int64(1 + s.rng.IntN(40))
	}
	first := s.launched
	s.launched += uint64(n)
	for l := range launches {
		for i := range n {
			// Launches that a burst adds have keys of their own.
			key := mix(w.seed^a.keys()) + first + uint64(i) + uint64(l)<<48
			w.launch(a, live, nil, user, flow, i, key, at)
		}
	}
}

// keys returns where the action's runs have their keys.
func (a *action) keys() uint64 { return bits64(a.id) << 40 }

// launch makes the i-th run of a launch.
func (w *Workspace) launch(a *action, live bool, sc *schedule, user string, flow int64, i int, key uint64, at int64) *run {
	r := w.newRun(a, sc, user, nil, key, at)
	r.flow = flow
	rng := w.draw(r)
	invalid := rng.Float64() < a.invalid
	label := "BAD_INPUT"
	if t := w.trouble(KindInvalid, a.name, at); t != nil && w.hit(t, r) {
		invalid, label = true, t.Error
	}
	switch {
	case invalid:
		if live {
			r.mode = edges.ModeLive
		}
		r.status, r.finished, r.failure = edges.StatusInvalid, at, w.failure(label)
		w.add(r, at)
	case live:
		r.mode, r.status, r.started = edges.ModeLive, edges.StatusRunning, at
		// A live run is often written down only when it is over.
		if unseen := rng.Float64() < 0.6; unseen {
			w.begin(r, at)
		} else {
			w.add(r, at)
			w.begin(r, at)
		}
	default:
		if rng.Float64() < w.nullUpdated {
			r.updated = 0
		}
		wait := int64(1500*math.Exp(0.7*rng.NormFloat64())) + int64(i)*a.gap.Milliseconds()
		w.queue(r, wait, at)
	}
	return r
}

// queue writes down a run that has been made, and plans how it comes to start.
func (w *Workspace) queue(r *run, wait, at int64) {
	accepted := at + 60 + int64(mix(bits64(at))%190) // the whole launch at once
	w.add(r, at)
	w.agenda.push(event{at: accepted, kind: eventQueue, run: r})
	w.plan(r, eventStart, accepted+1+wait)
}

// accept takes a run that has been made into the queue.
func (w *Workspace) accept(r *run, at int64) {
	w.change(r, at, func() {
		r.status, r.updated = edges.StatusQueued, at
		if r.schedule != "" {
			r.status = edges.StatusScheduled
		}
	})
}

// start puts a waiting run to work, unless the queue has stalled; a blocked
// run is started by Edges' own retry.
func (w *Workspace) start(r *run, at int64) {
	rng := w.draw(r)
	if w.trouble(KindStall, r.action.name, at) != nil {
		w.plan(r, eventStart, at+3000+rng.Int64N(7000))
		return
	}
	w.change(r, at, func() {
		if r.status == edges.StatusBlocked {
			r.retries++
		}
		r.status, r.started, r.updated = edges.StatusRunning, at, at
		r.postponed, r.finished, r.failure = 0, 0, nil
	})
	w.begin(r, at)
}

// begin decides what a run that has just started comes to, and when.
func (w *Workspace) begin(r *run, at int64) {
	a, rng := r.action, w.draw(r)
	live := r.mode == edges.ModeLive
	length := a.duration(live, rng)
	if t := w.trouble(KindSlowRuns, a.name, at); t != nil && w.hit(t, r) {
		length = int64(float64(length) * t.Factor)
	}
	before := r.outcome
	r.outcome = a.draw(rng)
	if r.retries > 0 {
		// What blocked a run is mostly gone when Edges tries again.
		switch again := rng.Float64() < 0.25; {
		case !again:
			r.outcome = outcome{status: edges.StatusSucceeded}
		case r.retries >= 4:
			r.outcome = outcome{status: edges.StatusFailed, label: before.label}
		default:
			r.outcome = before
		}
	}
	r.goal = a.outputs(live, rng)
	if r.inputs > 1 {
		length = min(length+(r.inputs-1)*a.gap.Milliseconds(), (10 * time.Hour).Milliseconds())
		r.goal *= r.inputs
	}
	if s := r.outcome.status; s == edges.StatusFailed || s == edges.StatusBlocked {
		length = max(100, int64(float64(length)*(0.1+0.9*rng.Float64())))
	}
	if _, doomed := w.doom(r, at); doomed {
		length = 300 + rng.Int64N(4000)
	}
	r.due = at + length
	// A run that is not written down until it is over reports nothing.
	if r.ord != 0 && length > 20_000 && a.results > 1 {
		w.plan(r, eventProgress, at+progressStep(length))
	}
	w.plan(r, eventFinish, r.due)
}

// progressStep is the time between two reports of a run, in milliseconds.
func progressStep(length int64) int64 { return max(10_000, length/12) }

// progress is a run's report of the results that it has so far.
func (w *Workspace) progress(r *run, at int64) {
	// One that was moved to a full second may come after the end.
	if r.status != edges.StatusRunning || at >= r.due || w.stuck(r, at) {
		return
	}
	if w.trouble(KindEmpty, r.action.name, at) == nil {
		outputs := r.goal * (at - r.started) / max(1, r.due-r.started)
		w.change(r, at, func() { r.outputs, r.updated = max(r.outputs, outputs), at })
	}
	if next := at + progressStep(r.due-r.started); next < r.due {
		w.plan(r, eventProgress, next)
	}
}

// finish ends or blocks a run.
func (w *Workspace) finish(r *run, at int64) {
	if w.stuck(r, at) {
		w.agenda.push(event{at: at + 15_000, kind: eventFinish, run: r, gen: r.gen})
		return
	}
	rng := w.draw(r)
	o := r.outcome
	if fate, doomed := w.doom(r, at); doomed {
		o = fate
		r.outcome = fate
	}
	outputs := r.goal
	switch o.status {
	case edges.StatusPartialSucceeded:
		outputs = int64(float64(outputs) * (0.2 + 0.7*rng.Float64()))
	case edges.StatusFailed, edges.StatusBlocked:
		outputs = 0
	case edges.StatusStopped:
		outputs = int64(float64(outputs) * rng.Float64())
	}
	if t := w.trouble(KindEmpty, r.action.name, at); t != nil && w.hit(t, r) {
		outputs = 0
	}
	end := func() {
		r.status, r.failure, r.updated = o.status, w.failure(o.label), at
		r.outputs = max(r.outputs, outputs)
		r.finished = at
		if o.status == edges.StatusBlocked {
			r.finished = 0
			if wait := retryDelay(o.label, rng); wait > 0 {
				r.postponed = at + wait
			}
		}
	}
	if r.ord == 0 { // never written down until now
		end()
		w.add(r, at)
	} else {
		w.change(r, at, end)
	}

	switch {
	case r.status == edges.StatusBlocked && r.postponed != 0:
		w.plan(r, eventStart, r.postponed)
	case r.status == edges.StatusBlocked && r.flow == 0:
		switch u := rng.Float64(); {
		case u < 0.65:
			w.plan(r, eventResume, w.whenSomebodyLooks(at, rng))
		case u < 0.85:
			w.plan(r, eventStop, w.whenSomebodyLooks(at, rng))
		}
	case r.status == edges.StatusFailed && r.mode == edges.ModeAsync && r.flow == 0 && rng.Float64() < 0.04:
		w.plan(r, eventResume, w.whenSomebodyLooks(at, rng))
	}
	if hasCallback(r) {
		w.deliver(r.uid, r.action, callbackURL(r), "", mix(r.key^bits64(at)<<8), at)
	}
	if r.status.Ended() && w.syncEvery > 0 {
		w.unsynced = append(w.unsynced, r)
	}
}

// whenSomebodyLooks returns when a person gets round to a run: after some
// hours, when people work.
func (w *Workspace) whenSomebodyLooks(at int64, rng *rand.Rand) int64 {
	after := at + int64(2*3600*1000*math.Exp(0.9*rng.NormFloat64()))
	return officeTime(w.local(after), rng).UnixMilli() + rng.Int64N(60_000)
}

// resume is what the API's resume does: the run starts afresh.
func (w *Workspace) resume(r *run, at int64) {
	r.gen++
	w.change(r, at, func() {
		r.status, r.updated = edges.StatusScheduled, at
		r.failure, r.postponed, r.finished, r.retries = nil, 0, 0, 0
	})
	w.plan(r, eventStart, at+1000+w.draw(r).Int64N(15_000))
}

// stop is what the API's cancel does.
func (w *Workspace) stop(r *run, at int64) {
	r.gen++
	w.change(r, at, func() {
		r.status, r.finished, r.updated, r.postponed = edges.StatusStopped, at, at, 0
	})
}

// sync stamps the runs that have ended since the last time, all in the same
// millisecond, as if an export of them had been written.
func (w *Workspace) sync(at int64) {
	for _, r := range w.unsynced {
		if !r.removed && r.status.Ended() {
			w.change(r, at, func() { r.synced, r.updated = at, at })
		}
	}
	clear(w.unsynced)
	w.unsynced = w.unsynced[:0]
}

// poisson draws a number of events of which mean are expected.
func poisson(mean float64, rng *rand.Rand) int {
	if mean > 60 {
		return max(0, int(math.Round(mean+math.Sqrt(mean)*rng.NormFloat64())))
	}
	n, p := 0, rng.Float64()
	for limit := math.Exp(-mean); p > limit; n++ {
		p *= rng.Float64()
	}
	return n
}
