package collector

// kind is the type of a metric family.
type kind uint8

const (
	counter kind = iota
	gauge
	histogramKind
)

func (k kind) String() string {
	switch k {
	case counter:
		return "counter"
	case gauge:
		return "gauge"
	default:
		return "histogram"
	}
}

// familyID numbers a family in the store, so a number is never given to
// another family, and a family that goes leaves its number unused.
type familyID uint8

const (
	famRuns           familyID = 1
	famPostponed      familyID = 2
	famOldest         familyID = 3
	famCreated        familyID = 4
	famTransitions    familyID = 5
	famErrors         familyID = 6
	famOutputs        familyID = 7
	famRetries        familyID = 8
	famDuration       familyID = 9
	famQueue          familyID = 10
	famProblem        familyID = 11
	famUp             familyID = 12
	famLastSuccess    familyID = 13
	famPolls          familyID = 14
	famPollDuration   familyID = 15
	famWatermark      familyID = 16
	famBackfill       familyID = 17
	famLedgerRuns     familyID = 18
	famLedgerSize     familyID = 19
	famSkipped        familyID = 20
	famAudit          familyID = 21
	famRequests       familyID = 22
	famRequestSeconds familyID = 23
	famBudget         familyID = 24
	famThrottled      familyID = 25

	famSchedules            familyID = 26
	famScheduleNext         familyID = 27
	famScheduleLast         familyID = 28
	famScheduleRuns         familyID = 29
	famCallbacks            familyID = 30
	famCallbacksPending     familyID = 31
	famCallbackOldest       familyID = 32
	famCallbackRetries      familyID = 33
	famCreditsLeft          familyID = 34
	famCreditsUsed          familyID = 35
	famCreditsLimit         familyID = 36
	famCreditsStart         familyID = 37
	famCreditsEnd           familyID = 38
	famCreditsActionUsed    familyID = 39
	famCollectorUp          familyID = 40
	famCollectorLastSuccess familyID = 41
	famCollectorSkipped     familyID = 42
)

// family describes one metric: what stands in its HELP and TYPE lines, where
// the values of its labels come from, and how its stored integers read.
type family struct {
	id   familyID
	name string
	help string
	kind kind
	// labels come after workspace, which every family has.
	labels []label
	// scale turns the stored integer into the exposed unit.
	scale float64
	// buckets are the classic upper bounds of a histogram, in seconds.
	buckets []float64
}

// Durations of runs go from a live call of 100 ms to batches of many hours;
// the bounds are the ones that people name when they speak of them.
var (
	runBuckets   = []float64{0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 28800, 86400}
	queueBuckets = []float64{0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400}
	pollBuckets  = []float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 120}
	apiBuckets   = []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}
)

const (
	unit    = 1
	seconds = 1e-9 // stored as nanoseconds
)

// families is the one table of what /metrics exposes of runs and of the
// exporter, in the order of exposition.
var families = []family{
	{famRuns, "edges_runs", "Runs now in this status, within retention.", gauge, []label{labelAction, labelMode, labelStatus}, unit, nil},
	{famPostponed, "edges_runs_postponed", "Runs now in this status that Edges will retry by itself: postponed_until lies in the future.", gauge, []label{labelAction, labelMode, labelStatus}, unit, nil},
	{famOldest, "edges_run_oldest_timestamp_seconds", "When the run that is longest in this status entered it. Only CREATED, QUEUED, SCHEDULED, RUNNING and BLOCKED, and only while there is such a run.", gauge, []label{labelAction, labelMode, labelStatus}, seconds, nil},
	{famCreated, "edges_runs_created_total", "Runs made.", counter, []label{labelAction, labelMode}, unit, nil},
	{famTransitions, "edges_run_transitions_total", "Times a run entered this status.", counter, []label{labelAction, labelMode, labelStatus}, unit, nil},
	{famErrors, "edges_run_errors_total", "Entries into FAILED, BLOCKED, INVALID or PARTIAL_SUCCEEDED by the label of the run's last error.", counter, []label{labelAction, labelMode, labelStatus, labelError}, unit, nil},
	{famOutputs, "edges_run_outputs_total", "Results produced by runs.", counter, []label{labelAction, labelMode}, unit, nil},
	{famRetries, "edges_run_retries_total", "Retries that Edges made by itself.", counter, []label{labelAction, labelMode}, unit, nil},
	{famDuration, "edges_run_duration_seconds", "Time from start to end of runs that ended.", histogramKind, []label{labelAction, labelMode, labelStatus}, seconds, runBuckets},
	{famQueue, "edges_run_queue_duration_seconds", "Time from the making of a run to its first start.", histogramKind, []label{labelAction, labelMode}, seconds, queueBuckets},
	{famProblem, "edges_run_problem_timestamp_seconds", "When the latest problem runs entered FAILED, BLOCKED, INVALID or PARTIAL_SUCCEEDED.", gauge, []label{labelRunUID, labelAction, labelMode, labelStatus, labelError}, seconds, nil},
	{famSchedules, "edges_schedules", "Schedules now in this status.", gauge, []label{labelAction, labelScheduleStatus}, unit, nil},
	{famScheduleNext, "edges_schedule_next_run_timestamp_seconds", "When an ACTIVE schedule is due next. At most 200 schedules, the soonest.", gauge, []label{labelSchedule, labelName, labelAction}, seconds, nil},
	{famScheduleLast, "edges_schedule_last_run_timestamp_seconds", "When an ACTIVE or PAUSED schedule ran last, or its latest run was made where the API does not tell. The same schedules.", gauge, []label{labelSchedule, labelName, labelAction}, seconds, nil},
	{famScheduleRuns, "edges_schedule_runs_total", "Times a run that a schedule started entered this status.", counter, []label{labelSchedule, labelStatus}, unit, nil},
	{famCallbacks, "edges_callbacks_total", "Callbacks that ended, by the HTTP status code that the webhook answered, none when it did not.", counter, []label{labelCallbackStatus, labelCallbackCode}, unit, nil},
	{famCallbacksPending, "edges_callbacks_pending", "Callbacks that have not ended.", gauge, nil, unit, nil},
	{famCallbackOldest, "edges_callback_oldest_pending_timestamp_seconds", "When the oldest callback that has not ended was made. Only while there is one.", gauge, nil, seconds, nil},
	{famCallbackRetries, "edges_callback_retries_total", "Times a callback was tried again.", counter, nil, unit, nil},
	{famCreditsLeft, "edges_credits_left", "Credits left in the current period.", gauge, nil, unit, nil},
	{famCreditsUsed, "edges_credits_used", "Credits used in the current period.", gauge, nil, unit, nil},
	{famCreditsLimit, "edges_credits_limit", "Credits of a period.", gauge, nil, unit, nil},
	{famCreditsStart, "edges_credits_period_start_timestamp_seconds", "When the current period began.", gauge, nil, seconds, nil},
	{famCreditsEnd, "edges_credits_period_end_timestamp_seconds", "When the current period ends.", gauge, nil, seconds, nil},
	{famCreditsActionUsed, "edges_credits_action_used", "Credits that an action has used in the current period.", gauge, []label{labelAction}, unit, nil},
	{famCollectorUp, "edges_collector_up", "1 if what this collector reads beside the runs could be read last time.", gauge, []label{labelCollector}, unit, nil},
	{famCollectorLastSuccess, "edges_collector_last_success_timestamp_seconds", "When this collector last succeeded, by the exporter's clock.", gauge, []label{labelCollector}, seconds, nil},
	{famCollectorSkipped, "edges_collector_skipped_rows_total", "Rows beside the runs that could not be understood and are in no other number, by reason.", counter, []label{labelCollector, labelReason}, unit, nil},
	{famUp, "edges_up", "1 if the last poll of the Edges API succeeded.", gauge, nil, unit, nil},
	{famLastSuccess, "edges_poll_last_success_timestamp_seconds", "When a poll last succeeded, by the exporter's clock.", gauge, nil, seconds, nil},
	{famPolls, "edges_polls_total", "Polls of the Edges API by result.", counter, []label{labelResult}, unit, nil},
	{famPollDuration, "edges_poll_duration_seconds", "How long polls took, waiting for the request budget included.", histogramKind, nil, seconds, pollBuckets},
	{famWatermark, "edges_poll_watermark_timestamp_seconds", "Everything that happened in the workspace up to this time, by the API's clock, is in the numbers.", gauge, nil, seconds, nil},
	{famBackfill, "edges_backfill_complete", "1 when every run within retention has been read, 0 while old pages are still being read.", gauge, nil, unit, nil},
	{famLedgerRuns, "edges_ledger_runs", "Runs in the ledger.", gauge, nil, unit, nil},
	{famLedgerSize, "edges_ledger_size_bytes", "Size of the ledger's file.", gauge, nil, unit, nil},
	{famSkipped, "edges_skipped_runs_total", "Runs that could not be understood and are in no other number, by reason.", counter, []label{labelReason}, unit, nil},
	{famAudit, "edges_audit_corrections_total", "Runs in flight of which an audit found what polls had missed: changed, or gone from the API.", counter, []label{labelReason}, unit, nil},
	{famRequests, "edges_api_requests_total", "Requests sent to the Edges API by endpoint and HTTP status code; code error when there was no answer.", counter, []label{labelEndpoint, labelCode}, unit, nil},
	{famRequestSeconds, "edges_api_request_duration_seconds", "How long requests to the Edges API took.", histogramKind, []label{labelEndpoint}, seconds, apiBuckets},
	{famBudget, "edges_api_budget_requests_per_minute", "The request budget in force.", gauge, nil, unit, nil},
	{famThrottled, "edges_api_throttled_seconds_total", "Time spent waiting for the request budget or for Retry-After.", counter, nil, seconds, nil},
}

// Metric describes a metric that the exporter exposes.
type Metric struct {
	// Name as it stands in the classic text format.
	Name string
	// Type is counter, gauge or histogram.
	Type string
	// Help is the text of the HELP line.
	Help string
	// Labels are the names of its labels.
	Labels []string
}

// Metrics returns a description of every metric that the exporter exposes of
// runs and of itself, in the order of exposition. The process' own metrics
// (go_*, process_*, edges_exporter_build_info) are not among them.
func Metrics() []Metric {
	out := make([]Metric, 0, len(families))
	for _, f := range families {
		names := []string{labelWorkspace.name()}
		for _, l := range f.labels {
			names = append(names, l.name())
		}
		out = append(out, Metric{Name: f.name, Type: f.kind.String(), Help: f.help, Labels: names})
	}
	return out
}
