package simulator_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
	"github.com/edges-exporter/edges_exporter/edges/simulator"
)

// post does what "curl -d" does.
func (o *office) post(code int, path, body string) reply {
	o.t.Helper()
	a, err := o.do(http.MethodPost, path, strings.NewReader(body), "Content-Type", "application/x-www-form-urlencoded", "X-Api-Key", "")
	if err != nil || a.code != code {
		o.t.Fatalf("POST %s %s: %d, %v: %s", path, body, a.code, err, a.body)
	}
	return a
}

func TestControlTrouble(t *testing.T) {
	o := open(t, still())
	for _, body := range []string{
		"failed:email-find:share=0.9:for=10m:error=LIMIT_REACHED",
		`{"kind":"blocked","action":"email-find","for":"5m","share":0.5}`,
		`[{"kind":"stall"},{"kind":"storm","retry_after":"3s"}]`,
		"quiet:email-find\n\nslow:delay=1s\n",
	} {
		o.post(200, "/simulator/trouble", body)
	}
	for _, body := range []string{"", "plague", "failed:unknown-action", `{"kind":"blocked","for":"soon"}`, `{"kind":`, `[]`, `{"kind":7}`} {
		a := o.post(400, "/simulator/trouble", body)
		if decode[map[string]string](t, a.body)["error"] == "" {
			t.Errorf("%s: %s", body, a.body)
		}
	}
	all := decode[[]simulator.Trouble](t, o.must(200, "GET", "/simulator/trouble").body)
	var kinds []simulator.Kind
	for _, x := range all {
		kinds = append(kinds, x.Kind)
	}
	want := []simulator.Kind{simulator.KindFailed, simulator.KindBlocked, simulator.KindStall, simulator.KindStorm, simulator.KindQuiet, simulator.KindSlow}
	if !slices.Equal(kinds, want) || all[1].For != 5*time.Minute || all[3].RetryAfter != 3*time.Second {
		t.Errorf("got %+v", all)
	}
	if page := o.must(200, "GET", "/simulator/").body; !strings.Contains(string(page), "trouble 3   stall") {
		t.Errorf("the page does not say what goes wrong:\n%s", page)
	}
	o.must(400, "DELETE", "/simulator/trouble?id=x")
	a := o.must(200, "DELETE", "/simulator/trouble?id=3&id=4")
	if decode[map[string]int](t, a.body)["cleared"] != 2 || len(o.Troubles()) != 4 {
		t.Errorf("cleared %s", a.body)
	}
	o.must(200, "DELETE", "/simulator/trouble")
	if left := o.Troubles(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestControl(t *testing.T) {
	o := open(t, still())
	launched := decode[map[string][]string](t, o.post(200, "/simulator/launch", "action=email-find&mode=async&count=3").body)["uids"]
	if got := o.uids("sort", "id"); !slices.Equal(got, launched) || len(got) != 3 {
		t.Errorf("launched %v, there are %v", launched, got)
	}
	o.post(200, "/simulator/clock", "advance=24h")
	if got := o.clock.Now(); !got.Equal(start.Add(24 * time.Hour)) {
		t.Errorf("it is %v", got)
	}
	put := decode[map[string][]string](t, o.post(200, "/simulator/runs", `[{"action":"own","status":"BLOCKED","mode":"ASYNC","error":{"label":"NOT_CONNECTED"}}]`).body)["uids"]
	if rows := o.list("action_name", "own"); len(rows) != 1 || rows[0].UID != put[0] || rows[0].LastError.Label != "NOT_CONNECTED" {
		t.Errorf("put %v, there are %+v", put, rows)
	}
	o.clock.Advance(time.Second)
	if a := o.post(200, "/simulator/touch", "count=2"); !strings.Contains(string(a.body), "2") {
		t.Errorf("touched %s", a.body)
	}
	removed := decode[map[string][]string](t, o.post(200, "/simulator/remove", "count=1").body)["uids"]
	if len(removed) != 1 || len(o.uids()) != 3 || slices.Contains(o.uids(), removed[0]) {
		t.Errorf("removed %v, there are %v", removed, o.uids())
	}
	o.post(200, "/simulator/remove", "uid="+launched[0]+"&uid="+launched[1]+"&uid="+launched[2])
	state := decode[simulator.State](t, o.must(200, "GET", "/simulator/state").body)
	if state.Runs > 1 || !state.Now.Equal(o.clock.Now()) || state.Plan != "unlimited" || state.WorkspaceUID != o.UID() {
		t.Errorf("state %+v", state)
	}
	for path, body := range map[string]string{
		"/simulator/launch": "action=none", "/simulator/clock": "advance=-1s", "/simulator/remove": "count=0", "/simulator/touch": "count=x", "/simulator/runs": "{",
	} {
		o.post(400, path, body)
	}
	o.must(404, "GET", "/simulator/nothing")
}

func TestControlTruth(t *testing.T) {
	o := open(t, lively())
	all := decode[simulator.Truth](t, o.must(200, "GET", "/simulator/truth").body)
	direct := o.Truth()
	if len(all.Entries) != len(direct.Entries) || len(all.Runs) != len(direct.Runs) || !slices.Equal(all.Entries, direct.Entries) {
		t.Errorf("%d entries and %d runs, there are %d and %d", len(all.Entries), len(all.Runs), len(direct.Entries), len(direct.Runs))
	}
	n := len(direct.Entries) - 3
	tail := decode[simulator.Truth](t, o.must(200, "GET", "/simulator/truth?runs=false&from="+itoa(n)).body)
	if !slices.Equal(tail.Entries, direct.Entries[n:]) || len(tail.Runs) != 0 {
		t.Errorf("got %+v", tail)
	}
	o.must(400, "GET", "/simulator/truth?from=x")
}

// The page names everything that can be done, and nothing that cannot.
func TestControlPage(t *testing.T) {
	o := open(t, lively())
	page := string(o.must(200, "GET", "/").body) // and the way there
	for _, want := range append(o.Actions(), string(edges.StatusBlocked), o.http.URL+"/v1/runs", "shuffle-ties", "trouble     none") {
		if !strings.Contains(page, want) {
			t.Errorf("no %s in the page", want)
		}
	}
	if strings.Contains(page, simulator.DefaultAPIKey) {
		t.Error("the key is in the page")
	}
	for line := range strings.Lines(page) {
		if !strings.Contains(line, "'"+o.http.URL+"/") {
			continue
		}
		_, rest, _ := strings.Cut(line, "'"+o.http.URL)
		path, _, _ := strings.Cut(rest, "'")
		method := http.MethodGet
		switch {
		case strings.Contains(line, "-X DELETE"):
			method = http.MethodDelete
		case strings.Contains(line, "-d ") || strings.Contains(line, "-X POST"):
			method = http.MethodPost
		}
		a, err := o.do(method, strings.Replace(path, "UID", o.uids("status", "FAILED")[0], 1), strings.NewReader(curlData(line)), "Content-Type", "application/x-www-form-urlencoded")
		if err != nil || a.code != http.StatusOK {
			t.Errorf("%s: %d, %v: %s", strings.TrimSpace(line), a.code, err, a.body)
		}
	}
}

// curlData is what the -d arguments of a line send.
func curlData(line string) string {
	var data []string
	for _, part := range strings.Split(line, " -d ")[1:] {
		if quoted, ok := strings.CutPrefix(part, "'"); ok {
			part, _, _ = strings.Cut(quoted, "'")
		} else {
			part, _, _ = strings.Cut(part, " ")
		}
		data = append(data, part)
	}
	return strings.Join(data, "&")
}
