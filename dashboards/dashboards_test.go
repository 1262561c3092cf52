package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// The files are what people import; the code is what people change.
func TestFilesAreWhatTheCodeMakes(t *testing.T) {
	dir := t.TempDir()
	if err := write(dir); err != nil {
		t.Fatal(err)
	}
	made, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	kept, err := filepath.Glob("*.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(made) != len(kept) || len(made) != len(boards()) {
		t.Fatalf("the code makes %d files, %d are here", len(made), len(kept))
	}
	for _, path := range made {
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Base(path))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the code makes: run go generate in this folder", filepath.Base(path))
		}
	}
}

// Alerts and people keep the dashboards' addresses.
func TestAddressesStay(t *testing.T) {
	want := []string{"edges-runs", "edges-action", "edges-exporter"}
	for i, uid := range uids() {
		if d, _ := load(t, uid); d.UID != want[i] {
			t.Errorf("uid %q, want %q", d.UID, want[i])
		}
	}
}

// The objective that the panels draw by default is the one that alerts burn by.
func TestObjectiveIsTheAlerts(t *testing.T) {
	rules, err := os.ReadFile("../alerts/edges.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`edges:threshold:success_objective\n\s+expr: vector\(([0-9.]+)\)`).FindSubmatch(rules)
	if m == nil {
		t.Fatal("the rules have no success objective")
	}
	if string(m[1]) != defaultObjective {
		t.Errorf("objective %s, the alerts have %s", defaultObjective, m[1])
	}
}

// Links from alerts name dashboards and variables.
func TestAlertsLinkToWhatExists(t *testing.T) {
	rules, err := os.ReadFile("../alerts/edges.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	variables := map[string]map[string]bool{}
	for _, uid := range uids() {
		d, _ := load(t, uid)
		variables[uid] = map[string]bool{}
		for _, v := range d.Templating.List {
			variables[uid][v.Name] = true
		}
	}
	links := regexp.MustCompile(`/d/([\w-]+)(\?[^'\n]*)?`).FindAllSubmatch(rules, -1)
	if len(links) == 0 {
		t.Fatal("the rules have no links to dashboards")
	}
	for _, link := range links {
		known, ok := variables[string(link[1])]
		if !ok {
			t.Errorf("there is no dashboard %s", link[1])
		}
		for _, v := range regexp.MustCompile(`var-(\w+)=`).FindAllSubmatch(link[2], -1) {
			if ok && !known[string(v[1])] {
				t.Errorf("dashboard %s has no variable %s", link[1], v[1])
			}
		}
	}
}
