// Package edges is a client of the Edges API (https://api.edges.run/v1): its
// types, runs, schedules, callbacks, credits and outputs, errors, and the
// request budget that keeps this program from eating the rate limit it shares
// with the workspace's own programs.
//
// A Client only reads. What changes a workspace is a type of its own, Writer.
package edges

import "time"

// Status is the state of a run, in the API's own words. The API may grow new
// ones, which are passed through as they are.
type Status string

// The ten statuses that the API documents.
const (
	StatusCreated          Status = "CREATED"
	StatusInvalid          Status = "INVALID"
	StatusQueued           Status = "QUEUED"
	StatusScheduled        Status = "SCHEDULED"
	StatusBlocked          Status = "BLOCKED"
	StatusStopped          Status = "STOPPED"
	StatusRunning          Status = "RUNNING"
	StatusFailed           Status = "FAILED"
	StatusPartialSucceeded Status = "PARTIAL_SUCCEEDED"
	StatusSucceeded        Status = "SUCCEEDED"
)

// Statuses returns the ten documented statuses, in the order in which the API
// lists them.
func Statuses() []Status {
	return []Status{
		StatusCreated, StatusInvalid, StatusQueued, StatusScheduled, StatusBlocked,
		StatusStopped, StatusRunning, StatusFailed, StatusPartialSucceeded, StatusSucceeded,
	}
}

// Ended reports whether a run in this status has finished. BLOCKED is not an
// end: Edges retries the run by itself, or waits for a person. A resumed run
// can leave an ended status again.
func (s Status) Ended() bool {
	switch s {
	case StatusSucceeded, StatusPartialSucceeded, StatusFailed, StatusStopped, StatusInvalid:
		return true
	}
	return false
}

// InFlight reports whether a run in this status is still expected to move on
// by itself: CREATED, QUEUED, SCHEDULED or RUNNING.
func (s Status) InFlight() bool {
	switch s {
	case StatusCreated, StatusQueued, StatusScheduled, StatusRunning:
		return true
	}
	return false
}

// Problem reports whether a run in this status carries an error worth showing:
// FAILED, BLOCKED, INVALID or PARTIAL_SUCCEEDED.
func (s Status) Problem() bool {
	switch s {
	case StatusFailed, StatusBlocked, StatusInvalid, StatusPartialSucceeded:
		return true
	}
	return false
}

// Execution modes of a run, as the API writes them. There is no mode for
// schedules: a run that a schedule started carries ScheduledRunUID.
const (
	ModeLive  = "LIVE"
	ModeAsync = "ASYNC"
)

// Run is one row of GET /v1/runs, without what this program must not keep
// (parameters, callback). A field that was null or missing has its zero value.
type Run struct {
	// ID is the API's internal number of the run.
	ID int64
	// UID identifies the run in every call.
	UID string
	// ActionName is the action, for example "linkedin-extract-people".
	ActionName string
	// ExecutionMode is "LIVE", "ASYNC", or what else the API wrote.
	ExecutionMode string
	Status        Status
	// RetryCount is how often Edges has retried the run by itself; a resume
	// sets it back to 0.
	RetryCount int64
	// OutputCount is the number of results produced so far.
	OutputCount int64
	// ErrorLabel is last_error's label (or error_label); empty without one.
	ErrorLabel string
	// WorkspaceUID is the workspace that the run, and so the key, belongs to.
	WorkspaceUID string
	// UserUID is the user for whom the run was launched.
	UserUID string
	// ScheduledRunUID is the schedule that started the run.
	ScheduledRunUID string
	// FlowRunID is the run of a flow that this run is part of; 0 for none.
	// Such a run cannot be resumed alone.
	FlowRunID int64
	// PostponedUntil is when Edges will retry the run by itself.
	PostponedUntil time.Time
	CreatedAt      time.Time
	UpdatedAt      time.Time
	StartedAt      time.Time
	FinishedAt     time.Time
	// Defect says why the row could not be understood; what is known of it
	// besides must not be used. Empty for a good row. The row still has its
	// place in the list.
	Defect Defect
}

// Defect is a reason for which a row of the list could not be understood.
type Defect string

// The reasons for which a row is not understood.
const (
	// DefectNoUID marks a row without a uid, or with one that is not a
	// string of 1 to 128 bytes.
	DefectNoUID Defect = "no_uid"
	// DefectBadTime marks a row with a time that cannot be read, or that is
	// not between the years 1970 and 2200.
	DefectBadTime Defect = "bad_time"
	// DefectBadField marks a row in which another kept field has a type that
	// the contract does not allow, such as an object for a status.
	DefectBadField Defect = "bad_field"
	// DefectNotObject marks an element of the list that is not an object.
	DefectNotObject Defect = "not_object"
)
