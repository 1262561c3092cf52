package command

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// What a command can write its rows as.
const (
	// OutputTable is for people: at most 100 columns.
	OutputTable = "table"
	// OutputJSON is what the API wrote, without the values of callback headers.
	OutputJSON = "json"
	// OutputCSV is for spreadsheets: times in UTC, in RFC 3339.
	OutputCSV = "csv"
	// OutputUID is a uid a line, for other commands.
	OutputUID = "uid"
)

// How a table writes times.
const (
	// TimesRelative is "5m ago".
	TimesRelative = "relative"
	// TimesLocal and TimesUTC are "Nov 23 15:04", or the date alone if it is
	// of another year.
	TimesLocal = "local"
	TimesUTC   = "utc"
)

// Format is how a command writes its rows.
type Format struct {
	// Output is one of the Output constants; a table if empty.
	Output string
	// Times is one of the Times constants; relative if empty.
	Times string
	// Now is the time to which relative times relate; time.Now if nil.
	Now func() time.Time
}

func (f Format) now() time.Time {
	if f.Now != nil {
		return f.Now()
	}
	return time.Now()
}

// time writes a time short enough for a table.
func (f Format) time(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	now := f.now()
	switch f.Times {
	case TimesLocal:
		t, now = t.Local(), now.Local() // that is what is asked for
	case TimesUTC:
		t, now = t.UTC(), now.UTC()
	default:
		return relative(t, now)
	}
	if t.Year() != now.Year() {
		return t.Format(time.DateOnly)
	}
	return t.Format("Jan _2 15:04")
}

// title is the heading of a column of times.
func (f Format) title(name string) string {
	if f.Times == TimesUTC {
		return name + " UTC"
	}
	return name
}

// full writes a time with all that a person may want to know of it.
func (f Format) full(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	in := t.Local() // what a person's clock shows
	if f.Times == TimesUTC {
		in = t.UTC()
	}
	return fmt.Sprintf("%s (%s)", in.Format("2006-01-02 15:04:05 MST"), relative(t, f.now()))
}

// relative writes how long ago something was, or in how long it will be.
func relative(t, now time.Time) string {
	d := now.Sub(t)
	if d.Abs() < time.Second {
		return "now"
	}
	if d < 0 {
		return "in " + span(-d)
	}
	return span(d) + " ago"
}

// span writes a duration by its largest unit.
func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// stamp writes a time for programs.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z07:00")
}

// column is a column of a table.
type column[T any] struct {
	title string
	cell  func(T) string
	// cut is how it may be made narrower than what is in it; nil for never.
	cut func(text string, most int) string
	// right aligns numbers.
	right bool
}

// field is a column of a CSV file.
type field[T any] struct {
	name  string
	value func(T) string
}

// sheet is all that is needed to write rows of one kind in every form.
type sheet[T any] struct {
	columns []column[T]
	fields  []field[T]
	uid     func(T) string
}

// printer writes rows as they come.
type printer[T any] interface {
	// rows writes some rows, with the same as the API wrote them.
	rows([]T, []json.RawMessage) error
	// end writes what stands after the last row.
	end() error
}

// printer makes the printer of a format; an unknown one is a UsageError.
func (s sheet[T]) printer(f Format, out io.Writer) (printer[T], error) {
	switch f.Output {
	case "", OutputTable:
		return &tablePrinter[T]{sheet: s, out: out}, nil
	case OutputJSON:
		return &jsonPrinter[T]{out: out}, nil
	case OutputCSV:
		return &csvPrinter[T]{sheet: s, out: csv.NewWriter(out)}, nil
	case OutputUID:
		return &uidPrinter[T]{sheet: s, out: out}, nil
	}
	return nil, usage("output must be table, json, csv or uid, not %q", f.Output)
}

// tableWidth is how many columns of a terminal a table takes at most.
const tableWidth = 100

const gap = "  "

// tablePrinter takes the widths of its columns from the first rows. Later ones
// that need more push their line out of shape, but never over the edge.
type tablePrinter[T any] struct {
	sheet[T]
	out    io.Writer
	widths []int
}

func (p *tablePrinter[T]) rows(rows []T, _ []json.RawMessage) error {
	if len(rows) == 0 {
		return nil
	}
	lines := make([][]string, 0, len(rows)+1)
	if p.widths == nil {
		var titles []string
		for _, c := range p.columns {
			titles = append(titles, c.title)
		}
		lines = append(lines, titles)
	}
	for _, row := range rows {
		var cells []string
		for _, c := range p.columns {
			cells = append(cells, oneLine(c.cell(row)))
		}
		lines = append(lines, cells)
	}
	if p.widths == nil {
		p.fit(lines)
	}
	var text strings.Builder
	for _, cells := range lines {
		text.WriteString(p.line(cells) + "\n")
	}
	_, err := io.WriteString(p.out, text.String())
	return err
}

// fit finds the widths with which all lines fit, the widest column that may be
// cut first.
func (p *tablePrinter[T]) fit(lines [][]string) {
	p.widths = make([]int, len(p.columns))
	total := len(gap) * (len(p.columns) - 1)
	for i := range p.columns {
		for _, cells := range lines {
			p.widths[i] = max(p.widths[i], utf8.RuneCountInString(cells[i]))
		}
		total += p.widths[i]
	}
	for total > tableWidth {
		widest := -1
		for i, c := range p.columns {
			if c.cut != nil && p.widths[i] > len(c.title) && (widest < 0 || p.widths[i] > p.widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return // line cuts what is left
		}
		p.widths[widest]--
		total--
	}
}

func (p *tablePrinter[T]) line(cells []string) string {
	var line strings.Builder
	for i, c := range p.columns {
		cell := cells[i]
		if c.cut != nil {
			cell = c.cut(cell, p.widths[i])
		}
		pad := strings.Repeat(" ", max(0, p.widths[i]-utf8.RuneCountInString(cell)))
		if c.right {
			cell = pad + cell
		} else {
			cell += pad
		}
		if i > 0 {
			line.WriteString(gap)
		}
		line.WriteString(cell)
	}
	return end(strings.TrimRight(line.String(), " "), tableWidth)
}

func (*tablePrinter[T]) end() error { return nil }

// end cuts the end off a text that is longer than so many characters.
func end(text string, most int) string {
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return string([]rune(text)[:max(0, most-1)]) + "…"
}

// middle does it in the middle: names of actions begin alike.
func middle(text string, most int) string {
	all := []rune(text)
	if len(all) <= most {
		return text
	}
	head := most / 4
	return string(all[:head]) + "…" + string(all[len(all)-max(0, most-head-1):])
}

// jsonPrinter writes the API's own rows, a line each, in the array that the API
// has them in. An array that has no end was not read to its end.
type jsonPrinter[T any] struct {
	out   io.Writer
	began bool
}

func (p *jsonPrinter[T]) rows(_ []T, raw []json.RawMessage) error {
	var text strings.Builder
	for _, row := range raw {
		separator := "[\n"
		if p.began {
			separator = ",\n"
		}
		p.began = true
		shown, err := withoutSecrets(row)
		if err != nil {
			return err
		}
		text.WriteString(separator)
		text.Write(shown)
	}
	_, err := io.WriteString(p.out, text.String())
	return err
}

func (p *jsonPrinter[T]) end() error {
	text := "[]\n"
	if p.began {
		text = "\n]\n"
	}
	_, err := io.WriteString(p.out, text)
	return err
}

type csvPrinter[T any] struct {
	sheet[T]
	out   *csv.Writer
	began bool
}

func (p *csvPrinter[T]) rows(rows []T, _ []json.RawMessage) error {
	p.head()
	for _, row := range rows {
		cells := make([]string, 0, len(p.fields))
		for _, f := range p.fields {
			cells = append(cells, f.value(row))
		}
		_ = p.out.Write(cells) // kept for Error
	}
	p.out.Flush()
	return p.out.Error()
}

func (p *csvPrinter[T]) head() {
	if p.began {
		return
	}
	p.began = true
	var names []string
	for _, f := range p.fields {
		names = append(names, f.name)
	}
	_ = p.out.Write(names) // kept for Error
}

func (p *csvPrinter[T]) end() error {
	p.head()
	p.out.Flush()
	return p.out.Error()
}

type uidPrinter[T any] struct {
	sheet[T]
	out io.Writer
}

func (p *uidPrinter[T]) rows(rows []T, _ []json.RawMessage) error {
	var text strings.Builder
	for _, row := range rows {
		if uid := p.uid(row); uid != "" {
			text.WriteString(oneLine(uid) + "\n")
		}
	}
	_, err := io.WriteString(p.out, text.String())
	return err
}

func (*uidPrinter[T]) end() error { return nil }

// outputs are the forms that a command has.
func outputs(output string, allowed ...string) error {
	if output != "" && !slices.Contains(allowed, output) {
		return usage("output must be one of %s, not %q", strings.Join(allowed, ", "), output)
	}
	return nil
}
