package edges

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"github.com/go-faster/jx"
)

// readRows reads a list of at most maxBytes. Every element of the array has
// its place in the result, also one that is not understood.
func readRows[T any](d *decoder, body io.Reader, maxBytes int64, read func(*T) error) ([]T, error) {
	if err := d.start(body, maxBytes); err != nil {
		return nil, err
	}
	list, err := readArray(d, read)
	if err != nil {
		return nil, d.failure(err)
	}
	if err := d.end(); err != nil {
		return nil, err
	}
	return list, nil
}

// readArray reads the array that comes next in the body.
func readArray[T any](d *decoder, read func(*T) error) ([]T, error) {
	rows, err := d.json.ArrIter()
	if err != nil {
		return nil, err
	}
	list := make([]T, 0, maxLimit)
	for rows.Next() {
		if len(list) == maxRows {
			return nil, fmt.Errorf("%w: more than %d rows", ErrTooLarge, maxRows)
		}
		var empty T
		list = append(list, empty)
		if err := read(&list[len(list)-1]); err != nil {
			return nil, err
		}
	}
	return list, rows.Err()
}

// object reads an answer that is one object.
func (d *decoder) object(body io.Reader, maxBytes int64, read func() error) error {
	if err := d.start(body, maxBytes); err != nil {
		return err
	}
	if d.json.Next() != jx.Object {
		if err := d.json.Skip(); err != nil {
			return d.failure(err)
		}
		return fmt.Errorf("%w: not an object", ErrMalformed)
	}
	if err := read(); err != nil {
		return d.failure(err)
	}
	return d.end()
}

// Kinds of fields, by what is made of a row in which such a one is not
// understood. A field that nothing is made of has no kind.
const (
	fieldPlain = iota
	fieldUID
	fieldTime
	fieldKept
)

// row reads an element of a list, field by field, and tells what is wrong with
// it. read gets the name of a field, and returns its kind and whether it
// understood the value; it skips what it does not know. An error means that the
// body as a whole cannot be read on.
func (d *decoder) row(read func(name string) (kind int, ok bool, err error)) (Defect, error) {
	if d.json.Next() != jx.Object {
		return DefectNotObject, d.json.Skip()
	}
	fields, err := d.json.ObjIter()
	if err != nil {
		return "", err
	}
	// A field that comes twice is what it was last, so what is odd is known
	// only at the end. Rows with anything odd are rare.
	var odd map[string]int
	for fields.Next() {
		name := string(fields.Key())
		kind, ok, err := read(name)
		switch {
		case err != nil:
			return "", err
		case ok:
			delete(odd, name)
		case kind != fieldPlain:
			if odd == nil {
				odd = make(map[string]int)
			}
			odd[name] = kind
		}
	}
	if err := fields.Err(); err != nil {
		return "", err
	}
	worst := fieldPlain
	for _, kind := range odd {
		if worst == fieldPlain || kind < worst {
			worst = kind
		}
	}
	switch worst {
	case fieldUID:
		return DefectNoUID, nil
	case fieldTime:
		return DefectBadTime, nil
	case fieldKept:
		return DefectBadField, nil
	}
	return "", nil
}

// skip passes over a field that is not kept.
func (d *decoder) skip() (kind int, ok bool, err error) {
	return fieldPlain, true, d.json.Skip()
}

// name reads a text that a person has written, of which there are many
// different ones.
func (d *decoder) name() (name string, ok bool, err error) {
	text, ok, err := d.text()
	return cleanText(text, maxStringBytes), ok, err
}

// amount reads a number that may have a fraction, also one that is written as a
// string. Null is no number.
func (d *decoder) amount() (f float64, ok bool, err error) {
	digits, ok, err := d.number()
	if err != nil || !ok || len(digits) == 0 {
		return math.NaN(), ok, err
	}
	// What is no number at all is not ok, and no error either: the body can
	// be read on.
	if f, err := strconv.ParseFloat(string(digits), 64); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
		return f, true, nil
	}
	return math.NaN(), false, nil
}

// day reads a date, with a time or without: midnight UTC then.
func (d *decoder) day() (t time.Time, ok bool, err error) {
	text, ok, err := d.text()
	if err != nil || !ok || len(text) == 0 {
		return time.Time{}, ok, err
	}
	if len(text) == len(time.DateOnly) {
		text = []byte(string(text) + "T00:00:00.000Z")
	}
	t, ok = parseTime(text)
	return t, ok, nil
}

// raw reads a value as it is written.
func (d *decoder) raw(into *json.RawMessage) error {
	text, err := d.json.RawAppend(nil)
	*into = json.RawMessage(text)
	return err
}
