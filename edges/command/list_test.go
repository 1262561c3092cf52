package command_test

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
	"github.com/edges-exporter/edges_exporter/edges/command"
	"github.com/edges-exporter/edges_exporter/edges/simulator"
)

// three puts three different runs in.
func three(w *simulator.Workspace) {
	w.Put(simulator.Run{
		UID: uid(1), Action: "linkedin-extract-people", Mode: edges.ModeAsync, Status: edges.StatusPartialSucceeded, OutputCount: 1234,
		Error:     &simulator.RunError{Label: "LK_MISSING_DATA", Message: "Some profiles\nwere empty."},
		CreatedAt: noon.Add(-26 * time.Hour), StartedAt: noon.Add(-26 * time.Hour), FinishedAt: noon.Add(-25 * time.Hour), UpdatedAt: noon.Add(-25 * time.Hour),
		Callback: json.RawMessage(`{"url":"https://hooks.example.com/a","headers":{"Authorization":"Bearer s3cret","X-A":["s3cret2",3]}}`),
	})
	w.Put(simulator.Run{
		UID: uid(2), Action: "email-find", Mode: edges.ModeLive, Status: edges.StatusSucceeded, OutputCount: 1,
		CreatedAt: noon.Add(-5 * time.Minute), StartedAt: noon.Add(-5 * time.Minute), FinishedAt: noon.Add(-4 * time.Minute), UpdatedAt: noon.Add(-4 * time.Minute),
		Callback: json.RawMessage(`null`),
	})
	w.Put(simulator.Run{
		UID: uid(3), Action: "linkedin-visit-profile", Mode: edges.ModeAsync, Status: edges.StatusRunning, ScheduledRunUID: uid(99),
		CreatedAt: noon.Add(-9 * time.Second), StartedAt: noon.Add(-8 * time.Second), UpdatedAt: noon.Add(-8 * time.Second),
		Callback: json.RawMessage(`{"headers":{}}`),
	})
}

func TestListRunsForms(t *testing.T) {
	for _, test := range []struct {
		name, output, times, want string
	}{
		{"table", "table", "", `UID                                   STATUS             UPDATED    OUT  ACTION        ERROR
00000000-0000-4000-8000-000000000003  RUNNING            8s ago       0  lin…-profile  -
00000000-0000-4000-8000-000000000002  SUCCEEDED          4m ago       1  email-find    -
00000000-0000-4000-8000-000000000001  PARTIAL_SUCCEEDED  1d ago   1,234  lin…t-people  LK_MISSING_D…
`},
		{"table in UTC", "", "utc", `UID                                   STATUS             UPDATED UTC     OUT  ACTION      ERROR
00000000-0000-4000-8000-000000000003  RUNNING            Nov 23 11:59      0  li…profile  -
00000000-0000-4000-8000-000000000002  SUCCEEDED          Nov 23 11:56      1  email-find  -
00000000-0000-4000-8000-000000000001  PARTIAL_SUCCEEDED  Nov 22 11:00  1,234  li…-people  LK_MISSIN…
`},
		{"uid", "uid", "", uid(3) + "\n" + uid(2) + "\n" + uid(1) + "\n"},
		{"csv", "csv", "", `uid,status,action,mode,error,results,retries,created_at,started_at,finished_at,updated_at,postponed_until,schedule,user
00000000-0000-4000-8000-000000000003,RUNNING,linkedin-visit-profile,SCHEDULE,,0,0,2026-11-23T11:59:51.000Z,2026-11-23T11:59:52.000Z,,2026-11-23T11:59:52.000Z,,00000000-0000-4000-8000-000000000099,
00000000-0000-4000-8000-000000000002,SUCCEEDED,email-find,LIVE,,1,0,2026-11-23T11:55:00.000Z,2026-11-23T11:55:00.000Z,2026-11-23T11:56:00.000Z,2026-11-23T11:56:00.000Z,,,
00000000-0000-4000-8000-000000000001,PARTIAL_SUCCEEDED,linkedin-extract-people,ASYNC,LK_MISSING_DATA,1234,0,2026-11-22T10:00:00.000Z,2026-11-22T10:00:00.000Z,2026-11-22T11:00:00.000Z,2026-11-22T11:00:00.000Z,,,
`},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, w, _ := office(t)
			three(w)
			if err := command.ListRuns(t.Context(), d.client, command.RunsOptions{Format: atNoon(test.output, test.times)}, d.terminal()); err != nil {
				t.Fatal(err)
			}
			d.wrote(test.want, "")
		})
	}
}

// JSON is what the API wrote, value by value, but for the headers' values.
func TestListRunsJSON(t *testing.T) {
	d, w, _ := office(t)
	three(w)
	if err := command.ListRuns(t.Context(), d.client, command.RunsOptions{Format: command.Format{Output: command.OutputJSON}}, d.terminal()); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(d.out.String(), "s3cret") {
		t.Errorf("a secret is shown:\n%s", d.out.String())
	}
	var shown, theirs []json.RawMessage
	if err := json.Unmarshal(d.out.Bytes(), &shown); err != nil {
		t.Fatalf("%v:\n%s", err, d.out.String())
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.url+"/v1/runs?sort=-updated_at", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Api-Key", simulator.DefaultAPIKey)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, &theirs); err != nil {
		t.Fatal(err)
	}
	if len(theirs) != 3 || len(shown) != 3 {
		t.Fatalf("%d and %d rows", len(theirs), len(shown))
	}
	for i := range theirs {
		want := string(theirs[i])
		for _, secret := range []string{`"Bearer s3cret"`, `"s3cret2"`, `3]`} {
			hidden := `"[redacted]"`
			if strings.HasSuffix(secret, "]") {
				hidden += "]"
			}
			want = strings.ReplaceAll(want, secret, hidden)
		}
		if string(shown[i]) != want {
			t.Errorf("shown is\n%s\nand theirs\n%s", shown[i], theirs[i])
		}
	}

	d.out.Reset()
	o := command.RunsOptions{Query: edges.RunsQuery{Status: []edges.Status{"INVALID"}}, Format: command.Format{Output: command.OutputJSON}}
	if err := command.ListRuns(t.Context(), d.client, o, d.terminal()); err != nil {
		t.Fatal(err)
	}
	d.wrote("[]\n", "")
}

// Every filter reaches the API under its own name, as often as it was given.
func TestListRunsFilters(t *testing.T) {
	d := sit(t, answers(http.StatusOK, "[]"))
	o := command.RunsOptions{Limit: 30, Query: edges.RunsQuery{
		Status: []edges.Status{"FAILED", "BLOCKED"}, ActionName: []string{"a", "b"}, ExecutionMode: []string{"LIVE"},
		UID: []string{"u1", "u2"}, UserUID: []string{"p"}, WorkspaceUID: []string{"w"}, FlowRunID: []int64{7, 8}, Sort: []string{"created_at", "-status"},
	}}
	if err := command.ListRuns(t.Context(), d.client, o, d.terminal()); err != nil {
		t.Fatal(err)
	}
	want := "action_name=a&action_name=b&execution_mode=LIVE&flow_run_id=7&flow_run_id=8&limit=30&sort=created_at&sort=-status&status=FAILED&status=BLOCKED&uid=u1&uid=u2&user_uid=p&workspace_uid=w"
	if got := d.got(); len(got) != 1 || got[0].query != want {
		t.Errorf("requests are %v, and the query should be %s", got, want)
	}
}

// Whatever is in the rows, a table is 100 columns wide at most, and nothing in
// it moves the cursor.
func TestTableFits(t *testing.T) {
	var rows []string
	for i := range 250 {
		status, label, action := edges.Statuses()[i%10], "A", "b"
		if i > 120 { // the first rows decide on the widths
			status, label, action = edges.StatusPartialSucceeded, strings.Repeat("LONG_", 20), strings.Repeat("äction-", 16)
		}
		at := noon.Add(-time.Duration(i) * time.Minute).Format(time.RFC3339)
		rows = append(rows, fmt.Sprintf(`{"uid":%q,"status":%q,"action_name":%q,"output_count":%d,"updated_at":%q,"last_error":{"label":%q}}`, uid(i), status, action, i*i*i*100, at, label))
	}
	rows[5] = `{"uid":"x\u001b[2Jy","status":"FAI\nLED","updated_at":"2026-11-23T10:00:00Z"}`
	rows[6] = `{"uid":` + strconv.Quote(strings.Repeat("u", 120)) + `,"status":"X","updated_at":"2026-11-23T10:00:00Z"}`
	rows[7] = `"no object"`
	d := sit(t, part(func() []string { return rows }))
	for _, times := range []string{"relative", "local", "utc"} {
		if err := command.ListRuns(t.Context(), d.client, command.RunsOptions{Format: atNoon("table", times)}, d.terminal()); err != nil {
			t.Fatal(err)
		}
		text := d.out.String()
		fits(t, text)
		if n := strings.Count(text, "\n"); n != len(rows)+1 {
			t.Errorf("%d lines for %d rows", n, len(rows))
		}
		if i := strings.IndexFunc(text, func(r rune) bool { return r < ' ' && r != '\n' }); i >= 0 {
			t.Errorf("a control character at %d: %q", i, text[max(0, i-20):i+5])
		}
		d.out.Reset()
		d.err.Reset()
	}
}

// part serves a list by limit and offset.
func part(list func() []string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rows := list()
		limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
		offset, _ := strconv.Atoi(r.URL.Query().Get("offset"))
		rows = rows[min(offset, len(rows)):]
		rows = rows[:min(limit, len(rows))]
		w.Header().Set("Date", noon.Format(http.TimeFormat))
		io.WriteString(w, "["+strings.Join(rows, ",")+"]")
	})
}

// listed are the uids that a list has written, each once.
func listed(t *testing.T, text string) []string {
	t.Helper()
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var uids []string
	seen := map[string]bool{}
	for _, row := range rows[1:] {
		if seen[row[0]] {
			t.Errorf("%s is there twice", row[0])
		}
		seen[row[0]] = true
		uids = append(uids, row[0])
	}
	return uids
}

// The list moves under the reader: runs are added, changed and removed before
// each request. Every run that is there all the time is written once.
func TestListWhileItMoves(t *testing.T) {
	for seed := range uint64(4) {
		for _, sort := range []string{"", "created_at", "-created_at"} {
			t.Run(fmt.Sprintf("seed %d sort %s", seed, sort), func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 1))
				clock := simulator.NewManualClock(noon)
				w, err := simulator.New(simulator.Config{Seed: 5, Clock: clock, History: simulator.None, RunsPerDay: simulator.None})
				if err != nil {
					t.Fatal(err)
				}
				fill(w, 500)
				gone := map[string]bool{}
				added := 1000
				moves := 0
				d := sit(t, hook(w, func(*http.Request) {
					if moves++; moves > 10 {
						return
					}
					clock.Advance(time.Duration(random.IntN(60)) * time.Second)
					for range random.IntN(30) {
						if n := random.IntN(500); !gone[uid(n)] {
							if err := w.Change(uid(n), func(r *simulator.Run) { r.OutputCount++ }); err != nil {
								t.Error(err)
							}
						}
					}
					for range random.IntN(25) {
						n := random.IntN(500)
						gone[uid(n)] = true
						w.Remove(uid(n))
					}
					for range random.IntN(20) {
						added++
						w.Put(simulator.Run{UID: uid(added), Action: "email-find", Mode: edges.ModeAsync, Status: edges.StatusRunning})
					}
				}))
				o := command.RunsOptions{Format: command.Format{Output: command.OutputCSV}}
				if sort != "" {
					o.Query.Sort = []string{sort}
				}
				if err := command.ListRuns(t.Context(), d.client, o, d.terminal()); err != nil {
					t.Fatal(err)
				}
				uids := listed(t, d.out.String())
				missing := 0
				for n := range 500 {
					if !gone[uid(n)] && !slices.Contains(uids, uid(n)) {
						missing++
					}
				}
				if missing > 0 {
					t.Errorf("%d of %d runs are missing", missing, 500-len(gone))
				}
				if len(d.got()) > 60 {
					t.Errorf("%d requests for 500 runs", len(d.got()))
				}
			})
		}
	}
}

func TestListSince(t *testing.T) {
	for _, test := range []struct {
		name, since    string
		limit          int
		runs, requests int
	}{
		// The list of 1,000 runs has one a second up to noon.
		{"from the beginning", "", 0, 1000, 13},
		{"a minute", "1m", 0, 60, 1},
		{"a time", noon.Add(-250 * time.Second).Format(time.RFC3339), 0, 250, 4},
		{"before all", "7d", 0, 1000, 13},
		{"limit", "", 7, 7, 1},
		{"limit over a page", "", 150, 150, 2},
		{"limit before since", "5m", 20, 20, 1},
		{"since before limit", "10s", 20, 10, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, w, _ := office(t)
			fill(w, 1000)
			o := command.RunsOptions{Limit: test.limit, Format: command.Format{Output: command.OutputCSV}}
			if test.since != "" {
				if err := o.Since.Set(test.since); err != nil {
					t.Fatal(err)
				}
			}
			if err := command.ListRuns(t.Context(), d.client, o, d.terminal()); err != nil {
				t.Fatal(err)
			}
			uids := listed(t, d.out.String())
			if len(uids) != test.runs || len(d.got()) > test.requests {
				t.Errorf("%d runs and %d requests, want %d and %d", len(uids), len(d.got()), test.runs, test.requests)
			}
			if len(uids) > 0 && (uids[0] != uid(999) || uids[len(uids)-1] != uid(1000-test.runs)) {
				t.Errorf("from %s to %s", uids[0], uids[len(uids)-1])
			}
		})
	}
}

func TestSince(t *testing.T) {
	for _, text := range []string{"2h", "7d", "1h30m", "2026-11-23", "2026-11-23 15:04", "2026-11-23T15:04", "2026-11-23 15:04:05", "2026-11-23T15:04:05+02:00"} {
		var s command.Since
		if err := s.Set(text); err != nil || s.String() != text {
			t.Errorf("%s: %v, %s", text, err, s.String())
		}
	}
	for _, text := range []string{"", "0s", "-2h", "yesterday", "15:04", "2026-13-01"} {
		var s command.Since
		if s.Set(text) == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestListRefusals(t *testing.T) {
	var since command.Since
	if err := since.Set("1h"); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]command.RunsOptions{
		"negative limit":          {Limit: -1},
		"since in another order":  {Since: since, Query: edges.RunsQuery{Sort: []string{"created_at"}}},
		"unknown form":            {Format: command.Format{Output: "xml"}},
		"eleven sorts":            {Query: edges.RunsQuery{Sort: slices.Repeat([]string{"-updated_at"}, 11)}},
		"an empty filter":         {Query: edges.RunsQuery{UID: []string{""}}},
		"a sort that is too long": {Query: edges.RunsQuery{Sort: []string{strings.Repeat("x", 129)}}},
	} {
		t.Run(name, func(t *testing.T) {
			d := sit(t, answers(http.StatusOK, "[]"))
			err := command.ListRuns(t.Context(), d.client, o, d.terminal())
			if !errors.As(err, &command.UsageError{}) || len(d.got()) > 0 {
				t.Errorf("error %v after %d requests", err, len(d.got()))
			}
		})
	}
}

// Rows that are too large for one answer are asked for in smaller parts.
func TestListLargeRows(t *testing.T) {
	var rows []string
	for i := range 150 {
		padding := ""
		if i/50 == 1 {
			padding = strings.Repeat("x", 8<<10)
		}
		rows = append(rows, fmt.Sprintf(`{"uid":%q,"updated_at":%q,"parameters":%q}`, uid(i), noon.Add(-time.Duration(i)*time.Hour).Format(time.RFC3339), padding))
	}
	d := sit(t, part(func() []string { return rows }))
	client := d.small(t, 64<<10)
	o := command.RunsOptions{Format: command.Format{Output: command.OutputCSV}}
	if err := command.ListRuns(t.Context(), client, o, d.terminal()); err != nil {
		t.Fatal(err)
	}
	if uids := listed(t, d.out.String()); len(uids) != 150 {
		t.Errorf("%d runs", len(uids))
	}
	if err := command.ListRuns(t.Context(), d.small(t, 1<<10), o, d.terminal()); !errors.Is(err, edges.ErrTooLarge) {
		t.Errorf("rows larger than all: %v", err)
	}
}

// small is a client that takes small answers only.
func (d *desk) small(t *testing.T, bytes int64) *edges.Client {
	t.Helper()
	client, err := edges.NewClient(edges.Config{URL: d.url + "/v1", Key: edges.FixedKey("k"), MaxAnswerBytes: bytes, MaxRetries: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// An API that gives the same rows whatever is asked for does not keep the
// command for ever.
func TestListEndless(t *testing.T) {
	var rows []string
	for i := range 100 {
		rows = append(rows, fmt.Sprintf(`{"uid":%q}`, uid(i)))
	}
	d := sit(t, answers(http.StatusOK, "["+strings.Join(rows, ",")+"]"))
	if err := command.ListRuns(t.Context(), d.client, command.RunsOptions{}, d.terminal()); err == nil || len(d.got()) > 20 {
		t.Errorf("error %v after %d requests", err, len(d.got()))
	}
}

func TestListFails(t *testing.T) {
	d := sit(t, answers(http.StatusUnauthorized, `{"message":"no, not demo-key"}`))
	err := command.ListRuns(t.Context(), d.client, command.RunsOptions{}, d.terminal())
	if !errors.Is(err, edges.ErrUnauthorized) || strings.Contains(err.Error(), simulator.DefaultAPIKey) {
		t.Errorf("error %v", err)
	}
	if err := command.ListRuns(ended(t), d.client, command.RunsOptions{}, d.terminal()); err == nil {
		t.Error("no error after the end")
	}
	d, w, _ := office(t)
	three(w)
	for _, output := range []string{"table", "json", "csv", "uid"} {
		terminal := d.terminal()
		terminal.Out = full{}
		if err := command.ListRuns(t.Context(), d.client, command.RunsOptions{Format: command.Format{Output: output}}, terminal); !errors.Is(err, errFull) {
			t.Errorf("%s on a full disk: %v", output, err)
		}
	}
}

// full is a disk without room.
type full struct{}

var errFull = errors.New("no space left")

func (full) Write([]byte) (int, error) { return 0, errFull }

// A person is told once that the budget has to be waited for.
func TestListWaits(t *testing.T) {
	d, w, _ := office(t)
	fill(w, 150)
	budget, err := edges.NewBudget(1, "")
	if err != nil {
		t.Fatal(err)
	}
	release, err := budget.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	release()
	if err := command.ListRuns(t.Context(), d.client, command.RunsOptions{Budget: budget, Format: command.Format{Output: "uid"}}, d.terminal()); err != nil {
		t.Fatal(err)
	}
	if got := d.err.String(); got != "waiting: the budget of 1 requests a minute is used up\n" {
		t.Errorf("said: %s", got)
	}
}

func TestListSchedules(t *testing.T) {
	rows := []string{
		`{"uid":"` + uid(1) + `","name":"` + strings.Repeat("every morning ", 8) + `","action_name":"email-find","status":"ACTIVE","cron":"0,30 8-18 * * 1-5","timezone":"Europe/Paris","next_execution_at":"2026-11-23T12:30:00Z","last_executed_at":"2026-11-23T11:30:00Z"}`,
		`{"uid":"` + uid(2) + `","action_name":"linkedin-extract-people","status":"CANCELLED"}`,
	}
	d := sit(t, part(func() []string { return rows }))
	list := func(o command.SchedulesOptions) {
		t.Helper()
		if err := command.ListSchedules(t.Context(), d.client, o, d.terminal()); err != nil {
			t.Fatal(err)
		}
	}
	list(command.SchedulesOptions{Format: atNoon("", "")})
	fits(t, d.out.String())
	d.wrote(`UID                                   STATUS     NEXT    LAST     CRON               NAME OR ACTION
00000000-0000-4000-8000-000000000001  ACTIVE     in 30m  30m ago  0,30 8-18 * * 1-5  eve…ry morning
00000000-0000-4000-8000-000000000002  CANCELLED  -       -        -                  lin…ract-people
`, "")
	list(command.SchedulesOptions{Limit: 1, Format: command.Format{Output: "csv"}})
	d.wrote("uid,status,name,action,cron,timezone,next_execution_at,last_executed_at,postponed_until,created_at,updated_at,user\n"+
		uid(1)+",ACTIVE,"+strings.Repeat("every morning ", 8)+",email-find,\"0,30 8-18 * * 1-5\",Europe/Paris,2026-11-23T12:30:00.000Z,2026-11-23T11:30:00.000Z,,,,\n", "")
	list(command.SchedulesOptions{Format: command.Format{Output: "json"}})
	d.wrote("[\n"+rows[0]+",\n"+rows[1]+"\n]\n", "")
	list(command.SchedulesOptions{Format: command.Format{Output: "uid"}, Query: edges.SchedulesQuery{UID: []string{"a"}, Status: []edges.ScheduleStatus{"ACTIVE"}, UserUID: []string{"b"}, Sort: []string{"name"}}})
	last := d.got()[len(d.got())-1]
	if q, err := url.ParseQuery(last.query); err != nil || q.Encode() != "limit=100&sort=name&status=ACTIVE&uid=a&user_uid=b" {
		t.Errorf("query %s", last.query)
	}
}
