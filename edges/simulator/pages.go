package simulator

import "slices"

// cutPage sorts what a list holds, and cuts out the part that is asked for.
// What is equal in all sorts stays in its order.
func cutPage[T any](all []T, part part, by func(field string) func(a, b T) int) []T {
	if len(part.sort) > 0 {
		compares := make([]func(a, b T) int, len(part.sort))
		for i, k := range part.sort {
			compares[i] = by(k.field)
		}
		slices.SortStableFunc(all, func(a, b T) int {
			for i, compare := range compares {
				if d := compare(a, b); d != 0 {
					if part.sort[i].descend {
						return -d
					}
					return d
				}
			}
			return 0
		})
	}
	from := min(part.offset, len(all))
	return all[from:min(from+part.limit, len(all))]
}

// writePage writes a list as the API does.
func writePage[T any](page []T, write func([]byte, T) []byte) []byte {
	b := []byte{'['}
	for i, row := range page {
		if i > 0 {
			b = append(b, ',')
		}
		b = write(b, row)
	}
	return append(b, ']')
}
