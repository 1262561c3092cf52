package edges

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	defaultTimeout        = 30 * time.Second
	defaultMaxAnswerBytes = 16 << 20
	defaultMaxRetries     = 4
	defaultUserAgent      = "edges_exporter"
	// maxErrorBytes bounds what is read of an error answer.
	maxErrorBytes = 64 << 10
	// maxHeaderBytes bounds the headers of an answer.
	maxHeaderBytes = 256 << 10
	// maxHostBytes bounds what an error repeats of a host's name.
	maxHostBytes = 253
	// maxRedirects bounds how many redirects one call follows.
	maxRedirects = 3
	// keptDecoders bounds the decoders that are kept between calls.
	keptDecoders = 4
)

// Names of the endpoints, as Attempt has them.
const (
	endpointRuns        = "runs"
	endpointRun         = "run"
	endpointRunStatus   = "run_status"
	endpointOutputs     = "outputs"
	endpointSchedules   = "schedules"
	endpointSchedule    = "schedule"
	endpointCallbacks   = "callbacks"
	endpointConsumption = "consumption"
	endpointWorkspaces  = "workspaces"
	endpointLaunch      = "launch"
	endpointResume      = "resume"
	endpointCancel      = "cancel"
)

// Config is what a Client is made of. Only URL and Key are needed.
type Config struct {
	// URL is the API's base, for example https://api.edges.run/v1. The key
	// is sent to its scheme, host and port only.
	URL string
	// Key returns the API key. It is asked for at every attempt, so that a
	// key that has changed is used at once.
	Key func() (string, error)
	// Timeout bounds one request, from its start to the end of the answer's
	// body; 30 seconds if 0. Waiting for the budget does not count.
	Timeout time.Duration
	// Budget is taken from for every attempt; nil for no limit but the
	// pauses that the API asks for.
	Budget *Budget
	// MaxAnswerBytes bounds an answer's body, after decompression; 16 MiB if
	// 0. A larger one is ErrTooLarge.
	MaxAnswerBytes int64
	// MaxRetries is how often a call is tried again after a 429, a 5xx, a
	// failed connection, a timeout, or a cut or malformed answer; 4 if 0,
	// never if negative.
	MaxRetries int
	// UserAgent is sent with every request; "edges_exporter" if empty.
	UserAgent string
	// Logger gets a line for every attempt (debug) and for every retry
	// (warn); nil for none. No line has the key or a filter in it.
	Logger *slog.Logger
}

// String names the URL, without credentials.
func (c Config) String() string {
	return "edges.Config{URL: " + redactURL(c.URL) + "}"
}

// GoString is String: no way of printing shows credentials.
func (c Config) GoString() string {
	return c.String()
}

// LogValue is String for slog.
func (c Config) LogValue() slog.Value {
	return slog.StringValue(c.String())
}

// Attempt is one request on the wire: a call has one, and one more for each
// retry and redirect.
type Attempt struct {
	// Endpoint is "runs", "run", "run_status", "outputs", "schedules",
	// "schedule", "callbacks", "consumption" or "workspaces"; of a Writer it is
	// "launch", "resume" or "cancel".
	Endpoint string
	// Code is the answer's status code, also where its body was cut, too
	// large or malformed; 0 if there was no answer.
	Code int
	// Duration is the time from the request's start to the end of the
	// answer's body, without waiting for the budget.
	Duration time.Duration
}

// Page is one answer of the list of runs.
type Page struct {
	// Runs are the rows in the API's order, the ones that were not understood
	// in their places too: their Defect is set.
	Runs []Run
	// Date is the server's clock when it answered, from the Date header, in
	// whole seconds; zero if it came with none.
	Date time.Time
}

// Client calls the Edges API. Its methods may be called by any number of
// goroutines.
type Client struct {
	base      *url.URL
	key       func() (string, error)
	timeout   time.Duration
	budget    *Budget
	limited   bool // budget is the caller's, not only there for the pauses
	maxBytes  int64
	maxTries  uint
	userAgent string
	logger    *slog.Logger
	transport *http.Transport
	// firstWait is the mean wait before the first retry; it doubles with each.
	firstWait time.Duration
	onAttempt func(Attempt)

	mu       sync.Mutex
	decoders []*decoder
}

// NewClient checks the configuration and returns a client. Nothing is sent.
func NewClient(config Config) (*Client, error) {
	base, err := parseBase(config.URL)
	if err != nil {
		return nil, err
	}
	if config.Key == nil {
		return nil, errors.New("edges client: no source of the API key")
	}
	c := &Client{
		base:      base,
		key:       config.Key,
		timeout:   config.Timeout,
		budget:    config.Budget,
		limited:   config.Budget != nil,
		maxBytes:  config.MaxAnswerBytes,
		userAgent: config.UserAgent,
		logger:    config.Logger,
		firstWait: 250 * time.Millisecond,
		onAttempt: func(Attempt) {},
	}
	if c.timeout <= 0 {
		c.timeout = defaultTimeout
	}
	if c.maxBytes <= 0 {
		c.maxBytes = defaultMaxAnswerBytes
	}
	c.maxBytes = min(c.maxBytes, math.MaxInt64-1) // one more byte is read
	switch {
	case config.MaxRetries == 0:
		c.maxTries = 1 + defaultMaxRetries
	case config.MaxRetries > 0:
		c.maxTries = 1 + uint(config.MaxRetries)
	default:
		c.maxTries = 1
	}
	if c.userAgent == "" {
		c.userAgent = defaultUserAgent
	}
	if c.logger == nil {
		c.logger = slog.New(slog.DiscardHandler)
	}
	if c.budget == nil {
		c.budget = newUnlimitedBudget()
	}
	if err := c.budget.Damage(); err != nil {
		c.logger.Warn("request budget starts as used up", "reason", err)
	}
	c.transport = newTransport()
	return c, nil
}

// newTransport speaks HTTP/1.1 only: there, a request that the transport
// repeats by itself can be noticed, and every request has its own connection.
func newTransport() *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    10 * time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    4,
		MaxResponseHeaderBytes: maxHeaderBytes,
		Protocols:              protocols,
	}
}

// parseBase checks the configured URL. Its errors do not repeat what could be
// a password.
func parseBase(text string) (*url.URL, error) {
	base, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("edges URL %s: cannot be parsed", redactURL(text))
	}
	switch {
	case base.Scheme != "http" && base.Scheme != "https":
		return nil, fmt.Errorf("edges URL %s: does not start with https:// or http://", redactURL(text))
	case base.Hostname() == "":
		return nil, fmt.Errorf("edges URL %s: names no host", redactURL(text))
	case base.RawQuery != "" || base.ForceQuery || base.Fragment != "":
		return nil, fmt.Errorf("edges URL %s: has a query or a fragment", redactURL(text))
	}
	base = base.JoinPath()
	base.Path = strings.TrimRight(base.Path, "/")
	base.RawPath = strings.TrimRight(base.RawPath, "/")
	return base, nil
}

// redactURL quotes a URL without the credentials that it may hold.
func redactURL(text string) string {
	if at := strings.LastIndexByte(text, '@'); at >= 0 {
		scheme, _, found := strings.Cut(text[:at], "://")
		if !found {
			return fmt.Sprintf("%q", "[redacted]"+text[at:])
		}
		text = scheme + "://[redacted]" + text[at:]
	}
	return fmt.Sprintf("%q", text)
}

// OnAttempt sets what is called after every attempt on the wire, in the
// goroutine of the call. It must be set before the client is used.
func (c *Client) OnAttempt(f func(Attempt)) {
	if f != nil {
		c.onAttempt = f
	}
}

// String names the URL, without credentials.
func (c *Client) String() string {
	return "edges.Client{URL: " + redactURL(c.base.String()) + "}"
}

// GoString is String: no way of printing shows credentials.
func (c *Client) GoString() string {
	return c.String()
}

// LogValue is String for slog.
func (c *Client) LogValue() slog.Value {
	return slog.StringValue(c.String())
}

// Close closes the connections that are not in use. It does not close the
// budget.
func (c *Client) Close() {
	c.transport.CloseIdleConnections()
}

// ListRuns reads one part of the list of runs, GET /runs. A row that cannot be
// understood is no error: see Run.Defect.
func (c *Client) ListRuns(ctx context.Context, query RunsQuery) (Page, error) {
	if err := query.validate(); err != nil {
		return Page{}, fmt.Errorf("list runs: %w", err)
	}
	call := c.listCall(endpointRuns, c.target("runs"), query.values())
	var page Page
	call.read = func(d *decoder, answer *http.Response) (err error) {
		page.Runs, err = d.page(answer.Body, c.maxBytes)
		page.Date = serverTime(answer.Header)
		return err
	}
	if err := c.do(ctx, call); err != nil {
		return Page{}, fmt.Errorf("list runs: %w", err)
	}
	return page, nil
}

// GetRun reads one run, GET /runs/{uid}. An answer that is an object, but not
// a run that can be understood, is no error: see Run.Defect.
func (c *Client) GetRun(ctx context.Context, uid string) (Run, error) {
	run, err := c.getOne(ctx, endpointRun, uid)
	if err != nil {
		return Run{}, fmt.Errorf("get run: %w", err)
	}
	return run, nil
}

// GetRunStatus reads where one run stands, GET /runs/{uid}/status: its id, uid,
// status, postponed_until and the other times. The other fields are empty.
func (c *Client) GetRunStatus(ctx context.Context, uid string) (Run, error) {
	run, err := c.getOne(ctx, endpointRunStatus, uid, "status")
	if err != nil {
		return Run{}, fmt.Errorf("get run status: %w", err)
	}
	return run, nil
}

func (c *Client) getOne(ctx context.Context, endpoint, uid string, suffix ...string) (Run, error) {
	if err := checkUID(uid); err != nil {
		return Run{}, err
	}
	var run Run
	err := c.do(ctx, call{
		endpoint: endpoint,
		target:   c.target(append([]string{"runs", uid}, suffix...)...),
		read: func(d *decoder, answer *http.Response) (err error) {
			run, err = d.single(answer.Body, c.maxBytes)
			return err
		},
	})
	return run, err
}

// target is the address of a route, given the elements of its path.
func (c *Client) target(elements ...string) *url.URL {
	target := *c.base
	target.RawPath = c.base.EscapedPath()
	for _, element := range elements {
		target.Path += "/" + element
		target.RawPath += "/" + url.PathEscape(element)
	}
	return &target
}

// listCall is the call of a list, without what reads its answer.
func (*Client) listCall(endpoint string, target *url.URL, query url.Values) call {
	target.RawQuery = query.Encode()
	return call{
		endpoint: endpoint,
		target:   target,
		// Nothing of a filter: it may be a name of the user's.
		log: []any{"offset", numberIn(query, "offset"), "limit", numberIn(query, "limit")},
	}
}

// numberIn is a number of a query, 0 where it is left to the API.
func numberIn(query url.Values, name string) int {
	n, _ := strconv.Atoi(query.Get(name))
	return n
}

// call is one request, whatever it takes to have it answered.
type call struct {
	endpoint string
	// method is GET if it is empty; a Writer alone has others.
	method string
	target *url.URL
	log    []any
	// body gives what is sent, from its start at each attempt; nil for
	// nothing.
	body func(context.Context) (*sentBody, error)
	// connected is called once an attempt has a connection: from then on the
	// request may have been sent. May be nil.
	connected func()
	// again reports whether what failed so may be tried again; retryable if
	// it is nil.
	again func(error) bool
	read  func(*decoder, *http.Response) error
}

// do makes attempts until one is answered, or fails for good.
func (c *Client) do(ctx context.Context, call call) error {
	again := call.again
	if again == nil {
		again = retryable
	}
	var last error
	_, err := backoff.Retry(ctx,
		func() (struct{}, error) {
			err := c.follow(ctx, call)
			if cause := context.Cause(ctx); cause == nil || !errors.Is(err, cause) {
				last = err
			}
			if err != nil && !again(err) {
				err = backoff.Permanent(err)
			}
			return struct{}{}, err
		},
		backoff.WithBackOff(&backoff.ExponentialBackOff{
			InitialInterval:     c.firstWait,
			RandomizationFactor: 0.5,
			Multiplier:          2,
			MaxInterval:         15 * time.Second,
		}),
		backoff.WithMaxTries(c.maxTries),
		backoff.WithMaxElapsedTime(0), // ctx decides
		backoff.WithNotify(func(err error, wait time.Duration) {
			c.logger.Warn("retrying a request", append([]any{
				"endpoint", call.endpoint, "wait", wait, "reason", err,
			}, call.log...)...)
		}),
	)
	if err != nil && ctx.Err() != nil && last != nil && !errors.Is(err, last) {
		// That ctx ended matters to the caller, why it took so long too.
		return fmt.Errorf("%w (last attempt: %w)", err, last)
	}
	return err
}

// follow makes one attempt, and more if it is redirected within the host.
func (c *Client) follow(ctx context.Context, call call) error {
	target := call.target
	for range maxRedirects + 1 {
		next, err := c.attempt(ctx, call, target)
		if err != nil || next == nil {
			return err
		}
		target = next
	}
	return fmt.Errorf("%w: more than %d redirects", ErrRedirected, maxRedirects)
}

// attempt sends one request and reads its answer, or tells where it is
// redirected to.
func (c *Client) attempt(ctx context.Context, call call, target *url.URL) (next *url.URL, err error) {
	key, err := c.currentKey()
	if err != nil {
		return nil, err
	}
	w := &wire{client: c, call: call}
	if w.release, err = c.budget.Acquire(ctx); err != nil {
		return nil, err
	}
	ctx, w.cancel = context.WithCancelCause(ctx)
	w.start = time.Now()
	w.timer = time.AfterFunc(c.timeout, func() { w.cancel(errTimedOut) })
	code := 0
	defer func() {
		err = hideKey(w.explain(ctx, err), key)
		w.timer.Stop()
		w.cancel(nil)
		w.end(code, err)
	}()

	request, err := newRequest(w.trace(ctx), call, target)
	if err != nil {
		return nil, err
	}
	request.Header.Set("X-Api-Key", key)
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", c.userAgent)
	if user := target.User; user != nil {
		password, _ := user.Password()
		request.SetBasicAuth(user.Username(), password)
	}
	answer, err := c.transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }() // it has been read, or is given up
	code = answer.StatusCode
	retryAfter := c.obey(answer)

	switch {
	case code >= 200 && code < 300:
		d := c.decoder()
		defer c.keep(d)
		return nil, call.read(d, answer)
	case isRedirect(code):
		if call.method != "" {
			return nil, fmt.Errorf("%w: answer %d to what is not a GET", ErrRedirected, code)
		}
		return c.redirect(target, answer)
	}
	apiErr := readAPIError(answer, key)
	apiErr.RetryAfter = retryAfter
	return nil, apiErr
}

// newRequest is the request of a call, without its headers.
func newRequest(ctx context.Context, call call, target *url.URL) (*http.Request, error) {
	method := cmp.Or(call.method, http.MethodGet)
	request, err := http.NewRequestWithContext(ctx, method, target.String(), http.NoBody)
	if err != nil {
		return nil, errors.New("request cannot be made")
	}
	if call.body == nil {
		return request, nil
	}
	body, err := call.body(ctx)
	if err != nil {
		return nil, err
	}
	request.Body = body
	request.ContentLength = body.length
	request.Header.Set("Content-Type", "application/json")
	return request, nil
}

// redirect tells where an answer points to, if that is still the API.
func (c *Client) redirect(from *url.URL, answer *http.Response) (*url.URL, error) {
	location, err := url.Parse(answer.Header.Get("Location"))
	if err != nil || answer.Header.Get("Location") == "" {
		return nil, fmt.Errorf("%w: answer %d without a usable Location", ErrRedirected, answer.StatusCode)
	}
	return c.within(from.ResolveReference(location))
}

// within gives an address that the API has named back, if the key may be sent
// there.
func (c *Client) within(next *url.URL) (*url.URL, error) {
	if next.Scheme != c.base.Scheme || !strings.EqualFold(next.Hostname(), c.base.Hostname()) || port(next) != port(c.base) {
		return nil, fmt.Errorf("%w: the API redirects to %s://%s, and the key is only sent to %s://%s",
			ErrRedirected, next.Scheme, cleanText([]byte(next.Host), maxHostBytes), c.base.Scheme, c.base.Host)
	}
	next.User = c.base.User
	next.Fragment = ""
	return next, nil
}

func isRedirect(code int) bool {
	switch code {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

func port(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}

// currentKey asks for the key and checks that it can be sent. Its errors never
// hold any of it.
func (c *Client) currentKey() (string, error) {
	key, err := c.key()
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrBadKey, hideKey(err, key))
	}
	if key == "" {
		return "", fmt.Errorf("%w: it is empty: set EDGES_API_KEY or --edges.api-key-file", ErrBadKey)
	}
	for _, b := range []byte(key) {
		if b <= ' ' || b > '~' {
			return "", fmt.Errorf("%w: it has a space, a line end or another character in it that no key has", ErrBadKey)
		}
	}
	return key, nil
}

func (c *Client) decoder() *decoder {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.decoders); n > 0 {
		d := c.decoders[n-1]
		c.decoders = c.decoders[:n-1]
		return d
	}
	return newDecoder()
}

func (c *Client) keep(d *decoder) {
	d.release()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.decoders) < keptDecoders {
		c.decoders = append(c.decoders, d)
	}
}

// wire is one request on the wire. The transport repeats a GET by itself if it
// finds out that the idle connection it used was dead: that is one more request
// at the server, so the trace ends the first and begins another.
type wire struct {
	client  *Client
	call    call
	cancel  context.CancelCauseFunc
	timer   *time.Timer
	release func()
	start   time.Time
	tries   int
	denied  bool
}

func (w *wire) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { w.beforeTry(ctx) },
		GotConn: func(info httptrace.GotConnInfo) {
			if w.denied {
				// The transport has got a connection in spite of the cancelled
				// context. Once closed, nothing can be sent on it.
				_ = info.Conn.Close()
				return
			}
			if w.call.connected != nil {
				w.call.connected()
			}
		},
	})
}

// beforeTry is called by the transport before it looks for a connection.
func (w *wire) beforeTry(ctx context.Context) {
	w.tries++
	if w.tries == 1 || w.denied {
		return
	}
	w.timer.Stop()
	w.end(0, errDeadConnection)
	release, err := w.client.budget.Acquire(ctx)
	if err != nil {
		w.denied = true
		w.cancel(err)
		return
	}
	w.release = release
	w.start = time.Now()
	w.timer.Reset(w.client.timeout)
}

// end gives the slot back and reports the attempt.
func (w *wire) end(code int, err error) {
	if w.denied {
		return
	}
	duration := time.Since(w.start)
	w.release()
	w.client.onAttempt(Attempt{Endpoint: w.call.endpoint, Code: code, Duration: duration})
	args := append([]any{"endpoint", w.call.endpoint, "code", code, "duration", duration}, w.call.log...)
	if err != nil {
		args = append(args, "err", err)
	}
	w.client.logger.Debug("request", args...)
}

// explain puts the reason for which a request was given up in the place of
// what that made of the connection.
func (w *wire) explain(ctx context.Context, err error) error {
	var apiErr *APIError
	if err == nil || errors.As(err, &apiErr) || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrRedirected) {
		return err
	}
	switch cause := context.Cause(ctx); {
	case cause == nil:
		return err
	case errors.Is(cause, errTimedOut):
		return fmt.Errorf("%w: %s", ErrTimeout, w.client.timeout)
	default:
		return cause
	}
}
