package command

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/edges-exporter/edges_exporter/edges"
)

// Change is something that is done to runs.
type Change int

// What can be done to runs.
const (
	// Resume puts runs that are BLOCKED, STOPPED or FAILED back to work.
	Resume Change = iota
	// Cancel stops runs that have not ended, async and scheduled ones.
	Cancel
)

func (c Change) verb() string {
	if c == Cancel {
		return "cancel"
	}
	return "resume"
}

func (c Change) done() string {
	if c == Cancel {
		return "cancelled"
	}
	return "resumed"
}

// ChangeOptions are what ChangeRuns is asked for.
type ChangeOptions struct {
	// UIDs are the runs.
	UIDs []string
	// Yes leaves out the question.
	Yes bool
	// Budget is the writer's, to say when it has to be waited for; may be nil.
	Budget *edges.Budget
}

// ChangeRuns resumes or cancels runs, one after the other, and writes a line
// for each: what was done on Terminal.Out, what failed on Terminal.Err. It asks
// before it begins. No request is repeated that may have been carried out. The
// reader is asked why a run was refused. Runs that failed make a FailedError.
func ChangeRuns(ctx context.Context, writer *edges.Writer, reader *edges.Client, change Change, o ChangeOptions, t Terminal) error {
	uids := unique(o.UIDs)
	if err := t.confirm(ctx, o.Yes, fmt.Sprintf("%s %s?", change.verb(), count(len(uids), "run"))); err != nil {
		return err
	}
	call := writer.Resume
	if change == Cancel {
		call = writer.Cancel
	}
	waiting := false
	failed := 0
	for i, uid := range uids {
		t.noteBudget(o.Budget, &waiting)
		run, err := call(ctx, uid)
		if err == nil {
			if _, err := fmt.Fprintln(t.Out, changedLine(uid, change, run)); err != nil {
				return err
			}
			continue
		}
		failed++
		t.itemFailed(uid, "not "+change.done(), explainChange(ctx, reader, change, uid, err))
		if rest := len(uids) - i - 1; endsAll(ctx, err) && rest > 0 {
			failed += rest
			fmt.Fprintf(t.Err, "%s not tried\n", count(rest, "run"))
			break
		}
	}
	if failed > 0 {
		return FailedError{fmt.Sprintf("%d of %s not %s", failed, count(len(uids), "run"), change.done())}
	}
	return nil
}

func changedLine(uid string, change Change, run edges.Run) string {
	line := oneLine(uid) + " " + change.done()
	if run.Status != "" {
		line += ": now " + string(run.Status)
	}
	if run.ActionName != "" {
		line += " (" + run.ActionName + ")"
	}
	return line
}

// explainGet says what an answer to the question for one run means.
func explainGet(err error) error {
	if errors.Is(err, edges.ErrNotFound) {
		return errors.New("the workspace has no such run; runs are kept for 90 days")
	}
	return err
}

// explainChange says why a run was refused, for which it may look at it.
func explainChange(ctx context.Context, reader *edges.Client, change Change, uid string, err error) error {
	var refused *edges.APIError
	switch {
	case errors.Is(err, edges.ErrNotFound):
		return explainGet(err)
	case errors.Is(err, edges.ErrOutcomeUnknown):
		return fmt.Errorf("%w: look at it with: runs get %s", err, uid)
	case !errors.As(err, &refused) || refused.StatusCode != http.StatusUnprocessableEntity || reader == nil:
		return err
	}
	run, lookErr := reader.GetRun(ctx, uid)
	switch {
	case lookErr != nil:
		return err
	case change == Resume && run.FlowRunID != 0:
		return fmt.Errorf("it is part of flow run %d, and a run of a flow cannot be resumed alone: resume the flow (%w)", run.FlowRunID, refused)
	case change == Cancel && run.ExecutionMode == edges.ModeLive:
		return fmt.Errorf("it is a live run; only async and scheduled runs can be cancelled (%w)", refused)
	case run.Status != "":
		return fmt.Errorf("it is %s (%w)", run.Status, refused)
	}
	return err
}
