package collector

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
)

// A quiet workspace costs one request a poll, whatever its size.
func TestQuietWorkspaceCostsOneRequestAPoll(t *testing.T) {
	for _, n := range []int{0, 1, 99, 100, 101, 1000} {
		t.Run(fmt.Sprintf("%d runs", n), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			for i := range n {
				r.srv.put(past(i))
			}
			r.settle()
			r.srv.count()
			const polls = 50
			for range polls {
				r.srv.advance(15 * time.Second)
				r.poll()
			}
			if lists, audits := r.srv.count(); lists != polls || audits != 0 {
				t.Errorf("%d polls made %d list requests and %d audits", polls, lists, audits)
			}
		})
	}
}

// A workspace with less than a page of changes a poll costs one request too,
// and some more when the overlap is read again.
func TestLivelyWorkspaceCostsLittle(t *testing.T) {
	r := newRig(t)
	for i := range 500 {
		r.srv.put(past(i))
	}
	r.settle()
	r.srv.count()
	const polls = 60
	for i := range polls {
		now := r.srv.advance(15 * time.Second)
		for k := range 45 {
			r.srv.put(fresh(1000+i*45+k, now.Add(-time.Duration(k)*300*time.Millisecond)))
		}
		r.poll()
	}
	if lists, _ := r.srv.count(); lists > 2*polls {
		t.Errorf("%d polls made %d list requests", polls, lists)
	}
	r.settle()
	r.exact()
}

func TestCostOfBackfill(t *testing.T) {
	for name, pages := range map[string]int{"in one poll": 0, "five pages a poll": 5} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			const n = 20_000
			for i := range n {
				w := past(i)
				w.created, w.updated = start.Add(-time.Hour-time.Duration(i)*time.Minute), start.Add(-time.Duration(i)*time.Minute)
				r.srv.put(w)
			}
			r.pages = pages
			polls := 0
			for !r.c.State().BackfillComplete {
				if r.poll(); polls > n/100 {
					t.Fatal("the backfill does not end")
				}
				polls++
			}
			lists, _ := r.srv.count()
			if pages == 0 && float64(lists) > 1.03*n/100 {
				t.Errorf("the backfill of %d runs took %d requests, want at most %v", n, lists, 1.03*n/100)
			}
			// Each poll reads the front once; the rest is backfill.
			if backfill := lists - polls + 1; pages > 0 && float64(backfill) > 1.03*n/100 {
				t.Errorf("the backfill of %d runs took %d requests, want at most %v", n, backfill, 1.03*n/100)
			}
			t.Logf("%d runs, %d polls, %d requests", n, polls, lists)
			r.exact()
		})
	}
}

// A workspace that is busier than the budget: the newest runs are read first,
// the rest makes progress, and the watermark claims no more than is true.
func TestBusierThanTheBudget(t *testing.T) {
	for _, pages := range []int{1, 2, 3} {
		t.Run(fmt.Sprintf("pages=%d", pages), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			for i := range 500 {
				r.srv.put(past(i))
			}
			r.settle()
			r.pages = pages
			next := 5000
			held := 0
			for i := range 20 {
				now := r.srv.advance(15 * time.Second)
				for k := range 100*pages + 60 {
					r.srv.put(fresh(next, now.Add(-time.Duration(k)*15*time.Millisecond)))
					next++
				}
				r.poll()
				ledger := r.held()
				for k, w := range r.srv.visible()[:100] {
					if h, ok := ledger[w.uid]; !ok || h.updated != nanos(w.updated) {
						t.Fatalf("poll %d did not read row %d from the front", i, k)
					}
				}
				if len(ledger) <= held {
					t.Fatalf("poll %d made no progress", i)
				}
				held = len(ledger)
				mark := r.scrape().sum("edges_poll_watermark_timestamp_seconds")
				if b := r.behind(time.UnixMilli(int64(mark * 1000))); len(b) > 0 {
					t.Fatalf("the watermark is %v, but %s", mark, b[0])
				}
			}
			lag := float64(r.srv.clock().Unix()) - r.scrape().sum("edges_poll_watermark_timestamp_seconds")
			if lag < 60 {
				t.Errorf("the watermark is %v s behind after five minutes of too much", lag)
			}
			// The rush is over, and the same budget catches up, unless it is
			// only just enough to read the front.
			r.pages = max(2, pages)
			for range 200 {
				r.srv.advance(15 * time.Second)
				r.poll()
			}
			r.exact()
			lag = float64(r.srv.clock().Unix()) - r.scrape().sum("edges_poll_watermark_timestamp_seconds")
			if lag > 61 {
				t.Errorf("the watermark is still %v s behind", lag)
			}
		})
	}
}

// Ended runs of an hour ago do not cost more because they are touched again.
func TestTouchedRowsChangeNothing(t *testing.T) {
	r := newRig(t)
	for i := range 250 {
		r.srv.put(past(i))
	}
	before := r.settle()
	for range 5 {
		now := r.srv.advance(10 * time.Second)
		for i := range 250 {
			r.srv.change(uid(i), func(w *row) { w.updated = now })
		}
		r.poll()
	}
	after := r.settle()
	r.exact()
	for k, v := range after {
		if strings.HasPrefix(k, "edges_run") && before[k] != v {
			t.Errorf("%s goes from %v to %v", k, before[k], v)
		}
	}
}

// Failed requests cost no numbers: what was read before stays, the rest comes.
func TestFailingRequests(t *testing.T) {
	for name, trouble := range map[string]answerer{
		"500": status(500), "429": status(429), "403": status(403), "cut": cut, "html": text("<html>"),
		"empty": text(""), "object": text(`{"data":[]}`), "null": text("null"), "number": text("7"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			for i := range 700 {
				r.srv.put(past(i))
			}
			r.pages = 2
			r.poll()
			r.pages = 0
			r.srv.advance(time.Second)
			for at := 1; at <= 9; at++ {
				r.srv.mu.Lock()
				first := r.srv.requests
				r.srv.mu.Unlock()
				r.srv.trouble(func(n int, w writer, q *request) bool { return n == first+at && trouble(n, w, q) })
				err := r.tryPoll()
				r.srv.calm()
				if err == nil && at == 1 {
					t.Errorf("a poll with answer %q succeeds", name)
				}
				now := r.srv.advance(time.Second)
				up := r.scrape().sum("edges_up")
				if (err == nil) != (up == 1) {
					t.Errorf("edges_up is %v after %v", up, err)
				}
				r.srv.change(uid(at), func(w *row) { to(edges.StatusFailed)(w, now) })
			}
			r.settle()
			got := r.exact()
			if failed := got.sum("edges_run_transitions_total", "status=FAILED"); failed != 9 {
				t.Errorf("%v runs failed, want 9", failed)
			}
			if got.sum("edges_polls_total", "result=error") == 0 || got.sum("edges_up") != 1 {
				t.Errorf("polls that failed: %v, up: %v", got.sum("edges_polls_total", "result=error"), got.sum("edges_up"))
			}
		})
	}
}
