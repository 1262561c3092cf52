package command

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/go-faster/jx"
)

const (
	// maxInputs is the most that the API takes in one launch.
	maxInputs = 100_000
	// maxInputBytes bounds what one input can take of memory.
	maxInputBytes = 1 << 20
)

// inputsOf reads inputs one by one from a JSON array, from JSON objects one
// after the other (JSON Lines), or from CSV whose first line names the fields.
// A name that ends in .csv is CSV; else the first character tells. It ends
// after an error, which tells where it is.
func inputsOf(from io.Reader, name string) iter.Seq2[json.RawMessage, error] {
	bounded := &boundedInput{from: from}
	text := bufio.NewReader(bounded)
	return func(yield func(json.RawMessage, error) bool) {
		begin, err := skipSpace(text)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			yield(nil, err)
			return
		}
		read := objects(text)
		switch {
		case strings.EqualFold(filepath.Ext(name), ".csv") || begin != '[' && begin != '{':
			read = records(text)
		case begin == '[':
			read = elements(text)
		}
		for n := 1; ; n++ {
			bounded.read = 0
			input, err := read()
			if errors.Is(err, io.EOF) {
				return
			}
			switch {
			case err != nil:
			case input[0] != '{':
				err = errors.New("it is not an object")
			case !utf8.Valid(input):
				err = errors.New("it is not in UTF-8")
			}
			if err != nil {
				err = fmt.Errorf("input %s: %w", number(n), err)
			}
			if !yield(input, err) || err != nil {
				return
			}
		}
	}
}

// boundedInput fails when too much is read for one input.
type boundedInput struct {
	from io.Reader
	read int
}

func (b *boundedInput) Read(p []byte) (int, error) {
	if b.read > maxInputBytes {
		return 0, fmt.Errorf("it is larger than %d MiB", maxInputBytes>>20)
	}
	n, err := b.from.Read(p[:min(len(p), maxInputBytes+1-b.read)])
	b.read += n
	return n, err
}

// skipSpace passes over white space, and the mark that some programs put in
// front of UTF-8, and tells what comes then.
func skipSpace(text *bufio.Reader) (byte, error) {
	if mark, err := text.Peek(3); err == nil && string(mark) == "\ufeff" {
		_, _ = text.Discard(len(mark)) // they are there
	}
	for {
		c, err := text.ReadByte()
		if err != nil {
			return 0, err
		}
		if strings.IndexByte(" \t\r\n", c) < 0 {
			return c, text.UnreadByte()
		}
	}
}

// objects reads values that follow each other.
func objects(text io.Reader) func() (json.RawMessage, error) {
	decoder := json.NewDecoder(text)
	return func() (input json.RawMessage, err error) {
		return input, decoder.Decode(&input)
	}
}

// elements reads the values of an array.
func elements(text io.Reader) func() (json.RawMessage, error) {
	decoder := json.NewDecoder(text)
	began := false
	return func() (input json.RawMessage, err error) {
		if !began {
			began = true
			if _, err := decoder.Token(); err != nil {
				return nil, err
			}
		}
		if decoder.More() {
			return input, unexpected(decoder.Decode(&input))
		}
		if _, err := decoder.Token(); err != nil {
			return nil, unexpected(err)
		}
		if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
			return nil, errors.New("something stands behind the end of the array")
		}
		return nil, io.EOF
	}
}

// unexpected tells an end in the middle from one at the end.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// records reads the lines of a CSV file as objects: the fields are strings, and
// those that are empty are left out.
func records(text io.Reader) func() (json.RawMessage, error) {
	lines := csv.NewReader(text)
	var names []string
	return func() (json.RawMessage, error) {
		if names == nil {
			head, err := lines.Read()
			if err != nil {
				return nil, err
			}
			if names, err = headings(head); err != nil {
				return nil, err
			}
			lines.ReuseRecord = true
		}
		record, err := lines.Read()
		if err != nil {
			return nil, err
		}
		var input jx.Writer
		first := true
		input.ObjStart()
		for i, value := range record {
			switch {
			case value == "":
				continue
			case !utf8.ValidString(value):
				return nil, errors.New("it is not in UTF-8")
			}
			next(&input, &first)
			input.FieldStart(names[i])
			input.Str(value)
		}
		input.ObjEnd()
		return input.Buf, nil
	}
}

// headings checks the first line of a CSV file.
func headings(line []string) ([]string, error) {
	seen := make(map[string]bool, len(line))
	for i, name := range line {
		name = strings.TrimSpace(name)
		switch {
		case name == "":
			return nil, fmt.Errorf("column %d of the first line has no name", i+1)
		case !utf8.ValidString(name):
			return nil, errors.New("the first line is not in UTF-8")
		case seen[name]:
			return nil, fmt.Errorf("the first line has the name %q twice", name)
		}
		seen[name] = true
		line[i] = name
	}
	return line, nil
}
