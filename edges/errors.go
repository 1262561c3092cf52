package edges

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// What went wrong with a call, for errors.Is. An error that the API answered
// is also an *APIError, for errors.As.
var (
	// ErrUnauthorized is answer 401: the key is missing, wrong or revoked.
	ErrUnauthorized = errors.New("key refused")
	// ErrNoAccess is answer 402 or 403: the key is known, but this workspace
	// may not do that.
	ErrNoAccess = errors.New("no access")
	// ErrNotFound is answer 404.
	ErrNotFound = errors.New("not found")
	// ErrRateLimited is answer 429, still given after every retry.
	ErrRateLimited = errors.New("rate limited")
	// ErrUnavailable is answer 500 to 599, still given after every retry.
	ErrUnavailable = errors.New("API unavailable")
	// ErrTooLarge is an answer over Config.MaxAnswerBytes, or a list of more
	// than 10,000 rows. It is not retried: ask for less with a smaller limit.
	ErrTooLarge = errors.New("answer too large")
	// ErrMalformed is an answer that was cut, or is not the JSON that the
	// call is documented to answer, still so after every retry.
	ErrMalformed = errors.New("answer cut or malformed")
	// ErrTimeout is a request that was not answered in full within
	// Config.Timeout, still so after every retry.
	ErrTimeout = errors.New("no whole answer in time")
	// ErrRedirected is an answer that points to another host, port or scheme.
	// It is not followed, so that the key stays with the configured one.
	ErrRedirected = errors.New("redirected away")
	// ErrBadKey is a key that is missing, or that cannot be sent in a header.
	ErrBadKey = errors.New("API key not usable")
	// ErrOutcomeUnknown is a call of a Writer that failed after it may have
	// been sent: it may have been carried out, or not. It is not retried; look
	// before calling again.
	ErrOutcomeUnknown = errors.New("it may have been carried out")
	// ErrBadQuery is a call with arguments that the API would refuse; nothing
	// was sent.
	ErrBadQuery = errors.New("bad query")
)

// APIError is an error answer in the API's standard format. Fields that the
// body did not carry are empty. Texts are cut, and never hold the key.
type APIError struct {
	// StatusCode is the HTTP status code.
	StatusCode int
	// Label is error_label, for example "BAD_PARAMETERS".
	Label string
	// Scope is error_scope.
	Scope string
	// Ref is error_ref, which the vendor's support asks for.
	Ref string
	// Message is the API's sentence for people.
	Message string
	// RetryAfter is how long the answer asked to wait; 0 if it did not say.
	RetryAfter time.Duration
}

// Error is one line with all that the API told.
func (e *APIError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "API answered %d", e.StatusCode)
	if text := http.StatusText(e.StatusCode); text != "" {
		b.WriteString(" " + text)
	}
	if e.Label != "" {
		b.WriteString(" " + e.Label)
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	if e.Scope != "" {
		b.WriteString(" (scope " + e.Scope + ")")
	}
	if e.Ref != "" {
		b.WriteString(" (ref " + e.Ref + ")")
	}
	if e.RetryAfter > 0 {
		b.WriteString(" (retry after " + e.RetryAfter.String() + ")")
	}
	return b.String()
}

// Is matches the package's errors by status code.
func (e *APIError) Is(target error) bool {
	switch e.StatusCode {
	case http.StatusUnauthorized:
		return target == ErrUnauthorized
	case http.StatusPaymentRequired, http.StatusForbidden:
		return target == ErrNoAccess
	case http.StatusNotFound:
		return target == ErrNotFound
	case http.StatusTooManyRequests:
		return target == ErrRateLimited
	}
	return target == ErrUnavailable && e.StatusCode >= 500
}

// temporary reports whether the same request may well succeed a little later.
func (e *APIError) temporary() bool {
	return e.StatusCode == http.StatusTooManyRequests || e.StatusCode >= 500
}
