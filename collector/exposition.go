package collector

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// exposition holds what scrapes get. It is rendered after a commit, once for
// each format and compression that scrapes ask for, and swapped in whole: a
// scrape does no I/O, waits for nobody and never sees half a commit.
type exposition struct {
	logger  *slog.Logger
	current atomic.Pointer[snapshot]

	mu sync.Mutex
	// served are the latest snapshots that a scrape got in full, and when the
	// first one did, in order.
	served []serving
	// wanted is when each rendering was last asked for.
	wanted map[rendering]time.Time
}

// serving is when a scrape first got a snapshot, in Unix milliseconds.
type serving struct {
	id uint64
	at int64
}

// maxServed bounds the servings that are kept. Of older ones the time is taken
// for that of a later snapshot, which only holds a series back for longer.
const maxServed = 100

// rendering names a format and whether it is compressed.
type rendering struct {
	format expfmt.Format
	gzip   bool
}

// wantedFor is how long a rendering is made in advance after a scrape asked
// for it.
const wantedFor = 5 * time.Minute

func newExposition(logger *slog.Logger) *exposition {
	return &exposition{logger: logger, wanted: map[rendering]time.Time{}}
}

// seenAt is when a scrape first got a snapshot of this number or a later one,
// in Unix milliseconds, 0 if none did.
func (e *exposition) seenAt(id uint64) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.served {
		if s.id >= id {
			return s.at
		}
	}
	return 0
}

// next is the number of the snapshot to come.
func (e *exposition) next() uint64 {
	if s := e.current.Load(); s != nil {
		return s.id + 1
	}
	return 1
}

// publish renders a new snapshot as scrapes will want it, and swaps it in.
func (e *exposition) publish(families []*dto.MetricFamily) {
	s := &snapshot{id: e.next(), families: families, rendered: map[rendering]*body{}}
	for _, r := range e.recent() {
		if _, err := s.body(r); err != nil {
			e.logger.Error("metrics cannot be rendered", "format", r.format, "err", err)
		}
	}
	e.current.Store(s)
}

func (e *exposition) recent() []rendering {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []rendering
	for r, at := range e.wanted {
		if time.Since(at) > wantedFor {
			delete(e.wanted, r)
			continue
		}
		out = append(out, r)
	}
	return out
}

func (e *exposition) want(r rendering) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.wanted[r] = time.Now()
}

// sent notes that a scrape got a snapshot in full.
func (e *exposition) sent(id uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := len(e.served); n > 0 && e.served[n-1].id >= id {
		return
	}
	if len(e.served) >= maxServed {
		e.served = append(e.served[:0], e.served[1:]...)
	}
	e.served = append(e.served, serving{id: id, at: time.Now().UnixMilli()})
}

// snapshot is the metrics after one commit. The families never change.
type snapshot struct {
	id       uint64
	families []*dto.MetricFamily

	mu       sync.Mutex
	rendered map[rendering]*body
}

// body is a snapshot in one rendering, all but its end: the process' own
// metrics follow at each scrape.
type body struct {
	// bytes is the text; or, compressed, a gzip header and the deflated text
	// up to a byte border, so that more can follow.
	bytes []byte
	// sum and size are what the end of a gzip stream needs to know.
	sum, size uint32
}

// body returns a rendering, and makes it if no scrape had asked for it before.
func (s *snapshot) body(r rendering) (*body, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.rendered[r]; b != nil {
		return b, nil
	}
	text, err := encode(s.families, r.format, false)
	if err != nil {
		return nil, err
	}
	b := &body{bytes: text}
	if r.gzip {
		if b, err = deflate(text); err != nil {
			return nil, err
		}
	}
	s.rendered[r] = b
	return b, nil
}

// encode writes families in a format; last ends an OpenMetrics text.
func encode(families []*dto.MetricFamily, format expfmt.Format, last bool) ([]byte, error) {
	var out bytes.Buffer
	enc := expfmt.NewEncoder(&out, format, expfmt.WithCreatedLines())
	for _, f := range families {
		if err := enc.Encode(f); err != nil {
			return nil, fmt.Errorf("encode %s: %w", f.GetName(), err)
		}
	}
	if closer, ok := enc.(expfmt.Closer); ok && last {
		if err := closer.Close(); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// gzipHeader begins a gzip stream without a name or a time.
var gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}

func deflate(text []byte) (*body, error) {
	var out bytes.Buffer
	out.Write(gzipHeader)
	w, err := flate.NewWriter(&out, flate.BestSpeed)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	// A flush ends at a byte border and leaves the stream open.
	if err := w.Flush(); err != nil {
		return nil, err
	}
	return &body{bytes: out.Bytes(), sum: crc32.ChecksumIEEE(text), size: uint32(len(text))}, nil //nolint:gosec // gzip keeps the size modulo 2^32
}

// finish appends the end of the text to a compressed body: uncompressed, since
// it is small and made at each scrape.
func (b *body) finish(end []byte) []byte {
	const maxBlock = 1<<16 - 1
	out := make([]byte, 0, len(end)+32)
	sum, size := crc32.Update(b.sum, crc32.IEEETable, end), b.size+uint32(len(end)) //nolint:gosec // as above
	for {
		block := end[:min(len(end), maxBlock)]
		end = end[len(block):]
		var final byte
		if len(end) == 0 {
			final = 1
		}
		n := uint16(len(block)) //nolint:gosec // at most maxBlock
		out = append(out, final)
		out = binary.LittleEndian.AppendUint16(out, n)
		out = binary.LittleEndian.AppendUint16(out, ^n)
		out = append(out, block...)
		if final == 1 {
			break
		}
	}
	out = binary.LittleEndian.AppendUint32(out, sum)
	return binary.LittleEndian.AppendUint32(out, size)
}

// handler answers scrapes.
type handler struct {
	exposition *exposition
	own        prometheus.Gatherer
	logger     *slog.Logger
}

// ServeHTTP writes the current snapshot and the process' own metrics.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET", http.StatusMethodNotAllowed)
		return
	}
	want := rendering{format: expfmt.NegotiateAccept(r.Header, expfmt.DefaultOpenMetricsAcceptedFormats()...), gzip: acceptsGzip(r.Header)}
	h.exposition.want(want)
	s := h.exposition.current.Load()
	b, err := s.body(want)
	var end []byte
	if err == nil {
		end, err = h.ownMetrics(want.format)
	}
	if err != nil {
		h.logger.Error("scrape failed", "err", err)
		http.Error(w, "metrics cannot be rendered; the log says why", http.StatusInternalServerError)
		return
	}
	header := w.Header()
	header.Set("Content-Type", string(want.format))
	header.Add("Vary", "Accept, Accept-Encoding")
	if want.gzip {
		header.Set("Content-Encoding", "gzip")
		end = b.finish(end)
	}
	header.Set("Content-Length", strconv.Itoa(len(b.bytes)+len(end)))
	if r.Method == http.MethodHead {
		return
	}
	if err := writeAll(w, b.bytes, end); err != nil {
		h.logger.Debug("scrape was cut off", "err", err)
		return
	}
	h.exposition.sent(s.id)
}

func (h *handler) ownMetrics(format expfmt.Format) ([]byte, error) {
	families, err := h.own.Gather()
	if err != nil {
		return nil, fmt.Errorf("gather the process' metrics: %w", err)
	}
	return encode(families, format, true)
}

func writeAll(w io.Writer, parts ...[]byte) error {
	for _, p := range parts {
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	return nil
}

// acceptsGzip reports whether the client takes gzip.
func acceptsGzip(h http.Header) bool {
	for _, part := range strings.Split(strings.Join(h.Values("Accept-Encoding"), ","), ",") {
		coding, weight, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.TrimSpace(coding) != "gzip" {
			continue
		}
		q, found := strings.CutPrefix(strings.ReplaceAll(weight, " ", ""), "q=")
		if !found {
			return true
		}
		v, err := strconv.ParseFloat(q, 64)
		return err == nil && v > 0
	}
	return false
}
