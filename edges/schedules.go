package edges

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// ScheduleStatus is the state of a schedule, in the API's own words. The API
// may grow new ones, which are passed through as they are.
type ScheduleStatus string

// The four statuses of a schedule that the API documents.
const (
	ScheduleActive    ScheduleStatus = "ACTIVE"
	SchedulePaused    ScheduleStatus = "PAUSED"
	ScheduleCancelled ScheduleStatus = "CANCELLED"
	ScheduleCompleted ScheduleStatus = "COMPLETED"
)

// ScheduleStatuses returns the four documented statuses of a schedule.
func ScheduleStatuses() []ScheduleStatus {
	return []ScheduleStatus{ScheduleActive, SchedulePaused, ScheduleCancelled, ScheduleCompleted}
}

// Schedule is one row of GET /v1/schedules. A field that was null or missing
// has its zero value.
type Schedule struct {
	// UID identifies the schedule; the runs that it starts carry it as
	// ScheduledRunUID.
	UID string
	// Name is the label that a person gave it; mostly there is none.
	Name string
	// ActionName is the action of the runs that it starts.
	ActionName string
	Status     ScheduleStatus
	// Cron is when it runs, in the five fields of POSIX; empty for one that
	// runs once.
	Cron string
	// Timezone is the IANA name of the time zone in which Cron is read.
	Timezone string
	// NextExecutionAt is when it is due next; zero if the API does not tell.
	NextExecutionAt time.Time
	// LastExecutedAt is when it ran last; zero if it never did, or if the API
	// does not tell.
	LastExecutedAt time.Time
	// PostponedUntil is until when Edges holds it back.
	PostponedUntil time.Time
	CreatedAt      time.Time
	UpdatedAt      time.Time
	UserUID        string
	WorkspaceUID   string
	// Defect says why the row could not be understood; what is known of it
	// besides must not be used. Empty for a good row.
	Defect Defect
}

// SchedulesQuery are the filters, the order and the part of the list that
// ListSchedules asks for. Values of one filter are alternatives; different
// filters must all hold. The zero value leaves all to the API.
type SchedulesQuery struct {
	UID     []string
	Status  []ScheduleStatus
	UserUID []string
	// Limit is the number of rows, 1 to 100; 0 leaves it to the API (10).
	Limit int
	// Offset is the number of rows to leave out before the first.
	Offset int
	// Sort are up to 10 field names, "-" in front for descending order.
	Sort []string
}

// SchedulesPage is one answer of the list of schedules.
type SchedulesPage struct {
	// Schedules are the rows in the API's order, the ones that were not
	// understood in their places too: their Defect is set.
	Schedules []Schedule
	// Date is the server's clock when it answered, in whole seconds; zero if
	// it did not tell.
	Date time.Time
}

// ListSchedules reads one part of the list of schedules, GET /schedules. A row
// that cannot be understood is no error: see Schedule.Defect.
func (c *Client) ListSchedules(ctx context.Context, query SchedulesQuery) (SchedulesPage, error) {
	if err := query.validate(); err != nil {
		return SchedulesPage{}, fmt.Errorf("list schedules: %w", err)
	}
	call := c.listCall(endpointSchedules, c.target("schedules"), query.values())
	var page SchedulesPage
	call.read = func(d *decoder, answer *http.Response) (err error) {
		page.Schedules, err = readRows(d, answer.Body, c.maxBytes, d.schedule)
		page.Date = serverTime(answer.Header)
		return err
	}
	if err := c.do(ctx, call); err != nil {
		return SchedulesPage{}, fmt.Errorf("list schedules: %w", err)
	}
	return page, nil
}

// GetSchedule reads one schedule, GET /schedules/{uid}. An answer that is an
// object, but not a schedule that can be understood, is no error: see
// Schedule.Defect.
func (c *Client) GetSchedule(ctx context.Context, uid string) (Schedule, error) {
	if err := checkUID(uid); err != nil {
		return Schedule{}, fmt.Errorf("get schedule: %w", err)
	}
	var schedule Schedule
	err := c.do(ctx, call{
		endpoint: endpointSchedule,
		target:   c.target("schedules", uid),
		read: func(d *decoder, answer *http.Response) error {
			schedule = Schedule{}
			return d.object(answer.Body, c.maxBytes, func() error { return d.schedule(&schedule) })
		},
	})
	if err != nil {
		return Schedule{}, fmt.Errorf("get schedule: %w", err)
	}
	return schedule, nil
}

func (q SchedulesQuery) validate() error {
	if err := validatePart(q.Limit, maxLimit, q.Offset, q.Sort); err != nil {
		return err
	}
	if err := validateFilter("status", q.Status); err != nil {
		return err
	}
	if err := validateFilter("uid", q.UID); err != nil {
		return err
	}
	return validateFilter("user_uid", q.UserUID)
}

func (q SchedulesQuery) values() url.Values {
	v := url.Values{}
	setFilter(v, "uid", q.UID)
	setFilter(v, "status", q.Status)
	setFilter(v, "user_uid", q.UserUID)
	setPart(v, q.Limit, q.Offset, q.Sort)
	return v
}

// schedule reads one element of the list of schedules.
func (d *decoder) schedule(s *Schedule) error {
	defect, err := d.row(func(field string) (kind int, ok bool, err error) {
		switch field {
		case "uid":
			kind = fieldUID
			s.UID, ok, err = d.uid()
		case "name":
			s.Name, ok, err = d.name()
		case "action_name":
			kind = fieldKept
			s.ActionName, ok, err = d.word()
		case "status":
			kind = fieldKept
			var status string
			status, ok, err = d.word()
			s.Status = ScheduleStatus(status)
		case "cron":
			s.Cron, ok, err = d.name()
		case "timezone":
			s.Timezone, ok, err = d.word()
		case "next_execution_at":
			kind = fieldTime
			s.NextExecutionAt, ok, err = d.time()
		case "last_executed_at":
			kind = fieldTime
			s.LastExecutedAt, ok, err = d.time()
		case "postponed_until":
			kind = fieldTime
			s.PostponedUntil, ok, err = d.time()
		case "created_at":
			kind = fieldTime
			s.CreatedAt, ok, err = d.time()
		case "updated_at":
			kind = fieldTime
			s.UpdatedAt, ok, err = d.time()
		case "user_uid":
			s.UserUID, ok, err = d.word()
		case "workspace_uid":
			s.WorkspaceUID, ok, err = d.word()
		default:
			return d.skip()
		}
		return kind, ok, err
	})
	s.Defect = defect
	if s.UID == "" && defect != DefectNotObject {
		s.Defect = DefectNoUID
	}
	return err
}
