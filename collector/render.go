package collector

import (
	"cmp"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// publish renders what is committed, and makes it what scrapes get.
func (c *Collector) publish() {
	c.published = time.Now()
	r := renderer{
		Collector: c,
		id:        c.exposition.next(),
		workspace: pair(labelWorkspace.name(), c.cfg.Workspace),
	}
	var out []*dto.MetricFamily
	for i := range families {
		f := &families[i]
		mf := &dto.MetricFamily{Name: proto.String(f.name), Help: proto.String(f.help), Type: f.kind.dto().Enum()}
		mf.Metric = r.metrics(f)
		if len(mf.Metric) > 0 {
			out = append(out, mf)
		}
	}
	summary := c.summarise()
	c.summary.Store(&summary)
	c.exposition.publish(out)
}

func (c *Collector) summarise() State {
	s := State{
		Workspace:        c.cfg.Workspace,
		Up:               c.up,
		LastSuccess:      c.lastSuccess,
		LastError:        c.lastError,
		BackfillComplete: c.state.complete(),
		Runs:             c.ledger.value(keyOf(famLedgerRuns)),
		ByStatus:         map[string]int64{},
	}
	if c.state.T0 != 0 {
		s.Watermark = time.Unix(0, c.state.watermark())
	}
	for k, v := range c.ledger.series {
		if k.family == famRuns && v.value != 0 {
			s.ByStatus[c.ledger.labelValue(k, 2)] += v.value
		}
	}
	return s
}

// renderer turns the committed state into metric families.
type renderer struct {
	*Collector
	id        uint64
	workspace *dto.LabelPair
}

func (k kind) dto() dto.MetricType {
	switch k {
	case counter:
		return dto.MetricType_COUNTER
	case gauge:
		return dto.MetricType_GAUGE
	default:
		return dto.MetricType_HISTOGRAM
	}
}

// metrics are the samples of one family.
func (r *renderer) metrics(f *family) []*dto.Metric {
	if metrics, ok := r.besideMetrics(f); ok {
		return metrics
	}
	switch f.id {
	case famOldest:
		return r.oldest(f)
	case famProblem:
		return r.problems(f)
	case famUp:
		return r.gauge(boolean(r.up))
	case famLastSuccess:
		return r.time(r.lastSuccess)
	case famWatermark:
		if r.state.T0 == 0 {
			return nil
		}
		return r.time(time.Unix(0, r.state.watermark()))
	case famBackfill:
		return r.gauge(boolean(r.state.complete()))
	case famLedgerSize:
		return r.gauge(float64(r.ledger.bytes))
	case famBudget:
		if r.cfg.Budget == nil {
			return nil
		}
		return r.gauge(float64(r.cfg.Budget.PerMinute()))
	}
	keys := r.ledger.sorted(f)
	out := make([]*dto.Metric, 0, len(keys))
	for _, k := range keys {
		out = append(out, r.series(f, k))
	}
	return out
}

// series renders one stored series; a held one is shown at 0.
func (r *renderer) series(f *family, k seriesKey) *dto.Metric {
	s := r.ledger.series[k]
	if s.since == 0 {
		s.since = r.id
	}
	if s.labels == nil {
		s.labels = r.labels(f, k)
	}
	m := &dto.Metric{Label: s.labels}
	value := s.value
	if !s.released {
		value = 0
	}
	switch f.kind {
	case gauge:
		m.Gauge = &dto.Gauge{Value: proto.Float64(float64(s.value) * f.scale)}
	case counter:
		m.Counter = &dto.Counter{Value: proto.Float64(float64(value) * f.scale), CreatedTimestamp: millis(s.born)}
		if s.released && len(s.exemplars) == 1 {
			m.Counter.Exemplar = s.exemplars[0]
		}
	case histogramKind:
		h, exemplars := s.hist, s.exemplars
		if !s.released {
			h, exemplars = newHistogram(f.buckets), nil
		}
		m.Histogram = h.dto(f.buckets, exemplars, r.cfg.NativeHistograms)
		m.Histogram.CreatedTimestamp = millis(s.born)
	}
	return m
}

// labels makes the label pairs of a series, sorted by name.
func (r *renderer) labels(f *family, k seriesKey) []*dto.LabelPair {
	out := []*dto.LabelPair{r.workspace}
	for i, l := range f.labels {
		out = append(out, pair(l.name(), r.ledger.labelValue(k, i)))
	}
	return sortPairs(out)
}

func (r *renderer) oldest(f *family) []*dto.Metric {
	var out []*dto.Metric
	for _, k := range r.ledger.sorted(r.ledger.families[famRuns]) {
		if at, ok := r.ledger.oldest[k]; ok {
			out = append(out, &dto.Metric{
				Label: r.labels(f, seriesKey{family: famOldest, values: k.values}),
				Gauge: &dto.Gauge{Value: proto.Float64(unixSeconds(at))},
			})
		}
	}
	return out
}

func (r *renderer) problems(f *family) []*dto.Metric {
	out := make([]*dto.Metric, 0, len(r.ledger.problems))
	for _, p := range r.ledger.problems {
		values := [...]string{
			p.uid, r.ledger.dicts[labelAction].name(p.action), r.ledger.dicts[labelMode].name(p.mode),
			r.ledger.dicts[labelStatus].name(p.status), r.ledger.dicts[labelError].name(p.err),
		}
		labels := []*dto.LabelPair{r.workspace}
		for i, l := range f.labels {
			labels = append(labels, pair(l.name(), values[i]))
		}
		out = append(out, &dto.Metric{Label: sortPairs(labels), Gauge: &dto.Gauge{Value: proto.Float64(unixSeconds(p.entered))}})
	}
	return out
}

func (r *renderer) gauge(v float64) []*dto.Metric {
	return []*dto.Metric{{Label: []*dto.LabelPair{r.workspace}, Gauge: &dto.Gauge{Value: proto.Float64(v)}}}
}

// time renders a time; one that has not come yet is not shown.
func (r *renderer) time(t time.Time) []*dto.Metric {
	if t.IsZero() {
		return nil
	}
	return r.gauge(unixSeconds(t.UnixNano()))
}

func pair(name, value string) *dto.LabelPair {
	return &dto.LabelPair{Name: proto.String(name), Value: proto.String(value)}
}

func sortPairs(pairs []*dto.LabelPair) []*dto.LabelPair {
	slices.SortFunc(pairs, func(a, b *dto.LabelPair) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return pairs
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// unixSeconds converts Unix nanoseconds, to the millisecond: the API gives no
// more, and a float64 holds it exactly enough.
func unixSeconds(ns int64) float64 { return float64(ns/int64(time.Millisecond)) / 1e3 }

func millis(ms int64) *timestamppb.Timestamp { return timestamppb.New(time.UnixMilli(ms)) }

func timestamp(ns int64) *timestamppb.Timestamp { return timestamppb.New(time.Unix(0, ns)) }
