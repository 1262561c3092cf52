package collector

import (
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/edges-exporter/edges_exporter/edges"
)

// label is the name of a label. Its number is part of the store's format.
type label uint8

const (
	labelAction   label = 1
	labelMode     label = 2
	labelStatus   label = 3
	labelError    label = 4
	labelResult   label = 5
	labelReason   label = 6
	labelEndpoint label = 7
	labelCode     label = 8

	labelSchedule       label = 9
	labelCollector      label = 10
	labelScheduleStatus label = 11
	labelCallbackStatus label = 12
	labelCallbackCode   label = 13

	// Labels without a dictionary: their values are not kept by number.
	labelWorkspace label = 20
	labelRunUID    label = 21
	labelName      label = 22
)

func (l label) name() string {
	switch l {
	case labelAction:
		return "action"
	case labelMode:
		return "mode"
	case labelStatus, labelScheduleStatus, labelCallbackStatus:
		return "status"
	case labelError:
		return "error"
	case labelResult:
		return "result"
	case labelReason:
		return "reason"
	case labelEndpoint:
		return "endpoint"
	case labelCode, labelCallbackCode:
		return "code"
	case labelSchedule:
		return "schedule"
	case labelCollector:
		return "collector"
	case labelName:
		return "name"
	case labelWorkspace:
		return "workspace"
	case labelRunUID:
		return "run_uid"
	}
	return fmt.Sprintf("label_%d", uint8(l))
}

// Values that every bounded label has from the start. absent stands for null,
// overflow for all values that come after the bound was reached.
const (
	valueID0 = 0 // absent: "unknown", or "none" for errors
	valueID1 = 1 // overflow: "other"

	other = "other"

	maxStatuses   = 32
	maxModes      = 8
	maxErrors     = 100
	maxLabelBytes = 128
	maxSelfValues = 64
	maxSchedules  = 200
	maxCodes      = 100

	modeSchedule = "SCHEDULE"
)

// dictionary numbers the values of one label, so that records and series are
// small, and bounds how many there can be.
type dictionary struct {
	label label
	names []string
	ids   map[string]uint16
	limit int
	// saved is how many of names are committed to the store.
	saved int
}

func newDictionary(l label, absent string, limit int, known ...string) *dictionary {
	d := &dictionary{label: l, ids: map[string]uint16{}, limit: limit}
	for _, name := range append([]string{absent, other}, known...) {
		d.add(name)
	}
	return d
}

func (d *dictionary) add(name string) uint16 {
	id := uint16(len(d.names)) //nolint:gosec // limit is far below 65,536
	d.names = append(d.names, name)
	d.ids[name] = id
	return id
}

// id returns the number of a value, a new one if the bound allows it. Empty is
// the absent value.
func (d *dictionary) id(name string) uint16 {
	if name == "" {
		return valueID0
	}
	if id, ok := d.ids[name]; ok {
		return id
	}
	name = cleanLabel(name)
	if id, ok := d.ids[name]; ok {
		return id
	}
	if len(d.names) >= d.limit {
		return valueID1
	}
	return d.add(name)
}

func (d *dictionary) name(id uint16) string { return d.names[id] }

// cleanLabel makes any string from outside fit for a label value.
func cleanLabel(s string) string {
	if len(s) <= maxLabelBytes && utf8.ValidString(s) {
		return s
	}
	out := make([]rune, 0, maxLabelBytes)
	size := 0
	for _, r := range s {
		size += utf8.RuneLen(r)
		if size > maxLabelBytes {
			break
		}
		out = append(out, r)
	}
	return string(out)
}

// dictionaries holds one dictionary a label.
type dictionaries map[label]*dictionary

// newDictionaries makes the dictionaries of a fresh store. The two reserved
// values do not count against the bound on actions and error labels; for
// statuses and modes they do.
func newDictionaries(maxActions int) dictionaries {
	statuses := make([]string, 0, 10)
	for _, s := range edges.Statuses() {
		statuses = append(statuses, string(s))
	}
	return dictionaries{
		labelAction:   newDictionary(labelAction, "unknown", maxActions+2),
		labelMode:     newDictionary(labelMode, "unknown", maxModes, edges.ModeLive, edges.ModeAsync, modeSchedule),
		labelStatus:   newDictionary(labelStatus, "unknown", maxStatuses, statuses...),
		labelError:    newDictionary(labelError, "none", maxErrors+2),
		labelResult:   newDictionary(labelResult, "unknown", maxSelfValues, resultSuccess, resultError),
		labelReason:   newDictionary(labelReason, "unknown", maxSelfValues),
		labelEndpoint: newDictionary(labelEndpoint, "unknown", maxSelfValues),
		labelCode:     newDictionary(labelCode, "unknown", maxSelfValues),

		labelSchedule:       newDictionary(labelSchedule, "unknown", maxSchedules+2),
		labelCollector:      newDictionary(labelCollector, "unknown", maxSelfValues),
		labelScheduleStatus: newDictionary(labelScheduleStatus, "unknown", maxStatuses),
		labelCallbackStatus: newDictionary(labelCallbackStatus, "unknown", maxStatuses),
		labelCallbackCode:   newDictionary(labelCallbackCode, "none", maxCodes+2),
	}
}

// codeValue is the value of the code label for an HTTP status code; 0 means
// that there was no answer.
func codeValue(code int) string {
	if code == 0 {
		return "error"
	}
	return strconv.Itoa(code)
}
