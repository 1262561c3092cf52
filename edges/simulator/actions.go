package simulator

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
)

// action is a thing that runs do, and how its runs live.
type action struct {
	id   int64
	name string
	// share is the action's part of all runs. 0 for an action that only a
	// program has put runs of: it launches nothing by itself.
	share float64
	// live and scheduled are the parts of its runs that are launched live or
	// by a schedule; the rest is async, in launches of batch inputs on
	// average, which start gap after one another.
	live, scheduled float64
	batch           float64
	gap             time.Duration
	// crons are its schedules.
	crons []string
	// steady is how little the launches follow people's day: 1 for a
	// program that never sleeps.
	steady float64
	// median and sigma describe the time that an async run takes, log-normal;
	// a live one takes liveMedian.
	median, liveMedian time.Duration
	sigma              float64
	// results is the mean of what a run produces; a run of an action that
	// produces no more than one is all or nothing.
	results float64
	// invalid is the share of launches that are refused at once.
	invalid float64
	// ends are the ways in which a run can end other than by success.
	ends []outcome
	// hook is where the action's results are sent, once it has been asked for.
	hook string
}

// outcome is a way in which a run in progress can end, with its share of the
// runs.
type outcome struct {
	status edges.Status
	label  string
	share  float64
}

// actions returns the workspace's actions. Their numbers are made up, their
// shapes are not: extractions run long and hit account limits, enrichments are
// short and often find nothing, messages need a login that gets lost.
func actions() []*action {
	const (
		failed  = edges.StatusFailed
		blocked = edges.StatusBlocked
		partial = edges.StatusPartialSucceeded
		stopped = edges.StatusStopped
	)
	minute := time.Minute
	second := time.Second
	list := []*action{
		{
			name: "linkedin-visit-profile", share: 0.17, live: 0.25, scheduled: 0.20, batch: 14, gap: 900 * time.Millisecond,
			crons: []string{"0 * * * *"}, steady: 0.2, median: 9 * second, liveMedian: 4 * second, sigma: 0.6, results: 1, invalid: 0.004,
			ends: []outcome{{failed, "STATUS_404", 0.018}, {failed, "LK_524", 0.006}, {blocked, "LIMIT_REACHED", 0.012}, {blocked, "NOT_CONNECTED", 0.001}},
		},
		{
			name: "email-find", share: 0.16, live: 0.45, batch: 30, gap: 250 * time.Millisecond,
			steady: 0.6, median: 3500 * time.Millisecond, liveMedian: 2 * second, sigma: 0.8, results: 1, invalid: 0.006,
			ends: []outcome{{failed, "NO_RESULT", 0.08}, {failed, "PROXY_ERROR", 0.004}},
		},
		{
			name: "linkedin-extract-people", share: 0.14, live: 0.30, scheduled: 0.20, batch: 16, gap: 1200 * time.Millisecond,
			crons: []string{"0 8 * * 1-5", "30 * * * *"}, steady: 0.1, median: 25 * second, liveMedian: 6 * second, sigma: 0.9, results: 14, invalid: 0.005,
			ends: []outcome{{failed, "LK_ERROR", 0.015}, {failed, "STATUS_404", 0.01}, {partial, "LK_MISSING_DATA", 0.02}, {blocked, "LIMIT_REACHED", 0.018}, {blocked, "NOT_CONNECTED", 0.001}, {stopped, "", 0.002}},
		},
		{
			name: "company-enrich", share: 0.12, live: 0.60, batch: 25, gap: 200 * time.Millisecond,
			steady: 0.8, median: 1800 * time.Millisecond, liveMedian: 900 * time.Millisecond, sigma: 0.7, results: 1, invalid: 0.003,
			ends: []outcome{{failed, "NO_RESULT", 0.03}, {failed, "STATUS_429", 0.004}},
		},
		{
			name: "linkedin-connect-profile", share: 0.10, scheduled: 0.45, batch: 10, gap: 3 * second,
			crons: []string{"*/30 8-18 * * 1-5"}, steady: 0, median: 14 * second, liveMedian: 6 * second, sigma: 0.5, results: 1, invalid: 0.008,
			ends: []outcome{{failed, "LK_ERROR", 0.012}, {blocked, "LIMIT_REACHED", 0.045}, {blocked, "NOT_CONNECTED", 0.002}, {failed, "BAD_INPUT", 0.006}},
		},
		{
			name: "linkedin-send-message", share: 0.08, live: 0.15, scheduled: 0.25, batch: 8, gap: 4 * second,
			crons: []string{"0 9-17 * * 1-5"}, steady: 0, median: 11 * second, liveMedian: 5 * second, sigma: 0.5, results: 1, invalid: 0.006,
			ends: []outcome{{failed, "STATUS_403", 0.012}, {blocked, "NOT_CONNECTED", 0.004}, {blocked, "LIMIT_REACHED", 0.015}, {failed, "LK_ERROR", 0.006}},
		},
		{
			name: "linkedin-search-people", share: 0.07, live: 0.35, scheduled: 0.15, batch: 4, gap: 5 * second,
			crons: []string{"15 7 * * 1-5"}, steady: 0.1, median: 95 * second, liveMedian: 8 * second, sigma: 0.9, results: 180, invalid: 0.006,
			ends: []outcome{{failed, "LK_ERROR", 0.02}, {partial, "LIMIT_REACHED", 0.045}, {blocked, "LIMIT_REACHED", 0.02}, {failed, "NO_RESULT", 0.012}, {stopped, "", 0.008}},
		},
		{
			name: "salesnavigator-extract-people", share: 0.05, live: 0.10, scheduled: 0.20, batch: 3, gap: 10 * second,
			crons: []string{"0 6 * * *"}, steady: 0.1, median: 6 * minute, liveMedian: 15 * second, sigma: 1.0, results: 420, invalid: 0.006,
			ends: []outcome{{failed, "SN_CONFLICT", 0.015}, {partial, "LIMIT_REACHED", 0.06}, {blocked, "LIMIT_REACHED", 0.03}, {blocked, "NO_VALID_ACCOUNT_CONFIGURED", 0.003}, {stopped, "", 0.015}},
		},
		{
			name: "hubspot-sync-contact", share: 0.04, scheduled: 0.50, batch: 12, gap: 500 * time.Millisecond,
			crons: []string{"*/15 * * * *"}, steady: 0.7, median: 5 * second, liveMedian: 2 * second, sigma: 0.6, results: 1, invalid: 0.002,
			ends: []outcome{{failed, "INTEGRATION_ERROR", 0.025}, {failed, "STATUS_429", 0.01}, {blocked, "NOT_CONNECTED", 0.002}},
		},
		{
			name: "linkedin-extract-post-engagements", share: 0.03, live: 0.20, scheduled: 0.30, batch: 4, gap: 4 * second,
			crons: []string{"0 */4 * * *"}, steady: 0.2, median: 2 * minute, liveMedian: 10 * second, sigma: 1.0, results: 90, invalid: 0.01,
			ends: []outcome{{failed, "STATUS_404", 0.02}, {partial, "LK_MISSING_DATA", 0.05}, {blocked, "STATUS_429", 0.02}, {failed, "GENERIC_ERROR", 0.006}},
		},
		{
			name: "salesnavigator-search-companies", share: 0.02, live: 0.15, scheduled: 0.20, batch: 2, gap: 15 * second,
			crons: []string{"0 5 * * 1-5"}, steady: 0.1, median: 14 * minute, liveMedian: 20 * second, sigma: 1.1, results: 700, invalid: 0.006,
			ends: []outcome{{failed, "SN_CONFLICT", 0.02}, {partial, "LIMIT_REACHED", 0.07}, {blocked, "LIMIT_REACHED", 0.04}, {stopped, "", 0.03}},
		},
		{
			name: "salesnavigator-send-inmail", share: 0.018, live: 0.10, scheduled: 0.20, batch: 5, gap: 6 * second,
			crons: []string{"0 10,15 * * 1-5"}, steady: 0, median: 16 * second, liveMedian: 7 * second, sigma: 0.5, results: 1, invalid: 0.008,
			ends: []outcome{{failed, "LK_INMAIL_CANNOT_RESEND", 0.05}, {blocked, "LK_INMAIL_NOT_ENOUGH_CREDIT", 0.012}, {failed, "SN_OUT_OF_NETWORK", 0.02}},
		},
		{
			name: "linkedin-extract-group-members", share: 0.002, batch: 1, gap: 30 * second,
			steady: 0, median: 75 * minute, liveMedian: 30 * second, sigma: 0.8, results: 1500, invalid: 0.01,
			ends: []outcome{{partial, "LIMIT_REACHED", 0.10}, {blocked, "LIMIT_REACHED", 0.05}, {failed, "STATUS_403", 0.03}, {stopped, "", 0.05}},
		},
	}
	for i, a := range list {
		a.id = int64(101 + 7*i)
	}
	return list
}

// inputField is the name of what the action takes.
func (a *action) inputField() string {
	switch {
	case strings.HasPrefix(a.name, "company"):
		return "company_domain"
	case strings.Contains(a.name, "search"):
		return "search_url"
	case strings.Contains(a.name, "post"):
		return "post_url"
	}
	return "linkedin_profile_url"
}

// draw returns what a run comes to: one of the action's ends, or success.
func (a *action) draw(rng *rand.Rand) outcome {
	u := rng.Float64()
	for _, e := range a.ends {
		if u < e.share {
			return e
		}
		u -= e.share
	}
	return outcome{status: edges.StatusSucceeded}
}

// duration returns how long a run takes, in milliseconds: from 100 ms to ten
// hours, and no more than two minutes for a live one, whose caller waits.
func (a *action) duration(live bool, rng *rand.Rand) int64 {
	median, most := a.median, 10*time.Hour
	if live {
		median, most = a.liveMedian, 2*time.Minute
	}
	if median <= 0 {
		median = 5 * time.Second
	}
	d := float64(median) * math.Exp(a.sigma*rng.NormFloat64())
	return time.Duration(min(max(d, float64(100*time.Millisecond)), float64(most))).Milliseconds()
}

// outputs returns how many results a run will have when it succeeds. About one
// extraction in 60 finds nothing.
func (a *action) outputs(live bool, rng *rand.Rand) int64 {
	if a.results <= 1 {
		return 1
	}
	if rng.Float64() < 1.0/60 {
		return 0
	}
	mean := a.results
	if live {
		mean = min(mean, 25)
	}
	const sigma = 0.7
	return 1 + int64(mean*math.Exp(sigma*rng.NormFloat64()-sigma*sigma/2))
}

// failure returns what Edges says about an error with this label.
func failure(label string) *RunError {
	if label == "" {
		return nil
	}
	e := &RunError{Label: label, Params: json.RawMessage(`{}`)}
	switch label {
	case "LIMIT_REACHED":
		e.Message = "The account has reached the limit of this action."
		e.Params = json.RawMessage(`{"appendix":"24h"}`)
	case "NOT_CONNECTED":
		e.Message = "The identity's account is not connected any more."
		e.Params = json.RawMessage(`{"integration":"linkedin"}`)
	case "NO_VALID_ACCOUNT_CONFIGURED":
		e.Message = "No identity has an account that this action can use."
	case "NO_RESULT":
		e.Message = "Nothing was found for this input."
	case "BAD_INPUT":
		e.Message = "The input is not what this action takes."
	case "BAD_PARAMETERS":
		e.Message = "A parameter has a value that this action does not take."
	case "MISSING_PARAMETER":
		e.Message = "A parameter that this action needs is missing."
	case "STATUS_403":
		e.Message = "The page may not be seen with this account."
	case "STATUS_404":
		e.Message = "The page does not exist."
	case "STATUS_429":
		e.Message = "Too many requests upstream."
	case "LK_524":
		e.Message = "The upstream site did not answer in time."
	case "LK_MISSING_DATA":
		e.Message = "The upstream site left out part of the data."
	case "LK_INMAIL_CANNOT_RESEND":
		e.Message = "This person has had an InMail already."
	case "LK_INMAIL_NOT_ENOUGH_CREDIT":
		e.Message = "The account has no InMail credits left."
	case "SN_CONFLICT":
		e.Message = "The account is in use in another Sales Navigator session."
	case "SN_OUT_OF_NETWORK":
		e.Message = "This person is out of the account's network."
	case "INTEGRATION_ERROR":
		e.Message = "The integration refused the request."
		e.Params = json.RawMessage(`{"integration":"hubspot"}`)
	case "PROXY_ERROR":
		e.Message = "The proxy of this identity does not work."
	default:
		e.Message = "The action could not be carried out."
	}
	return e
}

// retryDelay returns how long Edges waits before it retries a run that is
// blocked by this error, in milliseconds; 0 for errors that it leaves to a
// person.
func retryDelay(label string, rng *rand.Rand) int64 {
	var from, to time.Duration
	switch label {
	case "LIMIT_REACHED":
		from, to = 30*time.Minute, 6*time.Hour
	case "STATUS_429", "LK_524", "PROXY_ERROR", "LK_ERROR", "GENERIC_ERROR":
		from, to = 2*time.Minute, 20*time.Minute
	default:
		return 0
	}
	return (from + time.Duration(rng.Float64()*float64(to-from))).Milliseconds()
}
