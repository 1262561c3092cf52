package edges

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// The file of a budget: eight bytes that name the format and its version, then
// records of eight bytes, the first for the pause and one for each slot. A
// record is
//
//	byte 0      state
//	byte 1      check: the other bytes, added up, and inverted
//	bytes 2..7  time, in milliseconds since 1970, big endian
//
// and is written with one call, in place. A killed process leaves the old
// record or the new one; nothing is synced to disk, so what a crash of the
// whole machine leaves may be older by some seconds.
const (
	budgetMagic  = "EDGBUDG\x01"
	recordBytes  = 8
	pauseOffset  = int64(len(budgetMagic))
	slotsOffset  = pauseOffset + recordBytes
	maxFileBytes = slotsOffset + maxPerMinute*recordBytes
)

// slotState is the state of a record.
type slotState byte

const (
	slotUnused slotState = iota + 1
	slotTaken
	slotReleased
)

var (
	// errBudgetFileDamaged is a file that cannot be understood.
	errBudgetFileDamaged = errors.New("file of the request budget is damaged or of another version")
	// errBudgetFileWrite is a file that can no longer be written. No request
	// starts without its record: after a restart it would not be counted.
	errBudgetFileWrite = errors.New("write the file of the request budget")
)

// slotUse is what is known of one slot; at is when it was taken or released.
type slotUse struct {
	state slotState
	at    time.Time
}

// budgetUse is the content of the file.
type budgetUse struct {
	pause time.Time
	slots []slotUse
}

type budgetFile struct {
	file *os.File
}

// openBudgetFile opens the file at path, or makes an empty one. It changes
// nothing in a file that is there: that one may belong to a running process,
// which the caller may only find out later.
func openBudgetFile(path string) (*budgetFile, budgetUse, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		created, err := createBudgetFile(path, budgetUse{})
		return created, budgetUse{}, err
	}
	if err != nil {
		return nil, budgetUse{}, err
	}
	content, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	if err == nil {
		var used budgetUse
		if used, err = parseBudgetFile(content); err == nil {
			return &budgetFile{file: file}, used, nil
		}
		err = fmt.Errorf("%s: %w", path, err)
	}
	return nil, budgetUse{}, errors.Join(err, file.Close())
}

// createBudgetFile puts a new file in the place of the one at path, if any.
func createBudgetFile(path string, used budgetUse) (*budgetFile, error) {
	now := time.Now()
	content := []byte(budgetMagic)
	content = append(content, record(slotReleased, used.pause)...)
	for _, slot := range used.slots {
		content = append(content, record(slot.state, now)...)
	}
	fresh := path + ".new"
	if err := os.WriteFile(fresh, content, 0o600); err != nil {
		return nil, err
	}
	if err := os.Rename(fresh, path); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &budgetFile{file: file}, nil
}

func parseBudgetFile(content []byte) (budgetUse, error) {
	if len(content) < int(slotsOffset) || len(content) > int(maxFileBytes) || len(content)%recordBytes != 0 ||
		string(content[:pauseOffset]) != budgetMagic {
		return budgetUse{}, errBudgetFileDamaged
	}
	var used budgetUse
	for at := int(pauseOffset); at < len(content); at += recordBytes {
		slot, ok := parseRecord(content[at : at+recordBytes])
		switch {
		case !ok:
			return budgetUse{}, errBudgetFileDamaged
		case at == int(pauseOffset):
			used.pause = slot.at
		default:
			used.slots = append(used.slots, slot)
		}
	}
	return used, nil
}

func (f *budgetFile) writePause(end time.Time) error {
	return f.write(pauseOffset, slotReleased, end)
}

func (f *budgetFile) writeTaken(slot int, now time.Time) error {
	return f.writeSlot(slot, slotTaken, now)
}

func (f *budgetFile) writeReleased(slot int, now time.Time) error {
	return f.writeSlot(slot, slotReleased, now)
}

func (f *budgetFile) writeUnused(slot int) error {
	return f.writeSlot(slot, slotUnused, time.Time{})
}

func (f *budgetFile) writeSlot(slot int, state slotState, at time.Time) error {
	return f.write(slotsOffset+int64(slot)*recordBytes, state, at)
}

func (f *budgetFile) write(offset int64, state slotState, at time.Time) error {
	if _, err := f.file.WriteAt(record(state, at), offset); err != nil {
		return fmt.Errorf("%w: %w", errBudgetFileWrite, err)
	}
	return nil
}

func (f *budgetFile) close() error {
	return f.file.Close()
}

// record rounds the time up, so that no slot is free a part of a millisecond
// too early after a restart.
func record(state slotState, at time.Time) []byte {
	var millis uint64
	if at.After(time.Unix(0, 0)) {
		millis = uint64(at.Add(time.Millisecond - time.Nanosecond).UnixMilli())
	}
	b := binary.BigEndian.AppendUint64(make([]byte, 0, recordBytes), millis)
	b[0] = byte(state)
	b[1] = recordCheck(b)
	return b
}

func parseRecord(b []byte) (slotUse, bool) {
	state := slotState(b[0])
	if state < slotUnused || state > slotReleased || b[1] != recordCheck(b) {
		return slotUse{}, false
	}
	millis := binary.BigEndian.Uint64(b) & (1<<48 - 1)
	return slotUse{state: state, at: time.UnixMilli(int64(millis))}, true
}

func recordCheck(b []byte) byte {
	sum := b[0]
	for _, c := range b[2:recordBytes] {
		sum += c
	}
	return ^sum
}
