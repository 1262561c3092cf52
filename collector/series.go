package collector

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"
)

// seriesKey names one series: its family and the numbers of its label values,
// in the order of the family's labels.
type seriesKey struct {
	family familyID
	values [4]uint16
}

func keyOf(f familyID, values ...uint16) seriesKey {
	k := seriesKey{family: f}
	copy(k.values[:], values)
	return k
}

// bytes is the key of the series in the store.
func (k seriesKey) bytes() []byte {
	b := []byte{byte(k.family)}
	for _, v := range k.values {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return b
}

func parseSeriesKey(b []byte) (seriesKey, bool) {
	if len(b) != 9 {
		return seriesKey{}, false
	}
	k := seriesKey{family: familyID(b[0])}
	for i := range k.values {
		k.values[i] = binary.BigEndian.Uint16(b[1+2*i:])
	}
	return k, true
}

// series is one aggregate: what was counted, and how much of it may be shown.
//
// Prometheus' increase() does not see the first increment of a series that
// appears with a value. So a counter or histogram is shown at 0 from its birth
// until a scrape has seen that 0 and the zero-hold has passed.
type series struct {
	value int64
	hist  *histogram
	// born is when the series was made, seen when a scrape had seen its 0,
	// both in Unix milliseconds; seen is 0 until then.
	born, seen int64
	// released is set once the value may be shown. It is committed before it
	// is acted on, or a crash would make the shown value go back to 0.
	released bool

	// since is the number of the first snapshot that showed the series, 0
	// when none did yet. It is not stored.
	since uint64
	// exemplars are the latest run behind the counter, or behind each bucket.
	// They are not stored.
	exemplars []*dto.Exemplar
	// labels are the series' label pairs, made when it is first rendered.
	labels []*dto.LabelPair
}

func (s *series) clone() *series {
	c := *s
	if s.hist != nil {
		c.hist = s.hist.clone()
	}
	c.exemplars = slices.Clone(s.exemplars)
	return &c
}

// encode makes the series' value for the store. The key is in the checksum, so
// that no series is taken for another.
func (s *series) encode(key []byte) []byte {
	var released byte
	if s.released {
		released = 1
	}
	b := append(slices.Clone(key), released)
	b = binary.AppendVarint(b, s.value)
	b = binary.AppendVarint(b, s.born)
	b = binary.AppendVarint(b, s.seen)
	if s.hist != nil {
		b = s.hist.encode(b)
	}
	return seal(b)[len(key):]
}

var errSeries = errors.New("unreadable series")

// decodeSeries reads what encode wrote.
func decodeSeries(key, b []byte, f *family) (*series, error) {
	body, err := unseal(slices.Concat(key, b))
	if err != nil {
		return nil, err
	}
	if len(b) < 4 {
		return nil, errSeries
	}
	in := reader{b: body[len(key):]}
	s := &series{released: in.byte() == 1, value: in.varint(), born: in.varint(), seen: in.varint()}
	if in.bad {
		return nil, errSeries
	}
	if f.kind == histogramKind {
		if s.hist, err = decodeHistogram(in.b, f.buckets); err != nil {
			return nil, err
		}
		return s, nil
	}
	if len(in.b) != 0 {
		return nil, errSeries
	}
	return s, nil
}

// aggregates holds every series that is committed, and with it all that a
// scrape can show of runs.
type aggregates struct {
	dicts    dictionaries
	families map[familyID]*family
	series   map[seriesKey]*series
	// held are the series that are still shown at 0.
	held map[seriesKey]struct{}
	// order lists the series of a family by their labels' values; an entry is
	// dropped when a series is born, and made again when it is next needed.
	order map[familyID][]seriesKey
}

func newAggregates(dicts dictionaries) *aggregates {
	a := &aggregates{
		dicts:    dicts,
		families: make(map[familyID]*family, len(families)),
		series:   map[seriesKey]*series{},
		held:     map[seriesKey]struct{}{},
		order:    map[familyID][]seriesKey{},
	}
	for i := range families {
		a.families[families[i].id] = &families[i]
	}
	return a
}

// set makes a committed series the one that is shown.
func (a *aggregates) set(k seriesKey, s *series) {
	old := a.series[k]
	if old == nil {
		delete(a.order, k.family)
	} else {
		s.since = old.since
	}
	a.series[k] = s
	if s.released || a.families[k.family].kind == gauge {
		delete(a.held, k)
	} else {
		a.held[k] = struct{}{}
	}
}

// value is the committed value of a series, 0 if there is none.
func (a *aggregates) value(k seriesKey) int64 {
	if s := a.series[k]; s != nil {
		return s.value
	}
	return 0
}

// labelValue is the text of the i-th label of a series.
func (a *aggregates) labelValue(k seriesKey, i int) string {
	return a.dicts[a.families[k.family].labels[i]].name(k.values[i])
}

// sorted returns the series of a family, ordered by their labels.
func (a *aggregates) sorted(f *family) []seriesKey {
	if keys, ok := a.order[f.id]; ok {
		return keys
	}
	keys := []seriesKey{}
	for k := range a.series {
		if k.family == f.id {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(x, y seriesKey) int {
		for i := range f.labels {
			if c := strings.Compare(a.labelValue(x, i), a.labelValue(y, i)); c != 0 {
				return c
			}
		}
		return 0
	})
	a.order[f.id] = keys
	return keys
}

// changes collects what one transaction does to the aggregates. Nothing of it
// shows before the transaction is committed, and nothing is left of it when
// the transaction fails.
type changes struct {
	*aggregates
	touched map[seriesKey]*series
	// now is the exporter's clock, in Unix milliseconds.
	now int64
}

func (a *aggregates) change(now int64) *changes {
	return &changes{aggregates: a, touched: map[seriesKey]*series{}, now: now}
}

// get returns a series to be changed, and makes it if need be.
func (c *changes) get(k seriesKey) *series {
	if s := c.touched[k]; s != nil {
		return s
	}
	s := c.series[k]
	if s != nil {
		s = s.clone()
	} else {
		s = &series{born: c.now}
		if f := c.families[k.family]; f.kind == histogramKind {
			s.hist = newHistogram(f.buckets)
		}
	}
	c.touched[k] = s
	return s
}

// has reports whether a series exists.
func (c *changes) has(k seriesKey) bool {
	return c.series[k] != nil || c.touched[k] != nil
}

// birth makes a series if there is none.
func (c *changes) birth(k seriesKey) {
	if !c.has(k) {
		c.get(k)
	}
}

// add moves a counter or gauge. exemplar may be nil.
func (c *changes) add(k seriesKey, n int64, exemplar *dto.Exemplar) {
	s := c.get(k)
	s.value += n
	if exemplar != nil {
		s.exemplars = []*dto.Exemplar{exemplar}
	}
}

// observe counts a duration, in nanoseconds. exemplar may be nil.
func (c *changes) observe(k seriesKey, ns int64, exemplar *dto.Exemplar) {
	s, bounds := c.get(k), c.families[k.family].buckets
	i := s.hist.observe(bounds, ns)
	if exemplar != nil {
		if s.exemplars == nil {
			s.exemplars = make([]*dto.Exemplar, len(bounds)+1)
		}
		s.exemplars[i] = exemplar
	}
}

// release lets the values show of all series whose 0 was seen by a scrape and
// held long enough. seenAt tells when a scrape first got a snapshot of this
// number or a later one, in Unix milliseconds, 0 if none did; hold is in
// milliseconds.
func (c *changes) release(seenAt func(id uint64) int64, hold int64) {
	for k := range c.held {
		s := c.series[k]
		seen := s.seen
		if seen == 0 && s.since != 0 {
			seen = seenAt(s.since)
		}
		// A clock that was set back starts the hold anew.
		if seen = min(seen, c.now); seen == 0 {
			continue
		}
		if seen != s.seen {
			c.get(k).seen = seen
		}
		if c.now-seen >= hold {
			c.get(k).released = true
		}
	}
}

// commit makes the changes the state that is shown, after they were stored.
func (c *changes) commit() {
	for k, s := range c.touched {
		c.set(k, s)
	}
}

// exemplar makes the exemplar of a run: its uid beside the value it added.
func exemplar(uid string, value float64, at int64) *dto.Exemplar {
	// OpenMetrics allows 128 characters for an exemplar's labels in all.
	if len(uid)+len("run_uid") > 128 {
		return nil
	}
	e := &dto.Exemplar{
		Label: []*dto.LabelPair{{Name: proto.String("run_uid"), Value: proto.String(uid)}},
		Value: proto.Float64(value),
	}
	if at > 0 {
		e.Timestamp = timestamp(at)
	}
	return e
}
