package command

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"
	_ "time/tzdata" // a time zone is known on machines without a database of them too

	"github.com/robfig/cron/v3"

	"github.com/edges-exporter/edges_exporter/edges"
)

// LaunchOptions are what Launch is asked for.
type LaunchOptions struct {
	// Action is the action, for example "linkedin-extract-people".
	Action string
	Mode   edges.LaunchMode
	// Input is one input, a JSON object. Of Input and Inputs, one is needed.
	Input string
	// Inputs is a file of inputs for an async launch or a schedule: a JSON
	// array, JSON Lines, or CSV with names in its first line; "-" for
	// Terminal.In.
	Inputs string
	// CallbackURL is where the API sends the results.
	CallbackURL string
	// Parameters are "name=value"; a value that is JSON is sent as that, and
	// as a string otherwise.
	Parameters []string
	// Cron or At say when a schedule runs: again and again, or once. Timezone
	// is an IANA name. Without it, Cron is in UTC and At in the local time of
	// this machine.
	Cron, At, Timezone string
	// Wait goes on until an async run has ended.
	Wait bool
	// Yes leaves out the question.
	Yes bool
	// Output is OutputTable for a line for people, or OutputJSON for what the
	// API answers: with Wait, the run as it ended.
	Output string
	// Format is how times are written.
	Format Format
	// Every is the time between the first two looks at a run that is waited
	// for; 2 seconds if 0. Later ones are up to 15 seconds apart.
	Every time.Duration
	// Budget is the client's and writer's, to say when it has to be waited
	// for; may be nil.
	Budget *edges.Budget
}

// launch is a launch that has been checked.
type launch struct {
	LaunchOptions
	// fields are the body, without the inputs.
	fields map[string]json.RawMessage
	// due is when a schedule runs first.
	due time.Time
}

// Launch launches an action, and waits for the run if asked to. Everything is
// checked before anything is sent, and the inputs are counted: they go through
// a temporary file, never all at once through memory. It asks before it
// launches. The request is not repeated if it may have been carried out.
//
// A live launch writes the results. A run that is waited for and that ends
// FAILED, INVALID or STOPPED, or is BLOCKED until a person does something,
// makes a FailedError.
func Launch(ctx context.Context, writer *edges.Writer, client *edges.Client, o LaunchOptions, t Terminal) (err error) {
	l, err := newLaunch(o)
	if err != nil {
		return err
	}
	if l.Inputs == "-" && !l.Yes {
		return usage("nobody can be asked while the inputs come from there: give --yes to go on without a question")
	}
	body, inputs, err := l.spool(t.In)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close(), os.Remove(body.Name())) }()
	if err := t.confirm(ctx, l.Yes, l.question(inputs)); err != nil {
		return err
	}
	waiting := false
	t.noteBudget(l.Budget, &waiting)
	launched, err := writer.Launch(ctx, l.Action, l.Mode, body)
	if err != nil {
		return badQuery(l.explain(err))
	}
	if l.Mode == edges.LaunchLive || l.Output == OutputJSON && !l.Wait {
		return writeAnswer(t.Out, launched.Body)
	}
	if l.Output != OutputJSON {
		if _, err := fmt.Fprintln(t.Out, l.launchedLine(inputs, launched)); err != nil {
			return err
		}
	}
	if !l.Wait {
		return nil
	}
	if launched.RunUID == "" {
		return errors.New("the answer did not tell the run's uid, so it cannot be waited for")
	}
	return l.wait(ctx, client, launched.RunUID, t)
}

// newLaunch checks what can be known before the inputs are read.
func newLaunch(o LaunchOptions) (*launch, error) {
	l := &launch{LaunchOptions: o, fields: map[string]json.RawMessage{}}
	if err := outputs(o.Output, OutputTable, OutputJSON); err != nil {
		return nil, err
	}
	switch {
	case o.Input == "" && o.Inputs == "":
		return nil, usage("a launch needs --input, or --inputs; {} is an input too")
	case o.Input != "" && o.Inputs != "":
		return nil, usage("--input and --inputs exclude each other")
	case o.Mode == edges.LaunchLive && o.Inputs != "":
		return nil, usage("a live launch takes one --input; use --mode=async for many")
	case o.Mode == edges.LaunchLive && o.CallbackURL != "":
		return nil, usage("a live launch answers its results itself: --callback-url is for async and schedule")
	case o.Mode == edges.LaunchSchedule && o.Wait:
		return nil, usage("--wait is for a run that begins now; of a schedule, see: schedules list")
	}
	if o.Input != "" && !isObject(o.Input) {
		return nil, usage("--input must be a JSON object, such as {\"name\":\"value\"}")
	}
	parameters, err := parseParameters(o.Parameters)
	if err != nil {
		return nil, err
	}
	if len(parameters) > 0 {
		l.set("parameters", parameters)
	}
	if o.CallbackURL != "" {
		u, err := url.Parse(o.CallbackURL)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, usage("--callback-url must begin with https:// or http:// and name a host")
		}
		l.set("callback", map[string]string{"url": o.CallbackURL})
	}
	return l, l.plan()
}

// set puts a field into the body.
func (l *launch) set(name string, value any) {
	text, err := json.Marshal(value)
	if err == nil { // of these types there is no other
		l.fields[name] = text
	}
}

func isObject(text string) bool {
	return json.Valid([]byte(text)) && strings.HasPrefix(strings.TrimSpace(text), "{")
}

func parseParameters(all []string) (map[string]json.RawMessage, error) {
	parameters := make(map[string]json.RawMessage, len(all))
	for _, text := range all {
		name, value, found := strings.Cut(text, "=")
		if !found || name == "" {
			return nil, usage("--parameter must be name=value, not %q", text)
		}
		if _, twice := parameters[name]; twice {
			return nil, usage("--parameter has %q twice", name)
		}
		raw := json.RawMessage(value)
		if !json.Valid(raw) {
			text, err := json.Marshal(value)
			if err != nil {
				return nil, usage("--parameter %s: %w", name, err)
			}
			raw = text
		}
		parameters[name] = raw
	}
	return parameters, nil
}

// plan checks when a schedule is to run.
func (l *launch) plan() error {
	if l.Mode != edges.LaunchSchedule {
		if l.Cron != "" || l.At != "" || l.Timezone != "" {
			return usage("--cron, --at and --timezone are for --mode=schedule")
		}
		return nil
	}
	if (l.Cron == "") == (l.At == "") {
		return usage("a schedule needs --cron or --at, and not both")
	}
	zone := time.UTC
	if l.Cron == "" {
		zone = time.Local // it is a person who writes the time
	}
	if l.Timezone != "" {
		var err error
		if zone, err = time.LoadLocation(l.Timezone); err != nil || l.Timezone == "Local" {
			return usage("--timezone must be an IANA name such as Europe/Paris, not %q", l.Timezone)
		}
	}
	now := l.Format.now()
	if l.At != "" {
		at, err := parseTime(l.At, zone)
		switch {
		case err != nil:
			return usage("--at must be a time such as 2026-11-23T15:04:05Z or 2026-11-23 15:04, not %q", l.At)
		case !at.After(now):
			return usage("--at must be in the future, but is %s", relative(at, now))
		}
		l.due = at
		l.set("schedule_at", stamp(at))
	} else {
		times, err := cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow).Parse(l.Cron)
		if err != nil || strings.Contains(l.Cron, "=") {
			return usage("--cron must have five fields (minute, hour, day, month, weekday), such as \"0 9 * * 1-5\", not %q", l.Cron)
		}
		if l.due = times.Next(now.In(zone)); l.due.IsZero() {
			return usage("--cron %q never comes", l.Cron)
		}
		l.set("cron", l.Cron)
		l.Timezone = zone.String() // what the API takes without it is not documented
	}
	if l.Timezone != "" {
		l.set("timezone", l.Timezone)
	}
	return nil
}

// spool writes the body into a temporary file, from which it can be sent. The
// file is the caller's to close and to remove.
func (l *launch) spool(in io.Reader) (body *os.File, inputs int, err error) {
	from := io.NopCloser(in)
	switch l.Inputs {
	case "", "-":
	default:
		f, err := os.Open(l.Inputs)
		if err != nil {
			return nil, 0, usage("--inputs: %w", err)
		}
		from = f
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	kept, err := os.CreateTemp("", "edges-launch-*.json")
	if err != nil {
		return nil, 0, fmt.Errorf("keep the inputs until they are sent: %w", err)
	}
	if inputs, err = l.fill(kept, from); err != nil {
		return nil, 0, errors.Join(err, kept.Close(), os.Remove(kept.Name()))
	}
	return kept, inputs, nil
}

// fill writes the body into a file, from which it can be read then.
func (l *launch) fill(body *os.File, from io.Reader) (inputs int, err error) {
	out := bufio.NewWriter(body)
	if inputs, err = l.write(out, from); err != nil {
		return 0, err
	}
	if err := out.Flush(); err != nil {
		return 0, fmt.Errorf("keep the inputs until they are sent: %w", err)
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return 0, fmt.Errorf("keep the inputs until they are sent: %w", err)
	}
	return inputs, nil
}

// write writes the body, and counts the inputs. What cannot be written shows
// when out is flushed.
func (l *launch) write(out *bufio.Writer, from io.Reader) (inputs int, err error) {
	_ = out.WriteByte('{')
	for _, name := range []string{"parameters", "callback", "cron", "schedule_at", "timezone"} {
		if value := l.fields[name]; value != nil {
			_, _ = fmt.Fprintf(out, "%q:%s,", name, value)
		}
	}
	switch {
	case l.Mode == edges.LaunchLive:
		_, _ = out.WriteString(`"input":` + l.Input)
		inputs = 1
	case l.Input != "":
		_, _ = out.WriteString(`"inputs":[` + l.Input + `]`)
		inputs = 1
	default:
		if inputs, err = writeInputs(out, from, l.Inputs); err != nil {
			return 0, usage("--inputs %s: %w", l.Inputs, err)
		}
	}
	_ = out.WriteByte('}')
	return inputs, nil
}

func writeInputs(out *bufio.Writer, from io.Reader, name string) (inputs int, err error) {
	_, _ = out.WriteString(`"inputs":[`)
	for input, err := range inputsOf(from, name) {
		if err != nil {
			return 0, err
		}
		if inputs++; inputs > maxInputs {
			return 0, fmt.Errorf("more than %s inputs, which is all that the API takes at once", number(maxInputs))
		}
		if inputs > 1 {
			_ = out.WriteByte(',')
		}
		_, _ = out.Write(input)
	}
	if inputs == 0 {
		return 0, errors.New("no inputs")
	}
	_ = out.WriteByte(']')
	return inputs, nil
}

func (l *launch) question(inputs int) string {
	text := fmt.Sprintf("launch %s (%s) on %s", oneLine(l.Action), l.Mode, count(inputs, "input"))
	if !l.due.IsZero() {
		text += ", first at " + l.due.Format("2006-01-02 15:04 MST")
	}
	return text + "?"
}

func (l *launch) launchedLine(inputs int, launched edges.Launched) string {
	uid := cmp.Or(launched.RunUID, "(the answer did not tell its uid)")
	if l.Mode == edges.LaunchSchedule {
		return fmt.Sprintf("schedule %s made: %s on %s, first at %s",
			uid, oneLine(l.Action), count(inputs, "input"), l.due.Format("2006-01-02 15:04 MST"))
	}
	line := fmt.Sprintf("run %s launched: %s on %s", uid, oneLine(l.Action), count(inputs, "input"))
	if launched.Status != "" {
		line += ", now " + string(launched.Status)
	}
	return line
}

// explain says what a failed launch means.
func (l *launch) explain(err error) error {
	switch {
	case errors.Is(err, edges.ErrOutcomeUnknown):
		return fmt.Errorf("%w: before you launch again, look for it with: runs list --action=%s --since=10m", err, l.Action)
	case errors.Is(err, edges.ErrNotFound):
		return fmt.Errorf("there is no action %q: %w", l.Action, err)
	}
	return err
}

// writeAnswer writes what the API answered, on one line.
func writeAnswer(out io.Writer, answer json.RawMessage) error {
	if len(answer) == 0 {
		return nil
	}
	shown, err := withoutSecrets(answer)
	if err != nil {
		return err
	}
	_, err = out.Write(append(shown, '\n'))
	return err
}
