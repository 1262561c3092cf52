package command

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/edges-exporter/edges_exporter/edges"
)

// GetOptions are what GetRuns is asked for.
type GetOptions struct {
	// UIDs are the runs.
	UIDs   []string
	Format Format
	// Budget is the client's, to say when it has to be waited for; may be nil.
	Budget *edges.Budget
}

// GetRuns writes single runs with all that is known of them: as a block of
// lines each, as CSV, or as JSON, a run a line as the API wrote it. Runs that
// cannot be had have a line on Terminal.Err each, and make a FailedError.
func GetRuns(ctx context.Context, client *edges.Client, o GetOptions, t Terminal) error {
	if err := outputs(o.Format.Output, OutputTable, OutputJSON, OutputCSV); err != nil {
		return err
	}
	var out printer[edges.Run]
	switch o.Format.Output {
	case OutputCSV:
		csv, err := runSheet(o.Format).printer(o.Format, t.Out)
		if err != nil {
			return err
		}
		out = csv
	case OutputJSON:
		out = &linePrinter{out: t.Out}
	default:
		out = &cardPrinter{out: t.Out, format: o.Format}
	}
	waiting := false
	uids := unique(o.UIDs)
	failed := 0
	for i, uid := range uids {
		t.noteBudget(o.Budget, &waiting)
		run, raw, err := client.GetRunRaw(ctx, uid)
		if err != nil {
			failed++
			t.itemFailed(uid, "not read", explainGet(err))
			if endsAll(ctx, err) {
				failed += len(uids) - i - 1
				break
			}
			continue
		}
		if err := out.rows([]edges.Run{run}, []json.RawMessage{raw}); err != nil {
			return err
		}
	}
	if err := out.end(); err != nil {
		return err
	}
	if failed > 0 {
		return FailedError{fmt.Sprintf("%d of %s not read", failed, count(len(uids), "run"))}
	}
	return nil
}

// linePrinter writes a row a line.
type linePrinter struct{ out io.Writer }

func (p *linePrinter) rows(_ []edges.Run, raw []json.RawMessage) error {
	for _, row := range raw {
		shown, err := withoutSecrets(row)
		if err != nil {
			return err
		}
		if _, err := p.out.Write(append(shown, '\n')); err != nil {
			return err
		}
	}
	return nil
}

func (*linePrinter) end() error { return nil }

// cardPrinter writes a run as a block of lines.
type cardPrinter struct {
	out    io.Writer
	format Format
	began  bool
}

func (p *cardPrinter) rows(rows []edges.Run, raw []json.RawMessage) error {
	for i, row := range rows {
		text := card(row, raw[i], p.format)
		if p.began {
			text = "\n" + text
		}
		p.began = true
		if _, err := io.WriteString(p.out, text); err != nil {
			return err
		}
	}
	return nil
}

func (*cardPrinter) end() error { return nil }

// card is a run as a block of lines, without what it does not have.
func card(r edges.Run, raw json.RawMessage, f Format) string {
	var text strings.Builder
	line := func(name, value string) {
		if value == "" {
			return
		}
		const indent = 12
		for i, part := range wrap(oneLine(value), tableWidth-indent) {
			if i > 0 {
				name = ""
			}
			fmt.Fprintf(&text, "%-*s%s\n", indent, name, part)
		}
	}
	line("run", r.UID)
	if r.Defect != "" {
		line("row", "not understood: "+string(r.Defect))
	}
	line("action", dash(r.ActionName))
	line("mode", mode(r))
	line("status", dash(string(r.Status)))
	label, message := lastError(raw)
	line("error", strings.Trim(cmp.Or(r.ErrorLabel, label)+": "+message, ": "))
	line("results", number(r.OutputCount))
	line("retries", number(r.RetryCount))
	line("schedule", r.ScheduledRunUID)
	if r.FlowRunID != 0 {
		line("flow run", fmt.Sprint(r.FlowRunID))
	}
	line("user", r.UserUID)
	line("created", f.full(r.CreatedAt))
	line("started", f.full(r.StartedAt))
	line("finished", f.full(r.FinishedAt))
	line("updated", f.full(r.UpdatedAt))
	if !r.PostponedUntil.IsZero() {
		line("postponed", "until "+f.full(r.PostponedUntil))
	}
	return text.String()
}

// lastError reads what a run says of its error, for people.
func lastError(raw json.RawMessage) (label, message string) {
	var row struct {
		LastError struct {
			Label      string `json:"label"`
			ErrorLabel string `json:"error_label"`
			Message    string `json:"message"`
		} `json:"last_error"`
	}
	// What is of another type is not shown.
	if json.Unmarshal(raw, &row) != nil {
		return "", ""
	}
	return cmp.Or(row.LastError.Label, row.LastError.ErrorLabel), row.LastError.Message
}

// wrap breaks a text into lines of at most so many characters, between words
// where it can.
func wrap(text string, most int) []string {
	var lines []string
	rest := []rune(text)
	for len(rest) > most {
		at := most
		for i := most; i > most/2; i-- {
			if rest[i] == ' ' {
				at = i
				break
			}
		}
		lines = append(lines, strings.TrimSpace(string(rest[:at])))
		rest = []rune(strings.TrimSpace(string(rest[at:])))
	}
	return append(lines, string(rest))
}
