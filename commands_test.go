package main

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/edges-exporter/edges_exporter/edges"
	"github.com/edges-exporter/edges_exporter/edges/simulator"
)

// block is a block of code in README.
type block struct{ language, text string }

// blocks are those of one section of README.
func blocks(t *testing.T, heading string) []block {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n"+heading+"\n")
	if !found {
		t.Fatalf("README has no %s", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var all []block
	for _, m := range regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$").FindAllStringSubmatch(section, -1) {
		all = append(all, block{m[1], m[2]})
	}
	return all
}

// pattern is the expression that an example's output has to match: spaces stand
// for any number of them, "…" for anything in a line, and alone in its line for
// any lines.
func pattern(text string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString("^")
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "…" {
			b.WriteString(`(?:.*\n)*?`)
			continue
		}
		var words []string
		for _, word := range strings.Fields(line) {
			words = append(words, strings.ReplaceAll(regexp.QuoteMeta(word), "…", ".*?"))
		}
		b.WriteString(` *` + strings.Join(words, ` +`) + "\n")
	}
	return regexp.MustCompile(b.String() + "$")
}

func TestPattern(t *testing.T) {
	for _, test := range []struct {
		pattern, text string
		want          bool
	}{
		{"a … c\n", "a  b  c\n", true},
		{"a … c\n", "a b d\n", false},
		{"a\n…\nz\n", "a\nb\nc\nz\n", true},
		{"a\n…\nz\n", "a\nz\n", true},
		{"a\n…\n", "a\nb\n", true},
		{"a\n", "a\nb\n", false},
		{"a.c\n", "abc\n", false},
		{"run … made\n", "run\nmade\n", false},
	} {
		if got := pattern(test.pattern).MatchString(test.text); got != test.want {
			t.Errorf("%q and %q: %v", test.pattern, test.text, got)
		}
	}
}

// Every example of README's section on runs does what it says, run by a shell
// as it stands there. Only the simulated workspace's port is another one.
func TestReadmeExamples(t *testing.T) {
	if _, err := exec.LookPath("sh"); err != nil {
		t.Fatal("the examples are for a shell: ", err)
	}
	address := freeAddress(t)
	all := blocks(t, "### Working with runs")
	if len(all) < 10 {
		t.Fatalf("only %d blocks", len(all))
	}
	const begin, export = "edges_exporter simulate &\n", "export EDGES_API_KEY=" + simulator.DefaultAPIKey + " EDGES_EXPORTER_EDGES_URL=http://localhost:10254/v1\n"
	if all[0].text != begin+export {
		t.Fatalf("the examples begin with\n%s", all[0].text)
	}
	p := start(t, nil, "simulate", "--simulator.listen-address="+address)
	eventually(t, p, "an answer", func() bool {
		status, _, _ := get(t, "http://"+address+"/v1/runs", "X-API-Key", simulator.DefaultAPIKey)
		return status == http.StatusOK
	})

	folder := t.TempDir()
	bin := filepath.Join(folder, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	self, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\n" + asProgram + "=1 exec '" + self + "' \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	moved := func(text string) string { return strings.ReplaceAll(text, "localhost:10254", address) }
	examples := 0
	for i, example := range all[1:] {
		if example.language != "sh" {
			continue
		}
		examples++
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		shell := exec.CommandContext(ctx, "sh", "-e", "-c", moved(export+example.text))
		shell.Dir = folder
		shell.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
		var out, errs bytes.Buffer
		shell.Stdout, shell.Stderr = &out, &errs
		err := shell.Run()
		cancel()
		if err != nil {
			t.Errorf("%v:\n%s\nwrites\n%s\nand\n%s", err, example.text, &out, &errs)
			continue
		}
		if i+2 >= len(all) || all[i+2].language != "text" {
			t.Errorf("README does not say what this writes:\n%s", example.text)
			continue
		}
		if want := moved(all[i+2].text); !pattern(want).MatchString(out.String()) {
			t.Errorf("%s\nwrites\n%s\nand not\n%s\n(errors: %s)", example.text, &out, want, &errs)
		}
		for line := range strings.Lines(out.String()) {
			if n := len([]rune(strings.TrimRight(line, "\n"))); n > 100 && !regexp.MustCompile("^({|uid,|run |schedule )").MatchString(line) {
				t.Errorf("%d columns: %s", n, line)
			}
		}
	}
	if examples < 8 {
		t.Errorf("only %d examples", examples)
	}
}

// command runs a command to its end.
func (w *world) command(t *testing.T, args ...string) (code int, output string) {
	t.Helper()
	p := start(t, []string{"EDGES_API_KEY=" + simulator.DefaultAPIKey, "EDGES_EXPORTER_EDGES_URL=" + w.api.URL + "/v1"}, args...)
	code = p.wait(t)
	return code, p.output.String()
}

// What is wrong with a command's flags ends it with 2, in one line, before
// anything is sent.
func TestCommandUsage(t *testing.T) {
	sent := 0
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		sent++
		w.WriteHeader(http.StatusTeapot)
	}))
	defer api.Close()
	for _, test := range []struct {
		name string
		env  string
		args []string
		says string
	}{
		{"no key", "EDGES_API_KEY=", []string{"runs", "list"}, "EDGES_API_KEY"},
		{"no command", "A=b", []string{"runs"}, "must select a subcommand"},
		{"no uid", "A=b", []string{"runs", "get"}, "uid"},
		{"no time", "A=b", []string{"runs", "list", "--since=lunch"}, "--since"},
		{"no time in the environment", "EDGES_EXPORTER_SINCE=lunch", []string{"runs", "list"}, "EDGES_EXPORTER_SINCE"},
		{"no number", "A=b", []string{"runs", "list", "--flow-run-id=x"}, "--flow-run-id"},
		{"no form", "A=b", []string{"runs", "get", "--output=uid", "a"}, "uid"},
		{"no mode", "A=b", []string{"launch", "a", "--input={}"}, "mode"},
		{"no input", "A=b", []string{"launch", "a", "--mode=async"}, "--input"},
		{"nobody to ask", "A=b", []string{"runs", "resume", "a"}, "--yes"},
		{"yes in the environment does not count", "EDGES_EXPORTER_YES=true", []string{"runs", "cancel", "a"}, "--yes"},
		{"nobody to ask about a launch", "A=b", []string{"launch", "a", "--mode=live", "--input={}"}, "--yes"},
		{"bad URL", "A=b", []string{"check", "--edges.url=ftp://a"}, "--edges.url"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := start(t, []string{"EDGES_API_KEY=k", "EDGES_EXPORTER_EDGES_URL=" + api.URL, test.env}, test.args...)
			if code := p.wait(t); code != exitUsage {
				t.Errorf("exit code %d", code)
			}
			if out := p.output.String(); strings.Count(out, "\n") != 1 || !strings.HasPrefix(out, name+": ") || !strings.Contains(out, test.says) {
				t.Errorf("not one line with %q:\n%s", test.says, out)
			}
		})
	}
	if sent > 0 {
		t.Errorf("%d requests were sent", sent)
	}
}

// check leaves a running exporter alone, and finds a damaged store.
func TestCheckStore(t *testing.T) {
	w := newWorld(t, small())
	check := func(folder string) (int, string) {
		t.Helper()
		return w.command(t, "check", "--storage.path="+folder, "--edges.max-requests-per-minute=40")
	}
	code, out := check(w.folder)
	if code != exitOK || !strings.Contains(out, "has none yet") {
		t.Errorf("no store: code %d\n%s", code, out)
	}
	if left, err := os.ReadDir(w.folder); err != nil || len(left) > 0 {
		t.Errorf("check leaves %v, %v", left, err)
	}
	p := w.exporter(t)
	w.backfilled(t)
	code, out = check(w.folder)
	if code != exitOK || !strings.Contains(out, "in use by a running exporter") {
		t.Errorf("in use: code %d\n%s", code, out)
	}
	if code := p.terminate(t); code != exitOK {
		t.Errorf("the exporter ends with %d:\n%s", code, p.output)
	}
	code, out = check(w.folder)
	if code != exitOK || !regexp.MustCompile(`is sound:\s+[1-9][0-9,]* runs,`).MatchString(out) {
		t.Errorf("sound: code %d\n%s", code, out)
	}
	file := filepath.Join(w.folder, "edges.db")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) func() error {
		return func() error { return os.WriteFile(file, b, 0o600) }
	}
	for name, spoil := range map[string]func() error{
		"cut":     write(good[:len(good)/2]),
		"empty":   write(nil),
		"garbage": write(bytes.Repeat([]byte("x"), len(good))),
		"a run":   func() error { return errors.Join(write(good)(), spoilRun(file)) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		before, _ := os.ReadFile(file)
		code, out := check(w.folder)
		if code != exitFailed || !strings.Contains(out, "bad   store") || !strings.Contains(out, "1 problem found") {
			t.Errorf("%s: code %d\n%s", name, code, out)
		}
		if after, _ := os.ReadFile(file); !bytes.Equal(before, after) {
			t.Errorf("%s: the store was changed", name)
		}
	}
	if strings.Contains(out, simulator.DefaultAPIKey) {
		t.Error("the key is shown")
	}
}

// spoilRun changes one bit of a run in a store.
func spoilRun(file string) error {
	db, err := bbolt.Open(file, 0o600, nil)
	if err != nil {
		return err
	}
	return errors.Join(db.Update(func(tx *bbolt.Tx) error {
		runs := tx.Bucket([]byte("runs"))
		key, value := runs.Cursor().Last()
		value = bytes.Clone(value)
		value[0] ^= 1
		return runs.Put(bytes.Clone(key), value)
	}), db.Close())
}

// Commands end with what became of what they were asked for.
func TestCommandExitCodes(t *testing.T) {
	w := newWorld(t, small())
	uid := w.Put(simulator.Run{Action: "email-find", Mode: edges.ModeAsync, Status: edges.StatusBlocked})
	for _, test := range []struct {
		code int
		says string
		args []string
	}{
		{exitOK, uid, []string{"runs", "list", "--status=blocked", "--uid=" + uid}},
		{exitOK, "UID", []string{"runs", "list", "--action=email-find", "--mode=async", "--limit=1", "--times=local"}},
		{exitOK, "BLOCKED", []string{"runs", "get", uid}},
		{exitFailed, "no such run", []string{"runs", "get", uid, "nosuch"}},
		{exitOK, "now SCHEDULED", []string{"runs", "resume", "--yes", uid}},
		{exitFailed, "it is SCHEDULED", []string{"runs", "resume", "-y", uid}},
		{exitOK, "now STOPPED", []string{"runs", "cancel", "--yes", uid}},
		{exitFailed, "no action", []string{"launch", "no-such", "--mode=async", "--input={}", "--yes"}},
		{exitOK, "schedule ", []string{"launch", "email-find", "--mode=schedule", "--at=2099-01-01", "--timezone=UTC", "--input={}", "--yes"}},
		{exitOK, "ACTIVE", []string{"schedules", "list", "--status=active"}},
		{exitFailed, "refused", []string{"check", "--edges.api-key-file=" + wrongKey(t)}},
		{exitOK, "complete -F", []string{"--completion-script-bash"}},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			code, out := w.command(t, test.args...)
			if code != test.code || !strings.Contains(out, test.says) {
				t.Errorf("code %d, want %d with %q:\n%s", code, test.code, test.says, out)
			}
		})
	}
}

func wrongKey(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte("not-the-key"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
