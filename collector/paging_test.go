package collector

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
)

// past is a run that ended long before T0, the n-th from the front.
func past(n int) row {
	at := start.Add(-time.Duration(n+1) * time.Minute)
	return row{
		uid: uid(n), action: fmt.Sprintf("act%d", n%3), mode: "ASYNC", status: "SUCCEEDED",
		created: at.Add(-time.Hour), started: at.Add(-time.Minute), finished: at, updated: at,
	}
}

// fresh is a run made and ended now.
func fresh(n int, at time.Time) row {
	return row{
		uid: uid(n), action: fmt.Sprintf("act%d", n%3), mode: "ASYNC", status: "SUCCEEDED",
		created: at, started: at, finished: at, updated: at,
	}
}

// pageNumber is the place of a list request in its poll, from 1; 0 for others.
func pageNumber() func(q url.Values) int {
	n := 0
	return func(q url.Values) int {
		if q["uid"] != nil {
			return 0
		}
		n++
		return n
	}
}

// The list moves while it is read. Whatever happens between two pages, the
// ledger holds exactly the server's rows once things have settled.
func TestListMovesBetweenPages(t *testing.T) {
	const n = 750
	cases := []struct {
		name string
		// at is called before each page of the backfill; page counts from 1.
		at func(s *server, page int) (removed []string)
	}{
		{"nothing happens", func(*server, int) []string { return nil }},
		{"a run is made", func(s *server, page int) []string {
			s.put(fresh(1000+page, s.advance(time.Second)))
			return nil
		}},
		{"250 runs are made at once", func(s *server, page int) []string {
			if page != 3 {
				return nil
			}
			now := s.advance(time.Second)
			for i := range 250 {
				s.put(fresh(1000+i, now.Add(-time.Duration(i)*time.Millisecond)))
			}
			return nil
		}},
		{"one read row is removed", func(s *server, page int) []string {
			if page < 2 {
				return nil
			}
			s.remove(uid(page))
			return []string{uid(page)}
		}},
		{"the row at the border is removed", func(s *server, page int) []string {
			if page < 2 {
				return nil
			}
			// Whichever row the next page begins with: all about there go.
			var out []string
			for i := 98 * (page - 1); i < 98*(page-1)+4 && i < n; i++ {
				out = append(out, uid(i))
			}
			s.remove(out...)
			return out
		}},
		{"a whole page of read rows is removed", func(s *server, page int) []string {
			if page != 4 {
				return nil
			}
			var out []string
			for i := range 150 {
				out = append(out, uid(i))
			}
			s.remove(out...)
			return out
		}},
		{"everything read is removed", func(s *server, page int) []string {
			if page != 4 {
				return nil
			}
			var out []string
			for i := range 300 {
				out = append(out, uid(i))
			}
			s.remove(out...)
			return out
		}},
		{"unread rows are removed", func(s *server, page int) []string {
			if page != 2 {
				return nil
			}
			var out []string
			for i := 150; i < 350; i++ {
				out = append(out, uid(i))
			}
			s.remove(out...)
			return out
		}},
		{"everything is removed", func(s *server, page int) []string {
			if page != 3 {
				return nil
			}
			var out []string
			for i := range n {
				out = append(out, uid(i))
			}
			s.remove(out...)
			return out
		}},
		{"read rows move to the front", func(s *server, page int) []string {
			now := s.advance(time.Second)
			for i := range 20 {
				s.change(uid(page*5+i), func(w *row) { to(edges.StatusFailed)(w, now) })
			}
			return nil
		}},
		{"unread rows move to the front", func(s *server, page int) []string {
			now := s.advance(time.Second)
			for i := range 20 {
				s.change(uid(n-1-page*25-i), func(w *row) { to(edges.StatusFailed)(w, now) })
			}
			return nil
		}},
		{"the rows about the border move to the front", func(s *server, page int) []string {
			if page < 2 {
				return nil
			}
			now := s.advance(time.Second)
			for i := 98*(page-1) - 2; i < 98*(page-1)+4 && i < n; i++ {
				s.change(uid(i), func(w *row) { to(edges.StatusFailed)(w, now) })
			}
			return nil
		}},
		{"some come, some go, some move", func(s *server, page int) []string {
			now := s.advance(time.Second)
			s.put(fresh(1000+page, now), fresh(2000+page, now))
			s.change(uid(n-page), func(w *row) { to(edges.StatusStopped)(w, now) })
			var out []string
			for i := range 9 {
				out = append(out, uid(20+page*9+i))
			}
			s.remove(out...)
			return out
		}},
	}
	for _, c := range cases {
		for _, pages := range []int{0, 1, 3} {
			t.Run(fmt.Sprintf("%s/pages=%d", c.name, pages), func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				for i := range n {
					r.srv.put(past(i))
				}
				var removed []string
				page := pageNumber()
				r.srv.between(func(_ int, q url.Values) {
					if k := page(q); k > 0 && k <= 12 {
						removed = append(removed, c.at(r.srv, k)...)
					}
				})
				r.pages = pages
				for range 30 {
					r.srv.advance(time.Second)
					r.poll()
				}
				r.srv.between(nil)
				r.settle()
				r.exact(removed...)
				if got := r.scrape(); got.sum("edges_backfill_complete") != 1 {
					t.Error("the backfill is not complete")
				}
			})
		}
	}
}

// Ties: bulk updates give many rows one updated_at.
func TestTies(t *testing.T) {
	for _, size := range []int{2, 99, 100, 101, 150, 250, 1000} {
		for _, shuffled := range []bool{false, true} {
			for _, lead := range []int{0, 1, 60, 99, 100} {
				t.Run(fmt.Sprintf("%d rows after %d/shuffled=%v", size, lead, shuffled), func(t *testing.T) {
					t.Parallel()
					r := newRig(t)
					if shuffled {
						r.srv.ties = rand.New(rand.NewPCG(1, uint64(size+lead)))
					}
					for i := range lead {
						r.srv.put(past(i))
					}
					tied := past(lead).updated
					for i := range size {
						w := past(lead + i)
						w.updated = tied
						r.srv.put(w)
					}
					for i := range 120 {
						r.srv.put(past(lead + size + i))
					}
					if !shuffled || size <= 100 {
						r.poll()
						r.settle()
						r.exact()
						return
					}
					// Pages of a group that is larger than a page, in an order
					// that is new in each answer, need not show every row. All
					// others must be there, and at a fair cost.
					r.pages = 60
					for range 20 {
						r.srv.advance(31 * time.Second)
						r.poll()
					}
					for _, b := range r.behind(start) {
						if !strings.Contains(b, tied.Format(time.TimeOnly)) {
							t.Error(b)
							break
						}
					}
					if got := r.scrape(); got.sum("edges_backfill_complete") != 1 {
						t.Error("the backfill does not end")
					}
				})
			}
		}
	}
}

// A bulk update after T0, larger than a page.
func TestBulkUpdate(t *testing.T) {
	for _, size := range []int{100, 150, 250, 700} {
		for _, pages := range []int{0, 1, 2} {
			t.Run(fmt.Sprintf("%d rows/pages=%d", size, pages), func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				for i := range 800 {
					r.srv.put(past(i))
				}
				r.settle()
				r.pages = pages
				now := r.srv.advance(10 * time.Second)
				for i := range size {
					r.srv.change(uid(i), func(w *row) { to(edges.StatusFailed)(w, now) })
				}
				for range 20 {
					r.srv.advance(5 * time.Second)
					r.poll()
				}
				r.settle()
				got := r.exact()
				if failed := got.sum("edges_run_transitions_total", "status=FAILED"); failed != float64(size) {
					t.Errorf("%v runs failed, want %d", failed, size)
				}
			})
		}
	}
}

// Rows without updated_at may stand first, last, or where created_at puts them.
func TestNullUpdatedAt(t *testing.T) {
	for name, nulls := range map[string]nullOrder{"first": nullsFirst, "last": nullsLast, "by created_at": nullsByCreated} {
		for _, size := range []int{1, 99, 100, 101, 250} {
			for _, pages := range []int{0, 1} {
				t.Run(fmt.Sprintf("%d %s/pages=%d", size, name, pages), func(t *testing.T) {
					t.Parallel()
					r := newRig(t)
					r.srv.nulls = nulls
					for i := range 300 {
						r.srv.put(past(i))
					}
					r.poll()
					r.pages = pages
					now := r.srv.advance(10 * time.Second)
					for i := range size {
						r.srv.put(row{uid: uid(1000 + i), action: "new", mode: "ASYNC", status: "CREATED", created: now.Add(-time.Duration(i) * time.Millisecond)})
					}
					for i := range 30 {
						r.srv.put(fresh(2000+i, now.Add(-time.Duration(i)*10*time.Millisecond)))
					}
					for range 20 {
						r.srv.advance(5 * time.Second)
						r.poll()
					}
					if nulls != nullsLast { // there they are seen once they are updated
						r.settle()
						r.exact()
						if got := r.look(); got.sum("edges_runs_created_total", "action=new") != float64(size) {
							t.Errorf("%v runs are made, want %d", got.sum("edges_runs_created_total", "action=new"), size)
						}
					}
					// They get their updated_at, and with it their place.
					now = r.srv.advance(time.Minute)
					for i := range size {
						r.srv.change(uid(1000+i), func(w *row) { to(edges.StatusFailed)(w, now.Add(-time.Duration(i)*time.Millisecond)) })
					}
					for range 20 {
						r.srv.advance(5 * time.Second)
						r.poll()
					}
					r.settle()
					got := r.exact()
					got.want(t, samples{
						"edges_runs_created_total{action=new,mode=ASYNC}":                  float64(size),
						"edges_run_transitions_total{action=new,mode=ASYNC,status=FAILED}": float64(size),
					})
				})
			}
		}
	}
}

// The first start meets a list whose first pages have no updated_at at all.
func TestNullUpdatedAtAtFirst(t *testing.T) {
	for _, gone := range []int{0, 50, 120} {
		t.Run(fmt.Sprintf("%d get theirs between two pages", gone), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.srv.nulls = nullsFirst
			for i := range 150 {
				r.srv.put(row{uid: uid(1000 + i), action: "new", mode: "ASYNC", status: "CREATED", created: start.Add(-time.Duration(i) * time.Second)})
			}
			for i := range 300 {
				r.srv.put(past(i))
			}
			page := pageNumber()
			r.srv.between(func(_ int, q url.Values) {
				if page(q) != 2 {
					return
				}
				for i := range gone {
					r.srv.change(uid(1000+i), func(w *row) { w.updated = start.Add(-24 * time.Hour) })
				}
			})
			r.poll()
			r.srv.between(nil)
			r.settle()
			r.exact()
		})
	}
}

// A row may become visible after its updated_at, by up to the overlap.
func TestLateCommits(t *testing.T) {
	for _, late := range []time.Duration{time.Second, 10 * time.Second, 29 * time.Second, 30 * time.Second} {
		for _, busy := range []int{0, 40, 130} {
			t.Run(fmt.Sprintf("%s late/%d others a poll", late, busy), func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				for i := range 150 {
					r.srv.put(past(i))
				}
				r.settle()
				next := 1000
				for i := range 40 {
					now := r.srv.advance(5 * time.Second)
					w := fresh(500+i, now)
					w.action, w.shown = "late", now.Add(late)
					r.srv.put(w)
					r.srv.change(uid(i), func(w *row) { to(edges.StatusFailed)(w, now); w.action = "late"; w.shown = now.Add(late) })
					for range busy {
						r.srv.put(fresh(next, now.Add(-time.Duration(next%5000)*time.Millisecond)))
						next++
					}
					r.poll()
				}
				r.settle()
				got := r.exact()
				got.want(t, samples{
					"edges_run_transitions_total{action=late,mode=ASYNC,status=SUCCEEDED}": 40,
					"edges_run_transitions_total{action=late,mode=ASYNC,status=FAILED}":    40,
				})
			})
		}
	}
}

// One row stamped in the future hides no others, and neither do a hundred.
func TestStampsInTheFuture(t *testing.T) {
	for _, size := range []int{1, 99, 150} {
		t.Run(fmt.Sprintf("%d rows", size), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			for i := range 300 {
				r.srv.put(past(i))
			}
			r.poll()
			for i := range size {
				w := fresh(1000+i, start)
				w.updated = start.Add(time.Duration(i+1) * time.Hour)
				r.srv.put(w)
			}
			for i := range 200 {
				r.srv.put(fresh(2000+i, r.srv.advance(time.Second)))
				if i%10 == 0 {
					r.poll()
					if b := r.behind(r.srv.clock()); len(b) > 0 {
						t.Fatalf("after the poll %d runs are missing, such as %s", len(b), b[0])
					}
				}
			}
			r.settle()
			r.exact()
			if w := r.scrape().sum("edges_poll_watermark_timestamp_seconds"); w > float64(r.srv.clock().Unix()) {
				t.Errorf("the watermark is %s ahead of the clock", time.Duration((w-float64(r.srv.clock().Unix()))*1e9))
			}
		})
	}
}

// The second sort may be ignored, Date may be missing, and pages may be small
// because answers would be too large: it is all the same list.
func TestOtherServers(t *testing.T) {
	cases := map[string]func(r *rig){
		"ties in no order": func(r *rig) { r.srv.ties = rand.New(rand.NewPCG(7, 7)) },
		"large rows": func(r *rig) {
			r.srv.between(func(int, url.Values) {})
			for i := range 60 {
				w := past(i)
				w.raw = strings.Replace(string(encodeRow(&w)), `"query":"x"`, `"query":"`+strings.Repeat("x", 300_000)+`"`, 1)
				w.encoded = []byte(w.raw)
				w.raw = ""
				r.srv.put(w)
			}
		},
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			for i := range 450 {
				w := past(i)
				w.updated = w.updated.Truncate(3 * time.Minute)
				r.srv.put(w)
			}
			change(r)
			r.poll()
			r.settle()
			r.exact()
		})
	}
}

// More garbage than a page holds, in front of the list, within it, or in the
// middle of a bulk of ties, does not stop the good rows behind it.
func TestGarbageWithinTheList(t *testing.T) {
	for _, raw := range []string{`{}`, `null`, `17`, `"x"`, `[]`, `{"uid":null,"status":"FAILED"}`, `{"uid":"5e000000-0000-4000-8000-0000000f%04x","updated_at":"yesterday"}`} {
		for _, size := range []int{1, 99, 100, 101, 350} {
			for _, place := range []int{0, 50, 150} {
				t.Run(fmt.Sprintf("%d of %s after %d", size, raw, place), func(t *testing.T) {
					t.Parallel()
					r := newRig(t)
					for i := range 400 {
						w := past(i)
						if i >= 130 && i < 170 {
							w.updated = past(130).updated
						}
						r.srv.put(w)
					}
					at := past(place).updated.Add(time.Nanosecond)
					for i := range size {
						w := row{uid: uid(0xf0000 + i), updated: at, raw: raw}
						if strings.Contains(raw, "%") {
							w.raw = fmt.Sprintf(raw, i)
						}
						r.srv.put(w)
					}
					r.poll()
					r.settle()
					r.exact()
					if got := r.scrape(); got.sum("edges_backfill_complete") != 1 {
						t.Error("the backfill does not end")
					}
				})
			}
		}
	}
}

// A workspace that was empty, or quiet for long, and then gets more runs than a
// poll may read: the watermark stays where it was.
func TestWatermarkOfABurst(t *testing.T) {
	for name, before := range map[string]int{"empty": 0, "quiet": 50} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			for i := range before {
				r.srv.put(past(1000 + i))
			}
			r.poll()
			old := r.scrape().sum("edges_poll_watermark_timestamp_seconds")
			if old != float64(start.Add(-r.cfg.PollOverlap).Unix()) {
				t.Errorf("the watermark is %v at T0, want T0 less the overlap", old)
			}
			r.pages = 1
			now := r.srv.advance(10 * time.Second)
			for i := range 500 {
				r.srv.put(fresh(i, now.Add(-time.Duration(i)*time.Millisecond)))
			}
			for range 10 {
				r.poll()
				if w := r.scrape().sum("edges_poll_watermark_timestamp_seconds"); w < old {
					t.Fatalf("the watermark goes back by %s", time.Duration((old-w)*1e9))
				}
			}
			r.settle()
			r.exact()
		})
	}
}
