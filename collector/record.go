package collector

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"time"
)

// record is what the ledger keeps of a run. Times are Unix nanoseconds, 0 when
// the API gave none.
type record struct {
	action, mode, status, err uint16
	// updated is updated_at of the version that was taken in last.
	updated int64
	// entered is when the run entered its status, as far as is known.
	entered   int64
	started   int64
	finished  int64
	postponed int64
	retries   int64
	outputs   int64
	// confirmed is when the API last showed the run, in Unix seconds by the
	// API's clock; it is only kept up for runs that are audited.
	confirmed int64
	// gone marks a run that the audit did not find any more. It is in no
	// gauge; should it come back, it is not counted again.
	gone bool
	// undated marks a run that came without created_at.
	undated bool
	// timed is set when the duration of the status it is in was observed, or
	// must not be.
	timed bool
	// queued is set when the first start was seen.
	queued bool
}

const (
	flagGone = 1 << iota
	flagUndated
	flagTimed
	flagQueued
	flagStarted
	flagFinished
	flagPostponed
	flagUpdated
)

// encode appends the record for the store, times as differences to base, which
// is the time in the run's key.
func (r *record) encode(b []byte, base int64) []byte {
	var flags byte
	set := func(flag byte, on bool) {
		if on {
			flags |= flag
		}
	}
	set(flagGone, r.gone)
	set(flagUndated, r.undated)
	set(flagTimed, r.timed)
	set(flagQueued, r.queued)
	set(flagStarted, r.started != 0)
	set(flagFinished, r.finished != 0)
	set(flagPostponed, r.postponed != 0)
	set(flagUpdated, r.updated != 0)
	start := len(b)
	b = append(b, flags)
	for _, id := range [...]uint16{r.action, r.mode, r.status, r.err} {
		b = binary.AppendUvarint(b, uint64(id))
	}
	b = binary.AppendVarint(b, r.entered-base)
	for _, t := range [...]int64{r.updated, r.started, r.finished, r.postponed} {
		if t != 0 {
			b = binary.AppendVarint(b, t-base)
		}
	}
	b = binary.AppendVarint(b, r.retries)
	b = binary.AppendVarint(b, r.outputs)
	b = binary.AppendVarint(b, r.confirmed)
	return append(b[:start], seal(b[start:])...)
}

var errRecord = errors.New("unreadable record of a run")

// decodeRecord reads what encode wrote.
func decodeRecord(b []byte, base int64) (record, error) {
	body, err := unseal(b)
	if err != nil {
		return record{}, err
	}
	in := reader{b: body}
	flags := in.byte()
	var r record
	r.gone = flags&flagGone != 0
	r.undated = flags&flagUndated != 0
	r.timed = flags&flagTimed != 0
	r.queued = flags&flagQueued != 0
	for _, id := range [...]*uint16{&r.action, &r.mode, &r.status, &r.err} {
		*id = uint16(in.uvarint()) //nolint:gosec // written from a uint16
	}
	r.entered = in.varint() + base
	for _, t := range [...]struct {
		flag byte
		to   *int64
	}{{flagUpdated, &r.updated}, {flagStarted, &r.started}, {flagFinished, &r.finished}, {flagPostponed, &r.postponed}} {
		if flags&t.flag != 0 {
			*t.to = in.varint() + base
		}
	}
	r.retries = in.varint()
	r.outputs = in.varint()
	r.confirmed = in.varint()
	if in.bad || len(in.b) != 0 {
		return record{}, errRecord
	}
	return r, nil
}

// A run's key is created_at in milliseconds, then its uid: runs that are made
// one after the other lie beside each other in the store, which writes fewer
// pages and makes retention a range delete. A canonical UUID takes 16 bytes.

const (
	uidBinary = 0
	uidText   = 1
)

// runKey appends the key of a run to b.
func runKey(b []byte, createdMS int64, uid string) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(createdMS)) //nolint:gosec // times are after 1970
	var raw [16]byte
	if parseUUID(&raw, uid) {
		b = append(b, uidBinary)
		return append(b, raw[:]...)
	}
	b = append(b, uidText)
	return append(b, uid...)
}

// keyTime is the time in a run's key, in Unix milliseconds.
func keyTime(key []byte) int64 {
	return int64(binary.BigEndian.Uint64(key)) //nolint:gosec // written from an int64
}

// keyUID is the uid in a run's key.
func keyUID(key []byte) string {
	if key[8] == uidText {
		return string(key[9:])
	}
	u := key[9:]
	var out [36]byte
	hex.Encode(out[0:8], u[0:4])
	hex.Encode(out[9:13], u[4:6])
	hex.Encode(out[14:18], u[6:8])
	hex.Encode(out[19:23], u[8:10])
	hex.Encode(out[24:36], u[10:16])
	out[8], out[13], out[18], out[23] = '-', '-', '-', '-'
	return string(out[:])
}

// parseUUID reads a UUID in the one form that keyUID writes: lower case with
// dashes. Any other spelling is kept as text, so that it comes out as it was.
func parseUUID(to *[16]byte, s string) bool {
	if len(s) != 36 {
		return false
	}
	n := 0
	for i := 0; i < 36; {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if s[i] != '-' {
				return false
			}
			i++
			continue
		}
		hi, lo := hexDigit(s[i]), hexDigit(s[i+1])
		if hi < 0 || lo < 0 {
			return false
		}
		to[n] = byte(hi<<4 | lo) //nolint:gosec // two hex digits
		n++
		i += 2
	}
	return true
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}

// nanos is t in Unix nanoseconds, 0 for the zero time.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
