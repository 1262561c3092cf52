package main

import (
	"context"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// memory holds recorded series. Prometheus' own storage wants all series to
// go on together, but here each rule is a day ahead of the next one.
type memory struct {
	byName map[string]map[string]*memorySeries
}

type memorySeries struct {
	labels labels.Labels
	points []promql.FPoint
}

// append adds points of a stretch of time. Where a point is missing the series
// is marked as stale, as Prometheus does.
func (m *memory) append(name string, l labels.Labels, points []promql.FPoint, to time.Time, every time.Duration) {
	if m.byName[name] == nil {
		m.byName[name] = map[string]*memorySeries{}
	}
	s := m.byName[name][l.String()]
	if s == nil {
		s = &memorySeries{labels: l}
		m.byName[name][l.String()] = s
	}
	stale := math.Float64frombits(value.StaleNaN)
	for i, p := range points {
		s.points = append(s.points, p)
		next := to.UnixMilli() + 1
		if i+1 < len(points) {
			next = points[i+1].T
		}
		if after := p.T + every.Milliseconds(); after < next {
			s.points = append(s.points, promql.FPoint{T: after, F: stale})
		}
	}
}

// forget drops what no rule will read: only the hourly counts, and the waiting
// BLOCKED runs, are read over a week.
func (m *memory) forget(now time.Time) {
	for name, all := range m.byName {
		keep := 7 * time.Hour
		for key, s := range all {
			k := keep
			if s.labels.Get("window") == "1h" || name == "edges:blocked:unattended" {
				k = 9 * 24 * time.Hour
			}
			before := now.Add(-k).UnixMilli()
			i := sort.Search(len(s.points), func(i int) bool { return s.points[i].T >= before })
			s.points = slices.Clone(s.points[i:])
			if len(s.points) == 0 {
				delete(all, key)
			}
		}
	}
}

// querier answers from the memory for what is recorded, and from the scraped
// blocks for the rest.
type querier struct {
	storage.Querier
	recorded   *memory
	mint, maxt int64
}

// Select returns the series that match.
func (q *querier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	i := slices.IndexFunc(matchers, func(m *labels.Matcher) bool { return m.Name == model.MetricNameLabel })
	all := q.recorded.byName[matchers[i].Value]
	if all == nil {
		return q.Querier.Select(ctx, sorted, hints, matchers...)
	}
	mint, maxt := q.mint, q.maxt
	if hints != nil {
		mint, maxt = hints.Start, hints.End
	}
	set := &seriesSet{at: -1}
	for _, s := range all {
		if slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(s.labels.Get(m.Name)) }) {
			continue
		}
		from := sort.Search(len(s.points), func(i int) bool { return s.points[i].T >= mint })
		to := sort.Search(len(s.points), func(i int) bool { return s.points[i].T > maxt })
		if from == to {
			continue
		}
		samples := make([]chunks.Sample, 0, to-from)
		for _, p := range s.points[from:to] {
			samples = append(samples, point{p})
		}
		set.all = append(set.all, storage.NewListSeries(s.labels, samples))
	}
	if sorted {
		slices.SortFunc(set.all, func(a, b storage.Series) int { return labels.Compare(a.Labels(), b.Labels()) })
	}
	return set
}

type seriesSet struct {
	all []storage.Series
	at  int
}

func (s *seriesSet) Next() bool                        { s.at++; return s.at < len(s.all) }
func (s *seriesSet) At() storage.Series                { return s.all[s.at] }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }

// point is a sample of a recorded series.
type point struct{ p promql.FPoint }

func (p point) T() int64                      { return p.p.T }
func (p point) ST() int64                     { return 0 }
func (p point) F() float64                    { return p.p.F }
func (p point) H() *histogram.Histogram       { return nil }
func (p point) FH() *histogram.FloatHistogram { return nil }
func (p point) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (p point) Copy() chunks.Sample           { return p }
