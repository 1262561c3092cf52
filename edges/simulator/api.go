package simulator

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
)

// endpoint is a route of the API. The handler is called with the workspace
// locked and brought up to its clock, for a request that has the key and is
// within the limit; it returns the answer's body.
type endpoint struct {
	method, path string
	// group names the rate limit that the route counts against.
	group  string
	handle func(*http.Request) ([]byte, *problem)
	// prepare, if it is set, returns the handler of one request. It is called
	// while the workspace is not locked, to read a body or to get at the
	// answer's header.
	prepare func(http.ResponseWriter, *http.Request) func(*http.Request) ([]byte, *problem)
}

// problem is an answer in the API's error format.
type problem struct {
	code    int
	label   string
	message string
	params  map[string]string
}

func invalid(param, message string) *problem {
	return &problem{http.StatusUnprocessableEntity, "BAD_PARAMETERS", message, map[string]string{"parameter": param}}
}

func notFound(what string) *problem {
	return &problem{http.StatusNotFound, "STATUS_404", what + " not found", nil}
}

// routes sets up the handler of everything: a line for each file of endpoints.
func (w *Workspace) routes() {
	w.mux = http.NewServeMux()
	var api []endpoint
	api = append(api, w.runEndpoints()...)
	api = append(api, w.launchEndpoints()...)
	api = append(api, w.outputEndpoints()...)
	api = append(api, w.callbackEndpoints()...)
	api = append(api, w.scheduleEndpoints()...)
	api = append(api, w.creditEndpoints()...)
	paths := make(map[string][]string)
	for _, e := range api {
		w.mux.Handle(e.method+" "+e.path, w.serveAPI(e))
		paths[e.path] = append(paths[e.path], e.method)
	}
	for path, methods := range paths {
		allow := strings.Join(methods, ", ")
		refused := w.serveAPI(endpoint{handle: func(*http.Request) ([]byte, *problem) {
			return nil, &problem{http.StatusMethodNotAllowed, "GENERIC_ERROR", "method not allowed", nil}
		}})
		// One pattern for all methods would contradict that /runs/callbacks is
		// no run.
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions} {
			if slices.Contains(methods, method) {
				continue
			}
			w.mux.HandleFunc(method+" "+path, func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Allow", allow)
				refused.ServeHTTP(rw, r)
			})
		}
	}
	w.mux.Handle("/", w.serveAPI(endpoint{handle: func(*http.Request) ([]byte, *problem) { return nil, notFound("route") }}))
	w.controlRoutes()
}

// ServeHTTP serves the API under /v1/ and the control of the workspace under
// /simulator/.
func (w *Workspace) ServeHTTP(rw http.ResponseWriter, r *http.Request) { w.mux.ServeHTTP(rw, r) }

// answer is what goes out, and what befalls it on the way.
type answer struct {
	code    int
	body    []byte
	delay   time.Duration
	drop    bool
	cut     bool
	garbage int // 0 for none, else which
}

// serveAPI wraps an endpoint in what all of them have in common.
func (w *Workspace) serveAPI(e endpoint) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		e := e
		if e.prepare != nil {
			e.handle = e.prepare(rw, r)
		}
		a := w.answer(rw.Header(), r, e)
		w.log.Debug("request", "method", r.Method, "path", r.URL.Path, "query", r.URL.RawQuery, "code", a.code)
		if a.delay > 0 {
			select {
			case <-time.After(a.delay):
			case <-r.Context().Done():
				return
			}
		}
		if a.drop {
			panic(http.ErrAbortHandler) // net/http closes the connection, and says nothing
		}
		w.send(rw, r, a)
	})
}

// answer finds out what the answer to a request is.
func (w *Workspace) answer(h http.Header, r *http.Request, e endpoint) (a answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	h.Set("Date", fromMillis(w.now).Format(http.TimeFormat))
	h.Set("Content-Type", "application/json; charset=utf-8")
	defer func() {
		if a.drop {
			a.code = 0
		}
		w.answered[a.code]++
	}()
	if t := w.befalls(KindSlow); t != nil {
		a.delay = t.Delay
	}
	if t := w.befalls(KindOutage); t != nil {
		a.drop = t.Drop
		if t.Drop {
			return a
		}
		return w.refuse(a, &problem{t.Code, "GENERIC_ERROR", http.StatusText(t.Code), nil})
	}
	if w.befalls(KindRevoked) != nil || r.Header.Get("X-Api-Key") != w.config.APIKey {
		return w.refuse(a, &problem{http.StatusUnauthorized, "UNAUTHORIZED", "the API key is not valid", nil})
	}
	if e.group != "" && !w.allow(h, e.group) {
		return w.refuse(a, &problem{http.StatusTooManyRequests, "STATUS_429", "too many requests", map[string]string{"limit": strconv.Itoa(w.limit), "window": "60s"}})
	}
	if t := w.befalls(KindStorm); t != nil {
		h.Set("X-Ratelimit-Type", e.group)
		h.Set("X-Ratelimit-Remaining", "0")
		if t.RetryAfter > 0 {
			h.Set("Retry-After", seconds(t.RetryAfter))
		}
		return w.refuse(a, &problem{http.StatusTooManyRequests, "STATUS_429", "too many requests", nil})
	}
	if t := w.befalls(KindErrors); t != nil {
		return w.refuse(a, &problem{t.Code, "GENERIC_ERROR", http.StatusText(t.Code), nil})
	}
	body, p := e.handle(r)
	if p != nil {
		return w.refuse(a, p)
	}
	a.code, a.body = http.StatusOK, body
	if w.befalls(KindGarbage) != nil {
		a.garbage = 1 + w.requests.IntN(4)
	}
	a.cut = w.befalls(KindCut) != nil
	return a
}

// befalls returns the trouble of a kind that befalls this request, or nil.
func (w *Workspace) befalls(k Kind) *Trouble {
	t := w.trouble(k, "", w.now)
	if t == nil || t.Share > 0 && t.Share < 1 && w.requests.Float64() >= t.Share {
		return nil
	}
	return t
}

// problemBody is the API's error format.
type problemBody struct {
	Label   string            `json:"error_label"`
	Scope   string            `json:"error_scope"`
	Ref     string            `json:"error_ref"`
	Message string            `json:"message"`
	Code    int               `json:"status_code"`
	Params  map[string]string `json:"params"`
}

// refuse makes the answer an error in the API's format.
func (w *Workspace) refuse(a answer, p *problem) answer {
	body := problemBody{p.label, "api", uuid(w.requests.Uint64(), w.requests.Uint64()), p.message, p.code, p.params}
	if body.Params == nil {
		body.Params = map[string]string{}
	}
	a.code = p.code
	text, err := json.Marshal(body)
	if err != nil { // of such a type there is none
		text = []byte("{}")
	}
	a.body = text
	return a
}

// send writes an answer, or what trouble leaves of it.
func (w *Workspace) send(rw http.ResponseWriter, r *http.Request, a answer) {
	h := rw.Header()
	body := a.body
	switch a.garbage {
	case 1:
		h.Set("Content-Type", "text/html")
		body = []byte("<!doctype html><html><head><title>Just a moment</title></head><body><h1>Checking your browser</h1></body></html>")
	case 2:
		body = []byte(`{"data":{"runs":[],"total":0}}`)
	case 3:
		body = bytes.Repeat([]byte{0x00, 0xff, 0x1b, '['}, 64)
	case 4:
		h.Set("Content-Encoding", "gzip")
		body = []byte("this is not gzip at all")
	}
	if a.garbage == 0 && !w.config.NoGzip && len(body) > 512 && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		h.Set("Vary", "Accept-Encoding")
		body = w.pack(body)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if !a.cut {
		rw.WriteHeader(a.code)
		rw.Write(body) //nolint:errcheck // a reader that has gone away is no concern of the workspace
		return
	}
	// Two ways of cutting: the connection breaks before what was promised has
	// been sent, or an intermediary has cut the body and made the length fit.
	half := body[:len(body)/2]
	if len(body)%2 == 0 {
		h.Set("Content-Length", strconv.Itoa(len(half)))
		rw.WriteHeader(a.code)
		rw.Write(half) //nolint:errcheck // as above
		return
	}
	rw.WriteHeader(a.code)
	rw.Write(half) //nolint:errcheck // as above
	if f, ok := rw.(http.Flusher); ok {
		f.Flush()
	}
	panic(http.ErrAbortHandler)
}

// pack compresses a body.
func (w *Workspace) pack(body []byte) []byte {
	var out bytes.Buffer
	out.Grow(len(body) / 4)
	z, ok := w.packers.Get().(*gzip.Writer)
	if ok {
		z.Reset(&out)
	} else {
		z, _ = gzip.NewWriterLevel(&out, gzip.BestSpeed) // the level is valid
	}
	z.Write(body) //nolint:errcheck // a buffer takes everything
	z.Close()     //nolint:errcheck // as above
	w.packers.Put(z)
	return out.Bytes()
}

// groupRuns is the rate limit of all routes of runs, launches too. That the
// other groups use up the same one is the careful guess.
const groupRuns = "runs"

// runEndpoints are the routes of runs.
func (w *Workspace) runEndpoints() []endpoint {
	return []endpoint{
		{method: http.MethodGet, path: "/v1/runs", group: groupRuns, handle: w.listRuns},
		{method: http.MethodGet, path: "/v1/runs/{uid}", group: groupRuns, handle: w.getRun},
		{method: http.MethodGet, path: "/v1/runs/{uid}/status", group: groupRuns, handle: w.getRunStatus},
		{method: http.MethodPost, path: "/v1/runs/{uid}/resume", group: groupRuns, handle: w.resumeRun},
		{method: http.MethodPost, path: "/v1/runs/{uid}/cancel", group: groupRuns, handle: w.cancelRun},
	}
}

func (w *Workspace) listRuns(r *http.Request) ([]byte, *problem) {
	q, p := w.parseQuery(r.URL.Query())
	if p != nil {
		return nil, p
	}
	page := w.page(&q)
	b := append(make([]byte, 0, 64+1200*len(page)), '[')
	for i, r := range page {
		if i > 0 {
			b = append(b, ',')
		}
		b = w.appendRun(b, r)
	}
	return append(b, ']'), nil
}

// visible returns the run of the request's path.
func (w *Workspace) visible(r *http.Request) (*run, *problem) {
	found := w.byUID[r.PathValue("uid")]
	if found == nil || found.shown == nil {
		return nil, notFound("run")
	}
	return found, nil
}

func (w *Workspace) getRun(r *http.Request) ([]byte, *problem) {
	found, p := w.visible(r)
	if p != nil {
		return nil, p
	}
	return w.appendRun(nil, found), nil
}

func (w *Workspace) getRunStatus(r *http.Request) ([]byte, *problem) {
	found, p := w.visible(r)
	if p != nil {
		return nil, p
	}
	return appendRunStatus(nil, found), nil
}

// resumeRun puts a run that is blocked, stopped or failed back to work.
func (w *Workspace) resumeRun(r *http.Request) ([]byte, *problem) {
	found, p := w.visible(r)
	if p != nil {
		return nil, p
	}
	switch {
	case found.flow != 0:
		return nil, &problem{http.StatusUnprocessableEntity, "BAD_INPUT", "a run of a flow cannot be resumed alone", map[string]string{"flow_run_id": strconv.FormatInt(found.flow, 10)}}
	case found.status != edges.StatusBlocked && found.status != edges.StatusStopped && found.status != edges.StatusFailed:
		return nil, &problem{http.StatusUnprocessableEntity, "BAD_INPUT", fmt.Sprintf("a run that is %s cannot be resumed", found.status), nil}
	}
	w.resume(found, w.now)
	w.log.Info("run resumed", "run_uid", found.uid)
	return w.appendCurrent(found), nil
}

// cancelRun stops a run that has not ended.
func (w *Workspace) cancelRun(r *http.Request) ([]byte, *problem) {
	found, p := w.visible(r)
	if p != nil {
		return nil, p
	}
	switch {
	case found.mode != edges.ModeAsync:
		return nil, &problem{http.StatusUnprocessableEntity, "BAD_INPUT", "only async and scheduled runs can be cancelled", nil}
	case found.status.Ended():
		return nil, &problem{http.StatusUnprocessableEntity, "BAD_INPUT", fmt.Sprintf("a run that is %s cannot be cancelled", found.status), nil}
	}
	w.stop(found, w.now)
	w.log.Info("run cancelled", "run_uid", found.uid)
	return w.appendCurrent(found), nil
}

// appendCurrent writes a run as it is, to whoever has just changed it, even
// when others do not see the change yet.
func (w *Workspace) appendCurrent(r *run) []byte {
	current := *r
	current.shown = &current.row
	return w.appendRun(nil, &current)
}
