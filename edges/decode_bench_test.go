package edges

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

// benchmarkPage is a page of 100 runs as the API prints them, about 1 kB each,
// half of which is what the exporter does not keep.
func benchmarkPage() []byte {
	var b bytes.Buffer
	b.WriteByte('[')
	at := time.Date(2025, 10, 14, 7, 13, 47, 123e6, time.UTC)
	for i := range 100 {
		if i > 0 {
			b.WriteByte(',')
		}
		stamp := func(d time.Duration) string {
			return at.Add(time.Duration(i)*time.Second + d).Format("2006-01-02T15:04:05.000Z")
		}
		fmt.Fprintf(&b, `{"id":%d,"uid":"5e0d6c1e-8f7a-4c52-9d3b-%012x","action_id":17,"action_name":"linkedin-extract-people",`+
			`"execution_mode":"ASYNC","status":"FAILED","retry_count":2,"output_count":%d,`+
			`"last_error":{"label":"LK_ERROR","message":"LinkedIn answered with an error \"429\", try again later","params":{"input":{"url":"https://example.com/in/%d"}}},`+
			`"parameters":{"input":{"linkedin_profile_url":"https://www.linkedin.com/in/someone-%d/","max_results":100,"filters":["a","b","c"],"deep":{"a":[1,2,3,{"b":null}]}},"identity_ids":["0c5fcb85-1c1c-4f5c-b43a-0f6dd1a92b9e"]},`+
			`"callback":{"url":"https://hooks.example.com/edges/%d","headers":{"Authorization":"Bearer 2f1d8f0d9e1c4b7a8b3c5d6e7f8091a2"},"include_input":true},`+
			`"user_uid":"b6c1f7de-2f8f-4b7c-8a53-7d1f6f7c1a10","workspace_uid":"f3b9a1de-77aa-4d2e-9c1b-2b8e6c0d9f11","scheduled_run_uid":null,`+
			`"postponed_until":null,"created_at":%q,"updated_at":%q,"started_at":%q,"finished_at":%q,"synced_at":null}`,
			4_000_000+i, i, i*3, i, i, i, stamp(0), stamp(3*time.Minute), stamp(time.Minute), stamp(3*time.Minute))
	}
	b.WriteByte(']')
	return b.Bytes()
}

// plainRun is what encoding/json needs to read the same fields.
type plainRun struct {
	ID            int64  `json:"id"`
	UID           string `json:"uid"`
	ActionName    string `json:"action_name"`
	ExecutionMode string `json:"execution_mode"`
	Status        string `json:"status"`
	RetryCount    int64  `json:"retry_count"`
	OutputCount   int64  `json:"output_count"`
	LastError     *struct {
		Label string `json:"label"`
	} `json:"last_error"`
	WorkspaceUID    string     `json:"workspace_uid"`
	UserUID         string     `json:"user_uid"`
	ScheduledRunUID string     `json:"scheduled_run_uid"`
	PostponedUntil  *time.Time `json:"postponed_until"`
	CreatedAt       *time.Time `json:"created_at"`
	UpdatedAt       *time.Time `json:"updated_at"`
	StartedAt       *time.Time `json:"started_at"`
	FinishedAt      *time.Time `json:"finished_at"`
}

func BenchmarkDecodePage(b *testing.B) {
	page := benchmarkPage()
	report := func(b *testing.B) {
		b.Helper()
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/run")
		b.ReportMetric(float64(len(page))/100, "B/run")
	}
	b.Run("edges", func(b *testing.B) {
		b.ReportAllocs()
		d := newDecoder()
		for b.Loop() {
			runs, err := d.page(bytes.NewReader(page), 1<<20)
			if err != nil || len(runs) != 100 {
				b.Fatal(len(runs), err)
			}
		}
		report(b)
	})
	b.Run("encoding_json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var runs []plainRun
			if err := json.NewDecoder(bytes.NewReader(page)).Decode(&runs); err != nil || len(runs) != 100 {
				b.Fatal(len(runs), err)
			}
		}
		report(b)
	})
}
