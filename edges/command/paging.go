package command

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/edges-exporter/edges_exporter/edges"
)

// maxPage is the most rows that the API gives in one answer.
const maxPage = 100

// pager reads a list to its end although it moves meanwhile: each part overlaps
// the one before, and where the two do not meet, since rows have gone, it steps
// back until they do. No row is given twice.
type pager[T any] struct {
	fetch func(ctx context.Context, limit, offset int) (edges.RawPage[T], error)
	uid   func(T) string
	// size is how many rows are asked for at once.
	size int
	// note is called before each request.
	note func()
	// seen are the rows that were given, by a hash: a list may have a million.
	seen map[[16]byte]struct{}
}

// Why a list cannot be read.
var (
	errTooLarge = errors.New("rows are too large to be read")
	errEndless  = errors.New("the API answers the same rows again and again")
)

// maxSame is how many parts in a row may begin with the same row. That takes a
// part's length of new rows at the front between two requests.
const maxSame = 5

// read reads from the front of the list, and gives each part to visit, with which
// of its rows have not been given yet, until that wants no more or the list ends.
// answers is how many there were.
func (p *pager[T]) read(ctx context.Context, visit func(page edges.RawPage[T], fresh []bool) (more bool, err error)) (answers int, err error) {
	offset, back, same := 0, 0, 0
	var before [16]byte
	for size := p.size; ; {
		p.note()
		page, err := p.fetch(ctx, size, offset)
		if errors.Is(err, edges.ErrTooLarge) {
			if size <= 2 {
				return answers, fmt.Errorf("%w: %w", errTooLarge, err)
			}
			size = max(2, size/2) // with one alone, parts could not overlap
			continue
		}
		if err != nil {
			return answers, err
		}
		answers++
		if offset > 0 && !p.joins(page) {
			back = max(2*back, p.overlap(size))
			offset = max(0, offset-back)
			continue
		}
		back = 0
		more, err := visit(page, p.fresh(page))
		if err != nil || !more || len(page.Rows) < size {
			return answers, err
		}
		begin := p.identity(page.Rows[0], page.JSON[0])
		if same++; begin != before {
			same = 0
		}
		if before = begin; same == maxSame {
			return answers, errEndless
		}
		offset += len(page.Rows) - p.overlap(size)
		size = min(p.size, 2*size)
	}
}

// overlap is how many rows of a part are asked for again with the next: as many
// may go from the list meanwhile without a step back.
func (*pager[T]) overlap(size int) int {
	return min(size-1, max(1, size/10))
}

// joins reports whether a part begins with what is known.
func (p *pager[T]) joins(page edges.RawPage[T]) bool {
	if len(page.Rows) == 0 {
		return false
	}
	_, known := p.seen[p.identity(page.Rows[0], page.JSON[0])]
	return known
}

// fresh tells which rows of a part have not been given yet, which they are now.
func (p *pager[T]) fresh(page edges.RawPage[T]) []bool {
	fresh := make([]bool, len(page.Rows))
	for i, row := range page.Rows {
		identity := p.identity(row, page.JSON[i])
		_, known := p.seen[identity]
		fresh[i] = !known
		p.seen[identity] = struct{}{}
	}
	return fresh
}

// identity is by the uid, or by all that the row has where it has none.
func (p *pager[T]) identity(row T, raw json.RawMessage) [16]byte {
	text := []byte(p.uid(row))
	if len(text) == 0 {
		text = raw
	}
	sum := sha256.Sum256(text)
	return [16]byte(sum[:16])
}
