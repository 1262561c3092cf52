package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
)

// CheckOptions are what Check looks at.
type CheckOptions struct {
	// URL is the API's base, and KeySource where the key comes from, as people
	// may see them.
	URL, KeySource string
	// PerMinute is the request budget of the configuration.
	PerMinute int
	// Uses are what the exporter needs of it all the time.
	Uses []Use
	// Storage is the folder of the store; empty if nothing is to be kept.
	Storage string
	// Store looks at the store without changing it.
	Store func(context.Context) StoreReport
	// Budget is the client's, from which the API's own limit is learned.
	Budget *edges.Budget
	Format Format
}

// Use is something for which the exporter makes requests.
type Use struct {
	What      string
	PerMinute float64
}

// StoreReport is what is known of a store.
type StoreReport struct {
	// InUse tells that a running exporter holds it, so that it was not looked
	// into.
	InUse bool
	// Absent tells that there is none yet.
	Absent bool
	// Runs is the number of runs in it, and Bytes its size.
	Runs, Bytes int64
	// Err is why it cannot be used.
	Err error
}

// Bounds of what is good.
const (
	littleDisk = 1 << 30
	noDisk     = 64 << 20
	// skewNoted and skewBad are how far a clock may be off. The API's has
	// whole seconds.
	skewNoted = 2 * time.Second
	skewBad   = time.Minute
	// muchOfLimit is the share of a limit beyond which other programs feel it.
	muchOfLimit = 0.5
)

// planLimits are the requests a minute that plans have, as the API documents
// them.
func planLimit(plan string) int {
	return map[string]int{
		"trial": 30, "bronze": 60, "silver": 150, "gold": 150,
		"platinum": 300, "diamond": 300, "titanium": 600,
	}[strings.ToLower(strings.TrimSpace(plan))]
}

// Check writes a line for each thing that has to be in order for the exporter
// to work, with "ok", "note" or "bad" in front. Anything bad makes a
// FailedError. It makes three requests, and changes nothing.
func Check(ctx context.Context, client *edges.Client, o CheckOptions, t Terminal) error {
	c := &checker{o: o, t: t}
	if c.key(ctx, client) {
		plan := c.workspace(ctx, client)
		c.limit(plan)
		c.credits(ctx, client)
	}
	c.budget()
	c.store(ctx)
	c.disk()
	switch {
	case c.writeErr != nil:
		return c.writeErr
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case c.bad > 0:
		return FailedError{count(c.bad, "problem") + " found"}
	}
	return nil
}

type checker struct {
	o        CheckOptions
	t        Terminal
	known    int // the API's limit, 0 if it is not known
	bad      int
	writeErr error
}

const (
	good  = "ok"
	noted = "note"
	wrong = "bad"
)

func (c *checker) line(how, what, format string, args ...any) {
	if how == wrong {
		c.bad++
	}
	text := wrap(oneLine(fmt.Sprintf(format, args...)), tableWidth-17)
	for i, part := range text {
		if i > 0 {
			how, what = "", ""
		}
		if _, err := fmt.Fprintf(c.t.Out, "%-5s %-10s %s\n", how, what, part); err != nil {
			c.writeErr = err
		}
	}
}

// key asks for one run: whether the key is good, and what time it is there.
func (c *checker) key(ctx context.Context, client *edges.Client) bool {
	begin := time.Now()
	page, err := client.ListRuns(ctx, edges.RunsQuery{Limit: 1})
	took := time.Since(begin)
	switch {
	case errors.Is(err, edges.ErrUnauthorized):
		c.line(wrong, "key", "%s is refused by %s", c.o.KeySource, c.o.URL)
		return false
	case errors.Is(err, edges.ErrNoAccess):
		c.line(wrong, "key", "%s is known to %s, but may not read runs: %v", c.o.KeySource, c.o.URL, err)
		return false
	case err != nil:
		c.line(wrong, "API", "%s: %v", c.o.URL, err)
		return false
	}
	c.line(good, "key", "%s is good for %s", c.o.KeySource, c.o.URL)
	c.clock(page.Date, begin, took)
	return true
}

// clock compares the clocks; the API's is known to a second, and to how long
// the answer took.
func (c *checker) clock(there, begin time.Time, took time.Duration) {
	if there.IsZero() {
		c.line(noted, "clock", "the API does not tell its time; the exporter then goes by this machine's")
		return
	}
	// It was there at some time in the second that it names.
	early, late := begin.Sub(there)-time.Second, begin.Add(took).Sub(there)
	ahead := time.Duration(0)
	switch {
	case early > 0:
		ahead = early
	case late < 0:
		ahead = late
	}
	side := "ahead of"
	if ahead < 0 {
		side = "behind"
	}
	off := ahead.Abs().Round(time.Second)
	switch {
	case off <= skewNoted:
		c.line(good, "clock", "no more than 2 seconds from the API's")
	case off <= skewBad:
		c.line(noted, "clock", "%s %s the API's", off, side)
	default:
		c.line(wrong, "clock", "%s %s the API's: set this machine's clock, or alerts on ages are wrong", off, side)
	}
}

// workspace asks which one it is, and returns its plan.
func (c *checker) workspace(ctx context.Context, client *edges.Client) (plan string) {
	all, err := client.ListWorkspaces(ctx)
	if err != nil {
		c.line(noted, "workspace", "the API does not tell: %v", err)
		return ""
	}
	if len(all) == 0 {
		c.line(noted, "workspace", "the API names none")
		return ""
	}
	w := all[0]
	c.line(good, "workspace", "%s, plan %s, uid %s", cmp.Or(w.Name, "(no name)"), cmp.Or(w.PlanName, "unknown"), dash(w.UID))
	if len(all) > 1 {
		c.line(noted, "workspace", "the key is good for %d workspaces; the exporter follows what the list of runs has", len(all))
	}
	return w.PlanName
}

// limit says what the API allows.
func (c *checker) limit(plan string) {
	c.known = planLimit(plan)
	from := "as documented for plan " + plan
	if c.o.Budget != nil && c.o.Budget.PerMinute() < c.o.PerMinute {
		// An answer has told a limit that is below the budget.
		c.known, from = c.o.Budget.PerMinute(), "as the API tells"
	}
	if c.known == 0 {
		c.line(noted, "limit", "not known, since the plan is not: the exporter goes by what answers tell")
		return
	}
	c.line(good, "limit", "%d requests a minute, shared with your own programs (%s)", c.known, from)
}

// budget says what the configuration uses.
func (c *checker) budget() {
	need := 0.0
	var parts []string
	for _, use := range c.o.Uses {
		need += use.PerMinute
		parts = append(parts, fmt.Sprintf("%s %s", use.What, amount(use.PerMinute)))
	}
	text := fmt.Sprintf("at most %d requests a minute", c.o.PerMinute)
	if c.known > 0 {
		text += fmt.Sprintf(", %s of the limit", percent(float64(c.o.PerMinute)/float64(c.known)))
	}
	if len(parts) > 0 {
		text += fmt.Sprintf("; when all is quiet %s (%s)", amount(need), strings.Join(parts, ", "))
	}
	switch {
	case need > float64(c.o.PerMinute):
		c.line(wrong, "budget", "%s: that is more than the budget, so numbers come late; raise --edges.max-requests-per-minute or --poll.interval", text)
	case c.known > 0 && c.o.PerMinute > c.known:
		c.line(wrong, "budget", "%s: lower --edges.max-requests-per-minute", text)
	case c.known > 0 && float64(c.o.PerMinute) > muchOfLimit*float64(c.known):
		c.line(noted, "budget", "%s: little is left for your own programs", text)
	default:
		c.line(good, "budget", "%s", text)
	}
}

func amount(f float64) string {
	if math.IsNaN(f) {
		return "unknown"
	}
	if f == math.Trunc(f) && math.Abs(f) < 1e15 {
		return number(int64(f))
	}
	return fmt.Sprintf("%.1f", f)
}

func percent(share float64) string {
	if share < 0.02 {
		return fmt.Sprintf("%.1f %%", 100*share)
	}
	return fmt.Sprintf("%.0f %%", 100*share)
}

// credits says what is left; it is no concern of the exporter's.
func (c *checker) credits(ctx context.Context, client *edges.Client) {
	used, err := client.GetConsumption(ctx)
	switch {
	case err != nil:
		c.line(noted, "credits", "the API does not tell: %v", err)
		return
	case used.Defect != "" || math.IsNaN(used.CreditsLeft):
		c.line(noted, "credits", "the API's answer was not understood")
		return
	}
	text := amount(math.Floor(used.CreditsLeft))
	if !math.IsNaN(used.CreditsMax) {
		text += " of " + amount(math.Floor(used.CreditsMax))
	}
	text += " left"
	if !used.PeriodEnd.IsZero() {
		text += " until " + used.PeriodEnd.UTC().Format(time.DateOnly)
	}
	if used.CreditsLeft <= 0 {
		c.line(noted, "credits", "%s: launches are refused", text)
		return
	}
	c.line(good, "credits", "%s", text)
}

func (c *checker) store(ctx context.Context) {
	if c.o.Storage == "" || c.o.Store == nil {
		c.line(noted, "store", "a temporary one: a restart begins anew (--storage.path)")
		return
	}
	report := c.o.Store(ctx)
	size := number(int64(math.Ceil(float64(report.Bytes)/(1<<20)))) + " MiB"
	switch {
	case report.InUse:
		c.line(good, "store", "%s is in use by a running exporter, and was not looked into; %s", c.o.Storage, size)
	case report.Absent:
		c.line(good, "store", "%s has none yet: the first start makes it", c.o.Storage)
	case report.Err != nil:
		c.line(wrong, "store", "%v", report.Err)
	default:
		c.line(good, "store", "%s is sound: %s, %s", c.o.Storage, count(report.Runs, "run"), size)
	}
}

// disk says how much room there is where the store lies, or will lie.
func (c *checker) disk() {
	if c.o.Storage == "" {
		return
	}
	path := existing(c.o.Storage)
	free, err := freeBytes(path)
	if err != nil {
		c.line(noted, "disk", "free space is not known: %v", err)
		return
	}
	text := fmt.Sprintf("%s MiB free for %s", number(int64(min(free, math.MaxInt64))>>20), c.o.Storage)
	switch {
	case free < noDisk:
		c.line(wrong, "disk", "%s", text)
	case free < littleDisk:
		c.line(noted, "disk", "%s", text)
	default:
		c.line(good, "disk", "%s", text)
	}
}

// existing is a folder, or the nearest one above it that is there.
func existing(path string) string {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	for {
		if _, err := os.Stat(absolute); err == nil || filepath.Dir(absolute) == absolute {
			return absolute
		}
		absolute = filepath.Dir(absolute)
	}
}
