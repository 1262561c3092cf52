package edges

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-faster/jx"
)

const (
	// maxStringBytes bounds every text that is kept of a run.
	maxStringBytes = 128
	// maxRows bounds the rows of one list: the shortest row takes two bytes
	// of an answer, but some hundreds in memory.
	maxRows = 10_000
	// maxCount is the largest count taken for real: beyond it, JSON numbers
	// are no longer exact everywhere.
	maxCount = 1 << 53
	// maxWords bounds the table of texts that come again and again.
	maxWords = 1024
	// wholeBytes is the size up to which a body is read before it is decoded,
	// which is a third faster. Pages of 100 runs are mostly smaller.
	wholeBytes = 256 << 10
	// streamBytes is the size of the window through which a larger one is
	// decoded while it is read.
	streamBytes = 16 << 10
)

// decoder reads answers, one at a time. It is made to be used again: its
// buffers and its table of words are what makes a page cheap.
type decoder struct {
	json   *jx.Decoder // whole or stream
	whole  *jx.Decoder
	stream *jx.Decoder
	buffer []byte
	body   boundedReader
	words  map[string]string
}

func newDecoder() *decoder {
	return &decoder{
		whole:  jx.DecodeBytes(nil),
		stream: jx.Decode(nil, streamBytes),
		buffer: make([]byte, wholeBytes),
		words:  make(map[string]string),
	}
}

// page reads a list of runs of at most maxBytes. Every element of the array
// has its place in the result, also one that is not understood.
func (d *decoder) page(body io.Reader, maxBytes int64) ([]Run, error) {
	return readRows(d, body, maxBytes, d.run)
}

// single reads an answer that is one run.
func (d *decoder) single(body io.Reader, maxBytes int64) (Run, error) {
	var run Run
	if err := d.object(body, maxBytes, func() error { return d.run(&run) }); err != nil {
		return Run{}, err
	}
	return run, nil
}

// start reads the body if it is small, and the first part of it if not.
func (d *decoder) start(body io.Reader, maxBytes int64) error {
	d.body = boundedReader{from: body, left: maxBytes}
	n, err := io.ReadFull(&d.body, d.buffer)
	switch {
	case err == nil:
		d.stream.Reset(io.MultiReader(bytes.NewReader(d.buffer[:n]), &d.body))
		d.json = d.stream
	case d.body.err != nil:
		return d.failure(err)
	default:
		d.whole.ResetBytes(d.buffer[:n])
		d.json = d.whole
	}
	return nil
}

// release lets go of the last body.
func (d *decoder) release() {
	d.body.from = nil
	d.stream.Reset(nil)
}

// end reads on to where the body ends: only then is it known to be whole (a
// gzip stream has its sum there), and the connection can be used again.
func (d *decoder) end() error {
	if err := d.json.Skip(); !errors.Is(err, io.EOF) || d.body.err != nil {
		if err == nil {
			err = errors.New("more than one value")
		}
		return d.failure(err)
	}
	return nil
}

// failure tells what ended the reading: the bound, the connection, or what the
// body says. The decoder's own error may hide the reader's.
func (d *decoder) failure(err error) error {
	switch {
	case errors.Is(d.body.err, ErrTooLarge):
		return d.body.err
	case d.body.err != nil:
		return fmt.Errorf("%w: %w", ErrMalformed, d.body.err)
	case errors.Is(err, ErrTooLarge):
		return err
	}
	// The JSON decoder wraps its error once for every level of nesting.
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return fmt.Errorf("%w: %w", ErrMalformed, err)
}

// Fields of a run whose value was not understood. A field that comes twice is
// what it was last, so this is known only at the end of the row.
const (
	oddUID = 1 << iota
	oddActionName
	oddMode
	oddStatus
	oddRetryCount
	oddOutputCount
	oddSchedule
	oddPostponed
	oddCreated
	oddUpdated
	oddStarted
	oddFinished

	oddTimes = oddPostponed | oddCreated | oddUpdated | oddStarted | oddFinished
)

// run reads one element of the list. An error means that the body as a whole
// cannot be read on.
func (d *decoder) run(r *Run) error {
	if d.json.Next() != jx.Object {
		r.Defect = DefectNotObject
		return d.json.Skip()
	}
	fields, err := d.json.ObjIter()
	if err != nil {
		return err
	}
	var odd int
	for fields.Next() {
		var field int
		var ok bool
		switch string(fields.Key()) {
		case "uid":
			field = oddUID
			r.UID, ok, err = d.uid()
		case "id":
			// Nothing is made from these four, so an odd one is no reason
			// to do without the run.
			r.ID, err = d.id()
			ok = true
		case "workspace_uid":
			r.WorkspaceUID, _, err = d.word()
			ok = true
		case "user_uid":
			r.UserUID, _, err = d.word()
			ok = true
		case "flow_run_id":
			r.FlowRunID, err = d.id()
			ok = true
		case "scheduled_run_uid":
			field = oddSchedule
			r.ScheduledRunUID, ok, err = d.word()
		case "action_name":
			field = oddActionName
			r.ActionName, ok, err = d.word()
		case "execution_mode":
			field = oddMode
			r.ExecutionMode, ok, err = d.word()
		case "status":
			field = oddStatus
			var status string
			status, ok, err = d.word()
			r.Status = Status(status)
		case "retry_count":
			field = oddRetryCount
			r.RetryCount, ok, err = d.count()
		case "output_count":
			field = oddOutputCount
			r.OutputCount, ok, err = d.count()
		case "last_error":
			r.ErrorLabel, err = d.lastError()
			ok = true
		case "postponed_until":
			field = oddPostponed
			r.PostponedUntil, ok, err = d.time()
		case "created_at":
			field = oddCreated
			r.CreatedAt, ok, err = d.time()
		case "updated_at":
			field = oddUpdated
			r.UpdatedAt, ok, err = d.time()
		case "started_at":
			field = oddStarted
			r.StartedAt, ok, err = d.time()
		case "finished_at":
			field = oddFinished
			r.FinishedAt, ok, err = d.time()
		default:
			ok = true
			err = d.json.Skip()
		}
		if err != nil {
			return err
		}
		if ok {
			odd &^= field
		} else {
			odd |= field
		}
	}
	if err := fields.Err(); err != nil {
		return err
	}
	switch {
	case odd&oddUID != 0 || r.UID == "":
		r.Defect = DefectNoUID
	case odd&oddTimes != 0:
		r.Defect = DefectBadTime
	case odd != 0:
		r.Defect = DefectBadField
	}
	return nil
}

// text reads a string. The bytes are valid until the next read only. It is not
// ok if the value is neither a string nor null.
func (d *decoder) text() (text []byte, ok bool, err error) {
	switch d.json.Next() {
	case jx.String:
		text, err = d.json.StrBytes()
		return text, true, err
	case jx.Null:
		return nil, true, d.json.Null()
	default:
		return nil, false, d.json.Skip()
	}
}

func (d *decoder) uid() (uid string, ok bool, err error) {
	text, ok, err := d.text()
	if len(text) > maxStringBytes || !utf8.Valid(text) {
		return "", false, err
	}
	return string(text), ok, err
}

// word reads a text of which there are few different ones, and gives every
// time the same copy of it.
func (d *decoder) word() (word string, ok bool, err error) {
	text, ok, err := d.text()
	if err != nil || len(text) == 0 {
		return "", ok, err
	}
	if word, known := d.words[string(text)]; known {
		return word, ok, nil
	}
	word = cleanText(text, maxStringBytes)
	if len(text) <= maxStringBytes {
		if len(d.words) == maxWords {
			// Only a strange workspace gets here; forgetting all is cheap
			// and lets the words of today in.
			clear(d.words)
		}
		d.words[string(text)] = word
	}
	return word, ok, nil
}

// lastError reads the label of last_error, or error_label in its place.
func (d *decoder) lastError() (string, error) {
	switch d.json.Next() {
	case jx.Object:
	case jx.String:
		word, _, err := d.word()
		if !looksLikeLabel(word) {
			word = ""
		}
		return word, err
	default:
		return "", d.json.Skip()
	}
	fields, err := d.json.ObjIter()
	if err != nil {
		return "", err
	}
	var label, errorLabel string
	for fields.Next() {
		switch string(fields.Key()) {
		case "label":
			label, _, err = d.word()
		case "error_label":
			errorLabel, _, err = d.word()
		default:
			err = d.json.Skip()
		}
		if err != nil {
			return "", err
		}
	}
	if label == "" {
		label = errorLabel
	}
	return label, fields.Err()
}

// count reads a whole number from 0 to 2^53, also one that is written as a
// string or with a fraction of zeros.
func (d *decoder) count() (n int64, ok bool, err error) {
	digits, ok, err := d.number()
	if err != nil || !ok || len(digits) == 0 {
		return 0, ok, err
	}
	n, ok = parseCount(digits)
	return n, ok, nil
}

// id reads a whole number, and takes what is none for 0.
func (d *decoder) id() (int64, error) {
	digits, _, err := d.number()
	if err != nil {
		return 0, err
	}
	if n, err := strconv.ParseInt(string(digits), 10, 64); err == nil {
		return n, nil
	}
	n, _ := parseCount(digits)
	return n, nil
}

// number reads the text of a number, which is empty for null.
func (d *decoder) number() (digits []byte, ok bool, err error) {
	if d.json.Next() == jx.Number {
		digits, err := d.json.Raw()
		return digits, true, err
	}
	return d.text()
}

func parseCount(digits []byte) (n int64, ok bool) {
	if len(digits) < 16 {
		for _, c := range digits {
			if c < '0' || c > '9' {
				return parseFloatCount(digits)
			}
			n = n*10 + int64(c-'0')
		}
		return n, true
	}
	return parseFloatCount(digits)
}

func parseFloatCount(digits []byte) (n int64, ok bool) {
	f, err := strconv.ParseFloat(string(digits), 64)
	if err != nil || f < 0 || f > maxCount || f != math.Trunc(f) {
		return 0, false
	}
	return int64(f), true
}

// time reads a date and time.
func (d *decoder) time() (t time.Time, ok bool, err error) {
	text, ok, err := d.text()
	if err != nil || !ok || len(text) == 0 {
		return time.Time{}, ok, err
	}
	t, ok = parseTime(text)
	return t, ok, nil
}

// parseTime reads what the API prints (2025-10-14T07:13:47.000Z) fast, and
// every other form of RFC 3339 as well as it comes. Year 1 is how some servers
// write a time that there is none of.
func parseTime(text []byte) (time.Time, bool) {
	t, ok := parseUTCMillis(text)
	if !ok {
		if t, ok = parseAnyTime(text); !ok {
			return time.Time{}, false
		}
	}
	if t.IsZero() {
		return time.Time{}, true
	}
	if y := t.Year(); y < 1970 || y > 2200 {
		return time.Time{}, false
	}
	return t, true
}

// parseUTCMillis reads 2006-01-02T15:04:05.000Z, and nothing else.
func parseUTCMillis(s []byte) (time.Time, bool) {
	if len(s) != 24 || s[4] != '-' || s[7] != '-' || s[10] != 'T' ||
		s[13] != ':' || s[16] != ':' || s[19] != '.' || s[23] != 'Z' {
		return time.Time{}, false
	}
	bad := false
	number := func(from, to int) int {
		n := 0
		for _, c := range s[from:to] {
			c -= '0'
			bad = bad || c > 9
			n = n*10 + int(c)
		}
		return n
	}
	year, month, day := number(0, 4), number(5, 7), number(8, 10)
	hour, minute, second, millis := number(11, 13), number(14, 16), number(17, 19), number(20, 23)
	if bad || hour > 23 || minute > 59 || second > 59 || month < 1 || month > 12 || day < 1 || day > 31 {
		return time.Time{}, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, millis*int(time.Millisecond), time.UTC)
	// time.Date takes 30 February for 2 March; that is no such day.
	return t, t.Day() == day
}

func parseAnyTime(text []byte) (time.Time, bool) {
	if len(text) < len("2006-01-02T15:04:05Z") || len(text) > 64 {
		return time.Time{}, false
	}
	s := []byte(strings.ToUpper(string(text)))
	if s[10] == ' ' {
		s[10] = 'T'
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05Z0700", "2006-01-02T15:04:05Z07"} {
		if t, err := time.Parse(layout, string(s)); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}

// cleanText makes a text fit to be shown: valid UTF-8, without control
// characters, no longer than maxBytes.
func cleanText(text []byte, maxBytes int) string {
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		text = text[size:]
		if unicode.IsControl(r) {
			r = utf8.RuneError
		}
		if b.Len()+utf8.RuneLen(r) > maxBytes {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}

// looksLikeLabel tells a label such as NO_RESULT from a sentence.
func looksLikeLabel(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}

// boundedReader reads up to a bound, and remembers what ended the reading
// before the end.
type boundedReader struct {
	from io.Reader
	left int64
	err  error
}

func (r *boundedReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	// One byte beyond the bound tells an answer that just fits from a longer
	// one. Some readers answer nothing and no error, which the JSON decoder
	// does not expect.
	p = p[:min(int64(len(p)), r.left+1)]
	var n int
	var err error
	for tries := 0; n == 0 && err == nil; tries++ {
		if tries == 100 {
			err = io.ErrNoProgress
			break
		}
		n, err = r.from.Read(p)
	}
	r.left -= int64(n)
	switch {
	case r.left < 0:
		r.err = fmt.Errorf("%w: over the bound on its size", ErrTooLarge)
		return 0, r.err
	case err != nil && err != io.EOF:
		r.err = err
	}
	return n, err
}
