package collector

import (
	"sync"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
)

// Values of the result and reason labels.
const (
	resultSuccess = "success"
	resultError   = "error"

	correctionChanged = "changed"
	correctionGone    = "gone"
)

// maxAttempts bounds what a recorder holds between two commits.
const maxAttempts = 100_000

// endpointRuns is the endpoint that polls and audits use.
const endpointRuns = "runs"

// recorder gathers what the exporter counts of itself until it is committed
// with the next transaction: counters of the exporter survive a crash like
// those of the runs.
type recorder struct {
	mu       sync.Mutex
	attempts []edges.Attempt
}

// attempt is called by the client after each attempt on the wire.
func (r *recorder) attempt(a edges.Attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// A store that cannot be written must not make the memory grow.
	if len(r.attempts) < maxAttempts {
		r.attempts = append(r.attempts, a)
	}
}

// take empties the recorder.
func (r *recorder) take() []edges.Attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.attempts
	r.attempts = nil
	return a
}

// giveBack returns what could not be committed.
func (r *recorder) giveBack(a []edges.Attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attempts = append(a, r.attempts...)
}

// ownCounts is what one transaction adds to the exporter's own metrics.
type ownCounts struct {
	attempts  []edges.Attempt
	throttled time.Duration
	// result is that of a poll which has ended, else empty.
	result string
	took   time.Duration
}

// named is the key of a series whose label values are given as text.
func (c *changes) named(f familyID, values ...string) seriesKey {
	ids := make([]uint16, len(values))
	for i, v := range values {
		ids[i] = c.dicts[c.families[f].labels[i]].id(v)
	}
	return keyOf(f, ids...)
}

func (o ownCounts) book(c *changes) {
	if !c.has(keyOf(famThrottled)) {
		birthOwn(c)
	}
	for _, a := range o.attempts {
		c.add(c.named(famRequests, a.Endpoint, codeValue(a.Code)), 1, nil)
		c.observe(c.named(famRequestSeconds, a.Endpoint), int64(a.Duration), nil)
	}
	if o.throttled > 0 {
		c.add(keyOf(famThrottled), int64(o.throttled), nil)
	}
	if o.result != "" {
		c.add(c.named(famPolls, o.result), 1, nil)
		c.observe(keyOf(famPollDuration), int64(o.took), nil)
	}
}

// birthOwn makes the exporter's own series that can be named beforehand.
func birthOwn(c *changes) {
	c.birth(keyOf(famThrottled))
	c.birth(keyOf(famPollDuration))
	c.birth(keyOf(famLedgerRuns))
	c.birth(c.named(famPolls, resultSuccess))
	c.birth(c.named(famPolls, resultError))
	for _, d := range [...]edges.Defect{edges.DefectNoUID, edges.DefectBadTime, edges.DefectBadField, edges.DefectNotObject, defectTooLarge} {
		c.birth(c.named(famSkipped, string(d)))
	}
	c.birth(c.named(famAudit, correctionChanged))
	c.birth(c.named(famAudit, correctionGone))
	for _, code := range [...]int{200, 401, 402, 403, 429, 500, 503, 0} {
		c.birth(c.named(famRequests, endpointRuns, codeValue(code)))
	}
	c.birth(c.named(famRequestSeconds, endpointRuns))
}
