package edges

import (
	"slices"
	"testing"
)

func TestStatuses(t *testing.T) {
	type kind struct{ ended, inFlight, problem bool }
	want := map[Status]kind{
		StatusCreated:          {inFlight: true},
		StatusQueued:           {inFlight: true},
		StatusScheduled:        {inFlight: true},
		StatusRunning:          {inFlight: true},
		StatusBlocked:          {problem: true},
		StatusStopped:          {ended: true},
		StatusSucceeded:        {ended: true},
		StatusPartialSucceeded: {ended: true, problem: true},
		StatusFailed:           {ended: true, problem: true},
		StatusInvalid:          {ended: true, problem: true},
		"PAUSED":               {},
		"":                     {},
	}
	for status, want := range want {
		if got := (kind{status.Ended(), status.InFlight(), status.Problem()}); got != want {
			t.Errorf("%q: got %+v, want %+v", status, got, want)
		}
		if documented := slices.Contains(Statuses(), status); documented != (want != kind{}) {
			t.Errorf("%q: documented is %v", status, documented)
		}
	}
	if len(Statuses()) != 10 {
		t.Errorf("%d statuses", len(Statuses()))
	}
}
