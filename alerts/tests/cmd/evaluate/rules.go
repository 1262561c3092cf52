package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

// firing is an alert from its first moment to its last.
type firing struct {
	alert, severity string
	labels          map[string]string
	from, to        time.Time
}

// of names what the alert is about.
func (f firing) of() string {
	var parts []string
	for _, name := range []string{"action", "mode", "error", "reason"} {
		if v := f.labels[name]; v != "" {
			parts = append(parts, v)
		}
	}
	return strings.Join(parts, " ")
}

// evaluation runs rules over the past, a day at a time: each expression once
// over all moments of the day, after those that it reads. Moment by moment, as
// Prometheus does, it would take twenty times as long.
type evaluation struct {
	life     *life
	engine   *promql.Engine
	scraped  *tsdb.DB
	recorded *memory
	steps    []step
	alerts   map[string]*alertState
	out      []firing
}

// step is what is evaluated together: one rule, or those that read each other
// as they were a moment ago, which go moment by moment.
type step struct {
	rules  []rulefmt.Rule
	exprs  []parser.Expr
	inTurn bool
}

// evaluateRules evaluates the rules over the blocks, and returns what fired, in
// the order in which it began.
func evaluateRules(ctx context.Context, l *life, blocks string) (out []firing, err error) {
	log := slog.New(slog.DiscardHandler)
	options := tsdb.DefaultOptions()
	options.RetentionDuration = math.MaxInt64 / 2
	scraped, err := tsdb.Open(blocks, log, nil, options, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, scraped.Close()) }()
	scraped.DisableCompactions()
	p := parser.NewParser(parser.Options{})
	groups, errs := rulefmt.ParseFile(l.rules, false, model.UTF8Validation, p, log)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	e := &evaluation{
		life: l, scraped: scraped, recorded: &memory{byName: map[string]map[string]*memorySeries{}}, alerts: map[string]*alertState{},
		engine: promql.NewEngine(promql.EngineOpts{Logger: log, MaxSamples: 200_000_000, Timeout: 10 * time.Minute, LookbackDelta: 5 * time.Minute, Parser: p}),
	}
	defer func() { err = errors.Join(err, e.engine.Close()) }()
	if e.steps, err = plan(groups, p); err != nil {
		return nil, err
	}
	for day := range l.days {
		from := l.start.Add(time.Duration(day)*24*time.Hour + l.every)
		to := l.start.Add(time.Duration(day+1) * 24 * time.Hour)
		for _, s := range e.steps {
			if err := e.run(ctx, s, from, to); err != nil {
				return nil, err
			}
		}
		e.recorded.forget(to)
		fmt.Fprintf(os.Stderr, "%s: the rules of day %d of %d have been evaluated\n", l.name, day+1, l.days)
	}
	for _, a := range e.alerts {
		if a.firing != nil {
			e.out = append(e.out, *a.firing)
		}
	}
	slices.SortFunc(e.out, func(a, b firing) int {
		return cmp.Or(a.from.Compare(b.from), strings.Compare(a.alert+a.of(), b.alert+b.of()))
	})
	return e.out, nil
}

// plan puts the rules into an order in which each comes after those that it
// reads.
func plan(groups *rulefmt.RuleGroups, p parser.Parser) ([]step, error) {
	var waiting []step
	for _, g := range groups.Groups {
		joined := map[int]bool{}
		for i, r := range g.Rules {
			if joined[i] {
				continue
			}
			expr, err := p.ParseExpr(r.Expr)
			if err != nil {
				return nil, err
			}
			s := step{rules: []rulefmt.Rule{r}, exprs: []parser.Expr{expr}}
			if reads(expr, r) {
				// What it reads of later rules in its group is, like itself,
				// from the moment before.
				s.inTurn = true
				for j := i + 1; j < len(g.Rules); j++ {
					if later := g.Rules[j]; reads(expr, later) {
						laterExpr, err := p.ParseExpr(later.Expr)
						if err != nil {
							return nil, err
						}
						s.rules, s.exprs, joined[j] = append(s.rules, later), append(s.exprs, laterExpr), true
					}
				}
			}
			waiting = append(waiting, s)
		}
	}
	var out []step
	for len(waiting) > 0 {
		i := slices.IndexFunc(waiting, func(s step) bool {
			return !slices.ContainsFunc(waiting, func(other step) bool {
				return other.rules[0].Record+other.rules[0].Alert+other.rules[0].Expr != s.rules[0].Record+s.rules[0].Alert+s.rules[0].Expr && s.after(other)
			})
		})
		if i < 0 {
			return nil, fmt.Errorf("rules read each other in a circle, among them %s", waiting[0].rules[0].Record)
		}
		out = append(out, waiting[i])
		waiting = slices.Delete(waiting, i, i+1)
	}
	return out, nil
}

func (s step) after(other step) bool {
	for _, expr := range s.exprs {
		if slices.ContainsFunc(other.rules, func(r rulefmt.Rule) bool { return reads(expr, r) }) {
			return true
		}
	}
	return false
}

// reads tells whether an expression selects what a rule records.
func reads(expr parser.Expr, r rulefmt.Rule) bool {
	found := false
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		v, ok := n.(*parser.VectorSelector)
		if !ok || r.Record == "" || v.Name != r.Record {
			return nil
		}
		fits := true
		for _, m := range v.LabelMatchers {
			if value, fixed := r.Labels[m.Name]; fixed && !m.Matches(value) {
				fits = false
			}
		}
		found = found || fits
		return nil
	})
	return found
}

func (e *evaluation) run(ctx context.Context, s step, from, to time.Time) error {
	if !s.inTurn {
		return e.evaluate(ctx, s.rules[0], from, to)
	}
	for at := from; !at.After(to); at = at.Add(e.life.every) {
		for _, r := range s.rules {
			if err := e.evaluate(ctx, r, at, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// evaluate runs one rule over a stretch of time.
func (e *evaluation) evaluate(ctx context.Context, r rulefmt.Rule, from, to time.Time) error {
	query, err := e.engine.NewRangeQuery(ctx, e, nil, r.Expr, from, to, e.life.every)
	if err != nil {
		return err
	}
	defer query.Close()
	matrix, err := query.Exec(ctx).Matrix()
	if err != nil {
		return fmt.Errorf("%s%s: %w", r.Record, r.Alert, err)
	}
	for _, series := range matrix {
		b := labels.NewBuilder(series.Metric)
		b.Set(model.MetricNameLabel, cmp.Or(r.Record, r.Alert))
		for name, value := range r.Labels {
			b.Set(name, value)
		}
		if r.Record != "" {
			e.recorded.append(r.Record, b.Labels(), series.Floats, to, e.life.every)
			continue
		}
		a := e.alert(r, b.Labels())
		for _, p := range series.Floats {
			a.active = append(a.active, time.UnixMilli(p.T).UTC())
		}
	}
	if r.Alert != "" {
		for _, a := range e.alerts {
			if a.is(r) {
				e.out = append(e.out, a.follow(from, to, e.life.every)...)
			}
		}
	}
	return nil
}

// Querier reads both what was scraped and what was recorded.
func (e *evaluation) Querier(mint, maxt int64) (storage.Querier, error) {
	scraped, err := e.scraped.Querier(mint, maxt)
	if err != nil {
		return nil, err
	}
	return &querier{Querier: scraped, recorded: e.recorded, mint: mint, maxt: maxt}, nil
}

// alertState is what Prometheus remembers of an alert.
type alertState struct {
	rule           rulefmt.Rule
	labels         labels.Labels
	active         []time.Time // of the stretch that comes next
	since, keptTil time.Time
	firing         *firing
}

func (e *evaluation) alert(r rulefmt.Rule, l labels.Labels) *alertState {
	key := l.String()
	if e.alerts[key] == nil {
		e.alerts[key] = &alertState{rule: r, labels: l}
	}
	return e.alerts[key]
}

func (a *alertState) is(r rulefmt.Rule) bool {
	return a.rule.Alert == r.Alert && a.rule.Expr == r.Expr
}

// follow goes on from one moment to the next as Prometheus does: an alert
// fires once its expression has held for its `for`, and goes on firing for its
// keep_firing_for after that. It returns what has ended.
func (a *alertState) follow(from, to time.Time, every time.Duration) []firing {
	var ended []firing
	active := a.active
	a.active = nil
	for at := from; !at.After(to); at = at.Add(every) {
		if len(active) > 0 && active[0].Equal(at) {
			active = active[1:]
			if a.since.IsZero() {
				a.since = at
			}
			a.keptTil = at.Add(time.Duration(a.rule.KeepFiringFor))
			if a.firing == nil && at.Sub(a.since) >= time.Duration(a.rule.For) {
				a.firing = &firing{alert: a.rule.Alert, severity: a.labels.Get("severity"), labels: a.labels.Map(), from: at}
			}
			if a.firing != nil {
				a.firing.to = at
			}
			continue
		}
		if a.firing != nil && at.Before(a.keptTil) {
			a.firing.to = at
			continue
		}
		a.since = time.Time{}
		if a.firing != nil {
			ended, a.firing = append(ended, *a.firing), nil
		}
	}
	return ended
}
