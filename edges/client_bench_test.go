package edges

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// BenchmarkListRuns reads pages of 100 runs over a socket; the time is the
// client's and the server's, of which the page is ready.
func BenchmarkListRuns(b *testing.B) {
	plain := string(benchmarkPage())
	for _, test := range []struct{ name, body, encoding string }{
		{"plain", plain, "identity"},
		{"gzip", zipped(plain), "gzip"},
	} {
		b.Run(test.name, func(b *testing.B) {
			answer := []byte(test.body)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Encoding", test.encoding)
				_, _ = w.Write(answer)
			}))
			defer server.Close()
			c, err := NewClient(Config{URL: server.URL, Key: func() (string, error) { return testKey, nil }})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			b.ReportAllocs()
			for b.Loop() {
				if page, err := c.ListRuns(b.Context(), RunsQuery{Limit: 100}); err != nil || len(page.Runs) != 100 {
					b.Fatal(len(page.Runs), err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/run")
		})
	}
}
