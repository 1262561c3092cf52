package main

import (
	"fmt"
	"strings"
)

// Every selector filters by the variables that its metric has labels for. With
// All chosen a variable is .+, so series without the label stay out.
const (
	ofProcess   = `job=~"$job", instance=~"$instance"`
	ofWorkspace = ofProcess + `, workspace=~"$workspace"`
	ofRuns      = ofWorkspace + `, action=~"$action", mode=~"$mode"`
)

// Label sets that make a value one workspace's own. Two exporters may follow
// one workspace; both count everything, so the larger value of each series is
// taken before anything is summed.
const (
	perPair   = "workspace, action, mode"
	perStatus = perPair + ", status"
	perError  = perStatus + ", error"
)

// Statuses by what they mean.
const (
	ended     = "SUCCEEDED|PARTIAL_SUCCEEDED|FAILED|STOPPED|INVALID"
	succeeded = "SUCCEEDED|PARTIAL_SUCCEEDED"
	// judged are the ends that say something about success, as for the alerts.
	// Somebody stopped a STOPPED run, so it counts neither for nor against.
	judged  = "SUCCEEDED|PARTIAL_SUCCEEDED|FAILED|INVALID"
	waiting = "CREATED|QUEUED"
)

const (
	window = "[$__rate_interval]"
	whole  = "[$__range]"
	// atEnd looks back over the range from its end, whatever the step, so that
	// a choice made by it is one choice for the whole panel.
	atEnd = "[$__range] @ end()"
	// before shifts by the week that the panels of the week compare with.
	before = " offset 1w"
)

// where is a selector: the metric, its variables, and what else must match.
func where(metric, of string, more ...string) string {
	return metric + "{" + strings.Join(append([]string{of}, more...), ", ") + "}"
}

// status matches one status, or several with | between them.
func status(names string) string {
	if strings.Contains(names, "|") {
		return fmt.Sprintf("status=~%q", names)
	}
	return fmt.Sprintf("status=%q", names)
}

// once takes each series once, whatever the number of exporters.
func once(labels, expr string) string {
	return fmt.Sprintf("max by (%s) (%s)", labels, expr)
}

func sumBy(by, expr string) string {
	if by == "" {
		return fmt.Sprintf("sum(%s)", expr)
	}
	return fmt.Sprintf("sum by (%s) (%s)", by, expr)
}

// perMinute is the rate of a counter of runs by some of its labels.
func perMinute(by, labels, selector, shift string) string {
	return "60 * " + sumBy(by, once(labels, fmt.Sprintf("rate(%s%s%s)", selector, window, shift)))
}

// total is by how much a counter of runs grew in the dashboard's range.
func total(by, labels, selector, shift string) string {
	return sumBy(by, once(labels, fmt.Sprintf("increase(%s%s%s)", selector, whole, shift)))
}

// now is the present value of a gauge of runs by some of its labels.
func now(by, selector string) string {
	return sumBy(by, once(perStatus, selector))
}

func transitions(statuses string) string {
	return where("edges_run_transitions_total", ofRuns, status(statuses))
}

// successShare is the share that did not fail of the runs whose end says
// something; it has no value, rather than 0 or NaN, where none ended.
func successShare(by, over, shift string) string {
	f := "rate"
	if over == whole {
		f = "increase"
	}
	part := func(statuses string) string {
		return sumBy(by, once(perStatus, fmt.Sprintf("%s(%s%s%s)", f, transitions(statuses), over, shift)))
	}
	return fmt.Sprintf("%s\n/\n(%s > 0)", part(succeeded), part(judged))
}

// quantile estimates from a histogram of runs; it has no value where nothing
// was observed.
func quantile(q, by, labels, selector, over, shift string) string {
	f := "rate"
	if over == whole {
		f = "increase"
	}
	le := "le"
	if by != "" {
		le = by + ", le"
	}
	return fmt.Sprintf("histogram_quantile(%s, %s) >= 0", q,
		sumBy(le, once(labels+", le", fmt.Sprintf("%s(%s%s%s)", f, selector, over, shift))))
}

// durations are those of runs with results, as for the alerts: a run that fails
// at once makes nothing faster.
func durations() string {
	return where("edges_run_duration_seconds_bucket", ofRuns, status(succeeded))
}

func queueTimes() string { return where("edges_run_queue_duration_seconds_bucket", ofRuns) }

// busiest keeps the ten actions, errors or the like with the most of what is
// counted, so that two hundred actions do not make two hundred lines. The ten
// are the same all over the range.
func busiest(by, expr, selector, labels string) string {
	return fmt.Sprintf("(%s)\nand on (%s)\ntopk(10, %s > 0)", expr, by,
		sumBy(by, once(labels, fmt.Sprintf("increase(%s%s)", selector, atEnd))))
}

// dampedShare is the share of some statuses among others, by action, as if 15
// more runs an hour had been among the others: so one failure of an action that
// runs twice an hour stays faint beside a busy one that fails half the time.
func dampedShare(some, others string) string {
	part := func(statuses string) string {
		return perMinute("action", perStatus, transitions(statuses), "")
	}
	return fmt.Sprintf("%s\n/\n((%s > 0) + 0.25)", part(some), part(others))
}

// Firing alerts of this project. Some, such as that of a dead exporter, have no
// workspace or action: those are always shown.
const (
	alertsOfWorkspace = `ALERTS{alertname=~"Edges.+", alertstate="firing", workspace=~"$workspace|"}`
	alertsOfAction    = `ALERTS{alertname=~"Edges.+", alertstate="firing", workspace=~"$workspace|", action=~"$action|"}`
)
