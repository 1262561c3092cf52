package simulator

import (
	"cmp"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/edges-exporter/edges_exporter/edges"
)

// The bounds of the list.
const (
	defaultLimit = 10
	maxLimit     = 100
	maxSorts     = 10
	maxSortChars = 128
)

// query is a request for a page of the list.
type query struct {
	status, action, mode []string
	uid, user            []string
	flow                 []int64
	part
}

// part is which part of a list is asked for, in which order.
type part struct {
	limit, offset int
	sort          []sortKey
}

type sortKey struct {
	field   string
	descend bool
}

// parseQuery reads the parameters of GET /v1/runs. Those that it does not know
// are ignored, like workspace_uid: a key belongs to one workspace anyway.
func (w *Workspace) parseQuery(v url.Values) (query, *problem) {
	q := query{action: v["action_name"]}
	refuse := func(param, format string, args ...any) (query, *problem) {
		return query{}, invalid(param, fmt.Sprintf(format, args...))
	}
	for _, s := range v["status"] {
		if !slices.Contains(edges.Statuses(), edges.Status(s)) {
			return refuse("status", "%q is not a status", s)
		}
		q.status = append(q.status, s)
	}
	for _, m := range v["execution_mode"] {
		if m != edges.ModeLive && m != edges.ModeAsync {
			return refuse("execution_mode", "%q is not LIVE or ASYNC", m)
		}
		q.mode = append(q.mode, m)
	}
	for _, u := range v["uid"] {
		if w.byUID[u] == nil && !isUUID(u) {
			return refuse("uid", "%q is not a UUID", u)
		}
		q.uid = append(q.uid, u)
	}
	for _, u := range v["user_uid"] {
		if !isUUID(u) {
			return refuse("user_uid", "%q is not a UUID", u)
		}
		q.user = append(q.user, u)
	}
	for _, f := range v["flow_run_id"] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return refuse("flow_run_id", "%q is not an integer", f)
		}
		q.flow = append(q.flow, n)
	}
	var p *problem
	if q.part, p = parsePart(v, maxLimit, func(field string) bool { return sortField(field) != nil }); p != nil {
		return query{}, p
	}
	return q, nil
}

// parsePart reads which part of a list is asked for, in which order.
func parsePart(v url.Values, most int, sortable func(field string) bool) (part, *problem) {
	var q part
	var p *problem
	if q.limit, p = intParameter(v, "limit", defaultLimit, 1, most); p != nil {
		return part{}, p
	}
	if q.offset, p = intParameter(v, "offset", 0, 0, 1<<53); p != nil {
		return part{}, p
	}
	if len(v["sort"]) > maxSorts {
		return part{}, invalid("sort", fmt.Sprintf("more than %d sorts", maxSorts))
	}
	for _, s := range v["sort"] {
		field, descend := strings.CutPrefix(s, "-")
		if utf8.RuneCountInString(s) > maxSortChars {
			return part{}, invalid("sort", fmt.Sprintf("longer than %d characters", maxSortChars))
		}
		if !sortable(field) {
			return part{}, invalid("sort", fmt.Sprintf("cannot sort by %q", field))
		}
		q.sort = append(q.sort, sortKey{field, descend})
	}
	return q, nil
}

// intParameter reads a parameter that may be given once.
func intParameter(v url.Values, name string, otherwise, least, most int) (int, *problem) {
	values, given := v[name]
	if !given {
		return otherwise, nil
	}
	n, err := strconv.Atoi(values[len(values)-1])
	if err != nil {
		p := invalid(name, name+" must be an integer")
		p.code = http.StatusBadRequest
		return 0, p
	}
	if n < least || n > most {
		return 0, invalid(name, fmt.Sprintf("%s must be from %d to %d", name, least, most))
	}
	return n, nil
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch i {
		case 8, 13, 18, 23:
			if s[i] != '-' {
				return false
			}
		default:
			if !strings.ContainsRune("0123456789abcdefABCDEF", rune(s[i])) {
				return false
			}
		}
	}
	return true
}

func (q *query) filtered() bool {
	return len(q.status)+len(q.action)+len(q.mode)+len(q.uid)+len(q.user)+len(q.flow) > 0
}

func (q *query) matches(r *run) bool {
	s := r.shown
	return (len(q.status) == 0 || slices.Contains(q.status, string(s.status))) &&
		(len(q.action) == 0 || slices.Contains(q.action, s.action.name)) &&
		(len(q.mode) == 0 || slices.Contains(q.mode, s.mode)) &&
		(len(q.uid) == 0 || slices.Contains(q.uid, r.uid)) &&
		(len(q.user) == 0 || slices.Contains(q.user, s.user)) &&
		(len(q.flow) == 0 || slices.Contains(q.flow, s.flow))
}

// sortField returns how two runs compare in a field, or nil for a field that
// the list cannot be sorted by.
func sortField(name string) func(w *Workspace, a, b *run) int {
	times := func(of func(*row) int64) func(*Workspace, *run, *run) int {
		return func(_ *Workspace, a, b *run) int { return cmp.Compare(of(a.shown), of(b.shown)) }
	}
	switch name {
	case "updated_at":
		return func(w *Workspace, a, b *run) int {
			return cmp.Compare(a.shown.order(w.config.NullsFirst), b.shown.order(w.config.NullsFirst))
		}
	case "created_at":
		return times(func(s *row) int64 { return s.created })
	case "started_at":
		return times(func(s *row) int64 { return s.started })
	case "finished_at":
		return times(func(s *row) int64 { return s.finished })
	case "postponed_until":
		return times(func(s *row) int64 { return s.postponed })
	case "id":
		return times(func(s *row) int64 { return s.id })
	case "retry_count":
		return times(func(s *row) int64 { return s.retries })
	case "output_count":
		return times(func(s *row) int64 { return s.outputs })
	case "uid":
		return func(_ *Workspace, a, b *run) int { return strings.Compare(a.uid, b.uid) }
	case "status":
		return func(_ *Workspace, a, b *run) int { return cmp.Compare(a.shown.status, b.shown.status) }
	case "action_name":
		return func(_ *Workspace, a, b *run) int { return strings.Compare(a.shown.action.name, b.shown.action.name) }
	case "execution_mode":
		return func(_ *Workspace, a, b *run) int { return strings.Compare(a.shown.mode, b.shown.mode) }
	}
	return nil
}

// sequence is a sorted list of runs with access by position.
type sequence struct {
	len int
	at  func(int) *run
	// same reports whether two runs have equal sort keys.
	same func(a, b *run) bool
}

// list returns the runs that the query asks for, in its order.
func (w *Workspace) list(q *query) sequence {
	ranked, descend, isRanked := w.rankedBy(q.sort)
	keys := q.sort
	if len(keys) == 0 {
		keys = []sortKey{{"created_at", true}}
	}
	compares := make([]func(*Workspace, *run, *run) int, len(keys))
	for i, k := range keys {
		compares[i] = sortField(k.field)
	}
	compare := func(a, b *run) int {
		for i, c := range compares {
			if d := c(w, a, b); d != 0 {
				if keys[i].descend {
					return -d
				}
				return d
			}
		}
		return 0
	}
	same := func(a, b *run) bool { return compare(a, b) == 0 }

	if isRanked && len(q.uid) == 0 {
		at := ranked.at
		if descend {
			last := ranked.len() - 1
			at = func(i int) *run { return ranked.at(last - i) }
		}
		if !q.filtered() {
			return sequence{ranked.len(), at, same}
		}
		var found []*run
		for i := range ranked.len() {
			if r := at(i); q.matches(r) {
				found = append(found, r)
			}
		}
		return sequence{len(found), func(i int) *run { return found[i] }, same}
	}

	var found []*run
	for r := range w.candidates(q) {
		if q.matches(r) {
			found = append(found, r)
		}
	}
	// Runs with equal keys stand in the order in which they were written.
	slices.SortFunc(found, func(a, b *run) int { return cmp.Or(compare(a, b), cmp.Compare(a.ord, b.ord)) })
	return sequence{len(found), func(i int) *run { return found[i] }, same}
}

// rankedBy returns the ranking that a sort can be read from. Without a sort,
// the newest run comes first.
func (w *Workspace) rankedBy(keys []sortKey) (ranked *ranking, descend, ok bool) {
	switch {
	case len(keys) == 0:
		return &w.byCreated, true, true
	case len(keys) == 1 && keys[0].field == "created_at":
		return &w.byCreated, keys[0].descend, true
	case len(keys) == 1 && keys[0].field == "updated_at",
		len(keys) == 2 && keys[0].field == "updated_at" && keys[1].field == "created_at" && keys[0].descend == keys[1].descend:
		return &w.byUpdated, keys[0].descend, true
	}
	return nil, false, false
}

// candidates goes through the visible runs among which the query's are.
func (w *Workspace) candidates(q *query) iter.Seq[*run] {
	return func(yield func(*run) bool) {
		if len(q.uid) == 0 {
			for i := range w.byCreated.len() {
				if !yield(w.byCreated.at(i)) {
					return
				}
			}
			return
		}
		seen := make(map[string]bool, len(q.uid))
		for _, uid := range q.uid {
			r := w.byUID[uid]
			if r == nil || r.shown == nil || seen[uid] {
				continue
			}
			seen[uid] = true
			if !yield(r) {
				return
			}
		}
	}
}

// page returns the runs of the page that the query asks for.
func (w *Workspace) page(q *query) []*run {
	s := w.list(q)
	from := min(q.offset, s.len)
	to := min(from+q.limit, s.len)
	if from == to {
		return nil
	}
	if w.trouble(KindShuffle, "", w.now) == nil {
		page := make([]*run, 0, to-from)
		for i := from; i < to; i++ {
			page = append(page, s.at(i))
		}
		return page
	}

	// Every group of ties that reaches into the page is shuffled as a whole,
	// so that a run can change sides at the page's border.
	first, last := s.at(from), s.at(to-1)
	start := sort.Search(from, func(i int) bool { return s.same(s.at(i), first) })
	end := to
	for end < s.len && s.same(s.at(end), last) {
		end++
	}
	all := make([]*run, 0, end-start)
	for i := start; i < end; i++ {
		all = append(all, s.at(i))
	}
	for i := 0; i < len(all); {
		j := i + 1
		for j < len(all) && s.same(all[i], all[j]) {
			j++
		}
		group := all[i:j]
		w.requests.Shuffle(len(group), func(x, y int) { group[x], group[y] = group[y], group[x] })
		i = j
	}
	return all[from-start : to-start]
}
