package simulator_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
	"github.com/edges-exporter/edges_exporter/edges/simulator"
)

func benchWorkspace(b *testing.B, rows int) (*simulator.Workspace, *simulator.ManualClock) {
	b.Helper()
	clock := simulator.NewManualClock(start)
	w, err := simulator.New(simulator.Config{Seed: 1, Clock: clock, History: simulator.None, RunsPerDay: simulator.None, NoGzip: true})
	if err != nil {
		b.Fatal(err)
	}
	all := make([]simulator.Run, rows)
	for i := range all {
		at := start.Add(-time.Duration(rows-i) * 50 * time.Second)
		all[i] = simulator.Run{Action: "email-find", Mode: edges.ModeAsync, Status: edges.StatusSucceeded, CreatedAt: at, UpdatedAt: at.Add(time.Minute), StartedAt: at, FinishedAt: at.Add(time.Minute)}
	}
	w.PutAll(all)
	return w, clock
}

func BenchmarkListPage(b *testing.B) {
	w, _ := benchWorkspace(b, 100_000)
	for _, offset := range []int{0, 50_000} {
		b.Run(fmt.Sprintf("offset=%d", offset), func(b *testing.B) {
			r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, fmt.Sprintf("/v1/runs?limit=100&offset=%d&sort=-updated_at&sort=-created_at", offset), http.NoBody)
			r.Header.Set("X-Api-Key", simulator.DefaultAPIKey)
			for b.Loop() {
				rec := httptest.NewRecorder()
				w.ServeHTTP(rec, r)
				if rec.Code != http.StatusOK {
					b.Fatal(rec.Code)
				}
			}
		})
	}
}

// BenchmarkChange updates one of 100,000 runs, anywhere in the list.
func BenchmarkChange(b *testing.B) {
	w, clock := benchWorkspace(b, 100_000)
	runs := w.Truth().Runs
	i := 0
	for b.Loop() {
		clock.Advance(time.Millisecond)
		i = (i + 7919) % len(runs)
		if err := w.Change(runs[i].UID, func(r *simulator.Run) { r.OutputCount++ }); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSimulatedDay lets a day of ordinary life pass.
func BenchmarkSimulatedDay(b *testing.B) {
	clock := simulator.NewManualClock(start)
	w, err := simulator.New(simulator.Config{Seed: 1, Clock: clock})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		clock.Advance(24 * time.Hour)
		w.Now()
		w.AdvanceTo(clock.Now())
	}
	b.ReportMetric(float64(w.State().Runs), "runs")
}

// BenchmarkNew makes a workspace with its default past.
func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		if _, err := simulator.New(simulator.Config{Seed: 1, Clock: simulator.NewManualClock(start)}); err != nil {
			b.Fatal(err)
		}
	}
}
