// Package command holds what people do with runs from a terminal: list, look
// at, resume, cancel and launch them, list schedules, and check a
// configuration. Each command is a function that gets what it needs and can be
// called by any program; flags, environment and exit codes are the caller's.
//
// What a command finds goes to Terminal.Out, all else to Terminal.Err. No
// command prints the API key, or what callbacks are sent with.
package command

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/edges-exporter/edges_exporter/edges"
)

// Terminal is where a command reads and writes.
type Terminal struct {
	// In is read for an answer, and for inputs that are to come from there.
	In io.Reader
	// Out gets the results, Err progress, questions and what went wrong.
	Out, Err io.Writer
	// Person tells that In is a terminal, at which a person can be asked.
	Person bool
	// Screen tells that Err is a terminal, on which a line can be written over.
	Screen bool
}

// UsageError says that a command was not given what it needs; nothing was done.
type UsageError struct{ Err error }

func (e UsageError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong.
func (e UsageError) Unwrap() error { return e.Err }

func usage(format string, args ...any) error {
	return UsageError{fmt.Errorf(format, args...)}
}

// FailedError says that a command has ended without the success of all that it
// was for. What went wrong with each item has had its own line on Terminal.Err.
type FailedError struct{ What string }

func (e FailedError) Error() string { return e.What }

// ErrNotConfirmed is a question to which the answer was not yes; nothing was
// done.
var ErrNotConfirmed = errors.New("not confirmed: nothing was done")

// confirm asks the person at the terminal, unless yes is set. Where there is
// nobody to be asked, that is a UsageError.
func (t Terminal) confirm(ctx context.Context, yes bool, question string) error {
	switch {
	case yes:
		return nil
	case !t.Person:
		return usage("nobody can be asked, since the input is no terminal: give --yes to go on without a question")
	}
	fmt.Fprintf(t.Err, "%s [y/N] ", question)
	answered := make(chan string, 1)
	go func() {
		// Without an answer this goroutine lives as long as the input does; a
		// command that nobody answers ends the program.
		line, err := bufio.NewReader(t.In).ReadString('\n')
		if err != nil {
			fmt.Fprintln(t.Err)
		}
		answered <- line
	}()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case line := <-answered:
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "y", "yes":
			return nil
		}
		return ErrNotConfirmed
	}
}

// itemFailed writes the line of an item that failed.
func (t Terminal) itemFailed(item, what string, err error) {
	fmt.Fprintf(t.Err, "%s %s: %s\n", oneLine(item), what, oneLine(err.Error()))
}

// noteBudget says, once, that there will be a wait.
func (t Terminal) noteBudget(budget *edges.Budget, said *bool) {
	if budget == nil || *said || budget.Free() > 0 {
		return
	}
	*said = true
	fmt.Fprintf(t.Err, "waiting: the budget of %d requests a minute is used up\n", budget.PerMinute())
}

// endsAll reports whether what failed for one item would fail for all others.
func endsAll(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, edges.ErrUnauthorized) || errors.Is(err, edges.ErrBadKey)
}

// oneLine takes the line ends and other control characters out of a text.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, text)
}

// number writes a number as people read it: 12,345.
func number[T int | int64](n T) string {
	digits := fmt.Sprint(n)
	sign := ""
	if n < 0 {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// count writes a number of things: 1 run, 2 runs.
func count[T int | int64](n T, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return number(n) + " " + what + "s"
}
