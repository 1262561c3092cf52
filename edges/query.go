package edges

import (
	"fmt"
	"net/url"
	"strconv"
)

// What the API accepts in a list's query.
const (
	maxLimit     = 100
	maxSorts     = 10
	maxSortBytes = 128
)

// RunsQuery are the filters, the order and the part of the list that ListRuns
// asks for. Values of one filter are alternatives; different filters must all
// hold. The zero value asks for the API's default, the first 10 runs of all.
type RunsQuery struct {
	Status []Status
	// ActionName are actions such as "linkedin-extract-people".
	ActionName []string
	// ExecutionMode is ModeLive or ModeAsync.
	ExecutionMode []string
	UID           []string
	UserUID       []string
	// WorkspaceUID is deprecated by the API, which ignores it.
	WorkspaceUID []string
	FlowRunID    []int64
	// Limit is the number of rows, 1 to 100; 0 leaves it to the API (10).
	Limit int
	// Offset is the number of rows to leave out before the first.
	Offset int
	// Sort are up to 10 field names, "-" in front for descending order.
	Sort []string
}

// validate refuses, with ErrBadQuery, what the API is documented to refuse: a
// request spent on a certain 400 would still be taken from the rate limit.
func (q RunsQuery) validate() error {
	if q.Limit < 0 || q.Limit > maxLimit {
		return fmt.Errorf("%w: limit %d is not between 1 and %d", ErrBadQuery, q.Limit, maxLimit)
	}
	if q.Offset < 0 {
		return fmt.Errorf("%w: offset %d is negative", ErrBadQuery, q.Offset)
	}
	if len(q.Sort) > maxSorts {
		return fmt.Errorf("%w: %d sort fields, at most %d are allowed", ErrBadQuery, len(q.Sort), maxSorts)
	}
	for _, s := range q.Sort {
		if s == "" || s == "-" {
			return fmt.Errorf("%w: sort %q names no field", ErrBadQuery, s)
		}
		if len(s) > maxSortBytes {
			return fmt.Errorf("%w: a sort of %d characters, at most %d are allowed", ErrBadQuery, len(s), maxSortBytes)
		}
	}
	for _, s := range q.Status {
		if s == "" {
			return fmt.Errorf("%w: empty status", ErrBadQuery)
		}
	}
	for _, filter := range []struct {
		name   string
		values []string
	}{
		{"action_name", q.ActionName},
		{"execution_mode", q.ExecutionMode},
		{"uid", q.UID},
		{"user_uid", q.UserUID},
		{"workspace_uid", q.WorkspaceUID},
	} {
		for _, v := range filter.values {
			if v == "" {
				return fmt.Errorf("%w: empty %s", ErrBadQuery, filter.name)
			}
		}
	}
	return nil
}

// values writes the query in the API's own parameter names.
func (q RunsQuery) values() url.Values {
	v := url.Values{}
	for _, s := range q.Status {
		v.Add("status", string(s))
	}
	for _, id := range q.FlowRunID {
		v.Add("flow_run_id", strconv.FormatInt(id, 10))
	}
	for name, values := range map[string][]string{
		"action_name":    q.ActionName,
		"execution_mode": q.ExecutionMode,
		"uid":            q.UID,
		"user_uid":       q.UserUID,
		"workspace_uid":  q.WorkspaceUID,
		"sort":           q.Sort,
	} {
		if len(values) > 0 {
			v[name] = values
		}
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Offset > 0 {
		v.Set("offset", strconv.Itoa(q.Offset))
	}
	return v
}

// checkUID refuses what cannot be one path element that names a run.
func checkUID(uid string) error {
	switch {
	case uid == "":
		return fmt.Errorf("%w: empty uid", ErrBadQuery)
	case len(uid) > maxStringBytes:
		return fmt.Errorf("%w: a uid of %d bytes, at most %d are allowed", ErrBadQuery, len(uid), maxStringBytes)
	case uid == "." || uid == "..":
		return fmt.Errorf("%w: %q is not a uid", ErrBadQuery, uid)
	}
	return nil
}
