package edges

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// What tells the test's own binary that it is a spender: a process that sends
// as many requests as its budget lets it, until it is killed.
const (
	spenderURL   = "EDGES_TEST_SPENDER_URL"
	spenderSlots = 5
	// spenderBudget is the file in the process' working folder.
	spenderBudget = "budget"
	// spenderWindow is in the place of the minute.
	spenderWindow = 500 * time.Millisecond
)

func spend() int {
	budget, err := newBudget(spenderSlots, spenderBudget, spenderWindow)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var group sync.WaitGroup
	for range 2 * spenderSlots {
		group.Go(func() {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			for {
				request, err := http.NewRequest(http.MethodGet, os.Getenv(spenderURL), http.NoBody)
				if err != nil {
					panic(err)
				}
				release, err := budget.Acquire(request.Context())
				if err != nil {
					panic(err)
				}
				answer, err := client.Do(request)
				if err == nil {
					answer.Body.Close()
				}
				release()
			}
		})
	}
	group.Wait()
	return 0
}

// TestBudgetOutlivesKill kills a process at arbitrary moments, starts it again
// at once, and looks at every window of what arrives at a server.
func TestBudgetOutlivesKill(t *testing.T) {
	const wanted = 60
	var mu sync.Mutex
	var arrivals []time.Time
	open := make(map[net.Conn]bool)
	changed := sync.NewCond(&mu)
	random := rand.New(rand.NewPCG(1, 2))

	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		mu.Lock()
		arrivals = append(arrivals, time.Now())
		delay := time.Duration(random.Int64N(int64(100 * time.Millisecond)))
		changed.Broadcast()
		mu.Unlock()
		time.Sleep(delay)
	}))
	server.Config.ConnState = func(conn net.Conn, state http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		if state == http.StateClosed {
			delete(open, conn)
		} else {
			open[conn] = true
		}
		changed.Broadcast()
	}
	server.Start()
	defer server.Close()

	folder := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	starts := 0
	for done := false; !done; starts++ {
		process := exec.CommandContext(t.Context(), self)
		process.Env = append(os.Environ(), spenderURL+"="+server.URL)
		process.Dir = folder
		process.Stderr = os.Stderr
		if err := process.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			_ = process.Wait() // it is killed, which is an error
			mu.Lock()
			close(ended)
			changed.Broadcast()
			mu.Unlock()
		}()
		hasEnded := func() bool {
			select {
			case <-ended:
				return true
			default:
				return false
			}
		}
		mu.Lock()
		killAt := len(arrivals) + 1 + random.IntN(2*spenderSlots)
		for len(arrivals) < killAt && !hasEnded() {
			changed.Wait()
		}
		tooEarly := hasEnded()
		mu.Unlock()
		if tooEarly {
			t.Fatal("the process ended before it was killed")
		}
		if err := process.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-ended
		// What the dead process has sent may still be about to be counted.
		mu.Lock()
		for len(open) > 0 {
			changed.Wait()
		}
		done = len(arrivals) >= wanted
		mu.Unlock()
	}

	if most := mostIn(spenderWindow, arrivals); most > spenderSlots {
		t.Errorf("%d requests arrived within %v, over %d starts, want at most %d", most, spenderWindow, starts, spenderSlots)
	}
	t.Logf("%d requests over %d starts", len(arrivals), starts)
}
