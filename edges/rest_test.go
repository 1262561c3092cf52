package edges

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/go-faster/jx"
)

var noon = time.Date(2026, 3, 18, 12, 0, 0, 0, time.UTC)

// echo answers a text, and fails the test if the request is not for the target.
func echo(t *testing.T, target, text string, headers ...string) http.HandlerFunc {
	t.Helper()
	return func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.RequestURI(); got != target || r.Method != http.MethodGet {
			t.Errorf("%s %s, want %s", r.Method, got, target)
		}
		w.Header().Set("Date", noon.Format(http.TimeFormat))
		status(http.StatusOK, text, headers...)(w, r)
	}
}

const scheduleRow = `{"uid":"s-1","name":"every \u0007hour","action_name":"email-find","status":"ACTIVE","cron":"0 * * * *","timezone":"Europe/Paris",
	"next_execution_at":"2026-03-18T13:00:00.000Z","last_executed_at":"2026-03-18T12:00:00Z","postponed_until":null,
	"created_at":"2026-03-18T12:00:00.000Z","updated_at":"2026-03-18T12:00:00+00:00","user_uid":"u-1","workspace_uid":"w-1","inputs":[{"a":1}]}`

func wantSchedule() Schedule {
	return Schedule{
		UID: "s-1", Name: "every �hour", ActionName: "email-find", Status: ScheduleActive, Cron: "0 * * * *", Timezone: "Europe/Paris",
		NextExecutionAt: noon.Add(time.Hour), LastExecutedAt: noon, CreatedAt: noon, UpdatedAt: noon, UserUID: "u-1", WorkspaceUID: "w-1",
	}
}

func TestListSchedules(t *testing.T) {
	server := serve(t, echo(t, "/v1/schedules?limit=100&offset=20&sort=-created_at&status=ACTIVE&status=PAUSED&uid=filter-value&user_uid=u-1", `[`+scheduleRow+`,7]`))
	c := newTestClient(t, server.URL+"/v1")
	page, err := c.ListSchedules(t.Context(), SchedulesQuery{
		UID: []string{"filter-value"}, Status: []ScheduleStatus{ScheduleActive, SchedulePaused}, UserUID: []string{"u-1"}, Limit: 100, Offset: 20, Sort: []string{"-created_at"},
	})
	if err != nil || !page.Date.Equal(noon) || !slices.Equal(page.Schedules, []Schedule{wantSchedule(), {Defect: DefectNotObject}}) {
		t.Errorf("%+v, %v", page, err)
	}
	if c.attempts[0].Endpoint != "schedules" {
		t.Errorf("endpoint %q", c.attempts[0].Endpoint)
	}
}

func TestGetSchedule(t *testing.T) {
	c := newTestClient(t, serve(t, echo(t, "/v1/schedules/s%2F1", scheduleRow)).URL+"/v1")
	if got, err := c.GetSchedule(t.Context(), "s/1"); err != nil || got != wantSchedule() {
		t.Errorf("%+v, %v", got, err)
	}
	c.wantAttempts(t, 200)
	for uid, want := range map[string]error{"": ErrBadQuery, "..": ErrBadQuery} {
		if _, err := c.GetSchedule(t.Context(), uid); !errors.Is(err, want) {
			t.Errorf("%q: %v", uid, err)
		}
	}
	c = newTestClient(t, serve(t, body(`[]`)).URL, noRetries)
	if _, err := c.GetSchedule(t.Context(), "s-1"); !errors.Is(err, ErrMalformed) {
		t.Errorf("an array is taken for a schedule: %v", err)
	}
}

const callbackRow = `{"uid":"c-1","parent_uid":"c-0","retry_count":2,"created_at":"2026-03-18T12:00:00.000Z","status":"FAILED",
	"callback_url":"https://name:pass@hooks.example.com:8443/edges/secret-path?token=secret","http_status":503,"batch_uid":"b-1","run_uid":"r-1","workspace_uid":"w-1"}`

func TestListCallbacks(t *testing.T) {
	server := serve(t, echo(t, "/v1/runs/callbacks?limit=20&offset=5&run_uid=filter-value&sort=created_at&status=FAILED", `[`+callbackRow+`,{"uid":"c-2","status":"PENDING","http_status":null,"callback_url":"not a URL"}]`))
	c := newTestClient(t, server.URL+"/v1")
	page, err := c.ListCallbacks(t.Context(), CallbacksQuery{Status: []CallbackStatus{CallbackFailed}, RunUID: []string{"filter-value"}, Limit: 20, Offset: 5, Sort: []string{"created_at"}})
	want := []Callback{
		{
			UID: "c-1", ParentUID: "c-0", Status: CallbackFailed, RetryCount: 2, HTTPStatus: 503, Target: "https://hooks.example.com:8443",
			BatchUID: "b-1", RunUID: "r-1", WorkspaceUID: "w-1", CreatedAt: noon,
		},
		{UID: "c-2", Status: CallbackPending},
	}
	if err != nil || !page.Date.Equal(noon) || !slices.Equal(page.Callbacks, want) {
		t.Errorf("%+v, %v", page, err)
	}
	if strings.Contains(fmt.Sprintf("%+v", page), "secret") {
		t.Error("more of the webhook's address is kept than its host")
	}
	if c.attempts[0].Endpoint != "callbacks" {
		t.Errorf("endpoint %q", c.attempts[0].Endpoint)
	}
}

func TestCallbackStatuses(t *testing.T) {
	for _, s := range CallbackStatuses() {
		if want := s == CallbackFailed || s == CallbackSuccess; s.Ended() != want {
			t.Errorf("%s ended: %t", s, s.Ended())
		}
	}
}

// What the API is documented to refuse is not sent.
func TestQueriesOfTheRest(t *testing.T) {
	many := slices.Repeat([]string{"created_at"}, 11)
	for name, q := range map[string]interface{ validate() error }{
		"too many schedules":    SchedulesQuery{Limit: 101},
		"schedules before none": SchedulesQuery{Offset: -1},
		"schedules sorted":      SchedulesQuery{Sort: many},
		"schedule uid":          SchedulesQuery{UID: []string{""}},
		"schedule status":       SchedulesQuery{Status: []ScheduleStatus{""}},
		"schedule user":         SchedulesQuery{UserUID: []string{"u", ""}},
		"too many callbacks":    CallbacksQuery{Limit: 21},
		"fewer than none":       CallbacksQuery{Limit: -1},
		"callback sort":         CallbacksQuery{Sort: []string{"-"}},
		"callback status":       CallbacksQuery{Status: []CallbackStatus{""}},
		"callback run":          CallbacksQuery{RunUID: []string{""}},
	} {
		if err := q.validate(); !errors.Is(err, ErrBadQuery) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := newTestClient(t, "http://127.0.0.1:9")
	_, errSchedules := c.ListSchedules(t.Context(), SchedulesQuery{Limit: 101})
	_, errCallbacks := c.ListCallbacks(t.Context(), CallbacksQuery{Limit: 21})
	_, errRaw := c.ListCallbacksRaw(t.Context(), CallbacksQuery{Limit: 21})
	_, errRuns := c.ListRunsRaw(t.Context(), RunsQuery{Limit: 101})
	_, errSchedulesRaw := c.ListSchedulesRaw(t.Context(), SchedulesQuery{Limit: 101})
	_, _, errRun := c.GetRunRaw(t.Context(), "")
	for _, err := range []error{errSchedules, errCallbacks, errRaw, errRuns, errSchedulesRaw, errRun} {
		if !errors.Is(err, ErrBadQuery) {
			t.Errorf("error %v", err)
		}
	}
	c.wantAttempts(t)
}

func TestGetConsumption(t *testing.T) {
	nan := math.NaN()
	tests := []struct {
		name string
		text string
		want Consumption
	}{
		{
			"whole", `{"credits_left":750.5,"credits_used":"249.5","credits_max":1000,"current_month_start":"2026-03-01","current_month_end":"2026-04-01T00:00:00.000Z",
				"consumptions":[{"action_slug":"email-find","credits_used":200.25},{"action_slug":"company-enrich","credits_used":49.25,"more":[1]}]}`,
			Consumption{
				CreditsLeft: 750.5, CreditsUsed: 249.5, CreditsMax: 1000,
				PeriodStart: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), PeriodEnd: time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC),
				Actions: []ActionCredits{{"email-find", 200.25}, {"company-enrich", 49.25}},
			},
		},
		{"what is not told is not none", `{"credits_left":null,"credits_used":12}`, Consumption{CreditsLeft: nan, CreditsUsed: 12, CreditsMax: nan}},
		{"overdrawn", `{"credits_left":-3,"credits_used":13,"credits_max":10,"consumptions":null}`, Consumption{CreditsLeft: -3, CreditsUsed: 13, CreditsMax: 10}},
		{"no number", `{"credits_left":"many","credits_used":1,"credits_max":2}`, Consumption{CreditsLeft: nan, CreditsUsed: 1, CreditsMax: 2, Defect: DefectBadField}},
		{"infinity", `{"credits_left":"Inf","credits_used":1,"credits_max":1e999}`, Consumption{CreditsLeft: nan, CreditsUsed: 1, CreditsMax: nan, Defect: DefectBadField}},
		{"no time", `{"credits_left":1,"credits_used":1,"credits_max":2,"current_month_end":"31 March"}`, Consumption{CreditsLeft: 1, CreditsUsed: 1, CreditsMax: 2, Defect: DefectBadTime}},
		{
			"a row that is odd", `{"credits_left":1,"credits_used":1,"credits_max":2,"consumptions":[{"action_slug":7,"credits_used":1},{"action_slug":"a"},{"action_slug":"b","credits_used":1}]}`,
			Consumption{CreditsLeft: 1, CreditsUsed: 1, CreditsMax: 2, Actions: []ActionCredits{{"b", 1}}, Defect: DefectBadField},
		},
		{"rows that are none", `{"credits_left":1,"credits_used":1,"credits_max":2,"consumptions":{"a":1}}`, Consumption{CreditsLeft: 1, CreditsUsed: 1, CreditsMax: 2, Defect: DefectBadField}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newTestClient(t, serve(t, echo(t, "/v1/workspaces/consumption", test.text)).URL+"/v1")
			got, err := c.GetConsumption(t.Context())
			test.want.Date = noon
			if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", test.want) {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, test.want)
			}
			if c.attempts[0].Endpoint != "consumption" {
				t.Errorf("endpoint %q", c.attempts[0].Endpoint)
			}
		})
	}
}

func TestListWorkspaces(t *testing.T) {
	const row = `{"uid":"w-1","name":"Team","plan_name":"gold","credits_left":5,"identities":3}`
	want := fmt.Sprintf("%+v", Workspace{UID: "w-1", Name: "Team", PlanName: "gold", CreditsLeft: 5, CreditsUsed: math.NaN(), CreditsMax: math.NaN()})
	for name, test := range map[string]struct {
		text string
		want string
		err  error
	}{
		"object": {row, "[" + want + "]", nil},
		"list":   {"[" + row + "," + row + "]", "[" + want + " " + want + "]", nil},
		"none":   {"[]", "[]", nil},
		"text":   {`"w-1"`, "[]", ErrMalformed},
		"cut":    {`[{"uid":`, "[]", ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTestClient(t, serve(t, echo(t, "/v1/workspaces", test.text)).URL+"/v1", noRetries)
			got, err := c.ListWorkspaces(t.Context())
			if !errors.Is(err, test.err) || fmt.Sprintf("%+v", got) != test.want {
				t.Errorf("%+v, %v, want %s", got, err, test.want)
			}
			if c.attempts[0].Endpoint != "workspaces" {
				t.Errorf("endpoint %q", c.attempts[0].Endpoint)
			}
		})
	}
}

func TestListOutputs(t *testing.T) {
	var next string
	server := serve(t,
		func(w http.ResponseWriter, r *http.Request) {
			echo(t, "/v1/runs/r-1/outputs?limit=500", `[{"a": 1},"b",null]`, "X-Pagination-Next", next)(w, r)
		},
		echo(t, "/v1/runs/r-1/outputs?cursor=abc&limit=500", `[]`))
	next = server.URL + "/v1/runs/r-1/outputs?cursor=abc&limit=500"
	c := newTestClient(t, server.URL+"/v1")
	page, err := c.ListOutputs(t.Context(), "r-1", "")
	if err != nil || fmt.Sprintf("%s", page.Outputs) != `[{"a": 1} "b" null]` || page.Next != next || !page.Date.Equal(noon) {
		t.Fatalf("%s, %v", page, err)
	}
	page, err = c.ListOutputs(t.Context(), "r-1", page.Next)
	if err != nil || len(page.Outputs) != 0 || page.Next != "" {
		t.Errorf("%s, %v", page, err)
	}
	if c.attempts[0].Endpoint != "outputs" {
		t.Errorf("endpoint %q", c.attempts[0].Endpoint)
	}
}

// A cursor is an address that an answer gave: the key goes to no other host.
func TestListOutputsElsewhere(t *testing.T) {
	foreign := serve(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("asked for %s with %v", r.URL, r.Header) })
	server := serve(t, echo(t, "/v1/runs/r-1/outputs?cursor=x", "[]"))
	c := newTestClient(t, server.URL+"/v1")
	for _, cursor := range []string{
		foreign.URL + "/v1/runs/r-1/outputs?cursor=x",
		strings.Replace(server.URL, "http://", "https://", 1) + "/v1/runs/r-1/outputs",
		strings.Replace(server.URL, "http://", "http://"+strings.TrimPrefix(server.URL, "http://")+"@localhost", 1),
		"//example.com/v1",
	} {
		if _, err := c.ListOutputs(t.Context(), "r-1", cursor); !errors.Is(err, ErrRedirected) {
			t.Errorf("%s: %v", cursor, err)
		}
	}
	for _, call := range [][2]string{{"", ""}, {"..", ""}, {"r-1", "http://[::1"}} {
		if _, err := c.ListOutputs(t.Context(), call[0], call[1]); !errors.Is(err, ErrBadQuery) {
			t.Errorf("%q: %v", call, err)
		}
	}
	c.wantAttempts(t)
	if _, err := c.ListOutputs(t.Context(), "r-1", "/v1/runs/r-1/outputs?cursor=x"); err != nil {
		t.Errorf("an address of the same host: %v", err)
	}
}

func TestRaw(t *testing.T) {
	const row = `{"uid": "r-1", "status":"FAILED","flow_run_id":41,"callback":{"headers":{"A":"b"}},  "unknown":[1.50]}`
	server := serve(t,
		echo(t, "/v1/runs?limit=2", "[ "+row+", 7]"),
		echo(t, "/v1/runs/r-1", row),
		echo(t, "/v1/schedules", "["+scheduleRow+"]"),
		echo(t, "/v1/runs/callbacks", "["+callbackRow+"]"))
	c := newTestClient(t, server.URL+"/v1")

	runs, err := c.ListRunsRaw(t.Context(), RunsQuery{Limit: 2})
	want := Run{UID: "r-1", Status: StatusFailed, FlowRunID: 41}
	if err != nil || !slices.Equal(runs.Rows, []Run{want, {Defect: DefectNotObject}}) || len(runs.JSON) != 2 || strings.TrimSpace(string(runs.JSON[0])) != row || !runs.Date.Equal(noon) {
		t.Errorf("%+v %s, %v", runs.Rows, runs.JSON, err)
	}
	run, text, err := c.GetRunRaw(t.Context(), "r-1")
	if err != nil || run != want || string(text) != row {
		t.Errorf("%+v %s, %v", run, text, err)
	}
	schedules, err := c.ListSchedulesRaw(t.Context(), SchedulesQuery{})
	if err != nil || len(schedules.Rows) != 1 || schedules.Rows[0] != wantSchedule() || string(schedules.JSON[0]) != scheduleRow {
		t.Errorf("%+v %s, %v", schedules.Rows, schedules.JSON, err)
	}
	callbacks, err := c.ListCallbacksRaw(t.Context(), CallbacksQuery{})
	if err != nil || len(callbacks.Rows) != 1 || callbacks.Rows[0].UID != "c-1" || string(callbacks.JSON[0]) != callbackRow {
		t.Errorf("%+v %s, %v", callbacks.Rows, callbacks.JSON, err)
	}
}

// Rows that are large, many, or read through a small window are still whole.
func TestRawLarge(t *testing.T) {
	rows := make([]string, 3000)
	for i := range rows {
		rows[i] = fmt.Sprintf(`{"uid":"r-%d","text":%q}`, i, strings.Repeat("x", 200))
	}
	c := newTestClient(t, serve(t, body("["+strings.Join(rows, ",")+"]")).URL)
	page, err := c.ListRunsRaw(t.Context(), RunsQuery{})
	if err != nil || len(page.Rows) != len(rows) {
		t.Fatalf("%d rows, %v", len(page.Rows), err)
	}
	for i := range rows {
		if string(page.JSON[i]) != rows[i] || page.Rows[i].UID != fmt.Sprintf("r-%d", i) {
			t.Fatalf("row %d is %+v %s", i, page.Rows[i], page.JSON[i])
		}
	}
	c = newTestClient(t, serve(t, body("["+strings.Repeat("1,", 10_000)+"1]")).URL, noRetries)
	if _, err := c.ListRunsRaw(t.Context(), RunsQuery{}); !errors.Is(err, ErrTooLarge) || errors.Is(err, ErrMalformed) {
		t.Errorf("more than 10,000 rows: %v", err)
	}
}

// readOne reads one row by each decoder in turn, and tells its defect.
func defects(t *testing.T, text string) (schedule, callback, workspace Defect) {
	t.Helper()
	d := newDecoder()
	d.whole = jx.Decode(iotest.OneByteReader(strings.NewReader(text)), 512)
	read := func(f func() error) {
		d.whole.Reset(iotest.OneByteReader(strings.NewReader(text)))
		d.json = d.whole
		if err := f(); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	var s Schedule
	read(func() error { return d.schedule(&s) })
	var c Callback
	read(func() error { return d.callback(&c) })
	var w Workspace
	read(func() error { return d.workspace(&w) })
	return s.Defect, c.Defect, w.Defect
}

func TestDefectsOfTheRest(t *testing.T) {
	tests := []struct {
		text                          string
		schedule, callback, workspace Defect
	}{
		{`{"uid":"x"}`, "", "", ""},
		{`{}`, DefectNoUID, DefectNoUID, DefectNoUID},
		{`{"uid":null}`, DefectNoUID, DefectNoUID, DefectNoUID},
		{`{"uid":7,"created_at":"soon"}`, DefectNoUID, DefectNoUID, DefectNoUID},
		{`{"uid":"` + strings.Repeat("x", 129) + `"}`, DefectNoUID, DefectNoUID, DefectNoUID},
		{`[]`, DefectNotObject, DefectNotObject, DefectNotObject},
		{`null`, DefectNotObject, DefectNotObject, DefectNotObject},
		{`{"uid":"x","created_at":"soon"}`, DefectBadTime, DefectBadTime, ""},
		{`{"uid":"x","created_at":"soon","created_at":null}`, "", "", ""},
		{`{"uid":"x","created_at":"soon","status":[]}`, DefectBadTime, DefectBadTime, ""},
		{`{"uid":"x","status":{"is":"odd"}}`, DefectBadField, DefectBadField, ""},
		{`{"uid":"x","next_execution_at":12}`, DefectBadTime, "", ""},
		{`{"uid":"x","retry_count":-1}`, "", DefectBadField, ""},
		{`{"uid":"x","http_status":"200"}`, "", "", ""},
		{`{"uid":"x","http_status":{}}`, "", DefectBadField, ""},
		{`{"uid":"x","run_uid":3}`, "", DefectBadField, ""},
		{`{"uid":"x","plan_name":3}`, "", "", DefectBadField},
		{`{"uid":"x","name":3,"callback_url":[],"cron":{},"credits_left":"?"}`, "", "", ""},
	}
	for _, test := range tests {
		schedule, callback, workspace := defects(t, test.text)
		if schedule != test.schedule || callback != test.callback || workspace != test.workspace {
			t.Errorf("%s: %q, %q and %q", test.text, schedule, callback, workspace)
		}
	}
}

func TestHTTPStatusOfACallback(t *testing.T) {
	for text, want := range map[string]int{"200": 200, `"404"`: 404, "null": 0, "0": 0, "99": 0, "1000": 0, "9007199254740993": 0} {
		c := newTestClient(t, serve(t, body(`[{"uid":"c","http_status":`+text+`}]`)).URL)
		page, err := c.ListCallbacks(t.Context(), CallbacksQuery{})
		if err != nil || page.Callbacks[0].HTTPStatus != want {
			t.Errorf("%s: %+v, %v", text, page.Callbacks, err)
		}
	}
}

// FuzzRest reads anything by every decoder: none may fail in another way than
// by an error, and what one accepts as a list is as long as what another does.
func FuzzRest(f *testing.F) {
	for _, seed := range []string{"[" + scheduleRow + "]", "[" + callbackRow + "]", `{"credits_left":1,"consumptions":[{"action_slug":"a","credits_used":1}]}`, `[[],{"uid":"x"}]`, `{}`, ``} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d := newDecoder()
		const maxBytes = 1 << 16
		reader := func() io.Reader { return strings.NewReader(text) }
		schedules, errSchedules := readRows(d, reader(), maxBytes, d.schedule)
		callbacks, errCallbacks := readRows(d, reader(), maxBytes, d.callback)
		raws, errRaw := readRows(d, reader(), maxBytes, d.raw)
		if (errSchedules == nil) != (errCallbacks == nil) || (errRaw == nil) != (errCallbacks == nil) || len(schedules) != len(callbacks) || len(raws) != len(callbacks) {
			t.Errorf("%d schedules, %v; %d callbacks, %v; %d rows, %v", len(schedules), errSchedules, len(callbacks), errCallbacks, len(raws), errRaw)
		}
		for i, raw := range raws {
			if !json.Valid(raw) {
				t.Errorf("row %d is not valid: %q", i, raw)
			}
		}
		var c Consumption
		errObject := d.object(reader(), maxBytes, func() error { return d.consumption(&c) })
		for _, err := range []error{errSchedules, errObject} {
			if err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
				t.Errorf("error %v", err)
			}
		}
		for _, a := range c.Actions {
			if math.IsNaN(a.Used) || len(a.Action) > maxStringBytes {
				t.Errorf("action %+v", a)
			}
		}
	})
}
