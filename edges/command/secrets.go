package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/go-faster/jx"
)

// redacted stands in the place of what is not shown.
const redacted = "[redacted]"

// Where in a row a value stands.
const (
	inRow = iota
	inCallback
	inHeaders
)

// withoutSecrets returns a row as the API wrote it, on one line, without the
// values of its callback's headers: what a webhook is called with is often a
// password, and results of a command end in files and chats.
func withoutSecrets(raw json.RawMessage) (json.RawMessage, error) {
	var line bytes.Buffer
	if err := json.Compact(&line, raw); err != nil {
		return nil, fmt.Errorf("read a row: %w", err)
	}
	d := jx.DecodeBytes(line.Bytes())
	if d.Next() != jx.Object {
		return line.Bytes(), nil
	}
	var w jx.Writer
	first := true
	w.ObjStart()
	err := d.Obj(func(d *jx.Decoder, name string) error {
		next(&w, &first)
		w.FieldStart(name)
		if strings.EqualFold(name, "callback") {
			return redact(d, &w, inCallback)
		}
		return same(d, &w)
	})
	if err != nil {
		return nil, fmt.Errorf("read a row: %w", err)
	}
	w.ObjEnd()
	return w.Buf, nil
}

// redact copies a value of a callback.
func redact(d *jx.Decoder, w *jx.Writer, where int) error {
	first := true
	switch d.Next() {
	case jx.Object:
		w.ObjStart()
		err := d.Obj(func(d *jx.Decoder, name string) error {
			next(w, &first)
			w.FieldStart(name)
			switch {
			case where == inHeaders || strings.EqualFold(name, "headers"):
				return redact(d, w, inHeaders)
			case d.Next() == jx.Object || d.Next() == jx.Array:
				return redact(d, w, inCallback)
			}
			return same(d, w)
		})
		w.ObjEnd()
		return err
	case jx.Array:
		w.ArrStart()
		err := d.Arr(func(d *jx.Decoder) error {
			next(w, &first)
			return redact(d, w, where)
		})
		w.ArrEnd()
		return err
	case jx.Null:
		return same(d, w)
	}
	// A header's value, or a callback that is no object: nobody knows what is
	// in it.
	w.Str(redacted)
	return d.Skip()
}

func same(d *jx.Decoder, w *jx.Writer) error {
	raw, err := d.Raw()
	w.Raw(raw)
	return err
}

func next(w *jx.Writer, first *bool) {
	if !*first {
		w.Comma()
	}
	*first = false
}
