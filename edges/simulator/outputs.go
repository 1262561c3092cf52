package simulator

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strconv"
)

// maxOutputs bounds a page of outputs.
const maxOutputs = 500

func (w *Workspace) outputEndpoints() []endpoint {
	return []endpoint{{method: http.MethodGet, path: "/v1/runs/{uid}/outputs", group: groupRuns, prepare: w.listOutputs}}
}

// listOutputs answers a page of a run's outputs, and tells in the header where
// the next one is: a cursor is only good for the run and the limit that it was
// made for.
func (w *Workspace) listOutputs(rw http.ResponseWriter, _ *http.Request) func(*http.Request) ([]byte, *problem) {
	return func(r *http.Request) ([]byte, *problem) {
		found, p := w.visible(r)
		if p != nil {
			return nil, p
		}
		v := r.URL.Query()
		limit, p := intParameter(v, "limit", defaultLimit, 1, maxOutputs)
		if p != nil {
			return nil, p
		}
		from := 0
		if cursor := v.Get("cursor"); cursor != "" {
			text, err := base64.RawURLEncoding.DecodeString(cursor)
			if from, _ = strconv.Atoi(string(text)); err != nil || from <= 0 {
				return nil, invalid("cursor", "this is no cursor")
			}
		}
		total := int(found.shown.outputs)
		from = min(from, total)
		to := min(from+limit, total)
		if to < total {
			next := url.URL{Scheme: "http", Host: r.Host, Path: r.URL.Path, RawQuery: url.Values{
				"cursor": {base64.RawURLEncoding.EncodeToString([]byte(strconv.Itoa(to)))},
				"limit":  {strconv.Itoa(limit)},
			}.Encode()}
			if r.TLS != nil {
				next.Scheme = "https"
			}
			rw.Header().Set("X-Pagination-Next", next.String())
		}
		rows := make([]int, to-from)
		for i := range rows {
			rows[i] = from + i
		}
		return writePage(rows, func(b []byte, i int) []byte { return appendOutput(b, found.shown, found.key, i) }), nil
	}
}

// appendOutput makes up the i-th result of a run: someone who does not exist.
func appendOutput(b []byte, s *row, key uint64, i int) []byte {
	h := mix(key ^ mix(bits64(i)))
	first := firstNames[h%uint64(len(firstNames))]
	last := lastNames[h>>16%uint64(len(lastNames))]
	b = append(b, `{"position":`...)
	b = strconv.AppendInt(b, int64(i), 10)
	b = append(b, `,"first_name":"`...)
	b = append(b, first...)
	b = append(b, `","last_name":"`...)
	b = append(b, last...)
	b = append(b, `","`...)
	b = append(b, s.action.inputField()...)
	b = append(b, `":"https://www.linkedin.com/in/`...)
	b = append(b, first...)
	b = append(b, '-')
	b = append(b, last...)
	b = append(b, '-')
	b = strconv.AppendUint(b, h&0xffffffff, 16)
	return append(b, `"}`...)
}
