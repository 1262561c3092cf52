package collector

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
)

// FuzzPages answers polls with whatever comes: nothing panics, and ledger and
// gauges agree after each poll. Pages are split at form feeds.
func FuzzPages(f *testing.F) {
	w, v := past(1), past(2)
	one, two := string(encodeRow(&w)), string(encodeRow(&v))
	w.status, w.updated, w.finished = "RUNNING", start.Add(time.Second), time.Time{}
	again := string(encodeRow(&w))
	w.created, w.updated = time.Time{}, start.Add(2*time.Second)
	undated := string(encodeRow(&w))
	for _, seed := range []string{
		"[]", "[" + one + "]", "[" + one + "," + two + "]", "[" + two + "," + one + "]", "[" + one + "]\f[" + again + "]\f[" + undated + "]",
		"[" + undated + "]\f[" + again + "]", "[" + one + "," + one + "]", "[{},null,7,[],\"x\"]", "null", "", "[",
		`[{"uid":"x"}]`, `[{"uid":"x","status":"FAILED","finished_at":"2026-03-02T10:00:05Z"}]` + "\f" + `[{"uid":"x","status":"FAILED","finished_at":"2026-03-02T10:00:07Z"}]`,
		`[{"uid":"x","created_at":"2026-03-02T10:00:05Z","retry_count":9007199254740992,"output_count":9007199254740992}]` + "\f" + `[{"uid":"x","created_at":"2026-03-02T10:00:05Z","retry_count":0}]`,
		"[" + strings.Repeat(one+",", 99) + one + "]", "[" + strings.Repeat("{},", 99) + "{}]",
		`[{"uid":"x","created_at":"1970-01-01T00:00:00Z","updated_at":"2199-01-01T00:00:00Z"}]`,
		`[{"uid":"x","created_at":"2026-03-02T10:00:05Z","started_at":"1970-01-01T00:00:00Z","finished_at":"2200-01-01T00:00:00Z","status":"FAILED"}]`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, script string) {
		r := newRig(t, func(c *Config) { c.PollInterval = 20 * time.Millisecond })
		pages := strings.Split(script, "\f")
		for i, page := range pages[:min(len(pages), 6)] {
			first := true
			r.srv.trouble(func(n int, w writer, q *request) bool {
				if first || i%2 == 1 { // every second page also in place of all that follow
					first = false
					return text(page)(n, w, q)
				}
				return false
			})
			_ = r.tryPoll()
			r.consistent(r.scrape())
			r.srv.advance(40 * time.Second)
			if i%3 == 2 {
				r.restart()
			}
		}
		r.srv.calm()
		_ = r.tryPoll()
		r.consistent(r.scrape())
	})
}

// FuzzStretch reads a stretch from a list that is changed between its pages as
// the fuzzer says: every row that keeps its place is read.
func FuzzStretch(f *testing.F) {
	f.Add(uint64(1), []byte{})
	f.Add(uint64(2), []byte{0x10, 0x21, 0x32, 0x43})
	f.Add(uint64(3), bytes.Repeat([]byte{0x2f}, 30))
	f.Add(uint64(4), bytes.Repeat([]byte{0x1f}, 30))
	f.Add(uint64(5), bytes.Repeat([]byte{0x3f, 0x1f, 0x2f}, 20))
	f.Add(uint64(6), []byte{0x4f, 0x20, 0x4f, 0x2e, 0x5a, 0x6b})
	f.Fuzz(func(t *testing.T, seed uint64, changes []byte) {
		rng := rand.New(rand.NewPCG(seed, 1))
		const base = int64(1_700_000_000_000_000_000)
		type item struct {
			uid     string
			updated int64
			moved   bool
		}
		var list []item
		at := base
		for i := range 60 + rng.IntN(600) {
			if rng.IntN(3) > 0 { // a third are ties, in groups smaller than a page
				at -= int64(time.Millisecond)
			}
			list = append(list, item{uid: fmt.Sprint("run", i), updated: at})
		}
		next, newest := len(list), base
		read := map[string]bool{}
		limit := 20
		s := stretch{Low: at, High: list[0].updated, Offset: 0}
		done, k, stalled := false, 0, 0
		for requests := 0; !done; requests++ {
			if requests > 500+20*len(list) {
				t.Fatalf("not done after %d requests, at offset %d of %d", requests, s.Offset, len(list))
			}
			rows := []edges.Run{}
			for i := s.Offset; i < min(len(list), s.Offset+limit); i++ {
				rows = append(rows, edges.Run{UID: list[i].uid, UpdatedAt: time.Unix(0, list[i].updated)})
			}
			p, err := survey(rows, limit)
			if err != nil {
				t.Fatal(err)
			}
			v, err := s.read(&p, rows)
			if err != nil {
				// A list that moves with each request may defeat one poll; the
				// next goes on.
				if k == len(changes) {
					stalled++
				}
				if stalled > 2 {
					t.Fatalf("a list at rest: %v", err)
				}
			}
			if v != verdictAstray {
				for i := range rows {
					read[rows[i].UID] = true
				}
			}
			done = v == verdictDone
			if k == len(changes) {
				continue
			}
			kind, n := changes[k]>>4, int(changes[k]&15)+1
			k++
			for range n {
				if len(list) == 0 {
					break
				}
				i := rng.IntN(len(list))
				switch kind % 6 {
				case 1: // a new run
					newest += int64(time.Millisecond)
					list = slices.Insert(list, 0, item{uid: fmt.Sprint("new", next), updated: newest, moved: true})
					next++
				case 2: // removed, anywhere
					list = slices.Delete(list, i, i+1)
				case 3: // removed, of those in front
					i = rng.IntN(min(len(list), s.Offset+1))
					list = slices.Delete(list, i, i+1)
				case 4: // moved to the front
					x := list[i]
					newest += int64(time.Millisecond)
					x.updated, x.moved = newest, true
					list = slices.Insert(slices.Delete(list, i, i+1), 0, x)
				case 5: // ties in another order
					slices.SortStableFunc(list, func(a, b item) int {
						if a.updated != b.updated {
							return int(min(1, max(-1, b.updated-a.updated)))
						}
						return rng.IntN(3) - 1
					})
				}
			}
		}
		for _, x := range list {
			if !x.moved && !read[x.uid] {
				t.Fatalf("%s, updated %d, was never read (low %d, high %d)", x.uid, x.updated, s.Low, s.High)
			}
		}
	})
}

const (
	verdictDone   = done
	verdictAstray = astray
)

// FuzzRecord: what is encoded is decoded, and what is garbage is an error.
func FuzzRecord(f *testing.F) {
	r := record{action: 3, mode: 2, status: 9, err: 1, updated: 1_772_445_610_000_000_000, entered: 1_772_445_600_000_000_000, started: 5, finished: 7, postponed: 9, retries: 2, outputs: 1 << 53, confirmed: 1_772_445_610, gone: true, undated: true, timed: true, queued: true}
	f.Add(int64(1_772_445_600_000_000_000), r.encode(nil, 1_772_445_600_000_000_000))
	f.Add(int64(0), (&record{}).encode(nil, 0))
	f.Add(int64(-1), []byte{})
	f.Add(int64(1<<62), bytes.Repeat([]byte{0xff}, 100))
	f.Fuzz(func(t *testing.T, base int64, b []byte) {
		// As it came, and with a right checksum.
		for _, in := range [][]byte{b, seal(bytes.Clone(b))} {
			r, err := decodeRecord(in, base)
			if err != nil {
				continue
			}
			again, err := decodeRecord(r.encode(nil, base), base)
			if err != nil {
				t.Fatal(err)
			}
			if r != again {
				t.Fatalf("%+v becomes %+v", r, again)
			}
		}
		// Any record there can be.
		in := reader{b: b}
		u16 := func() uint16 { return uint16(in.uvarint()) }
		want := record{
			action: u16(), mode: u16(), status: u16(), err: u16(), updated: in.varint(), entered: in.varint(), started: in.varint(), finished: in.varint(),
			postponed: in.varint(), retries: in.varint(), outputs: in.varint(), confirmed: in.varint(),
			gone: in.byte()&1 == 1, undated: in.byte()&1 == 1, timed: in.byte()&1 == 1, queued: in.byte()&1 == 1,
		}
		got, err := decodeRecord(want.encode(nil, base), base)
		if err != nil || got != want {
			t.Fatalf("%+v becomes %+v, %v", want, got, err)
		}
		// A prefix is garbage, and so is one wrong byte.
		whole := want.encode([]byte("before"), base)[len("before"):]
		for i := range whole {
			if _, err := decodeRecord(whole[:i], base); err == nil {
				t.Fatalf("%d of %d bytes are decoded", i, len(whole))
			}
			wrong := bytes.Clone(whole)
			wrong[i] ^= 0x41
			if _, err := decodeRecord(wrong, base); err == nil {
				t.Fatalf("byte %d is wrong, and decoded", i)
			}
		}
		// Keys come back as they were, and order by time.
		uid := string(b[:min(len(b), 128)])
		ms := int64(binary.BigEndian.Uint32(append(bytes.Clone(b), 0, 0, 0, 0)))
		key := runKey(nil, ms, uid)
		if keyTime(key) != ms || keyUID(key) != uid {
			t.Fatalf("the key of %d %q reads %d %q", ms, uid, keyTime(key), keyUID(key))
		}
		if bytes.Compare(key, runKey(nil, ms+1, "")) >= 0 {
			t.Fatal("a later run comes first")
		}
	})
}

// FuzzHistogram: what is encoded is decoded, and durations go into the bucket
// that holds them.
func FuzzHistogram(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 2, 3, 200, 100, 50, 255, 255, 255, 255, 255, 127})
	f.Add(binary.AppendUvarint(binary.AppendUvarint(nil, 1_000_000_000), 86_400_000_000_000))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = decodeHistogram(b, runBuckets)
		h := newHistogram(runBuckets)
		in := reader{b: b}
		n := uint64(0)
		for len(in.b) > 0 {
			ns := int64(in.uvarint() % uint64(200*365*24*time.Hour))
			i := h.observe(runBuckets, ns)
			n++
			v := float64(ns) / 1e9
			if i < len(runBuckets) && v > runBuckets[i] || i > 0 && v <= runBuckets[i-1] {
				t.Fatalf("%v s went into bucket %d", v, i)
			}
		}
		again, err := decodeHistogram(h.encode(nil), runBuckets)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(h.encode(nil), again.encode(nil)) || again.count != n {
			t.Fatalf("%+v becomes %+v", h, again)
		}
	})
}
