package collector

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// secret stands in the callback headers of every row, and key is the API key:
// neither may come out anywhere.
const (
	secret = "Bearer-9f31c2-callback"
	apiKey = "key-77aa01-of-the-workspace"
)

// row is one run as the server shows it. Zero times and empty texts are null.
type row struct {
	uid, action, mode, status, errLabel, schedule, workspace string
	retries, outputs                                         int64
	created, updated, started, finished, postponed           time.Time

	// raw, if set, is shown in place of the row, which still has its place.
	raw string
	// shown is when this version becomes visible, by the server's clock; zero
	// is at once. Until then before is shown, or nothing.
	shown  time.Time
	before *row

	encoded []byte
	tie     uint64
}

// nullOrder is where the server sorts a row without updated_at.
type nullOrder int

const (
	nullsByCreated nullOrder = iota
	nullsFirst
	nullsLast
)

type (
	writer  = http.ResponseWriter
	request = http.Request
	// answerer may answer the n-th request in the server's place: it returns
	// true if it did.
	answerer func(n int, w writer, r *request) bool
)

// server is a list of runs over HTTP in which everything is under a test's
// control: the rows, the clock, the order of ties, and what goes wrong.
type server struct {
	http *httptest.Server

	mu    sync.Mutex
	now   time.Time
	rows  map[string]*row
	order []*row // nil: to be made again
	nulls nullOrder
	// ties, if set, orders rows of the same updated_at anew in each answer, as
	// a server does that ignores the second sort.
	ties                                      *rand.Rand
	noDate, ignoreUID, ignoreOffset, unsorted bool
	// most, if set, is the largest page, whatever is asked for.
	most int
	// requests counts all requests, lists those without a uid filter, audits
	// the others.
	requests, lists, audits int
	// before runs before a request is answered; n counts the requests from 1.
	before func(n int, q url.Values)
	answer answerer
}

// start is the server's clock at the start of every test.
var start = time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)

func newServer(t testing.TB) *server {
	s := &server{now: start, rows: map[string]*row{}}
	s.http = httptest.NewServer(s)
	t.Cleanup(s.http.Close)
	return s
}

func uid(n int) string { return fmt.Sprintf("5e000000-0000-4000-8000-%012x", n) }

// put adds rows, or replaces those of the same uid.
func (s *server) put(rows ...row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range rows {
		s.rows[r.uid] = &r
	}
	s.order = nil
}

// change makes a new version of a row.
func (s *server) change(uid string, f func(r *row)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := *s.rows[uid]
	r.encoded, r.shown, r.before = nil, time.Time{}, nil
	f(&r)
	if !r.shown.IsZero() {
		r.before = s.rows[uid]
	}
	s.rows[uid] = &r
	s.order = nil
}

func (s *server) remove(uids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range uids {
		delete(s.rows, u)
	}
	s.order = nil
}

func (s *server) advance(d time.Duration) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.now.Add(d)
	s.order = nil
	return s.now
}

func (s *server) clock() time.Time { return s.advance(0) }

// count returns how many requests came since the last call.
func (s *server) count() (lists, audits int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lists, audits = s.lists, s.audits
	s.lists, s.audits = 0, 0
	return lists, audits
}

// visible returns copies of all rows that the list shows now.
func (s *server) visible() []row {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []row{}
	for _, r := range s.sorted() {
		shown := *r
		shown.encoded = nil
		out = append(out, shown)
	}
	return out
}

func (s *server) sorted() []*row {
	if s.order != nil && s.ties == nil {
		return s.order
	}
	s.order = make([]*row, 0, len(s.rows))
	for _, r := range s.rows {
		for r != nil && r.shown.After(s.now) {
			r = r.before
		}
		if r == nil {
			continue
		}
		if s.ties != nil {
			r.tie = s.ties.Uint64()
		}
		s.order = append(s.order, r)
	}
	slices.SortFunc(s.order, s.compare)
	return s.order
}

// compare orders by -updated_at, -created_at, uid; with ties, by -updated_at
// and then in no order.
func (s *server) compare(a, b *row) int {
	x, y := a.updated, b.updated
	if s.nulls == nullsByCreated {
		if x.IsZero() {
			x = a.created
		}
		if y.IsZero() {
			y = b.created
		}
	}
	if s.nulls == nullsFirst && x.IsZero() != y.IsZero() {
		if x.IsZero() {
			return -1
		}
		return 1
	}
	if c := y.Compare(x); c != 0 {
		return c
	}
	if s.ties != nil {
		if a.tie < b.tie {
			return -1
		}
		return 1
	}
	if c := b.created.Compare(a.created); c != 0 {
		return c
	}
	return strings.Compare(a.uid, b.uid)
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests++
	n, before, answer := s.requests, s.before, s.answer
	q := r.URL.Query()
	if q["uid"] == nil {
		s.lists++
	} else {
		s.audits++
	}
	s.stamp(w)
	s.mu.Unlock()
	if before != nil {
		before(n, q)
	}
	if answer != nil && answer(n, w, r) {
		return
	}
	s.list(w, r)
}

// list answers as the API does.
func (s *server) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if r.URL.Path != "/v1/runs" || r.Method != http.MethodGet || r.Header.Get("X-API-Key") != apiKey {
		http.Error(w, `{"error_label":"NO_ACCESS","status_code":403}`, http.StatusForbidden)
		return
	}
	limit, offset := number(q, "limit", 10), number(q, "offset", 0)
	s.mu.Lock()
	if s.most > 0 {
		limit = min(limit, s.most)
	}
	rows := s.sorted()
	if s.unsorted {
		rows = slices.Clone(rows)
		slices.Reverse(rows)
	}
	if wanted := q["uid"]; wanted != nil && !s.ignoreUID {
		rows = slices.DeleteFunc(slices.Clone(rows), func(r *row) bool { return !slices.Contains(wanted, r.uid) })
	}
	if s.ignoreOffset {
		offset = 0
	}
	rows = rows[min(offset, len(rows)):]
	rows = rows[:min(limit, len(rows))]
	body := []byte{'['}
	for i, r := range rows {
		if i > 0 {
			body = append(body, ',')
		}
		if r.encoded == nil {
			r.encoded = encodeRow(r)
		}
		body = append(body, r.encoded...)
	}
	body = append(body, ']')
	s.stamp(w)
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body)
}

// stamp sets the Date header; s.mu is held.
func (s *server) stamp(w http.ResponseWriter) {
	if s.noDate {
		w.Header()["Date"] = nil
		return
	}
	w.Header().Set("Date", s.now.UTC().Format(http.TimeFormat))
}

func number(q url.Values, name string, otherwise int) int {
	n, err := strconv.Atoi(q.Get(name))
	if err != nil {
		return otherwise
	}
	return n
}

func encodeRow(r *row) []byte {
	if r.raw != "" {
		return []byte(r.raw)
	}
	var lastError any
	if r.errLabel != "" {
		lastError = map[string]any{"label": r.errLabel, "message": "went wrong", "params": map[string]any{}}
	}
	body, err := json.Marshal(map[string]any{
		"id": 1, "uid": r.uid, "action_id": 7, "action_name": null(r.action), "execution_mode": null(r.mode),
		"status": null(r.status), "retry_count": r.retries, "output_count": r.outputs, "last_error": lastError,
		"parameters":    map[string]any{"query": "x"},
		"callback":      map[string]any{"url": "https://example.com", "headers": map[string]string{"Authorization": secret}},
		"user_uid":      "5e000000-0000-4000-9000-000000000000",
		"workspace_uid": null(r.workspace), "scheduled_run_uid": null(r.schedule),
		"postponed_until": date(r.postponed), "created_at": date(r.created), "updated_at": date(r.updated),
		"started_at": date(r.started), "finished_at": date(r.finished),
	})
	if err != nil {
		panic(err)
	}
	return body
}

func null(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func date(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

// Troubles: what an answer may be instead of a list.

func status(code int) answerer {
	return func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, `{"error_label":"GENERIC_ERROR","status_code":500}`)
		return true
	}
}

func text(body string) answerer {
	return func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		_, _ = io.WriteString(w, body)
		return true
	}
}

// cut sends less of a body than was announced.
func cut(_ int, w http.ResponseWriter, _ *http.Request) bool {
	w.Header().Set("Content-Length", "100000")
	_, _ = io.WriteString(w, `[{"uid":"5e000000-0000-4000-8000-000000000001","status":"FAI`)
	return true
}

// endless sends rows until the client hangs up.
func endless(_ int, w http.ResponseWriter, _ *http.Request) bool {
	chunk := []byte(strings.Repeat(`{"uid":"5e000000-0000-4000-8000-000000000001"},`, 1000))
	_, err := io.WriteString(w, "[")
	for err == nil {
		_, err = w.Write(chunk)
	}
	return true
}

// trouble makes the server answer so until calm.
func (s *server) trouble(answer answerer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *server) calm() { s.trouble(nil) }

// between runs f before each request.
func (s *server) between(f func(n int, q url.Values)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = f
}

func (s *server) hook() func(n int, q url.Values) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.before
}
