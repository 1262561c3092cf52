package simulator

// eventKind says what an event does.
type eventKind uint8

const (
	eventArrive   eventKind = iota // a launch in an action
	eventFire                      // a schedule's time has come
	eventQueue                     // a created run is accepted
	eventStart                     // a run starts
	eventProgress                  // a run reports results
	eventFinish                    // a run ends or is blocked
	eventResume                    // a person resumes a run
	eventStop                      // a person gives a run up
	eventPublish                   // a late commit becomes visible
	eventSync                      // runs are stamped in bulk
	eventFireLate                  // a schedule that was held back runs
	eventSend                      // a delivery is tried
	eventSent                      // the webhook answers
	eventReplay                    // a person has a delivery made again
)

// event is something that will happen. Events of the same millisecond happen
// in the order in which they were planned.
type event struct {
	at   int64
	seq  uint64
	kind eventKind
	// gen must be the run's own, or the run has been taken another way
	// since the event was planned.
	gen    uint32
	source int
	run    *run
	shown  *row
	// delivery is what the delivery's events are about.
	delivery *delivery
}

// agenda is a binary heap of events, the next one first.
type agenda struct {
	heap []event
	seq  uint64
}

func (a *agenda) less(i, j int) bool {
	x, y := &a.heap[i], &a.heap[j]
	return x.at < y.at || x.at == y.at && x.seq < y.seq
}

func (a *agenda) push(e event) {
	a.seq++
	e.seq = a.seq
	a.heap = append(a.heap, e)
	for i := len(a.heap) - 1; i > 0; {
		parent := (i - 1) / 2
		if !a.less(i, parent) {
			return
		}
		a.heap[i], a.heap[parent] = a.heap[parent], a.heap[i]
		i = parent
	}
}

// pop takes the next event, if it is not later than until.
func (a *agenda) pop(until int64) (event, bool) {
	if len(a.heap) == 0 || a.heap[0].at > until {
		return event{}, false
	}
	next := a.heap[0]
	last := len(a.heap) - 1
	a.heap[0] = a.heap[last]
	a.heap[last] = event{}
	a.heap = a.heap[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return next, true
		}
		if child+1 < last && a.less(child+1, child) {
			child++
		}
		if !a.less(child, i) {
			return next, true
		}
		a.heap[i], a.heap[child] = a.heap[child], a.heap[i]
		i = child
	}
}
