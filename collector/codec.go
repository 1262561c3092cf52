package collector

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
)

// Every value in the store ends in a checksum, so that a damaged file is
// noticed where it is read and no number is taken from it.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errChecksum = errors.New("checksum does not match")

// seal appends the checksum.
func seal(b []byte) []byte {
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// unseal checks the checksum and returns what stands before it.
func unseal(b []byte) ([]byte, error) {
	if len(b) < 4 {
		return nil, errChecksum
	}
	body, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return nil, errChecksum
	}
	return body, nil
}

// sealJSON writes what is stored whole and seldom, under Go's own names.
func sealJSON(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	return seal(body), err
}

// unsealJSON reads what sealJSON wrote.
func unsealJSON(b []byte, to any) error {
	body, err := unseal(b)
	if err != nil {
		return err
	}
	return json.Unmarshal(body, to)
}

// sealCount is a number with its checksum.
func sealCount(n int) []byte {
	return seal(binary.AppendUvarint(nil, uint64(n))) //nolint:gosec // a length
}

// reader takes values off the front of a byte slice; bad is set once one of
// them could not be read.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}
