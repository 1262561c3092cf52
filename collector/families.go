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
