package edges

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-faster/jx"
)

// writerTimeout is what a Writer's Config.Timeout is by default: a live run is
// answered when it is over, and 100,000 inputs take their time to be sent.
const writerTimeout = 5 * time.Minute

// LaunchMode is a way to launch an action.
type LaunchMode string

// The three ways to launch an action.
const (
	// LaunchLive runs the action on one input, and answers the results.
	LaunchLive LaunchMode = "live"
	// LaunchAsync runs it on up to 100,000 inputs, and sends the results to a
	// callback.
	LaunchAsync LaunchMode = "async"
	// LaunchSchedule does so at a set time, or again and again.
	LaunchSchedule LaunchMode = "schedule"
)

// Launched is the answer to a launch.
type Launched struct {
	// RunUID is the run's uid, or the schedule's; empty if the answer did not
	// tell.
	RunUID string
	// Status is the status that the answer told; empty if it told none.
	Status Status
	// Body is the whole answer as the API wrote it, which for a live launch is
	// the results.
	Body json.RawMessage
}

// Writer changes a workspace: it launches, resumes and cancels runs. It is a
// type of its own, so that who only reads holds nothing that can write.
//
// A call is tried again only where it is certain that it was not carried out:
// when no connection was made, or when the API refused it with 429. All else
// that fails after something may have been sent, and is no clear refusal, is
// ErrOutcomeUnknown. Its methods may be called by any number of goroutines.
type Writer struct {
	client *Client
}

// NewWriter checks the configuration and returns a writer. Nothing is sent.
// Config.Timeout is 5 minutes if 0, and has to be longer than a live run takes.
func NewWriter(config Config) (*Writer, error) {
	if config.Timeout <= 0 {
		config.Timeout = writerTimeout
	}
	client, err := NewClient(config)
	if err != nil {
		return nil, err
	}
	return newWriter(client), nil
}

// newWriter takes the client over.
func newWriter(client *Client) *Writer {
	// A connection that is not used again cannot have died in the meantime,
	// and leave open whether the API has got the request.
	client.transport.DisableKeepAlives = true
	return &Writer{client: client}
}

// OnAttempt sets what is called after every attempt on the wire, in the
// goroutine of the call. It must be set before the writer is used.
func (w *Writer) OnAttempt(f func(Attempt)) { w.client.OnAttempt(f) }

// Close closes the connections that are not in use. It does not close the
// budget.
func (w *Writer) Close() { w.client.Close() }

// Launch launches an action, POST /actions/{action}/run/{mode}. The body is the
// request as the API documents it, JSON with an "input" for a live launch and
// "inputs" otherwise; it is sent as it is read. Where it is an io.Seeker, a
// launch that was refused with 429 is tried again from the body's start; other
// bodies can be sent only once, and must not be used afterwards. The body is not
// closed.
func (w *Writer) Launch(ctx context.Context, action string, mode LaunchMode, body io.Reader) (Launched, error) {
	switch mode {
	case LaunchLive, LaunchAsync, LaunchSchedule:
	default:
		return Launched{}, fmt.Errorf("launch: %w: mode %q is not live, async or schedule", ErrBadQuery, mode)
	}
	if err := checkUID(action); err != nil {
		return Launched{}, fmt.Errorf("launch: action: %w", err)
	}
	source, err := newBodySource(body)
	if err != nil {
		return Launched{}, fmt.Errorf("launch: %w", err)
	}
	var launched Launched
	err = w.write(ctx, source, call{
		endpoint: endpointLaunch,
		target:   w.client.target("actions", action, "run", string(mode)),
		body:     source.open,
		read: func(d *decoder, answer *http.Response) error {
			return d.launched(answer, w.client.maxBytes, mode, &launched)
		},
	})
	if err != nil {
		return Launched{}, fmt.Errorf("launch: %w", err)
	}
	return launched, nil
}

// Resume puts a run that is BLOCKED, STOPPED or FAILED back to work, POST
// /runs/{uid}/resume, and returns the run as the answer has it, at least its
// uid. A run that cannot be resumed, such as one of a flow, is an *APIError with
// code 422.
func (w *Writer) Resume(ctx context.Context, uid string) (Run, error) {
	run, err := w.changeRun(ctx, endpointResume, uid)
	if err != nil {
		return Run{}, fmt.Errorf("resume run: %w", err)
	}
	return run, nil
}

// Cancel stops a run that has not ended, POST /runs/{uid}/cancel, and returns
// the run as the answer has it, at least its uid. A run that cannot be
// cancelled, such as a live one, is an *APIError with code 422.
func (w *Writer) Cancel(ctx context.Context, uid string) (Run, error) {
	run, err := w.changeRun(ctx, endpointCancel, uid)
	if err != nil {
		return Run{}, fmt.Errorf("cancel run: %w", err)
	}
	return run, nil
}

// changeRun posts to the route of a run that is named like its endpoint.
func (w *Writer) changeRun(ctx context.Context, endpoint, uid string) (Run, error) {
	if err := checkUID(uid); err != nil {
		return Run{}, err
	}
	run := Run{}
	err := w.write(ctx, nil, call{
		endpoint: endpoint,
		target:   w.client.target("runs", uid, endpoint),
		read: func(d *decoder, answer *http.Response) error {
			return d.changedRun(answer, w.client.maxBytes, &run)
		},
	})
	if err != nil {
		return Run{}, err
	}
	if run.UID == "" {
		// The status says that it was done; the answer need not repeat to whom.
		run = Run{UID: uid}
	}
	return run, nil
}

// write makes a call that must not be carried out twice.
func (w *Writer) write(ctx context.Context, source *bodySource, call call) error {
	// Of the last attempt: whether it had a connection, and so may have been
	// sent, and whether it is not known what became of it.
	var connected atomic.Bool
	unknown := false
	call.method = http.MethodPost
	call.connected = func() { connected.Store(true) }
	call.again = func(err error) bool {
		sent := connected.Swap(false)
		unknown = sent && !refused(err)
		return (!sent && retryable(err) || errors.Is(err, ErrRateLimited)) && source.rewindable()
	}
	err := w.client.do(ctx, call)
	if source != nil {
		source.wait()
		if readErr := source.failure(); err != nil && readErr != nil {
			// What was sent is not whole, and not valid for that.
			return fmt.Errorf("read what is to be sent: %w", readErr)
		}
	}
	if err != nil && unknown {
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	}
	return err
}

// refused reports whether an answer says that the request was not carried out.
func refused(err error) bool {
	var apiErr *APIError
	if errors.As(err, &apiErr) {
		return apiErr.StatusCode < 500
	}
	return errors.Is(err, ErrRedirected)
}

// launched reads the answer to a launch, of which only the results of a live
// one are documented in full.
func (d *decoder) launched(answer *http.Response, maxBytes int64, mode LaunchMode, launched *Launched) error {
	*launched = Launched{}
	if isEmpty(answer) {
		return nil
	}
	if err := d.start(answer.Body, maxBytes); err != nil {
		return err
	}
	if err := d.raw(&launched.Body); err != nil {
		return d.failure(err)
	}
	if err := d.end(); err != nil {
		return err
	}
	if !startsObject(launched.Body) {
		return nil
	}
	return again(d, launched.Body, launched, func(d *decoder, l *Launched) error {
		var uid string
		_, err := d.row(func(field string) (kind int, ok bool, err error) {
			switch field {
			case "run_uid":
				l.RunUID, ok, err = d.uid()
			case "uid":
				uid, ok, err = d.uid()
			case "status":
				var status string
				status, ok, err = d.word()
				l.Status = Status(status)
			default:
				return d.skip()
			}
			return kind, ok, err
		})
		if l.RunUID == "" && mode != LaunchLive {
			l.RunUID = uid // among the results of a live run it would be another thing's
		}
		return err
	})
}

// changedRun reads a run, or nothing.
func (d *decoder) changedRun(answer *http.Response, maxBytes int64, run *Run) error {
	*run = Run{}
	if isEmpty(answer) {
		return nil
	}
	return d.object(answer.Body, maxBytes, func() error { return d.run(run) })
}

func isEmpty(answer *http.Response) bool {
	return answer.StatusCode == http.StatusNoContent || answer.ContentLength == 0
}

func startsObject(text []byte) bool {
	return jx.DecodeBytes(text).Next() == jx.Object
}

// errClosedBody is what a body gives to whom goes on reading it after its
// request has ended.
var errClosedBody = errors.New("request has ended")

// bodySource gives a request's body to each of its attempts.
type bodySource struct {
	from io.Reader
	// seeker is from, or nil if it can be read only once.
	seeker io.Seeker
	start  int64
	length int64 // -1 if it is not known
	last   *sentBody
}

func newBodySource(from io.Reader) (*bodySource, error) {
	if from == nil {
		return nil, fmt.Errorf("%w: no body", ErrBadQuery)
	}
	s := &bodySource{from: from, length: -1}
	seeker, ok := from.(io.Seeker)
	if !ok {
		return s, nil
	}
	start, err := seeker.Seek(0, io.SeekCurrent)
	if err != nil {
		return s, nil //nolint:nilerr // a pipe is a file that cannot seek
	}
	end, err := seeker.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("find out how much is to be sent: %w", err)
	}
	if _, err := seeker.Seek(start, io.SeekStart); err != nil {
		return nil, fmt.Errorf("find out how much is to be sent: %w", err)
	}
	s.seeker, s.start, s.length = seeker, start, end-start
	return s, nil
}

// open returns the body from its start, for a request that ends with ctx.
func (s *bodySource) open(ctx context.Context) (*sentBody, error) {
	from := s.from
	switch {
	case s.seeker == nil:
		from = newStream(ctx, s.from)
	case s.last != nil:
		s.wait()
		if _, err := s.seeker.Seek(s.start, io.SeekStart); err != nil {
			return nil, fmt.Errorf("go back to the start of what is to be sent: %w", err)
		}
	}
	s.last = &sentBody{from: from, length: s.length, ended: make(chan struct{})}
	return s.last, nil
}

// rewindable reports whether the body can be opened once more.
func (s *bodySource) rewindable() bool {
	return s == nil || s.seeker != nil || s.last == nil || s.last.untouched()
}

// wait returns when the last request does not read any more from what the
// caller may go on using.
func (s *bodySource) wait() {
	if s.last != nil && s.seeker != nil {
		<-s.last.ended
	}
}

// failure is why the body could not be read to its end, if so.
func (s *bodySource) failure() error {
	if s.last == nil {
		return nil
	}
	s.last.mu.Lock()
	defer s.last.mu.Unlock()
	return s.last.err
}

// sentBody is the body of one request. A request that has ended closes it,
// also while it is being read; ended tells when that is over.
type sentBody struct {
	from   io.Reader
	length int64
	ended  chan struct{}

	mu      sync.Mutex
	touched bool
	reading bool
	closed  bool
	err     error
}

func (b *sentBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return 0, errClosedBody
	}
	b.touched, b.reading = true, true
	b.mu.Unlock()

	n, err := b.from.Read(p)

	b.mu.Lock()
	defer b.mu.Unlock()
	b.reading = false
	if err != nil && err != io.EOF && !errors.Is(err, errClosedBody) {
		b.err = err
	}
	if b.closed {
		close(b.ended)
	}
	return n, err
}

// Close ends the request's reading. What is read from stays open.
func (b *sentBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	if !b.reading {
		close(b.ended)
	}
	return nil
}

func (b *sentBody) untouched() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.touched
}

// stream reads from what may hang, such as a terminal, and stops when its
// context ends: the transport does not return before the body's reading does.
// What hangs keeps its goroutine until it gives way.
type stream struct {
	from io.Reader
	once sync.Once
	out  *io.PipeReader
	in   *io.PipeWriter
}

func newStream(ctx context.Context, from io.Reader) *stream {
	s := &stream{from: from}
	s.out, s.in = io.Pipe()
	context.AfterFunc(ctx, func() { _ = s.in.CloseWithError(errClosedBody) }) // it never fails
	return s
}

// Read begins to read only when it is asked to: a request that was never sent
// leaves what it would have sent to the next.
func (s *stream) Read(p []byte) (int, error) {
	s.once.Do(func() {
		go func() {
			_, err := io.Copy(s.in, s.from)
			_ = s.in.CloseWithError(err) // it never fails
		}()
	})
	return s.out.Read(p)
}
