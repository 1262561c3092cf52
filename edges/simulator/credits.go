package simulator

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
)

// credits is what the workspace has for a month, which is one of the calendar
// in UTC, and what it has used of it.
type credits struct {
	most       float64
	start, end int64
	used       map[*action]float64
	total      float64
}

// creditCost is what one result of the action costs.
func (a *action) creditCost() float64 {
	switch {
	case strings.Contains(a.name, "search"):
		return 0.1
	case strings.Contains(a.name, "extract"):
		return 0.5
	case a.name == "email-find":
		return 3
	case a.name == "company-enrich":
		return 2
	}
	return 1
}

// newCredits are the credits at the start.
func (w *Workspace) newCredits() credits {
	c := credits{most: w.config.Credits, used: make(map[*action]float64)}
	if c.most > 0 {
		return c
	}
	for _, a := range w.actions {
		results := a.live*min(a.results, 25) + (1-a.live)*a.results
		c.most += 1.5 * 31 * w.runsPerDay * a.share * results * a.creditCost()
	}
	c.most = max(100_000, math.Ceil(c.most/100_000)*100_000)
	return c
}

// newMonth begins a month, if the last one is over.
func (w *Workspace) newMonth() {
	c := &w.credits
	if w.now < c.end {
		return
	}
	now := fromMillis(w.now)
	first := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	c.start, c.end = first.UnixMilli(), first.AddDate(0, 1, 0).UnixMilli()
	clear(c.used)
	c.total = 0
}

// charge takes the credits for a run's new results.
func (w *Workspace) charge(r *run, results int64) {
	if results <= 0 {
		return
	}
	cost := float64(results) * r.action.creditCost()
	if t := w.trouble(KindCreditDrain, r.action.name, w.now); t != nil {
		cost *= t.Factor
	}
	w.use(r.action, cost)
}

func (w *Workspace) use(a *action, cost float64) {
	w.newMonth()
	w.credits.used[a] += cost
	w.credits.total += cost
}

// UseCredits takes credits for an action, as if runs of it had used them.
func (w *Workspace) UseCredits(action string, credits float64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	a := w.byName[action]
	if a == nil {
		return fmt.Errorf("use credits: no action %q", action)
	}
	w.use(a, credits)
	return nil
}

// Consumption returns what has been used of the credits. What the API shows is
// the same, rounded to thousandths.
func (w *Workspace) Consumption() edges.Consumption {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	return w.consumption()
}

func (w *Workspace) consumption() edges.Consumption {
	w.newMonth()
	c := edges.Consumption{
		CreditsLeft: w.creditsLeft(), CreditsUsed: w.credits.total, CreditsMax: w.credits.most,
		PeriodStart: fromMillis(w.credits.start), PeriodEnd: fromMillis(w.credits.end), Date: fromMillis(w.now),
	}
	for a, used := range w.credits.used {
		c.Actions = append(c.Actions, edges.ActionCredits{Action: a.name, Used: used})
	}
	slices.SortFunc(c.Actions, func(a, b edges.ActionCredits) int { return strings.Compare(a.Action, b.Action) })
	return c
}

// creditsLeft is not less than none: what is used beyond is not counted back.
func (w *Workspace) creditsLeft() float64 {
	w.newMonth()
	return max(0, w.credits.most-w.credits.total)
}

func (w *Workspace) creditEndpoints() []endpoint {
	const group = "workspaces"
	return []endpoint{
		{method: http.MethodGet, path: "/v1/workspaces", group: group, handle: w.listWorkspaces},
		{method: http.MethodGet, path: "/v1/workspaces/consumption", group: group, handle: w.getConsumption},
	}
}

func (w *Workspace) getConsumption(*http.Request) ([]byte, *problem) {
	c := w.consumption()
	b := appendCredits([]byte{'{'}, c)
	b = append(b, `,"current_month_start":`...)
	b = appendTime(b, c.PeriodStart.UnixMilli())
	b = append(b, `,"current_month_end":`...)
	b = appendTime(b, c.PeriodEnd.UnixMilli())
	b = append(b, `,"consumptions":`...)
	b = append(b, writePage(c.Actions, func(b []byte, a edges.ActionCredits) []byte {
		b = append(b, `{"action_slug":`...)
		b = appendString(b, a.Action)
		b = append(b, `,"credits_used":`...)
		b = appendAmount(b, a.Used)
		return append(b, '}')
	})...)
	return append(b, '}'), nil
}

func (w *Workspace) listWorkspaces(*http.Request) ([]byte, *problem) {
	plan := strings.ToLower(w.config.Plan)
	if plan == "" {
		plan = "unlimited"
	}
	b := append([]byte(nil), `[{"uid":`...)
	b = appendString(b, w.uid)
	b = append(b, `,"name":"Simulated workspace","plan_name":`...)
	b = appendString(b, plan)
	b = append(b, ',')
	b = appendCredits(b, w.consumption())
	b = append(b, `,"identities_count":`...)
	b = strconv.AppendInt(b, int64(len(w.users)), 10)
	return append(b, `}]`...), nil
}

func appendCredits(b []byte, c edges.Consumption) []byte {
	b = append(b, `"credits_left":`...)
	b = appendAmount(b, c.CreditsLeft)
	b = append(b, `,"credits_used":`...)
	b = appendAmount(b, c.CreditsUsed)
	b = append(b, `,"credits_max":`...)
	return appendAmount(b, c.CreditsMax)
}

// appendAmount writes a number of credits in thousandths.
func appendAmount(b []byte, v float64) []byte {
	return strconv.AppendFloat(b, math.Round(v*1000)/1000, 'f', -1, 64)
}
