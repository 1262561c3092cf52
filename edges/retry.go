package edges

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-faster/jx"
)

const (
	// pauseWithoutReset is how long nothing is sent once the API says that
	// its limit is used up, but not until when.
	pauseWithoutReset = 15 * time.Second
	// maxTextBytes bounds the texts of an error answer.
	maxTextBytes = 500
)

var (
	errTimedOut       = errors.New("timed out")
	errDeadConnection = errors.New("idle connection was dead")
)

// retryable reports whether the same request may be answered a little later.
func retryable(err error) bool {
	var apiErr *APIError
	if errors.As(err, &apiErr) {
		return apiErr.temporary()
	}
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.Is(err, ErrTimeout), errors.Is(err, ErrMalformed):
		return true
	case errors.Is(err, ErrTooLarge), errors.Is(err, ErrRedirected), errors.Is(err, ErrBadKey),
		errors.Is(err, ErrBudgetClosed), errors.Is(err, errBudgetFileWrite),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &certificate):
		return false
	}
	return true // the connection failed
}

// obey slows the budget down as an answer asks for, and returns how long its
// Retry-After says to wait.
func (c *Client) obey(answer *http.Response) time.Duration {
	if limit, ok := leadingNumber(answer.Header.Get("X-Ratelimit-Limit")); ok && c.limited && limit >= 1 {
		c.budget.observeLimit(int(min(limit, maxPerMinute)))
	}
	if answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode >= 500 {
		if wait, ok := retryAfter(answer.Header); ok {
			return c.pause(wait)
		}
	}
	if remaining, ok := leadingNumber(answer.Header.Get("X-Ratelimit-Remaining")); ok && remaining == 0 {
		wait := c.pause(untilReset(answer.Header))
		c.logger.Info("rate limit of the API is used up", "pause", wait)
	}
	return 0
}

func (c *Client) pause(wait time.Duration) time.Duration {
	if wait > maxPause {
		c.logger.Warn("API asks for a longer pause than is kept", "asked", wait, "kept", maxPause)
		wait = maxPause
	}
	if wait > 0 {
		c.budget.PauseUntil(time.Now().Add(wait))
	}
	return wait
}

// retryAfter reads Retry-After, which is a number of seconds or a date. A date
// is by the server's clock, so it is measured against the answer's own.
func retryAfter(header http.Header) (time.Duration, bool) {
	text := strings.TrimSpace(header.Get("Retry-After"))
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		if !(seconds >= 0) { // also not a number
			return 0, false
		}
		return inSeconds(seconds), true
	}
	date, err := http.ParseTime(text)
	if err != nil {
		return 0, false
	}
	return max(0, date.Sub(clockOf(header))), true
}

// untilReset reads X-RateLimit-Reset, which is seconds from now, or a time in
// seconds or milliseconds since 1970, by the API's choice.
func untilReset(header http.Header) time.Duration {
	reset, err := strconv.ParseFloat(strings.TrimSpace(header.Get("X-Ratelimit-Reset")), 64)
	if err != nil || !(reset >= 0) {
		return pauseWithoutReset
	}
	now := float64(clockOf(header).UnixMilli()) / 1000
	switch {
	case reset > 1e12:
		reset = reset/1000 - now
	case reset >= 1e9:
		reset -= now
	}
	// The Date header has whole seconds: less than one cannot be told.
	return max(time.Second, inSeconds(reset))
}

// inSeconds is exact enough for a wait, and does not overflow.
func inSeconds(seconds float64) time.Duration {
	const most = float64(math.MaxInt64 / 2)
	return time.Duration(min(max(seconds*float64(time.Second), -most), most))
}

// leadingNumber reads "30" as well as the "30, 30;w=60" of newer headers.
func leadingNumber(text string) (int64, bool) {
	text = strings.TrimSpace(text)
	end := 0
	for end < len(text) && text[end] >= '0' && text[end] <= '9' {
		end++
	}
	n, err := strconv.ParseInt(text[:end], 10, 64)
	return n, err == nil
}

// serverTime is the Date header, or the zero time.
func serverTime(header http.Header) time.Time {
	date, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return time.Time{}
	}
	return date
}

// clockOf is the server's clock, or this machine's if it does not tell.
func clockOf(header http.Header) time.Time {
	if date := serverTime(header); !date.IsZero() {
		return date
	}
	return time.Now()
}

// readAPIError reads the standard error format as far as the body has it.
func readAPIError(answer *http.Response, key string) *APIError {
	apiErr := &APIError{StatusCode: answer.StatusCode}
	// What could be read of a body that is cut is better than nothing.
	body, _ := io.ReadAll(io.LimitReader(answer.Body, maxErrorBytes))
	_ = jx.DecodeBytes(body).ObjBytes(func(d *jx.Decoder, name []byte) error {
		var field *string
		switch string(name) {
		case "error_label":
			field = &apiErr.Label
		case "error_scope":
			field = &apiErr.Scope
		case "error_ref":
			field = &apiErr.Ref
		case "message":
			field = &apiErr.Message
		}
		if field == nil || d.Next() != jx.String {
			return d.Skip()
		}
		text, err := d.Str()
		*field = cleanText([]byte(hideIn(text, key)), maxTextBytes)
		return err
	})
	return apiErr
}

// hideKey takes the key out of an error's text, should the server, or what
// reads the key, have put it there.
func hideKey(err error, key string) error {
	if err == nil || key == "" || !strings.Contains(err.Error(), key) {
		return err
	}
	return &quietError{text: hideIn(err.Error(), key), err: err}
}

func hideIn(text, key string) string {
	return strings.ReplaceAll(text, key, "[redacted]")
}

// quietError is an error that says less than the one it stands for.
type quietError struct {
	text string
	err  error
}

func (e *quietError) Error() string { return e.text }
func (e *quietError) Unwrap() error { return e.err }
