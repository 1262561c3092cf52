package edges

import (
	"fmt"
	"net/url"
	"slices"
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
	if err := validatePart(q.Limit, maxLimit, q.Offset, q.Sort); err != nil {
		return err
	}
	if err := validateFilter("status", q.Status); err != nil {
		return err
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
		if err := validateFilter(filter.name, filter.values); err != nil {
			return err
		}
	}
	return nil
}

// validatePart checks which part of a list is asked for, in which order.
func validatePart(limit, most, offset int, sort []string) error {
	if limit < 0 || limit > most {
		return fmt.Errorf("%w: limit %d is not between 1 and %d", ErrBadQuery, limit, most)
	}
	if offset < 0 {
		return fmt.Errorf("%w: offset %d is negative", ErrBadQuery, offset)
	}
	if len(sort) > maxSorts {
		return fmt.Errorf("%w: %d sort fields, at most %d are allowed", ErrBadQuery, len(sort), maxSorts)
	}
	for _, s := range sort {
		if s == "" || s == "-" {
			return fmt.Errorf("%w: sort %q names no field", ErrBadQuery, s)
		}
		if len(s) > maxSortBytes {
			return fmt.Errorf("%w: a sort of %d characters, at most %d are allowed", ErrBadQuery, len(s), maxSortBytes)
		}
	}
	return nil
}

func validateFilter[T ~string](name string, values []T) error {
	if slices.Contains(values, "") {
		return fmt.Errorf("%w: empty %s", ErrBadQuery, name)
	}
	return nil
}

// values writes the query in the API's own parameter names.
func (q RunsQuery) values() url.Values {
	v := url.Values{}
	setFilter(v, "status", q.Status)
	setFilter(v, "action_name", q.ActionName)
	setFilter(v, "execution_mode", q.ExecutionMode)
	setFilter(v, "uid", q.UID)
	setFilter(v, "user_uid", q.UserUID)
	setFilter(v, "workspace_uid", q.WorkspaceUID)
	for _, id := range q.FlowRunID {
		v.Add("flow_run_id", strconv.FormatInt(id, 10))
	}
	setPart(v, q.Limit, q.Offset, q.Sort)
	return v
}

// setPart writes which part of a list is asked for, in which order.
func setPart(v url.Values, limit, offset int, sort []string) {
	setFilter(v, "sort", sort)
	if limit > 0 {
		v.Set("limit", strconv.Itoa(limit))
	}
	if offset > 0 {
		v.Set("offset", strconv.Itoa(offset))
	}
}

func setFilter[T ~string](v url.Values, name string, values []T) {
	for _, value := range values {
		v.Add(name, string(value))
	}
}

// checkUID refuses what cannot be one path element that names something.
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
