package simulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/edges-exporter/edges_exporter/edges"
)

// maxControlBody bounds what the control page takes in.
const maxControlBody = 8 << 20

// controlRoutes sets up what a person may do to the workspace. None of it
// needs the key, and no trouble befalls it.
func (w *Workspace) controlRoutes() {
	handle := func(pattern string, f func(*http.Request) (any, error)) {
		w.mux.HandleFunc(pattern, func(rw http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(rw, r.Body, maxControlBody)
			w.answerControl(rw, r, f)
		})
	}
	w.mux.HandleFunc("GET /simulator/{$}", w.controlPage)
	w.mux.Handle("GET /{$}", http.RedirectHandler("/simulator/", http.StatusSeeOther))
	w.mux.HandleFunc("/simulator/", func(rw http.ResponseWriter, _ *http.Request) {
		http.Error(rw, "there is no such thing: GET /simulator/ says what there is", http.StatusNotFound)
	})
	handle("GET /simulator/state", func(*http.Request) (any, error) { return w.State(), nil })
	w.mux.HandleFunc("GET /simulator/truth", w.controlTruth)
	handle("GET /simulator/trouble", func(*http.Request) (any, error) { return w.Troubles(), nil })
	handle("POST /simulator/trouble", w.controlTrouble)
	handle("DELETE /simulator/trouble", func(r *http.Request) (any, error) {
		var ids []int
		for _, s := range r.URL.Query()["id"] {
			id, err := strconv.Atoi(s)
			if err != nil {
				return nil, fmt.Errorf("id: %w", err)
			}
			ids = append(ids, id)
		}
		return map[string]int{"cleared": w.ClearTrouble(ids...)}, nil
	})
	handle("POST /simulator/launch", func(r *http.Request) (any, error) {
		mode := strings.ToUpper(r.FormValue("mode"))
		if mode == "" {
			mode = edges.ModeAsync
		}
		n, err := count(r, 1)
		if err != nil {
			return nil, err
		}
		uids := make([]string, 0, n)
		for range n {
			uid, err := w.Launch(r.FormValue("action"), mode)
			if err != nil {
				return nil, err
			}
			uids = append(uids, uid)
		}
		return map[string][]string{"uids": uids}, nil
	})
	handle("POST /simulator/runs", func(r *http.Request) (any, error) {
		var all []Run
		if err := json.NewDecoder(r.Body).Decode(&all); err != nil {
			return nil, fmt.Errorf("read the list of runs: %w", err)
		}
		return map[string][]string{"uids": w.PutAll(all)}, nil
	})
	handle("POST /simulator/remove", func(r *http.Request) (any, error) {
		if err := r.ParseForm(); err != nil {
			return nil, err
		}
		if uids := r.Form["uid"]; len(uids) > 0 {
			return map[string]int{"removed": w.Remove(uids...)}, nil
		}
		n, err := count(r, 1)
		if err != nil {
			return nil, err
		}
		return map[string][]string{"uids": w.RemoveLatest(n)}, nil
	})
	handle("POST /simulator/replay", func(r *http.Request) (any, error) {
		if uid := r.FormValue("uid"); uid != "" {
			replay, err := w.ReplayCallback(uid)
			return map[string][]string{"uids": {replay}}, err
		}
		n, err := count(r, 1)
		if err != nil {
			return nil, err
		}
		uids := make([]string, 0, n)
		all := w.Callbacks()
		for _, c := range all[max(0, len(all)-n):] {
			replay, err := w.ReplayCallback(c.UID)
			if err != nil {
				return nil, err
			}
			uids = append(uids, replay)
		}
		return map[string][]string{"uids": uids}, nil
	})
	handle("POST /simulator/touch", func(r *http.Request) (any, error) {
		n, err := count(r, 100)
		if err != nil {
			return nil, err
		}
		return map[string]int{"touched": w.Touch(n)}, nil
	})
	handle("POST /simulator/clock", func(r *http.Request) (any, error) {
		clock, ok := w.clock.(interface{ Advance(time.Duration) })
		if !ok {
			return nil, errors.New("this workspace's clock cannot be moved")
		}
		d, err := time.ParseDuration(r.FormValue("advance"))
		if err != nil {
			return nil, fmt.Errorf("advance: %w", err)
		}
		if d < 0 {
			return nil, errors.New("advance: time does not go back")
		}
		clock.Advance(d)
		return map[string]time.Time{"now": w.State().Now}, nil
	})
}

// answerControl writes what f returns as JSON; an error is the caller's fault.
func (w *Workspace) answerControl(rw http.ResponseWriter, r *http.Request, f func(*http.Request) (any, error)) {
	v, err := f(r)
	code := http.StatusOK
	if err != nil {
		code, v = http.StatusBadRequest, map[string]string{"error": err.Error()}
	}
	rw.Header().Set("Content-Type", "application/json; charset=utf-8")
	rw.WriteHeader(code)
	e := json.NewEncoder(rw)
	if _, long := v.(Truth); !long {
		e.SetIndent("", "  ")
	}
	if err := e.Encode(v); err != nil {
		w.log.Debug("control answer not written", "path", r.URL.Path, "err", err)
	}
}

// count reads how many of something are meant.
func count(r *http.Request, otherwise int) (int, error) {
	s := r.FormValue("count")
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 100_000 {
		return 0, fmt.Errorf("count must be from 1 to 100000, not %q", s)
	}
	return n, nil
}

// controlTrouble takes troubles in: a JSON object or list of them, or the
// compact form, one a line.
func (w *Workspace) controlTrouble(r *http.Request) (any, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, fmt.Errorf("read the trouble: %w", err)
	}
	var all []Trouble
	text := strings.TrimSpace(string(body))
	switch kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); {
	case strings.HasPrefix(text, "["):
		err = json.Unmarshal(body, &all)
	case strings.HasPrefix(text, "{"):
		var one Trouble
		err = json.Unmarshal(body, &one)
		all = []Trouble{one}
	case kind == "application/json":
		err = errors.New("neither an object nor a list")
	default:
		// curl -d joins what it reads from a file and sends it as a form,
		// without encoding it: the kind of the body says nothing.
		for line := range strings.Lines(text) {
			if strings.TrimSpace(line) == "" {
				continue
			}
			t, parseErr := ParseTrouble(line)
			if parseErr != nil {
				return nil, parseErr
			}
			all = append(all, t)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read the trouble: %w", err)
	}
	if len(all) == 0 {
		return nil, errors.New("no trouble in the request")
	}
	for i := range all {
		if all[i], err = w.AddTrouble(all[i]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// controlTruth writes the truth; ?from=N leaves out the entries before number
// N, and ?runs=false the runs, callbacks and schedules.
func (w *Workspace) controlTruth(rw http.ResponseWriter, r *http.Request) {
	w.answerControl(rw, r, func(r *http.Request) (any, error) {
		from := int64(0)
		if s := r.FormValue("from"); s != "" {
			var err error
			if from, err = strconv.ParseInt(s, 10, 64); err != nil {
				return nil, fmt.Errorf("from: %w", err)
			}
		}
		return w.truthFrom(from, r.FormValue("runs") != "false"), nil
	})
}

// controlPage says what can be done.
func (w *Workspace) controlPage(rw http.ResponseWriter, r *http.Request) {
	s := w.State()
	base := "http://" + r.Host
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("A simulated Edges workspace")
	line("===========================")
	line("")
	line("time        %s", s.Now.Format(time.RFC3339))
	line("workspace   %s", s.WorkspaceUID)
	line("plan        %s", s.Plan)
	line("runs        %d", s.Runs)
	for _, status := range edges.Statuses() {
		line("  %-18s %d", status, s.Statuses[status])
	}
	if len(s.Troubles) == 0 {
		line("trouble     none")
	}
	for _, t := range s.Troubles {
		line("trouble %-3d %s", t.ID, t)
	}
	line("")
	line("The API")
	line("")
	line("  curl -H 'X-API-Key: KEY' '%s/v1/runs?limit=3&sort=-updated_at'", base)
	line("  curl -H 'X-API-Key: KEY' '%s/v1/runs?status=FAILED&status=BLOCKED&action_name=email-find'", base)
	line("  curl -H 'X-API-Key: KEY' '%s/v1/runs/UID'", base)
	line("  curl -H 'X-API-Key: KEY' -X POST '%s/v1/runs/UID/resume'", base)
	line("  curl -H 'X-API-Key: KEY' '%s/v1/runs/UID/outputs?limit=500'", base)
	line("  curl -H 'X-API-Key: KEY' '%s/v1/runs/callbacks?status=FAILED&limit=20'", base)
	line("  curl -H 'X-API-Key: KEY' '%s/v1/schedules?status=ACTIVE'", base)
	line("  curl -H 'X-API-Key: KEY' '%s/v1/workspaces/consumption'", base)
	line("  curl -H 'X-API-Key: KEY' -d '{\"inputs\":[{}]}' '%s/v1/actions/email-find/run/async'", base)
	line("")
	line("The workspace")
	line("")
	line("  curl '%s/simulator/state'", base)
	line("  curl '%s/simulator/truth?runs=false'        every entry into a status", base)
	line("  curl -d action=email-find -d mode=live -d count=5 '%s/simulator/launch'", base)
	line("  curl -d count=3 '%s/simulator/remove'       the runs updated last vanish", base)
	line("  curl -d count=3 '%s/simulator/replay'       the latest callbacks are made again", base)
	line("  curl -d count=250 '%s/simulator/touch'      the same updated_at for many", base)
	line("  curl -d advance=10m '%s/simulator/clock'    let time pass", base)
	line("")
	line("Trouble")
	line("")
	line("  curl -d failed:linkedin-extract-people:share=0.9:for=10m:error=LIMIT_REACHED '%s/simulator/trouble'", base)
	line("  curl -d '{\"kind\":\"blocked\",\"action\":\"email-find\",\"for\":\"5m\"}' '%s/simulator/trouble'", base)
	line("  curl '%s/simulator/trouble'                 what goes wrong", base)
	line("  curl -X DELETE '%s/simulator/trouble?id=1'  without an id: all of it", base)
	line("")
	line("  %-18s %-30s %s", "kind", "settings", "what happens")
	for _, k := range troubleKinds() {
		line("  %-18s %-30s %s", k.kind, strings.Join(k.settings, " "), k.help)
	}
	line("  and for all of them: after, for (how long), from (a time).")
	line("")
	line("Actions")
	line("")
	for _, name := range w.Actions() {
		line("  %s", name)
	}
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(rw, b.String()) //nolint:errcheck // a reader that has gone away is no concern of the workspace
}
