package simulator

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

// A ranking is what sorting would give, whatever is put in and taken out where.
func TestRankingAgainstSorting(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	order := func(a, b *run) int { return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(a.ord, b.ord)) }
	k := ranking{cmp: order}
	var model []*run
	fresh := func(n uint64) *run { return &run{ord: n, row: row{created: rng.Int64N(5000)}} }
	for n := range uint64(15_000) {
		switch u := rng.IntN(100); {
		case u < 1 && n%3 == 0:
			var many []*run
			for i := range uint64(120) {
				many = append(many, fresh(1_000_000+n*1000+i))
			}
			k.insertAll(many)
			model = append(model, many...)
			slices.SortFunc(model, order)
		case u < 45 || len(model) == 0:
			r := fresh(n)
			k.insert(r)
			i, _ := slices.BinarySearchFunc(model, r, order)
			model = slices.Insert(model, i, r)
		case u < 60: // from the front, as retention does
			k.remove(model[0])
			model = model[1:]
		default:
			i := rng.IntN(len(model))
			k.remove(model[i])
			model = slices.Delete(model, i, i+1)
		}
		if n > 7_500 && n%3 == 0 && len(model) > 0 { // shrink again
			k.remove(model[len(model)/2])
			model = slices.Delete(model, len(model)/2, len(model)/2+1)
		}
		if k.len() != len(model) {
			t.Fatalf("step %d: %d runs, want %d", n, k.len(), len(model))
		}
		if n%200 == 0 {
			for i, r := range model {
				if k.at(i) != r {
					t.Fatalf("step %d: another run at %d", n, i)
				}
			}
		}
	}
	k.remove(fresh(99))
	if k.len() != len(model) {
		t.Error("a run that is not there was removed")
	}
}

func TestAgendaIsInOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var a agenda
	for range 5000 {
		a.push(event{at: rng.Int64N(300)})
	}
	var last event
	for n := range 5000 {
		if e, ok := a.pop(last.at - 1); ok {
			t.Fatalf("an event at %d came before its time", e.at)
		}
		e, ok := a.pop(1000)
		if !ok {
			t.Fatalf("only %d events", n)
		}
		if e.at < last.at || e.at == last.at && e.seq < last.seq {
			t.Fatalf("%+v after %+v", e, last)
		}
		last = e
	}
	if _, ok := a.pop(1000); ok {
		t.Error("one too many")
	}
}

func TestUUIDs(t *testing.T) {
	if got := uuid(0x0123456789abcdef, 0x0123456789abcdef); got != "01234567-89ab-4def-8123-456789abcdef" {
		t.Errorf("got %s", got)
	}
	if !isUUID(uuid(mix(1), mix(2))) || isUUID("01234567-89ab-4def-8123-456789abcdeg") || isUUID("01234567089ab-4def-8123-456789abcdef") {
		t.Error("isUUID is wrong")
	}
}
