package edges

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"

	"github.com/go-faster/jx"
)

// tinyDecoder decodes while it reads, through a window so small that every
// token meets its border somewhere.
func tinyDecoder(window int) *decoder {
	d := newDecoder()
	d.buffer = make([]byte, 1)
	d.stream = jx.Decode(nil, window)
	return d
}

// decodeEveryWay decodes a body in one piece and in crumbs, and fails if that
// makes a difference.
func decodeEveryWay(t *testing.T, body string) ([]Run, error) {
	t.Helper()
	runs, err := newDecoder().page(strings.NewReader(body), 1<<24)
	for _, window := range []int{1, 7, 64} {
		again, errAgain := tinyDecoder(window).page(strings.NewReader(body), 1<<24)
		if (err == nil) != (errAgain == nil) {
			t.Fatalf("in one piece: error %v, through a window of %d: %v", err, window, errAgain)
		}
		if !reflect.DeepEqual(runs, again) {
			t.Fatalf("in one piece:\n%+v\nthrough a window of %d:\n%+v", runs, window, again)
		}
	}
	return runs, err
}

func date(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		panic(err)
	}
	return t.UTC()
}

func TestDecodeRun(t *testing.T) {
	long := strings.Repeat("é", 100)
	for _, test := range []struct {
		name string
		row  string
		want Run
	}{
		{
			name: "every field",
			row: `{"id":12,"uid":"u1","action_id":3,"action_name":"linkedin-extract-people","execution_mode":"ASYNC","status":"FAILED",
				"retry_count":2,"output_count":7,"last_error":{"label":"LK_ERROR","message":"m","params":{"label":"no"}},
				"parameters":{"uid":"no","status":["no",{"uid":"no"}]},"callback":{"url":"x","headers":{"Authorization":"secret"}},
				"user_uid":"user","workspace_uid":"workspace","scheduled_run_uid":"schedule",
				"postponed_until":"2025-10-14T08:00:00.000Z","created_at":"2025-10-14T07:13:47.000Z","updated_at":"2025-10-14T07:14:47.123Z",
				"started_at":"2025-10-14T07:13:48.001Z","finished_at":"2025-10-14T07:13:49.999Z","synced_at":"whenever","new":{"a":[1]}}`,
			want: Run{
				ID: 12, UID: "u1", ActionName: "linkedin-extract-people", ExecutionMode: "ASYNC", Status: StatusFailed,
				RetryCount: 2, OutputCount: 7, ErrorLabel: "LK_ERROR",
				UserUID: "user", WorkspaceUID: "workspace", ScheduledRunUID: "schedule",
				PostponedUntil: date("2025-10-14T08:00:00Z"), CreatedAt: date("2025-10-14T07:13:47Z"),
				UpdatedAt: date("2025-10-14T07:14:47.123Z"), StartedAt: date("2025-10-14T07:13:48.001Z"),
				FinishedAt: date("2025-10-14T07:13:49.999Z"),
			},
		},
		{
			name: "null everything but the uid",
			row: `{"id":null,"uid":"u","action_name":null,"execution_mode":null,"status":null,"retry_count":null,"output_count":null,
				"last_error":null,"parameters":null,"callback":null,"user_uid":null,"workspace_uid":null,"scheduled_run_uid":null,
				"postponed_until":null,"created_at":null,"updated_at":null,"started_at":null,"finished_at":null}`,
			want: Run{UID: "u"},
		},
		{name: "only the uid", row: `{"uid":"u"}`, want: Run{UID: "u"}},
		{name: "unknown status and mode pass", row: `{"uid":"u","status":"PAUSED","execution_mode":"BATCH"}`, want: Run{UID: "u", Status: "PAUSED", ExecutionMode: "BATCH"}},
		{name: "escaped names and values", row: `{"\u0075id":"a\u0062\ud83d\ude00\n"}`, want: Run{UID: "ab😀\n"}},
		{name: "the last of two wins", row: `{"uid":"a","status":{},"uid":"b","status":"RUNNING","retry_count":1,"retry_count":null}`, want: Run{UID: "b", Status: StatusRunning}},
		{name: "the last of two is odd", row: `{"uid":"a","status":"RUNNING","status":{}}`, want: Run{UID: "a", Defect: DefectBadField}},

		{name: "no uid", row: `{"id":4}`, want: Run{ID: 4, Defect: DefectNoUID}},
		{name: "null uid", row: `{"uid":null}`, want: Run{Defect: DefectNoUID}},
		{name: "empty uid", row: `{"uid":""}`, want: Run{Defect: DefectNoUID}},
		{name: "uid is a number", row: `{"uid":5}`, want: Run{Defect: DefectNoUID}},
		{name: "uid is an object", row: `{"uid":{"uid":"x"}}`, want: Run{Defect: DefectNoUID}},
		{name: "uid of 128 bytes", row: `{"uid":"` + strings.Repeat("u", 128) + `"}`, want: Run{UID: strings.Repeat("u", 128)}},
		{name: "uid of 129 bytes", row: `{"uid":"` + strings.Repeat("u", 129) + `"}`, want: Run{Defect: DefectNoUID}},
		{name: "uid is not UTF-8", row: "{\"uid\":\"u\xff\"}", want: Run{Defect: DefectNoUID}},
		{name: "no uid outweighs a bad time", row: `{"created_at":"never"}`, want: Run{Defect: DefectNoUID}},
		{name: "a bad time outweighs a bad field", row: `{"uid":"u","status":1,"created_at":"never"}`, want: Run{UID: "u", Defect: DefectBadTime}},

		{name: "null row", row: `null`, want: Run{Defect: DefectNotObject}},
		{name: "number row", row: `-1.5e3`, want: Run{Defect: DefectNotObject}},
		{name: "string row", row: `"uid"`, want: Run{Defect: DefectNotObject}},
		{name: "array row", row: `[{"uid":"u"}]`, want: Run{Defect: DefectNotObject}},
		{name: "bool row", row: `false`, want: Run{Defect: DefectNotObject}},

		{name: "error_label", row: `{"uid":"u","last_error":{"error_label":"NO_RESULT"}}`, want: Run{UID: "u", ErrorLabel: "NO_RESULT"}},
		{name: "label outweighs error_label", row: `{"uid":"u","last_error":{"label":"A","error_label":"B"}}`, want: Run{UID: "u", ErrorLabel: "A"}},
		{name: "null label gives way", row: `{"uid":"u","last_error":{"error_label":"B","label":null}}`, want: Run{UID: "u", ErrorLabel: "B"}},
		{name: "odd label", row: `{"uid":"u","last_error":{"label":{"a":1},"x":[]}}`, want: Run{UID: "u"}},
		{name: "empty last_error", row: `{"uid":"u","last_error":{}}`, want: Run{UID: "u"}},
		{name: "last_error is a label", row: `{"uid":"u","last_error":"LK_524"}`, want: Run{UID: "u", ErrorLabel: "LK_524"}},
		{name: "last_error is a sentence", row: `{"uid":"u","last_error":"It broke."}`, want: Run{UID: "u"}},
		{name: "last_error is an array", row: `{"uid":"u","last_error":["A"]}`, want: Run{UID: "u"}},
		{name: "last_error is a number", row: `{"uid":"u","last_error":429}`, want: Run{UID: "u"}},
		{name: "last error counts", row: `{"uid":"u","last_error":{"label":"A"},"last_error":null}`, want: Run{UID: "u"}},

		{name: "counts as strings", row: `{"uid":"u","retry_count":"3","output_count":""}`, want: Run{UID: "u", RetryCount: 3}},
		{name: "whole floats", row: `{"uid":"u","retry_count":3.0,"output_count":1.2e2}`, want: Run{UID: "u", RetryCount: 3, OutputCount: 120}},
		{name: "count of 2^53", row: `{"uid":"u","output_count":9007199254740992}`, want: Run{UID: "u", OutputCount: 1 << 53}},
		{name: "zero", row: `{"uid":"u","output_count":0,"retry_count":-0}`, want: Run{UID: "u"}},
		{name: "count over 2^53", row: `{"uid":"u","output_count":9007199254740994}`, want: Run{UID: "u", Defect: DefectBadField}},
		{name: "negative count", row: `{"uid":"u","retry_count":-1}`, want: Run{UID: "u", Defect: DefectBadField}},
		{name: "count with a fraction", row: `{"uid":"u","retry_count":1.5}`, want: Run{UID: "u", Defect: DefectBadField}},
		{name: "count without end", row: `{"uid":"u","retry_count":1e999}`, want: Run{UID: "u", Defect: DefectBadField}},
		{name: "count of many digits", row: `{"uid":"u","retry_count":` + strings.Repeat("9", 5000) + `}`, want: Run{UID: "u", Defect: DefectBadField}},
		{name: "count in words", row: `{"uid":"u","retry_count":"three"}`, want: Run{UID: "u", Defect: DefectBadField}},
		{name: "count is not a number", row: `{"uid":"u","retry_count":"NaN"}`, want: Run{UID: "u", Defect: DefectBadField}},
		{name: "count in hexadecimal", row: `{"uid":"u","retry_count":"0x10"}`, want: Run{UID: "u", Defect: DefectBadField}},
		{name: "count is true", row: `{"uid":"u","retry_count":true}`, want: Run{UID: "u", Defect: DefectBadField}},
		{name: "status is an object", row: `{"uid":"u","status":{"a":"b"}}`, want: Run{UID: "u", Defect: DefectBadField}},
		{name: "action is a number", row: `{"uid":"u","action_name":7}`, want: Run{UID: "u", Defect: DefectBadField}},
		{name: "mode is an array", row: `{"uid":"u","execution_mode":["LIVE"]}`, want: Run{UID: "u", Defect: DefectBadField}},
		{name: "schedule is a bool", row: `{"uid":"u","scheduled_run_uid":true}`, want: Run{UID: "u", Defect: DefectBadField}},
		{name: "odd fields that nothing is made from", row: `{"uid":"u","id":"x","user_uid":1,"workspace_uid":[]}`, want: Run{UID: "u"}},
		{name: "id as a string", row: `{"uid":"u","id":"77"}`, want: Run{UID: "u", ID: 77}},
		{name: "large id", row: `{"uid":"u","id":9223372036854775807}`, want: Run{UID: "u", ID: 1<<63 - 1}},

		{name: "long names are cut between runes", row: `{"uid":"u","action_name":"x` + long + `"}`, want: Run{UID: "u", ActionName: "x" + strings.Repeat("é", 63)}},
		{name: "names become valid UTF-8", row: "{\"uid\":\"u\",\"action_name\":\"a\xff\xfeb\"}", want: Run{UID: "u", ActionName: "a\uFFFD\uFFFDb"}},
		{name: "control characters are replaced", row: `{"uid":"u","status":"A\u0000B\nC\u007f\u0085"}`, want: Run{UID: "u", Status: "A\uFFFDB\uFFFDC\uFFFD\uFFFD"}},
		{name: "half a surrogate pair", row: `{"uid":"u","status":"A\ud800"}`, want: Run{UID: "u", Status: "A\uFFFD"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			runs, err := decodeEveryWay(t, "[{\"uid\":\"before\"}, "+test.row+" ,{\"uid\":\"after\"}]\n")
			if err != nil {
				t.Fatal(err)
			}
			if len(runs) != 3 || runs[0].UID != "before" || runs[2].UID != "after" {
				t.Fatalf("the rows beside are gone: %+v", runs)
			}
			got := runs[1]
			if got.Defect == test.want.Defect && got.Defect != "" {
				// Besides the uid and the place, nothing is promised.
				got = Run{UID: got.UID, Defect: got.Defect}
				test.want = Run{UID: test.want.UID, Defect: test.want.Defect}
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

func TestDecodeTime(t *testing.T) {
	for _, test := range []struct {
		text string
		want string // "" null, "bad" not understood
	}{
		{`"2025-10-14T07:13:47.000Z"`, "2025-10-14T07:13:47Z"},
		{`"2025-10-14T07:13:47.123Z"`, "2025-10-14T07:13:47.123Z"},
		{`"2025-10-14T07:13:47Z"`, "2025-10-14T07:13:47Z"},
		{`"2025-10-14T07:13:47.1Z"`, "2025-10-14T07:13:47.1Z"},
		{`"2025-10-14T07:13:47.123456789Z"`, "2025-10-14T07:13:47.123456789Z"},
		{`"2025-10-14T09:13:47.5+02:00"`, "2025-10-14T07:13:47.5Z"},
		{`"2025-10-14T01:43:47-05:30"`, "2025-10-14T07:13:47Z"},
		{`"2025-10-14 07:13:47+00:00"`, "2025-10-14T07:13:47Z"},
		{`"2025-10-14 07:13:47.000Z"`, "2025-10-14T07:13:47Z"},
		{`"2025-10-14 09:13:47.25+0200"`, "2025-10-14T07:13:47.25Z"},
		{`"2025-10-14 07:13:47+00"`, "2025-10-14T07:13:47Z"},
		{`"2025-10-14t07:13:47z"`, "2025-10-14T07:13:47Z"},
		{`"2024-02-29T00:00:00.000Z"`, "2024-02-29T00:00:00Z"},
		{`"1970-01-01T00:00:00.000Z"`, "1970-01-01T00:00:00Z"},
		{`"2200-12-31T23:59:59.999Z"`, "2200-12-31T23:59:59.999Z"},
		{`"2025-12-31T23:59:59.999Z"`, "2025-12-31T23:59:59.999Z"},
		{`"2000-02-29T12:30:30.030Z"`, "2000-02-29T12:30:30.03Z"},

		{`null`, ""},
		{`""`, ""},
		{`"0001-01-01T00:00:00Z"`, ""},
		{`"0001-01-01T00:00:00.000Z"`, ""},

		{`"2025-10-14T07:13:47"`, "bad"}, // no offset: it could be any
		{`"2025-10-14"`, "bad"},
		{`"2025-02-29T00:00:00.000Z"`, "bad"},
		{`"2025-04-31T00:00:00.000Z"`, "bad"},
		{`"2025-13-01T00:00:00.000Z"`, "bad"},
		{`"2025-00-01T00:00:00.000Z"`, "bad"},
		{`"2025-01-00T00:00:00.000Z"`, "bad"},
		{`"2025-01-01T24:00:00.000Z"`, "bad"},
		{`"2025-01-01T23:60:00.000Z"`, "bad"},
		{`"2025-01-01T23:59:60.000Z"`, "bad"},
		{`"2025-01-01T23:59:5x.000Z"`, "bad"},
		{`"2025-01-01T23:59:59.00/Z"`, "bad"},
		{`"1969-12-31T23:59:59.999Z"`, "bad"},
		{`"2201-01-01T00:00:00.000Z"`, "bad"},
		{`"9999-12-31T23:59:59.999Z"`, "bad"},
		{`"0001-01-01T00:00:01Z"`, "bad"},
		{`"tomorrow"`, "bad"},
		{`"` + strings.Repeat("2", 5000) + `"`, "bad"},
		{`1760426027`, "bad"},
		{`true`, "bad"},
		{`{"$date":"2025-10-14T07:13:47.000Z"}`, "bad"},
	} {
		for _, field := range []string{"postponed_until", "created_at", "updated_at", "started_at", "finished_at"} {
			runs, err := newDecoder().page(strings.NewReader(fmt.Sprintf(`[{"uid":"u",%q:%s}]`, field, test.text)), 1<<20)
			if err != nil || len(runs) != 1 {
				t.Fatalf("%s %s: %d rows, error %v", field, test.text, len(runs), err)
			}
			run := runs[0]
			if run.UID != "u" {
				t.Errorf("%s %s: the uid is lost", field, test.text)
			}
			if test.want == "bad" {
				if run.Defect != DefectBadTime {
					t.Errorf("%s %s: defect %q, want %q", field, test.text, run.Defect, DefectBadTime)
				}
				continue
			}
			got := map[string]time.Time{
				"postponed_until": run.PostponedUntil, "created_at": run.CreatedAt, "updated_at": run.UpdatedAt,
				"started_at": run.StartedAt, "finished_at": run.FinishedAt,
			}[field]
			var want time.Time
			if test.want != "" {
				want = date(test.want)
			}
			if run.Defect != "" || !reflect.DeepEqual(got, want) {
				t.Errorf("%s %s: got %v, defect %q, want %v", field, test.text, got, run.Defect, want)
			}
		}
	}
}

// TestDecodeTimeFast holds the fast way of reading times against the library's.
func TestDecodeTimeFast(t *testing.T) {
	at := time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	for at.Year() < 2201 {
		text := at.Format("2006-01-02T15:04:05.000Z")
		if got, ok := parseUTCMillis([]byte(text)); !ok || !got.Equal(at.Truncate(time.Millisecond)) {
			t.Fatalf("%s: got %v, %v", text, got, ok)
		}
		at = at.Add(13*time.Hour + 17*time.Minute + 41*time.Second + 739*time.Millisecond)
	}
}

func TestDecodeMalformed(t *testing.T) {
	for name, body := range map[string]string{
		"nothing":                  ``,
		"spaces":                   "  \n",
		"null":                     `null`,
		"object":                   `{"uid":"u"}`,
		"envelope":                 `{"data":[{"uid":"u"}]}`,
		"string":                   `"[]"`,
		"page of HTML":             `<html><body>502</body></html>`,
		"cut before the first row": `[`,
		"cut in a row":             `[{"uid":"u"`,
		"cut in a name":            `[{"ui`,
		"cut in a string":          `[{"uid":"u`,
		"cut in an escape":         `[{"uid":"u\u00`,
		"cut in a number":          `[{"retry_count":1`,
		"cut in a skipped value":   `[{"parameters":{"a":[1,2`,
		"cut after a name":         `[{"uid"`,
		"cut after a colon":        `[{"uid":`,
		"cut after a row":          `[{"uid":"u"}`,
		"cut after a comma":        `[{"uid":"u"},`,
		"cut in null":              `[nul`,
		"comma too many":           `[{"uid":"u"},]`,
		"comma too many in a row":  `[{"uid":"u",}]`,
		"comma first":              `[,{"uid":"u"}]`,
		"comma missing":            `[{"uid":"u"}{"uid":"v"}]`,
		"comma missing in a row":   `[{"uid":"u" "id":1}]`,
		"colon missing":            `[{"uid" "u"}]`,
		"name is no string":        `[{uid:"u"}]`,
		"trailing brace":           `[]}`,
		"trailing array":           `[][]`,
		"trailing text":            `[{"uid":"u"}] and more`,
		"number with a minus in":   `[{"retry_count":3-5}]`,
		"number with leading zero": `[{"retry_count":03}]`,
		"number with a plus":       `[{"retry_count":+3}]`,
		"number without fraction":  `[{"retry_count":3.}]`,
		"NaN":                      `[{"retry_count":NaN}]`,
		"raw line end in a string": "[{\"uid\":\"a\nb\"}]",
		"unknown escape":           `[{"uid":"\x41"}]`,
		"wrong null":               `[{"uid":nulL}]`,
		"byte order mark":          "\uFEFF[]",
		"deep nesting":             `[{"parameters":` + strings.Repeat("[", 1_000_000),
		"deep nesting, closed":     `[{"parameters":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}]`,
		"deep objects":             `[{"parameters":` + strings.Repeat(`{"a":`, 200_000),
		"deep rows":                strings.Repeat("[", 1_000_000),
	} {
		t.Run(name, func(t *testing.T) {
			runs, err := decodeEveryWay(t, body)
			if !errors.Is(err, ErrMalformed) || runs != nil {
				t.Fatalf("got %+v, error %v, want no rows and ErrMalformed", runs, err)
			}
			if len(err.Error()) > 300 {
				t.Errorf("error of %d characters", len(err.Error()))
			}
		})
	}
}

func TestDecodeWhatIsStillAList(t *testing.T) {
	for name, body := range map[string]string{
		"empty":           `[]`,
		"empty, spaces":   " [ \n ] \t\r\n",
		"nested 9,000":    `[{"uid":"u","parameters":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}]`,
		"huge parameters": `[{"uid":"u","parameters":{"a":"` + strings.Repeat("x", 1<<20) + `"}}]`,
		"huge name":       `[{"uid":"u","` + strings.Repeat("x", 1<<18) + `":1}]`,
		"huge status":     `[{"uid":"u","status":"` + strings.Repeat("x", 1<<18) + `"}]`,
	} {
		t.Run(name, func(t *testing.T) {
			runs, err := decodeEveryWay(t, body)
			if err != nil {
				t.Fatal(err)
			}
			for _, run := range runs {
				if run.UID != "u" || run.Defect != "" || len(run.Status) > maxStringBytes {
					t.Errorf("got %+v", run)
				}
			}
		})
	}
}

func TestDecodeBounds(t *testing.T) {
	page := string(benchmarkPage())
	size := int64(len(page))
	if runs, err := newDecoder().page(strings.NewReader(page), size); err != nil || len(runs) != 100 {
		t.Errorf("a body of just the bound: %d rows, error %v", len(runs), err)
	}
	if _, err := newDecoder().page(strings.NewReader(page), size-1); !errors.Is(err, ErrTooLarge) || errors.Is(err, ErrMalformed) {
		t.Errorf("one byte over the bound: %v, want only ErrTooLarge", err)
	}
	if _, err := newDecoder().page(strings.NewReader("[]"+strings.Repeat(" ", 2<<20)), 1<<20); !errors.Is(err, ErrTooLarge) {
		t.Errorf("spaces over the bound: %v, want ErrTooLarge", err)
	}
	rows := "[" + strings.TrimSuffix(strings.Repeat("0,", maxRows), ",") + "]"
	if runs, err := newDecoder().page(strings.NewReader(rows), 1<<20); err != nil || len(runs) != maxRows {
		t.Errorf("just as many rows as allowed: %d rows, error %v", len(runs), err)
	}
	if _, err := newDecoder().page(strings.NewReader("[0,"+rows[1:]), 1<<20); !errors.Is(err, ErrTooLarge) {
		t.Errorf("one row too many: %v, want ErrTooLarge", err)
	}
}

// TestDecodeReaders decodes through readers that do what a connection may do.
func TestDecodeReaders(t *testing.T) {
	page := benchmarkPage()
	want, err := newDecoder().page(bytes.NewReader(page), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("connection reset")
	for name, reader := range map[string]io.Reader{
		"one byte at a time":      iotest.OneByteReader(bytes.NewReader(page)),
		"data and end at once":    iotest.DataErrReader(bytes.NewReader(page)),
		"sometimes nothing":       &sometimesNothing{from: iotest.HalfReader(bytes.NewReader(page))},
		"larger than the buffers": io.MultiReader(strings.NewReader(strings.Repeat(" ", 2*wholeBytes)), bytes.NewReader(page)),
	} {
		got, err := newDecoder().page(reader, 1<<24)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %d rows, error %v", name, len(got), err)
		}
	}
	for name, reader := range map[string]io.Reader{
		"broken in the middle":   io.MultiReader(bytes.NewReader(page[:5000]), iotest.ErrReader(broken)),
		"broken after the end":   io.MultiReader(bytes.NewReader(page), iotest.ErrReader(broken)),
		"broken in a large body": io.MultiReader(strings.NewReader(strings.Repeat(" ", 2*wholeBytes)), bytes.NewReader(page), iotest.ErrReader(broken)),
	} {
		if _, err := newDecoder().page(reader, 1<<24); !errors.Is(err, broken) || !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want the reader's error and ErrMalformed", name, err)
		}
	}
	if _, err := newDecoder().page(nothing{}, 1<<24); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a reader that never gives anything: %v", err)
	}
}

type sometimesNothing struct {
	from io.Reader
	odd  bool
}

func (r *sometimesNothing) Read(p []byte) (int, error) {
	if r.odd = !r.odd; r.odd {
		return 0, nil
	}
	return r.from.Read(p)
}

type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, nil }

// TestDecodeAgain decodes with one decoder what comes one after the other.
func TestDecodeAgain(t *testing.T) {
	d := newDecoder()
	for range 3 {
		if runs, err := d.page(strings.NewReader(`[{"uid":"a","status":"FAILED"}]`), 1<<20); err != nil || runs[0].Status != StatusFailed {
			t.Fatalf("good page: %+v, %v", runs, err)
		}
		if _, err := d.page(strings.NewReader(`[{"a":[[[{`), 1<<20); err == nil {
			t.Fatal("cut page: no error")
		}
		large := strings.Repeat(" ", wholeBytes) + `[{"uid":"b","status":"RUNNING"}]`
		if runs, err := d.page(strings.NewReader(large), 1<<20); err != nil || runs[0].UID != "b" {
			t.Fatalf("large page: %+v, %v", runs, err)
		}
		if _, err := d.page(strings.NewReader(large[:len(large)-3]), 1<<20); err == nil {
			t.Fatal("cut large page: no error")
		}
		d.release()
	}
}

func TestDecodeSingle(t *testing.T) {
	run, err := newDecoder().single(strings.NewReader(` {"id":1,"uid":"u","status":"BLOCKED","postponed_until":"2025-10-14T07:13:47Z"} `), 1<<20)
	want := Run{ID: 1, UID: "u", Status: StatusBlocked, PostponedUntil: date("2025-10-14T07:13:47Z")}
	if err != nil || !reflect.DeepEqual(run, want) {
		t.Errorf("got %+v, %v", run, err)
	}
	for _, body := range []string{``, `[]`, `null`, `"u"`, `{"uid":"u"`, `{"uid":"u"}{}`} {
		if _, err := newDecoder().single(strings.NewReader(body), 1<<20); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", body, err)
		}
	}
}

// TestDecodeWords checks that texts which come again are not kept again, and
// that those which never do are forgotten.
func TestDecodeWords(t *testing.T) {
	d := newDecoder()
	for i := range 3000 {
		body := fmt.Sprintf(`[{"uid":"u","status":"STATUS_%d","action_name":"action-%d"}]`, i, i)
		runs, err := d.page(strings.NewReader(body), 1<<20)
		if err != nil || runs[0].Status != Status(fmt.Sprintf("STATUS_%d", i)) || runs[0].ActionName != fmt.Sprintf("action-%d", i) {
			t.Fatalf("got %+v, %v", runs, err)
		}
		if len(d.words) > maxWords {
			t.Fatalf("%d words are kept", len(d.words))
		}
	}
	page := benchmarkPage()
	reader := bytes.NewReader(page)
	allocs := testing.AllocsPerRun(10, func() {
		reader.Reset(page)
		if _, err := d.page(reader, 1<<20); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 110 {
		t.Errorf("%v allocations for a page of 100 rows: only the uids are new in each", allocs)
	}
}

// TestDecodeMemory reads a body that is almost all parameters, and checks that
// they are not held.
func TestDecodeMemory(t *testing.T) {
	const bodyBytes = 64 << 20
	body := io.MultiReader(
		strings.NewReader(`[{"uid":"u","parameters":["`),
		io.LimitReader(endless("parameters "), bodyBytes),
		strings.NewReader(`"]}]`),
	)
	d := newDecoder()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	runs, err := d.page(body, 2*bodyBytes)
	runtime.ReadMemStats(&after)
	if err != nil || len(runs) != 1 || runs[0].Defect != "" {
		t.Fatalf("got %+v, %v", runs, err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
		t.Errorf("%d bytes were allocated to skip %d", used, bodyBytes)
	}
}

// endless repeats a text for ever.
type endless string

func (e endless) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		n += copy(p[n:], e)
	}
	return n, nil
}

func TestCleanText(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"", ""},
		{"plain", "plain"},
		{"a\tb", "a\uFFFDb"},
		{strings.Repeat("x", 300), strings.Repeat("x", 128)},
		{strings.Repeat("x", 127) + "é", strings.Repeat("x", 127)},
		{strings.Repeat("\x00", 300), strings.Repeat("\uFFFD", 42)},
	} {
		if got := cleanText([]byte(test.in), maxStringBytes); got != test.want || !utf8.ValidString(got) {
			t.Errorf("%q: got %q, want %q", test.in, got, test.want)
		}
	}
}
