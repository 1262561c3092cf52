package simulator

import (
	"math/rand/v2"
	"time"
)

// rhythm is how busy people are, by hour of a working day.
var rhythm = [24]float64{
	0.12, 0.08, 0.06, 0.06, 0.08, 0.15, 0.35, 0.80, 1.60, 2.30, 2.50, 2.30,
	1.60, 2.00, 2.40, 2.40, 2.20, 1.80, 1.10, 0.70, 0.50, 0.40, 0.30, 0.20,
}

const (
	// rhythmMean is the mean of rhythm over a working day.
	rhythmMean = 26.0 / 24
	// weekend is how busy Saturday and Sunday are, against a working day.
	weekend = 0.3
	// busiest is more than people are ever busy.
	busiest = 3.0
)

// busy returns how busy people are at t, against the mean of a week; from hour
// to hour it changes little by little.
func busy(t time.Time) float64 {
	h, into := t.Hour(), float64(t.Minute())/60
	v := rhythm[h]*(1-into) + rhythm[(h+1)%24]*into
	if d := t.Weekday(); d == time.Saturday || d == time.Sunday {
		v *= weekend
	}
	return v / (rhythmMean * (5 + 2*weekend) / 7)
}

// busy is the same for an action, which may follow people's day only in part,
// in a workspace, which may have no rhythm at all.
func (w *Workspace) busy(a *action, at int64) float64 {
	if w.config.NoRhythm {
		return 1
	}
	return a.steady + (1-a.steady)*busy(w.local(at))
}

// officeTime moves t to a time at which somebody works: as it is on a working
// day between 8 and 19 o'clock, else to the next morning.
func officeTime(t time.Time, rng *rand.Rand) time.Time {
	morning := 8*60 + rng.IntN(150)
	for {
		day := t.Weekday() != time.Saturday && t.Weekday() != time.Sunday
		if day && t.Hour() >= 8 && t.Hour() < 19 {
			return t
		}
		next := time.Date(t.Year(), t.Month(), t.Day(), 0, morning, 0, 0, t.Location())
		if t.Hour() >= 8 {
			next = next.AddDate(0, 0, 1)
		}
		t = next
	}
}
