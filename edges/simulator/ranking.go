package simulator

import (
	"slices"
	"sort"
)

// ranking is a set of runs in the order of cmp, with access by position. It is
// a plain slice: nearly every change takes a run from near the end and puts it
// at the end, and moving pointers about is cheaper than any tree up to a
// million runs. Room at the front makes retention, which takes from there, as
// cheap.
type ranking struct {
	cmp   func(a, b *run) int
	items []*run
	head  int
}

func (k *ranking) len() int { return len(k.items) - k.head }

func (k *ranking) at(i int) *run { return k.items[k.head+i] }

// search returns the index in items of r, or where it would stand.
func (k *ranking) search(r *run) int {
	return k.head + sort.Search(k.len(), func(i int) bool { return k.cmp(k.items[k.head+i], r) >= 0 })
}

func (k *ranking) insert(r *run) {
	if n := len(k.items); n == k.head || k.cmp(k.items[n-1], r) < 0 {
		k.items = append(k.items, r)
		return
	}
	i := k.search(r)
	if k.head > 0 && i-k.head < len(k.items)-i {
		copy(k.items[k.head-1:], k.items[k.head:i])
		k.head--
		k.items[i-1] = r
		return
	}
	k.items = append(k.items, nil)
	copy(k.items[i+1:], k.items[i:])
	k.items[i] = r
}

// insertAll puts many runs in at once.
func (k *ranking) insertAll(runs []*run) {
	if len(runs) < 100 {
		for _, r := range runs {
			k.insert(r)
		}
		return
	}
	k.items = append(k.items, runs...)
	slices.SortFunc(k.items[k.head:], k.cmp)
}

// remove takes r out; it must still have the keys that it was inserted with.
func (k *ranking) remove(r *run) {
	i := k.search(r)
	if i >= len(k.items) || k.items[i] != r {
		return
	}
	if i-k.head < len(k.items)-i {
		copy(k.items[k.head+1:], k.items[k.head:i])
		k.items[k.head] = nil
		k.head++
		// The room at the front is given back before it is larger than what
		// is used.
		if k.head > 1024 && k.head > k.len() {
			k.items = append([]*run(nil), k.items[k.head:]...)
			k.head = 0
		}
		return
	}
	copy(k.items[i:], k.items[i+1:])
	k.items[len(k.items)-1] = nil
	k.items = k.items[:len(k.items)-1]
}
