package simulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
)

// Kind is a kind of trouble.
type Kind string

// The kinds of trouble. The first group befalls the runs, of one action or of
// all; the second befalls the API's answers.
const (
	// KindFailed makes a share of the runs FAIL, with an error label.
	KindFailed Kind = "failed"
	// KindBlocked makes a share of the runs BLOCKED, with an error label.
	KindBlocked Kind = "blocked"
	// KindInvalid makes a share of the launches INVALID at once.
	KindInvalid Kind = "invalid"
	// KindStall lets no waiting run start.
	KindStall Kind = "stall"
	// KindStuck lets a number of runs stay RUNNING instead of ending.
	KindStuck Kind = "stuck"
	// KindSlowRuns multiplies the time that runs take.
	KindSlowRuns Kind = "slow-runs"
	// KindEmpty lets runs succeed without results.
	KindEmpty Kind = "empty"
	// KindQuiet stops all launches.
	KindQuiet Kind = "quiet"
	// KindBurst multiplies the launches.
	KindBurst Kind = "burst"
	// KindLate makes a share of the changes visible only up to a delay after
	// their updated_at.
	KindLate Kind = "late"
	// KindMissSchedule makes schedules miss their time: they do not run, and
	// next_execution_at stays where it was while the trouble lasts. With Drop,
	// it moves on as if they had run. With a Delay, they are postponed for that
	// long, and run then.
	KindMissSchedule Kind = "miss-schedule"
	// KindCallbacksFailing makes the webhook answer a share of the deliveries
	// with a status code, at every attempt; with Drop it does not answer.
	KindCallbacksFailing Kind = "callbacks-failing"
	// KindCallbacksStalled lets deliveries stay PENDING.
	KindCallbacksStalled Kind = "callbacks-stalled"
	// KindCreditDrain multiplies what results cost in credits.
	KindCreditDrain Kind = "credit-drain"

	// KindOutage answers everything with an error code; code 0 drops the
	// connection instead.
	KindOutage Kind = "outage"
	// KindStorm answers a share of the requests with 429.
	KindStorm Kind = "storm"
	// KindErrors answers a share of the requests with an error code.
	KindErrors Kind = "errors"
	// KindSlow delays every answer (in real time).
	KindSlow Kind = "slow"
	// KindCut ends a share of the answers in the middle.
	KindCut Kind = "cut"
	// KindGarbage sends a share of the answers as something else than what
	// was asked for.
	KindGarbage Kind = "garbage"
	// KindRevoked refuses the API key.
	KindRevoked Kind = "revoked"
	// KindShuffle gives runs with equal sort keys another order in every
	// answer.
	KindShuffle Kind = "shuffle-ties"
)

// Trouble is something that goes wrong for a while. Which of its settings have
// a meaning depends on its kind; a zero one stands for the kind's default.
type Trouble struct { //nolint:recvcheck // it is passed by value, and only what fills it in needs a pointer
	// ID is given by the workspace.
	ID int
	// Kind is what goes wrong.
	Kind Kind
	// Action is the action that it befalls; empty for all of them.
	Action string
	// Share is the share of the runs or requests that it befalls, from 0 to 1.
	Share float64
	// Error is the error label of failed, blocked and invalid.
	Error string
	// Factor is by how much slow-runs, burst and credit-drain multiply.
	Factor float64
	// Count is the number of runs that get stuck.
	Count int
	// Code is the status code of outage, errors and callbacks-failing; Drop
	// means that there is no answer at all.
	Code int
	Drop bool
	// Delay is how long slow delays an answer, how late a change can be, or
	// for how long a schedule is postponed.
	Delay time.Duration
	// RetryAfter is what a 429 of a storm tells in Retry-After; 0 leaves the
	// header out.
	RetryAfter time.Duration
	// After is when it begins, counted from when it is given to the
	// workspace, and For how long it lasts; 0 for until it is cleared. Both
	// are in the simulator's time.
	After, For time.Duration
	// From and Until are when it begins and ends, in the simulator's time. A
	// From that is set goes before After; Until is set by the workspace, and
	// zero for a trouble without an end.
	From, Until time.Time

	from, until int64
	held        int // runs that are stuck in it
}

// troubleKind describes a kind for parsing, checking and the help page.
type troubleKind struct {
	kind     Kind
	settings []string
	defaults Trouble
	help     string
}

func troubleKinds() []troubleKind {
	return []troubleKind{
		{KindFailed, []string{"action", "share", "error"}, Trouble{Share: 1, Error: "LK_ERROR"}, "runs fail"},
		{KindBlocked, []string{"action", "share", "error"}, Trouble{Share: 1, Error: "NOT_CONNECTED"}, "runs are blocked"},
		{KindInvalid, []string{"action", "share", "error"}, Trouble{Share: 1, Error: "BAD_PARAMETERS"}, "launches are refused at once"},
		{KindStall, []string{"action"}, Trouble{}, "no waiting run starts"},
		{KindStuck, []string{"action", "count"}, Trouble{Count: 1}, "that many runs stay RUNNING"},
		{KindSlowRuns, []string{"action", "share", "factor"}, Trouble{Share: 1, Factor: 10}, "runs take longer"},
		{KindEmpty, []string{"action", "share"}, Trouble{Share: 1}, "runs succeed without results"},
		{KindQuiet, []string{"action"}, Trouble{}, "nothing is launched"},
		{KindBurst, []string{"action", "factor"}, Trouble{Factor: 5}, "more is launched"},
		{KindLate, []string{"action", "share", "delay"}, Trouble{Share: 0.2, Delay: 10 * time.Second}, "changes become visible late"},
		{KindMissSchedule, []string{"action", "share", "delay", "drop"}, Trouble{Share: 1}, "schedules miss their time"},
		{KindCallbacksFailing, []string{"action", "share", "code", "drop"}, Trouble{Share: 1, Code: 500}, "results cannot be delivered"},
		{KindCallbacksStalled, []string{"action"}, Trouble{}, "results are not delivered"},
		{KindCreditDrain, []string{"action", "factor"}, Trouble{Factor: 10}, "results cost more credits"},
		{KindOutage, []string{"code", "drop"}, Trouble{Code: 503}, "no request succeeds"},
		{KindStorm, []string{"share", "retry-after"}, Trouble{Share: 1}, "requests get 429"},
		{KindErrors, []string{"share", "code"}, Trouble{Share: 0.1, Code: 500}, "requests get an error"},
		{KindSlow, []string{"share", "delay"}, Trouble{Share: 1, Delay: 5 * time.Second}, "answers take long"},
		{KindCut, []string{"share"}, Trouble{Share: 1}, "answers end in the middle"},
		{KindGarbage, []string{"share"}, Trouble{Share: 1}, "answers are not what was asked for"},
		{KindRevoked, nil, Trouble{}, "the API key is refused"},
		{KindShuffle, nil, Trouble{}, "equal sort keys have no fixed order"},
	}
}

func findKind(k Kind) (troubleKind, bool) {
	all := troubleKinds()
	i := slices.IndexFunc(all, func(t troubleKind) bool { return t.kind == k })
	if i < 0 {
		return troubleKind{}, false
	}
	return all[i], true
}

// ParseTrouble reads the compact form of a trouble: the kind, an action for
// the kinds that befall runs, and settings, all separated by colons, as in
//
//	failed:linkedin-extract-people:share=0.9:for=10m:error=LIMIT_REACHED
//	outage:code=503:after=2m:for=30s
//
// The settings are share, error, factor, count, code, drop, delay,
// retry-after, after, for, and from (a time as in RFC 3339).
func ParseTrouble(s string) (Trouble, error) {
	t := Trouble{}
	parts, err := splitTrouble(s)
	if err != nil {
		return Trouble{}, err
	}
	for i, part := range parts {
		name, value, isSetting := strings.Cut(part, "=")
		if !isSetting {
			switch i {
			case 0:
				t.Kind = Kind(part)
			case 1:
				t.Action = part
			default:
				return Trouble{}, fmt.Errorf("trouble %q: %q is no setting", s, part)
			}
			continue
		}
		if err := t.set(name, value); err != nil {
			return Trouble{}, fmt.Errorf("trouble %q: %w", s, err)
		}
	}
	if err := t.complete(); err != nil {
		return Trouble{}, fmt.Errorf("trouble %q: %w", s, err)
	}
	return t, nil
}

// splitTrouble cuts the compact form at its colons, but for those of a time,
// which follow a digit and precede two.
func splitTrouble(s string) ([]string, error) {
	if strings.TrimSpace(s) == "" {
		return nil, errors.New("trouble: empty")
	}
	var parts []string
	for _, part := range strings.Split(strings.TrimSpace(s), ":") {
		if n := len(parts); n > 0 && strings.HasPrefix(parts[n-1], "from=") && part != "" && part[0] >= '0' && part[0] <= '9' {
			parts[n-1] += ":" + part
			continue
		}
		parts = append(parts, part)
	}
	return parts, nil
}

func (t *Trouble) set(name, value string) error {
	var err error
	switch name {
	case "action":
		t.Action = value
	case "share":
		t.Share, err = strconv.ParseFloat(value, 64)
	case "error":
		t.Error = value
	case "factor":
		t.Factor, err = strconv.ParseFloat(value, 64)
	case "count":
		t.Count, err = strconv.Atoi(value)
	case "code":
		t.Code, err = strconv.Atoi(value)
	case "drop":
		t.Drop, err = strconv.ParseBool(value)
	case "delay":
		t.Delay, err = time.ParseDuration(value)
	case "retry-after":
		t.RetryAfter, err = time.ParseDuration(value)
	case "after":
		t.After, err = time.ParseDuration(value)
	case "for":
		t.For, err = time.ParseDuration(value)
	case "from":
		t.From, err = time.Parse(time.RFC3339, value)
	default:
		return fmt.Errorf("unknown setting %q", name)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// settings returns what is set, by name, in the order of the compact form.
func (t *Trouble) settings() [][2]string {
	var out [][2]string
	put := func(set bool, name, value string) {
		if set {
			out = append(out, [2]string{name, value})
		}
	}
	put(t.Action != "", "action", t.Action)
	put(t.Share != 0, "share", strconv.FormatFloat(t.Share, 'g', -1, 64))
	put(t.Error != "", "error", t.Error)
	put(t.Factor != 0, "factor", strconv.FormatFloat(t.Factor, 'g', -1, 64))
	put(t.Count != 0, "count", strconv.Itoa(t.Count))
	put(t.Code != 0, "code", strconv.Itoa(t.Code))
	put(t.Drop, "drop", "true")
	put(t.Delay != 0, "delay", t.Delay.String())
	put(t.RetryAfter != 0, "retry-after", t.RetryAfter.String())
	put(t.After != 0, "after", t.After.String())
	put(t.For != 0, "for", t.For.String())
	put(!t.From.IsZero(), "from", t.From.UTC().Format(time.RFC3339))
	return out
}

// String returns the compact form, which ParseTrouble reads.
func (t Trouble) String() string {
	var b strings.Builder
	b.WriteString(string(t.Kind))
	for _, s := range t.settings() {
		b.WriteByte(':')
		if s[0] != "action" {
			b.WriteString(s[0])
			b.WriteByte('=')
		}
		b.WriteString(s[1])
	}
	return b.String()
}

// complete fills in the kind's defaults, and refuses what makes no sense.
func (t *Trouble) complete() error {
	k, ok := findKind(t.Kind)
	if !ok {
		var names []string
		for _, k := range troubleKinds() {
			names = append(names, string(k.kind))
		}
		return fmt.Errorf("unknown kind %q; there are %s", t.Kind, strings.Join(names, ", "))
	}
	for _, s := range t.settings() {
		switch s[0] {
		case "after", "for", "from":
		default:
			if !slices.Contains(k.settings, s[0]) {
				return fmt.Errorf("%s has no setting %q", t.Kind, s[0])
			}
		}
	}
	d := k.defaults
	if t.Drop && t.Code != 0 {
		return errors.New("drop and code exclude each other")
	}
	if t.Share == 0 {
		t.Share = d.Share
	}
	if t.Error == "" {
		t.Error = d.Error
	}
	if t.Factor == 0 {
		t.Factor = d.Factor
	}
	if t.Count == 0 {
		t.Count = d.Count
	}
	if t.Code == 0 && !t.Drop {
		t.Code = d.Code
	}
	if t.Delay == 0 {
		t.Delay = d.Delay
	}
	switch {
	case !(t.Share >= 0 && t.Share <= 1):
		return errors.New("share must be from 0 to 1")
	case !(t.Factor >= 0 && t.Factor <= 1000):
		return errors.New("factor must be from 0 to 1000")
	case t.Count < 0:
		return errors.New("count must not be negative")
	case t.Code != 0 && (t.Code < 400 || t.Code > 599):
		return errors.New("code must be from 400 to 599")
	case t.Delay < 0 || t.RetryAfter < 0 || t.After < 0 || t.For < 0:
		return errors.New("durations must not be negative")
	}
	return nil
}

// troubleJSON is a trouble on the wire; durations are text, as in "10m".
type troubleJSON struct {
	ID         int       `json:"id,omitempty"`
	Kind       Kind      `json:"kind"`
	Action     string    `json:"action,omitempty"`
	Share      float64   `json:"share,omitempty"`
	Error      string    `json:"error,omitempty"`
	Factor     float64   `json:"factor,omitempty"`
	Count      int       `json:"count,omitempty"`
	Code       int       `json:"code,omitempty"`
	Drop       bool      `json:"drop,omitempty"`
	Delay      string    `json:"delay,omitempty"`
	RetryAfter string    `json:"retry_after,omitempty"`
	After      string    `json:"after,omitempty"`
	For        string    `json:"for,omitempty"`
	From       time.Time `json:"from,omitzero"`
	Until      time.Time `json:"until,omitzero"`
}

// MarshalJSON writes the form that the control page takes.
func (t Trouble) MarshalJSON() ([]byte, error) {
	text := func(d time.Duration) string {
		if d == 0 {
			return ""
		}
		return d.String()
	}
	return json.Marshal(troubleJSON{
		ID: t.ID, Kind: t.Kind, Action: t.Action, Share: t.Share, Error: t.Error, Factor: t.Factor, Count: t.Count, Code: t.Code, Drop: t.Drop,
		Delay: text(t.Delay), RetryAfter: text(t.RetryAfter), After: text(t.After), For: text(t.For), From: t.From, Until: t.Until,
	})
}

// UnmarshalJSON reads a trouble; durations are text, as in "10m". What is
// missing gets its default when the workspace takes the trouble in.
func (t *Trouble) UnmarshalJSON(data []byte) error {
	var j troubleJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	*t = Trouble{
		Kind: j.Kind, Action: j.Action, Share: j.Share, Error: j.Error, Factor: j.Factor, Count: j.Count, Code: j.Code, Drop: j.Drop, From: j.From,
	}
	for _, d := range []struct {
		name string
		text string
		to   *time.Duration
	}{{"delay", j.Delay, &t.Delay}, {"retry_after", j.RetryAfter, &t.RetryAfter}, {"after", j.After, &t.After}, {"for", j.For, &t.For}} {
		if d.text == "" {
			continue
		}
		var err error
		if *d.to, err = time.ParseDuration(d.text); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	return nil
}

// AddTrouble lets something go wrong and returns it with its defaults, id and
// times filled in.
func (w *Workspace) AddTrouble(t Trouble) (Trouble, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	return w.addTrouble(t)
}

func (w *Workspace) addTrouble(t Trouble) (Trouble, error) {
	if err := t.complete(); err != nil {
		return Trouble{}, err
	}
	if t.Action != "" && w.byName[t.Action] == nil {
		return Trouble{}, fmt.Errorf("no action %q", t.Action)
	}
	w.troubleCount++
	t.ID = w.troubleCount
	if t.From.IsZero() {
		t.From = fromMillis(w.now).Add(t.After)
	}
	t.from, t.until, t.Until = t.From.UnixMilli(), 1<<63-1, time.Time{}
	if t.For > 0 {
		t.Until = t.From.Add(t.For)
		t.until = t.Until.UnixMilli()
	}
	w.troubles = append(w.troubles, &t)
	w.log.Info("trouble", "id", t.ID, "what", t.String())
	return t, nil
}

// Troubles returns what goes wrong now or will, oldest first.
func (w *Workspace) Troubles() []Trouble {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	out := make([]Trouble, 0, len(w.troubles))
	for _, t := range w.troubles {
		out = append(out, *t)
	}
	return out
}

// ClearTrouble ends the troubles with these ids, or all without an id, and
// returns how many there were.
func (w *Workspace) ClearTrouble(ids ...int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	before := len(w.troubles)
	w.troubles = slices.DeleteFunc(w.troubles, func(t *Trouble) bool {
		gone := len(ids) == 0 || slices.Contains(ids, t.ID)
		if gone {
			w.log.Info("trouble cleared", "id", t.ID, "what", t.String())
		}
		return gone
	})
	return before - len(w.troubles)
}

// endTroubles forgets the troubles that are over.
func (w *Workspace) endTroubles() {
	if len(w.troubles) == 0 {
		return
	}
	w.troubles = slices.DeleteFunc(w.troubles, func(t *Trouble) bool {
		if t.until > w.now {
			return false
		}
		w.log.Info("trouble over", "id", t.ID, "what", t.String())
		return true
	})
}

// trouble returns the oldest trouble of a kind that befalls the action at the
// time, or nil.
func (w *Workspace) trouble(k Kind, action string, at int64) *Trouble {
	for _, t := range w.troubles {
		if t.Kind == k && t.from <= at && at < t.until && (t.Action == "" || t.Action == action) {
			return t
		}
	}
	return nil
}

// hit reports whether a trouble befalls a run: always the same answer for the
// same two.
func (w *Workspace) hit(t *Trouble, r *run) bool {
	return unit(mix(w.seed^r.key^mix(bits64(t.ID)))) < t.Share
}

// doom returns how trouble makes a run end, if it does.
func (w *Workspace) doom(r *run, at int64) (outcome, bool) {
	for _, t := range w.troubles {
		if t.from > at || at >= t.until || t.Action != "" && t.Action != r.action.name || !w.hit(t, r) {
			continue
		}
		switch t.Kind {
		case KindFailed:
			return outcome{status: edges.StatusFailed, label: t.Error}, true
		case KindBlocked:
			return outcome{status: edges.StatusBlocked, label: t.Error}, true
		default: // the others are no end
		}
	}
	return outcome{}, false
}

// stuck reports whether trouble keeps a run from going on: the first ones that
// come by are held until it is over.
func (w *Workspace) stuck(r *run, at int64) bool {
	for _, t := range w.troubles {
		if t.Kind != KindStuck || t.from > at || at >= t.until || t.Action != "" && t.Action != r.action.name {
			continue
		}
		if r.stuckBy == t.ID {
			return true
		}
		// A run that shows nothing yet would not be seen to be stuck.
		if t.held < t.Count && r.ord != 0 {
			t.held++
			r.stuckBy = t.ID
			return true
		}
	}
	return false
}

// unit turns a random number into one from 0 to 1.
func unit(x uint64) float64 { return float64(x>>11) / (1 << 53) }
