package command

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
)

const (
	firstLook = 2 * time.Second
	lastLook  = 15 * time.Second
	// maxMisses is how many looks at a run may fail, one after the other.
	maxMisses = 5
)

// wait looks at a run until it has ended, and writes what became of it.
func (l *launch) wait(ctx context.Context, client *edges.Client, uid string, t Terminal) error {
	shown := progress{t: t, uid: uid, since: time.Now()}
	every := l.Every
	if every <= 0 {
		every = firstLook
	}
	misses := 0
	for {
		status, err := client.GetRunStatus(ctx, uid)
		switch {
		case err == nil:
			misses = 0
			shown.show(string(status.Status))
			if settled(status) {
				shown.end()
				return l.ended(ctx, client, uid, t)
			}
		case endsAll(ctx, err):
			shown.end()
			return fmt.Errorf("the run goes on, look at it with: runs get %s: %w", uid, err)
		default:
			// A new run may not be known everywhere yet.
			if misses++; misses == maxMisses {
				shown.end()
				return fmt.Errorf("the run goes on, look at it with: runs get %s: %w", uid, err)
			}
		}
		select {
		case <-ctx.Done():
			shown.end()
			return fmt.Errorf("the run goes on, look at it with: runs get %s: %w", uid, context.Cause(ctx))
		case <-time.After(every):
		}
		every = max(every, min(every*3/2, lastLook))
	}
}

// settled reports whether nothing more will happen to a run by itself.
func settled(r edges.Run) bool {
	return r.Status.Ended() || r.Status == edges.StatusBlocked && r.PostponedUntil.IsZero()
}

// ended writes what became of a run.
func (l *launch) ended(ctx context.Context, client *edges.Client, uid string, t Terminal) error {
	run, raw, err := client.GetRunRaw(ctx, uid)
	if err != nil {
		return err
	}
	if l.Output == OutputJSON {
		err = writeAnswer(t.Out, raw)
	} else {
		_, err = fmt.Fprintln(t.Out, endedLine(run, raw))
	}
	if err != nil {
		return err
	}
	switch run.Status {
	case edges.StatusFailed, edges.StatusInvalid, edges.StatusStopped, edges.StatusBlocked:
		return FailedError{fmt.Sprintf("the run is %s", run.Status)}
	}
	return nil
}

func endedLine(run edges.Run, raw []byte) string {
	line := fmt.Sprintf("run %s %s: %s", run.UID, run.Status, count(run.OutputCount, "result"))
	if !run.StartedAt.IsZero() && run.FinishedAt.After(run.StartedAt) {
		line += " in " + span(run.FinishedAt.Sub(run.StartedAt))
	}
	if label, message := lastError(raw); label != "" || message != "" {
		line += ", " + strings.Trim(label+": "+message, ": ")
	}
	return oneLine(line)
}

// progress says where a run stands: on a screen in one line that changes, else
// in a line for each status.
type progress struct {
	t     Terminal
	uid   string
	since time.Time
	last  string
}

func (p *progress) show(status string) {
	switch {
	case p.t.Screen:
		fmt.Fprintf(p.t.Err, "\r\x1b[K%s %s, %s", p.uid, status, span(time.Since(p.since)))
	case status != p.last:
		fmt.Fprintf(p.t.Err, "%s %s\n", p.uid, status)
	}
	p.last = status
}

// end takes the line that changes away.
func (p *progress) end() {
	if p.t.Screen {
		fmt.Fprint(p.t.Err, "\r\x1b[K")
	}
}
