package main

import (
	"cmp"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kingpin/v2"

	"github.com/edges-exporter/edges_exporter/collector"
)

// table reads the rows of README's table that has these headings, cell by cell,
// without the marks for code.
func table(t *testing.T, headings ...string) [][]string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	inside, found := false, false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			inside = false
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case slices.Equal(cells, headings):
			if found {
				t.Fatalf("README has the table %v twice", headings)
			}
			inside, found = true, true
		case inside && len(cells) != len(headings):
			t.Errorf("%d cells for %d headings in %s", len(cells), len(headings), line)
		case inside && strings.Trim(line, "|-: ") != "":
			rows = append(rows, cells)
		}
	}
	if len(rows) == 0 {
		t.Fatalf("README has no table %v", headings)
	}
	return rows
}

// code reads a cell that is all code; a dash stands for nothing.
func code(t *testing.T, cell string) string {
	t.Helper()
	if cell == "–" || cell == "" {
		return ""
	}
	inner, ok := strings.CutPrefix(cell, "`")
	inner, ok2 := strings.CutSuffix(inner, "`")
	if !ok || !ok2 {
		t.Errorf("%s should be code", cell)
	}
	return inner
}

// same reports what only one of two tables has, and where they differ.
func same[V comparable](t *testing.T, what string, documented, actual map[string]V) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(actual)) {
		got, there := documented[name]
		switch {
		case !there:
			t.Errorf("README does not list the %s %s: %v", what, name, actual[name])
		case got != actual[name]:
			t.Errorf("README says of the %s %s: %v, but it is: %v", what, name, got, actual[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(documented)) {
		if _, there := actual[name]; !there {
			t.Errorf("README lists the %s %s, which does not exist", what, name)
		}
	}
}

// commandLine is the command line as kingpin sees it, with its variables.
func commandLine(t *testing.T) *kingpin.ApplicationModel {
	t.Helper()
	app, _ := flags(io.Discard, io.Discard)
	// Parsing names the environment variables.
	if _, err := app.ParseContext([]string{"serve"}); err != nil {
		t.Fatal(err)
	}
	return app.Model()
}

// flagRow is what README says of a flag besides its meaning.
type flagRow struct{ variable, value string }

// flagRows are the flags as the program has them.
func flagRows(all []*kingpin.FlagModel) map[string]flagRow {
	rows := map[string]flagRow{}
	for _, f := range all {
		if f.Hidden || f.Name == "help" || f.Name == "version" {
			continue
		}
		value := strings.Join(f.Default, ", ")
		if f.IsBoolFlag() {
			value = cmp.Or(value, "false")
		}
		rows["--"+f.Name] = flagRow{f.Envar, value}
	}
	return rows
}

func TestReadmeFlags(t *testing.T) {
	documented := map[string]flagRow{}
	for _, row := range table(t, "flag", "environment variable", "default", "meaning") {
		name := code(t, row[0])
		if _, twice := documented[name]; twice {
			t.Errorf("README lists %s twice", name)
		}
		documented[name] = flagRow{code(t, row[1]), code(t, row[2])}
		if row[3] == "" {
			t.Errorf("README does not say what %s means", name)
		}
	}
	same(t, "flag", documented, flagRows(commandLine(t).Flags))
}

func TestReadmeCommandFlags(t *testing.T) {
	documented, actual := map[string]flagRow{}, map[string]flagRow{}
	for _, row := range table(t, "commands", "flag", "environment variable", "default", "meaning") {
		for command := range strings.SplitSeq(row[0], ", ") {
			name := code(t, command) + " " + code(t, row[1])
			if _, twice := documented[name]; twice {
				t.Errorf("README lists %s twice", name)
			}
			documented[name] = flagRow{code(t, row[2]), code(t, row[3])}
		}
		if row[4] == "" {
			t.Errorf("README does not say what %s means", row[1])
		}
	}
	for _, c := range commandLine(t).FlattenedCommands() {
		for name, row := range flagRows(c.Flags) {
			actual[c.FullCommand+" "+name] = row
		}
	}
	same(t, "flag", documented, actual)
}

func TestReadmeCommands(t *testing.T) {
	documented, actual := map[string]bool{}, map[string]bool{}
	for _, row := range table(t, "command", "does") {
		documented[code(t, row[0])] = true
	}
	for _, c := range commandLine(t).FlattenedCommands() {
		if c.Hidden || c.Name == "help" {
			continue
		}
		parts := []string{c.FullCommand}
		for _, a := range c.Args {
			name := "[" + a.Name + "]"
			if a.Required {
				name = "<" + a.Name + ">"
			}
			if many, ok := a.Value.(interface{ IsCumulative() bool }); ok && many.IsCumulative() {
				name += "…"
			}
			parts = append(parts, name)
		}
		actual[strings.Join(parts, " ")] = true
	}
	same(t, "command", documented, actual)
}

func TestReadmeMetrics(t *testing.T) {
	type metric struct{ kind, labels string }
	documented, actual := map[string]metric{}, map[string]metric{}
	for _, row := range table(t, "metric", "type", "labels", "meaning") {
		name := code(t, row[0])
		if _, twice := documented[name]; twice {
			t.Errorf("README lists %s twice", name)
		}
		labels := []string{"workspace"}
		for label := range strings.SplitSeq(row[2], ", ") {
			if label = code(t, label); label != "" {
				labels = append(labels, label)
			}
		}
		documented[name] = metric{row[1], strings.Join(labels, " ")}
		if row[3] == "" {
			t.Errorf("README does not say what %s means", name)
		}
	}
	for _, m := range collector.Metrics() {
		actual[m.Name] = metric{m.Type, strings.Join(m.Labels, " ")}
	}
	same(t, "metric", documented, actual)
}

// What README says in passing has to exist too: every flag, every metric, every
// file that it links to.
func TestReadmeMentions(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"--help": true, "--version": true, "--build": true, "--enable-feature": true, "--completion-script-bash": true, "edges_exporter_build_info": true}
	for _, f := range commandLine(t).Flags {
		known["--"+f.Name] = true
		known["--no-"+f.Name] = f.IsBoolFlag()
	}
	for _, c := range commandLine(t).FlattenedCommands() {
		for _, f := range c.Flags {
			known["--"+f.Name] = true
		}
	}
	for _, m := range collector.Metrics() {
		known[m.Name] = true
	}
	for _, mention := range regexp.MustCompile(`--[a-z][a-z.-]*[a-z]|\bedges_[a-z_]+`).FindAllString(string(text), -1) {
		if !known[mention] && mention != name {
			t.Errorf("README mentions %s, which does not exist", mention)
		}
	}
	for _, link := range regexp.MustCompile(`\]\(([^):#]+)\)`).FindAllStringSubmatch(string(text), -1) {
		if _, err := os.Stat(link[1]); err != nil {
			t.Errorf("README links to nothing: %v", err)
		}
	}
}
