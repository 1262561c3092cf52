// Command evaluate lets simulated workspaces live for days in minutes, with
// the real exporter following them, and evaluates the shipped rules over what
// it exposed: an ordinary life, in which nothing critical may fire, and one
// full of incidents, each of which must be alerted by the right alert. It
// prints what came of it as Markdown, and exits with 1 if it was not so.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// errRules tells that the rules did not do what they must.
var errRules = errors.New("the rules did not do what they must")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "evaluate:", err)
		os.Exit(1)
	}
}

// settings are what the flags say.
type settings struct {
	rules, promtool, folder string
	days                    int
	seed                    uint64
	perDay                  float64
	step, every             time.Duration
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	var s settings
	flags := flag.NewFlagSet("evaluate", flag.ContinueOnError)
	flags.StringVar(&s.rules, "rules", "../edges.rules.yml", "rules to evaluate")
	flags.StringVar(&s.promtool, "promtool", "../../.tools/bin/promtool", "promtool, as tools.sh builds it")
	flags.IntVar(&s.days, "days", 14, "days of ordinary life")
	flags.Uint64Var(&s.seed, "seed", 1, "seed of the workspaces")
	flags.Float64Var(&s.perDay, "runs-per-day", 6000, "runs on an average day")
	flags.StringVar(&s.folder, "folder", "", "where the lives are kept, so that other rules can be tried on the same ones; none are kept if empty")
	flags.DurationVar(&s.step, "step", time.Minute, "time between two polls, and between two scrapes")
	flags.DurationVar(&s.every, "every", time.Minute, "time between two evaluations of the rules")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if s.folder == "" {
		if s.folder, err = os.MkdirTemp("", "edges-evaluate-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(s.folder)) }()
	}

	start := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC) // a Monday
	ordinary := life{settings: s, name: "ordinary", start: start, days: s.days, bumps: bumps()}
	trouble := life{settings: s, name: "incidents", start: start, days: incidentDays, incidents: incidents()}
	trouble.seed++
	began := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	var quiet, loud []firing
	group.Go(func() (err error) { quiet, err = ordinary.evaluate(ctx); return err })
	group.Go(func() (err error) { loud, err = trouble.evaluate(ctx); return err })
	if err := group.Wait(); err != nil {
		return err
	}
	good := reportOrdinary(out, &ordinary, quiet)
	good = reportIncidents(out, &trouble, loud) && good
	fmt.Fprintf(out, "Made by `go run ./cmd/evaluate` in `tests/` (%s of life in %s).\n",
		(time.Duration(ordinary.days+trouble.days) * 24 * time.Hour).String(), time.Since(began).Round(time.Second))
	if !good {
		return errRules
	}
	return nil
}

// evaluate lives, makes blocks of what the exporter exposed, and evaluates the
// rules over them.
func (l *life) evaluate(ctx context.Context) ([]firing, error) {
	folder := filepath.Join(l.folder, fmt.Sprintf("%s-%d", l.name, l.seed))
	lived := filepath.Join(folder, "lived")
	had, err := os.ReadFile(lived)
	switch {
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return nil, err
	case string(had) != l.what():
		if err := os.RemoveAll(folder); err != nil {
			return nil, err
		}
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, err
		}
		if err := l.live(ctx, folder); err != nil {
			return nil, fmt.Errorf("%s life: %w", l.name, err)
		}
		if err := os.WriteFile(lived, []byte(l.what()), 0o600); err != nil {
			return nil, err
		}
	}
	firings, err := evaluateRules(ctx, l, filepath.Join(folder, "blocks"))
	if err != nil {
		return nil, fmt.Errorf("%s life: evaluate the rules: %w", l.name, err)
	}
	return firings, nil
}

// what says what is lived: lives that are kept are those of the same.
func (l *life) what() string {
	var text strings.Builder
	fmt.Fprintln(&text, l.seed, l.start, l.days, l.perDay, l.step, l.bumps)
	for _, in := range l.incidents {
		fmt.Fprintln(&text, in.trouble, in.down, in.stale, in.rows, in.at, in.lasts)
	}
	return text.String()
}

func reportOrdinary(out io.Writer, l *life, firings []firing) bool {
	critical, warnings := 0, 0
	fmt.Fprintf(out, "**%d ordinary days**, %.0f runs on an average day, with people's rhythm, schedules, and %d bumps (%s):\n\n",
		l.days, l.perDay, len(l.bumps), strings.Join(l.bumps, ", "))
	fmt.Fprintln(out, "| day | alert | severity | of | for |\n|---|---|---|---|---|")
	for _, f := range firings {
		if f.severity == "critical" {
			critical++
		} else {
			warnings++
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s |\n", l.day(f.from), f.alert, f.severity, f.of(), f.to.Sub(f.from))
	}
	fmt.Fprintf(out, "\n%d critical alerts, %d warnings.\n\n", critical, warnings)
	return critical == 0 && warnings <= (l.days+6)/7
}

func reportIncidents(out io.Writer, l *life, firings []firing) bool {
	good := true
	fmt.Fprintf(out, "**%d incidents** in %d other days:\n\n", len(l.incidents), l.days)
	fmt.Fprintln(out, "| incident | began | alert | after |\n|---|---|---|---|")
	explained := map[int]bool{}
	for _, in := range l.incidents {
		from := l.start.Add(in.at)
		until := from.Add(in.lasts + in.echo)
		alert, after := "**none**", ""
		for i, f := range firings {
			if f.from.Before(from) || !f.from.Before(until) {
				continue
			}
			explained[i] = true
			if after == "" && slices.Contains(in.alerts, f.alert) && (in.action == "" || f.labels["action"] == "" || f.labels["action"] == in.action) {
				alert, after = f.alert+" ("+f.severity+")", f.from.Sub(from).Round(time.Minute).String()
			}
		}
		if alert == "**none**" {
			good, after = false, " "
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s |\n", in.name, l.day(from), alert, cmp.Or(strings.TrimSuffix(after, "0s"), "at once"))
	}
	var others []string
	for i, f := range firings {
		if !explained[i] {
			others = append(others, fmt.Sprintf("%s %s of %s", l.day(f.from), f.alert, f.of()))
		}
	}
	fmt.Fprintf(out, "\nAlerts at other times: %d%s\n\n", len(others), strings.Join(append([]string{""}, others...), "; "))
	return good
}

// day says when something was, in days of the life.
func (l *life) day(at time.Time) string {
	return fmt.Sprintf("%d, %s", 1+int(at.Sub(l.start)/(24*time.Hour)), at.Format("Mon 15:04"))
}
