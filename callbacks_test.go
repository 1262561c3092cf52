package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
	"github.com/edges-exporter/edges_exporter/edges/simulator"
)

// expectedCallbacks computes from the truth what a perfect exporter shows of the
// callbacks of a workspace that it has followed since the moment of before.
func expectedCallbacks(before, truth simulator.Truth) samples {
	out := samples{"edges_callbacks_pending{}": 0, "edges_callback_retries_total{}": 0}
	then := map[string]simulator.Callback{}
	for _, c := range before.Callbacks {
		then[c.UID] = c
	}
	for _, c := range truth.Callbacks {
		old, known := then[c.UID]
		if known && old.Status.Ended() {
			continue
		}
		out["edges_callback_retries_total{}"] += float64(c.RetryCount - old.RetryCount)
		if !c.Status.Ended() {
			out["edges_callbacks_pending{}"]++
			continue
		}
		code := "none"
		if c.HTTPStatus != 0 {
			code = fmt.Sprint(c.HTTPStatus)
		}
		out[series("edges_callbacks_total", map[string]string{"status": string(c.Status), "code": code})]++
	}
	return out
}

// 1,000 callbacks, of which 7 % fail, and some that were on their way at the
// first start, are counted exactly over three crashes in the middle of their
// reading.
func TestCallbacksExactOverCrashes(t *testing.T) {
	w := newWorld(t, simulator.Config{Seed: 5, History: 24 * time.Hour, HistoryRunsPerDay: 400, RunsPerDay: simulator.None})
	w.trouble(t, "callbacks-failing:share=0.07")
	run := simulator.Run{Action: "linkedin-extract-people", Mode: edges.ModeAsync, Status: edges.StatusSucceeded}
	deliver := func(n int) {
		t.Helper()
		for range n {
			if _, err := w.Deliver(w.Put(run)); err != nil {
				t.Fatal(err)
			}
		}
	}
	deliver(45)
	w.before = w.Truth()
	exporter := func() *process { return w.exporter(t, "--log.level=warn") }
	p := exporter()
	o, stop := w.watch(t.Context())
	w.await(t, "edges_callbacks_pending{}", func(v float64) bool { return v == 45 })
	w.trouble(t, "slow:delay=10ms", "errors:share=0.03", "cut:share=0.03")
	w.live(t)
	// What is made in the millisecond of the first answer is of the past.
	w.clock.Advance(time.Second)
	for i := range 3 {
		deliver(300 + 55*(i/2))
		// To read them all takes 15 requests.
		for last := w.requestCount() + 6 + i; w.requestCount() < last; {
			time.Sleep(time.Millisecond)
		}
		p.kill()
		// While nobody looks, many end.
		w.clock.Advance(time.Minute)
		p = exporter()
	}
	// What fails is tried again for 7 minutes.
	for range 30 {
		w.clock.Advance(20 * time.Second)
		time.Sleep(100 * time.Millisecond)
	}
	w.ClearTrouble()
	w.freeze()
	want := expectedCallbacks(w.before, w.Truth())
	var wrong []string
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		got, err := w.scrape(t.Context())
		if err != nil {
			wrong = []string{err.Error()}
			continue
		}
		if wrong = difference(want, got); len(wrong) == 0 {
			for name, v := range got {
				if strings.HasPrefix(name, "edges_callbacks_total{") && v != want[name] {
					wrong = append(wrong, fmt.Sprintf("%s is %v, the truth is %v", name, v, want[name]))
				}
			}
		}
		wrong = onlyCallbacks(wrong)
		if len(wrong) == 0 {
			break
		}
	}
	for _, line := range wrong {
		t.Error(line)
	}
	if t.Failed() {
		t.Logf("the exporter wrote:\n%.4000s", p.output)
	}
	stop()
	o.check(t)
	failed := want[series("edges_callbacks_total", map[string]string{"status": "FAILED", "code": "500"})]
	if failed < 40 || failed > 130 {
		t.Errorf("%v of 1,000 callbacks failed", failed)
	}
	t.Logf("%v", want)
}

// onlyCallbacks leaves out what is said about other series.
func onlyCallbacks(lines []string) []string {
	var out []string
	for _, line := range lines {
		if strings.HasPrefix(line, "edges_callback") {
			out = append(out, line)
		}
	}
	return out
}
