package simulator

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// planLimit returns the requests per minute of a plan, 0 for no limit.
func planLimit(plan string) (int, error) {
	switch strings.ToLower(plan) {
	case "", "unlimited":
		return 0, nil
	case "trial":
		return 30, nil
	case "bronze":
		return 60, nil
	case "silver", "gold":
		return 150, nil
	case "platinum", "diamond":
		return 300, nil
	case "titanium":
		return 600, nil
	}
	return 0, fmt.Errorf("unknown plan %q: there are trial, bronze, silver, gold, platinum, diamond, titanium and unlimited", plan)
}

// allow counts a request against the plan's limit, which holds in any 60
// seconds of the workspace's clock, and says so in the answer's header. A
// refused request does not count.
func (w *Workspace) allow(h http.Header, group string) bool {
	if w.limit == 0 {
		return true
	}
	const window = int64(time.Minute / time.Millisecond)
	old := 0
	for old < len(w.recent) && w.recent[old] <= w.now-window {
		old++
	}
	w.recent = w.recent[old:]
	allowed := len(w.recent) < w.limit
	if allowed {
		w.recent = append(w.recent, w.now)
	}
	wait := time.Duration(0)
	if len(w.recent) > 0 {
		wait = time.Duration(w.recent[0]+window-w.now) * time.Millisecond
	}
	h.Set("X-Ratelimit-Remaining", strconv.Itoa(w.limit-len(w.recent)))
	if w.config.RateLimitHints {
		h.Set("X-Ratelimit-Limit", strconv.Itoa(w.limit))
		h.Set("X-Ratelimit-Reset", seconds(wait))
	}
	if !allowed {
		h.Set("X-Ratelimit-Type", group)
		if w.config.RateLimitHints {
			h.Set("Retry-After", seconds(wait))
		}
	}
	return allowed
}

// seconds writes a duration as whole seconds, rounded up.
func seconds(d time.Duration) string { return strconv.Itoa(int(math.Ceil(d.Seconds()))) }
