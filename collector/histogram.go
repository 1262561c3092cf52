package collector

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"sort"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"
)

// nativeSchema gives native buckets that grow by a factor of 2^(1/8), so a
// quantile is off by 4.5 % at most.
const nativeSchema = 3

// nativeZero is the width of the native zero bucket, in seconds: times are no
// finer than a millisecond anyway.
const nativeZero = 0.001

// histogram counts durations in classic buckets and in native ones. The sum is
// an integer, so that it is exact and the same in whatever order durations come.
type histogram struct {
	// counts holds one number a classic bucket, not cumulated, +Inf last.
	counts []uint64
	count  uint64
	sum    int64 // nanoseconds
	zero   uint64
	native map[int16]uint64
}

func newHistogram(bounds []float64) *histogram {
	return &histogram{counts: make([]uint64, len(bounds)+1), native: map[int16]uint64{}}
}

func (h *histogram) clone() *histogram {
	c := *h
	c.counts = slices.Clone(h.counts)
	c.native = make(map[int16]uint64, len(h.native)+1)
	for i, n := range h.native {
		c.native[i] = n
	}
	return &c
}

// observe counts one duration, in nanoseconds, and returns the index of its
// classic bucket.
func (h *histogram) observe(bounds []float64, ns int64) int {
	v := float64(ns) / 1e9
	i := sort.SearchFloat64s(bounds, v)
	h.counts[i]++
	h.count++
	h.sum += ns
	if v <= nativeZero {
		h.zero++
	} else {
		h.native[nativeIndex(v)]++
	}
	return i
}

// nativeIndex is the number i of the bucket (2^((i-1)/8), 2^(i/8)] that holds v.
func nativeIndex(v float64) int16 {
	frac, exp := math.Frexp(v) // v = frac * 2^exp, frac in [0.5, 1)
	i := (exp - 1) << nativeSchema
	for j := 1; j <= 1<<nativeSchema; j++ {
		if 2*frac <= math.Exp2(float64(j-1)/(1<<nativeSchema)) {
			return int16(i + j - 1) //nolint:gosec // exp of a duration in seconds is below 64
		}
	}
	return int16(i + 1<<nativeSchema) //nolint:gosec // as above
}

// encode appends the histogram for the store.
func (h *histogram) encode(b []byte) []byte {
	b = binary.AppendUvarint(b, h.count)
	b = binary.AppendVarint(b, h.sum)
	b = binary.AppendUvarint(b, uint64(len(h.counts)))
	for _, n := range h.counts {
		b = binary.AppendUvarint(b, n)
	}
	b = binary.AppendUvarint(b, h.zero)
	b = binary.AppendUvarint(b, uint64(len(h.native)))
	for _, i := range h.nativeIndexes() {
		b = binary.AppendVarint(b, int64(i))
		b = binary.AppendUvarint(b, h.native[i])
	}
	return b
}

var errHistogram = errors.New("unreadable histogram")

// decodeHistogram reads what encode wrote. Bounds that differ from the stored
// ones are an error: counts cannot be moved between buckets.
func decodeHistogram(b []byte, bounds []float64) (*histogram, error) {
	r := reader{b: b}
	h := newHistogram(bounds)
	h.count = r.uvarint()
	h.sum = r.varint()
	if n := r.uvarint(); n != uint64(len(h.counts)) {
		return nil, errHistogram
	}
	for i := range h.counts {
		h.counts[i] = r.uvarint()
	}
	h.zero = r.uvarint()
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		i := r.varint()
		h.native[int16(i)] = r.uvarint() //nolint:gosec // written from an int16
	}
	if r.bad || len(r.b) != 0 {
		return nil, errHistogram
	}
	return h, nil
}

func (h *histogram) nativeIndexes() []int16 {
	out := make([]int16, 0, len(h.native))
	for i := range h.native {
		out = append(out, i)
	}
	slices.Sort(out)
	return out
}

// dto renders the histogram, with its native buckets if asked for.
func (h *histogram) dto(bounds []float64, exemplars []*dto.Exemplar, native bool) *dto.Histogram {
	out := &dto.Histogram{
		SampleCount: proto.Uint64(h.count),
		SampleSum:   proto.Float64(float64(h.sum) / 1e9),
		Bucket:      make([]*dto.Bucket, 0, len(h.counts)),
	}
	var sum uint64
	for i, n := range h.counts {
		sum += n
		bound := math.Inf(1)
		if i < len(bounds) {
			bound = bounds[i]
		}
		b := &dto.Bucket{CumulativeCount: proto.Uint64(sum), UpperBound: proto.Float64(bound)}
		if exemplars != nil {
			b.Exemplar = exemplars[i]
		}
		out.Bucket = append(out.Bucket, b)
	}
	if native {
		h.addNative(out)
	}
	return out
}

// addNative fills the sparse buckets: spans of neighbouring indexes, and each
// count as the difference to the one before.
func (h *histogram) addNative(out *dto.Histogram) {
	out.Schema = proto.Int32(nativeSchema)
	out.ZeroThreshold = proto.Float64(nativeZero)
	out.ZeroCount = proto.Uint64(h.zero)
	if len(h.native) == 0 {
		// An empty span tells a reader that this is a native histogram, even
		// with nothing in it.
		out.PositiveSpan = []*dto.BucketSpan{{Offset: proto.Int32(0), Length: proto.Uint32(0)}}
		return
	}
	var previous int64
	next := int32(0)
	for _, i := range h.nativeIndexes() {
		index, n := int32(i), int64(h.native[i]) //nolint:gosec // counts stay far below 2^63
		if k := len(out.PositiveSpan); k > 0 && index == next {
			*out.PositiveSpan[k-1].Length++
		} else {
			offset := index
			if k > 0 {
				offset = index - next
			}
			out.PositiveSpan = append(out.PositiveSpan, &dto.BucketSpan{Offset: proto.Int32(offset), Length: proto.Uint32(1)})
		}
		out.PositiveDelta = append(out.PositiveDelta, n-previous)
		previous, next = n, index+1
	}
}
