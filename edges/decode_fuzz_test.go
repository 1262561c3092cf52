package edges

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// FuzzDecodePage decodes anything. It must not panic; what is decoded must be
// within its bounds; decoding in one piece and in crumbs must agree, and so
// must encoding/json on what a JSON array is and how many elements it has.
func FuzzDecodePage(f *testing.F) {
	statuses := make([]string, 3000)
	for i := range statuses {
		statuses[i] = fmt.Sprintf(`{"uid":"%d","status":"STATUS_%d"}`, i, i)
	}
	for _, seed := range []string{
		string(benchmarkPage()[:1100]) + "]",
		`[]`, `[null]`, `null`, `{}`, ``, ` `, `[`, `]`, `[[[[[[]]]]]]`, `[1,"a",true,false,null,{},[]]`,
		`{"data":[]}`, `<html>`, `[{"uid":"a"}] x`, `[{"uid":"a"}`, "\x1f\x8b\x08\x00garbage", "\xff\xfe\x00",
		`[{"id":null,"uid":null,"action_name":null,"execution_mode":null,"status":null,"retry_count":null,"output_count":null,"last_error":null,"parameters":null,"callback":null,"user_uid":null,"workspace_uid":null,"scheduled_run_uid":null,"postponed_until":null,"created_at":null,"updated_at":null,"started_at":null,"finished_at":null}]`,
		`[{"id":1e999,"uid":1,"action_name":2,"execution_mode":[],"status":{},"retry_count":-1,"output_count":99999999999999999999,"last_error":"X","created_at":1,"updated_at":"x","started_at":[],"finished_at":{}}]`,
		`[{"uid":"u","last_error":{"label":1,"error_label":{"a":"b"}},"last_error":{"label":"A\u0000\ud800\udc00\ud800"}}]`,
		`[{"uid":"u","retry_count":"3","output_count":3.0,"id":"4"}]`,
		`[{"uid":"u","retry_count":3-5,"output_count":03,"id":1.}]`,
		`[{"uid":"u","created_at":"2025-10-14T07:13:47.000Z","updated_at":"2025-10-14 09:13:47+02","started_at":"0001-01-01T00:00:00Z","finished_at":""}]`,
		`[{"uid":"u","\u0075id":"v","uid":"\ud83d\ude00"}]`,
		"[{\"uid\":\"\xff\xfe\",\"status\":\"\xc3\x28\",\"action_name\":\"\xed\xa0\x80\"}]",
		`[{"uid":"` + strings.Repeat("u", 129) + `","status":"` + strings.Repeat("é", 129) + `"}]`,
		`[{"parameters":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}]`,
		`[{"parameters":` + strings.Repeat(`{"a":`, 200) + `1` + strings.Repeat("}", 200) + `}]`,
		"[" + strings.Join(statuses, ",") + "]",
	} {
		f.Add([]byte(seed))
	}
	const maxBytes = 1 << 20
	whole, crumbs := newDecoder(), tinyDecoder(5)
	f.Fuzz(func(t *testing.T, body []byte) {
		runs, err := whole.page(bytes.NewReader(body), maxBytes)
		again, errAgain := crumbs.page(bytes.NewReader(body), maxBytes)
		if (err == nil) != (errAgain == nil) || !reflect.DeepEqual(runs, again) {
			t.Fatalf("in one piece: %+v, %v\nin crumbs: %+v, %v", runs, err, again, errAgain)
		}
		if _, err := whole.single(bytes.NewReader(body), maxBytes); err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
			t.Fatalf("single: error %v", err)
		}
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("error %v", err)
			}
			if runs != nil {
				t.Fatalf("rows beside error %v", err)
			}
		}
		var elements []json.RawMessage
		isArray := json.Unmarshal(body, &elements) == nil && elements != nil
		switch {
		case isArray && err != nil && !errors.Is(err, ErrTooLarge):
			t.Fatalf("a JSON array is not decoded: %v", err)
		case err == nil && !isArray:
			t.Fatal("decoded what is not a JSON array")
		case err == nil && len(runs) != len(elements):
			t.Fatalf("%d rows of %d elements", len(runs), len(elements))
		}
		for i, run := range runs {
			checkRun(t, run)
			if isObject := elements[i][0] == '{'; isObject == (run.Defect == DefectNotObject) {
				t.Errorf("defect %q of %s", run.Defect, elements[i])
			}
		}
	})
}

func checkRun(t *testing.T, run Run) {
	t.Helper()
	for _, text := range []string{
		run.ActionName, run.ExecutionMode, string(run.Status), run.ErrorLabel,
		run.WorkspaceUID, run.UserUID, run.ScheduledRunUID,
	} {
		if len(text) > maxStringBytes || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
			t.Errorf("text %q", text)
		}
	}
	if len(run.UID) > maxStringBytes || !utf8.ValidString(run.UID) {
		t.Errorf("uid %q", run.UID)
	}
	if run.RetryCount < 0 || run.OutputCount < 0 || run.RetryCount > maxCount || run.OutputCount > maxCount {
		t.Errorf("counts %d, %d", run.RetryCount, run.OutputCount)
	}
	switch run.Defect {
	case "":
		if run.UID == "" {
			t.Error("a good row without a uid")
		}
	case DefectNoUID, DefectBadField, DefectBadTime, DefectNotObject:
	default:
		t.Errorf("defect %q", run.Defect)
	}
}
