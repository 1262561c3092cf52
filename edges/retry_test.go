package edges

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestClientObeysAnswers checks for how long an answer stops all requests.
func TestClientObeysAnswers(t *testing.T) {
	server := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC) // not this machine's time
	in := server.Add
	for _, test := range []struct {
		name    string
		code    int
		headers []string
		want    time.Duration
		after   time.Duration // what the error tells
		warning bool
	}{
		{name: "nothing", code: 200},
		{name: "429 alone", code: 429},

		{name: "seconds", code: 429, headers: []string{"Retry-After", "7"}, want: 7 * time.Second, after: 7 * time.Second},
		{name: "seconds with 503", code: 503, headers: []string{"Retry-After", " 7 "}, want: 7 * time.Second, after: 7 * time.Second},
		{name: "seconds with a fraction", code: 429, headers: []string{"Retry-After", "1.5"}, want: 1500 * time.Millisecond, after: 1500 * time.Millisecond},
		{name: "zero", code: 429, headers: []string{"Retry-After", "0"}},
		{name: "negative", code: 429, headers: []string{"Retry-After", "-5"}},
		{name: "garbage", code: 429, headers: []string{"Retry-After", "soon"}},
		{name: "not a number", code: 429, headers: []string{"Retry-After", "NaN"}},
		{name: "too long", code: 429, headers: []string{"Retry-After", "86400"}, want: maxPause, after: maxPause, warning: true},
		{name: "endless", code: 429, headers: []string{"Retry-After", "1e300"}, want: maxPause, after: maxPause, warning: true},
		{name: "date", code: 429, headers: []string{"Retry-After", in(42 * time.Second).Format(http.TimeFormat)}, want: 42 * time.Second, after: 42 * time.Second},
		{name: "date of RFC 850", code: 429, headers: []string{"Retry-After", in(42 * time.Second).Format("Monday, 02-Jan-06 15:04:05 GMT")}, want: 42 * time.Second, after: 42 * time.Second},
		{name: "date in the past", code: 503, headers: []string{"Retry-After", in(-time.Hour).Format(http.TimeFormat)}},
		{name: "date too far", code: 503, headers: []string{"Retry-After", in(time.Hour).Format(http.TimeFormat)}, want: maxPause, after: maxPause, warning: true},
		{name: "with an answer that needs none", code: 404, headers: []string{"Retry-After", "7"}},

		{name: "some remain", code: 200, headers: []string{"X-RateLimit-Remaining", "1", "X-RateLimit-Reset", "30"}},
		{name: "none remain", code: 200, headers: []string{"X-RateLimit-Remaining", "0"}, want: pauseWithoutReset},
		{name: "none remain, seconds", code: 200, headers: []string{"X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "30"}, want: 30 * time.Second},
		{name: "none remain, epoch", code: 200, headers: []string{"X-RateLimit-Remaining", "0", "X-RateLimit-Reset", strconv.FormatInt(in(30*time.Second).Unix(), 10)}, want: 30 * time.Second},
		{name: "none remain, epoch in milliseconds", code: 200, headers: []string{"X-RateLimit-Remaining", "0", "X-RateLimit-Reset", strconv.FormatInt(in(30*time.Second).UnixMilli(), 10)}, want: 30 * time.Second},
		{name: "none remain, epoch in the past", code: 200, headers: []string{"X-RateLimit-Remaining", "0", "X-RateLimit-Reset", strconv.FormatInt(in(-30*time.Second).Unix(), 10)}, want: time.Second},
		{name: "none remain, now", code: 200, headers: []string{"X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "0"}, want: time.Second},
		{name: "none remain, negative", code: 200, headers: []string{"X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "-1"}, want: pauseWithoutReset},
		{name: "none remain, garbage", code: 200, headers: []string{"X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "later"}, want: pauseWithoutReset},
		{name: "none remain, too long", code: 200, headers: []string{"X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "3600"}, want: maxPause, warning: true},
		{name: "garbage remains", code: 200, headers: []string{"X-RateLimit-Remaining", "x"}},
		{name: "none remain, 401", code: 401, headers: []string{"X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "20"}, want: 20 * time.Second},
		{name: "Retry-After outweighs", code: 429, headers: []string{"Retry-After", "3", "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "50"}, want: 3 * time.Second, after: 3 * time.Second},
		{name: "garbage outweighs nothing", code: 429, headers: []string{"Retry-After", "x", "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "50"}, want: 50 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			headers := append([]string{"Date", server.Format(http.TimeFormat)}, test.headers...)
			c := newTestClient(t, serve(t, status(test.code, "[]", headers...)).URL, noRetries)
			before := time.Now()
			_, err := c.ListRuns(t.Context(), RunsQuery{})
			after := time.Now()
			if (err == nil) != (test.code == 200) {
				t.Fatalf("error %v", err)
			}
			pause := c.budget.pause
			if test.want == 0 && !pause.IsZero() {
				t.Errorf("a pause of about %v, want none", pause.Sub(after))
			}
			if test.want > 0 && (pause.Before(before.Add(test.want)) || pause.After(after.Add(test.want))) {
				t.Errorf("a pause of about %v, want %v", pause.Sub(after), test.want)
			}
			if got := asAPIError(err).RetryAfter; got != test.after {
				t.Errorf("the error tells %v, want %v", got, test.after)
			}
			if got := strings.Contains(c.logged(), "longer pause"); got != test.warning {
				t.Errorf("warning %v, want %v", got, test.warning)
			}
		})
	}
}

func TestClientObeysTheLimit(t *testing.T) {
	limit := func(text string) http.HandlerFunc { return status(200, "[]", "X-RateLimit-Limit", text) }
	c := newTestClient(t, serve(t, limit("2000"), limit("30, 30;w=60"), limit(""), limit("0"), limit("-4"), limit("x"), limit("99999999999999999999"),
		limit("60"), status(429, "", "X-RateLimit-Limit", " 45 "), limit("5000000000")).URL, noRetries)
	for i, want := range []int{1000, 30, 30, 30, 30, 30, 30, 60, 45, 1000} {
		_, _ = c.ListRuns(t.Context(), RunsQuery{}) // the 429 tells its limit, too
		if got := c.budget.PerMinute(); got != want {
			t.Errorf("answer %d: %d a minute in force, want %d", i, got, want)
		}
	}
}

// TestClientWaitsAsAsked checks that a pause holds the retry, and whoever else
// uses the budget.
func TestClientWaitsAsAsked(t *testing.T) {
	var arrived []time.Time
	note := func(next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			arrived = append(arrived, time.Now())
			next(w, r)
		}
	}
	c := newTestClient(t, serve(t, note(status(429, "", "Retry-After", "0.4")), note(body(oneRun))).URL)
	if _, err := c.ListRuns(t.Context(), RunsQuery{}); err != nil {
		t.Fatal(err)
	}
	c.wantAttempts(t, 429, 200)
	if waited := arrived[1].Sub(arrived[0]); waited < 400*time.Millisecond {
		t.Errorf("tried again after %v", waited)
	}
	if c.budget.Throttled() == 0 {
		t.Error("nothing was throttled")
	}
}

func asAPIError(err error) APIError {
	var apiErr *APIError
	if errors.As(err, &apiErr) {
		return *apiErr
	}
	return APIError{}
}
