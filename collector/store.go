package collector

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// storeFormat is the version of what stands in the store. A change that an
// older version would misread raises it.
const storeFormat = 1

// Buckets of the store.
var (
	bucketMeta   = []byte("meta")
	bucketLabels = []byte("labels")
	bucketSeries = []byte("series")
	// bucketRuns: run key → record.
	bucketRuns = []byte("runs")
	// bucketOpen: action, mode, status, entered, run key → nothing; the runs in
	// flight or BLOCKED of one series, longest first.
	bucketOpen = []byte("open")
	// bucketAudit: confirmed, run key → nothing; the runs that are audited,
	// longest unconfirmed first.
	bucketAudit = []byte("audit")
	// bucketPostponed: postponed_until, run key → nothing.
	bucketPostponed = []byte("postponed")
	// bucketProblems: entered, run key → nothing; the runs in a problem status.
	bucketProblems = []byte("problems")
	// bucketUndated: uid → the time in the key of a run without created_at.
	bucketUndated = []byte("undated")
	// bucketSkipped: reason and run → nothing; the bad rows already counted.
	bucketSkipped = []byte("skipped")

	// bucketSchedules: uid of a schedule → schedule; those that are shown.
	bucketSchedules = []byte("schedules")
	// bucketScheduleRuns: uid of a schedule → when its latest run was made.
	bucketScheduleRuns = []byte("schedule_runs")
	// bucketDeliveries: key → delivery; the callbacks that have not ended.
	bucketDeliveries = []byte("callbacks")
	// bucketDelivered: key → nothing; the callbacks that have ended, as long as
	// the list may still show them as new.
	bucketDelivered = []byte("callbacks_ended")

	buckets = [][]byte{
		bucketMeta, bucketLabels, bucketSeries, bucketRuns, bucketOpen,
		bucketAudit, bucketPostponed, bucketProblems, bucketUndated, bucketSkipped,
	}
	// bucketsBeside are for what lies beside the runs. A store may have none of
	// them: there are such that were made without.
	bucketsBeside = [][]byte{bucketSchedules, bucketScheduleRuns, bucketDeliveries, bucketDelivered}
)

var (
	metaFormat       = []byte("format")
	metaWorkspace    = []byte("workspace")
	metaWorkspaceUID = []byte("workspace_uid")
	metaState        = []byte("state")
	metaCallbacks    = []byte("callbacks")
	metaCredits      = []byte("credits")
	// metaSeries is the number of series.
	metaSeries = []byte("series")
)

// ErrStore is what every error matches that a restart cannot mend: a store
// that is damaged, from a newer version, of another workspace or in use. Its
// text says what to do. The store is left as it is.
var ErrStore = errors.New("store cannot be used")

// storeError is an error of the store with the file's name and the way out.
type storeError struct {
	path, what string
	cause      error
}

func (e *storeError) Error() string {
	if e.cause == nil {
		return fmt.Sprintf("store %s %s", e.path, e.what)
	}
	return fmt.Sprintf("store %s %s: %v", e.path, e.what, e.cause)
}

func (*storeError) Is(target error) bool { return target == ErrStore }
func (e *storeError) Unwrap() error      { return e.cause }

const damagedAdvice = "is damaged; it was left as it is: restore it from a backup, or move it away to start anew (counters then begin at 0)"

// store is the embedded database in which everything is kept that must
// survive: one file, one process, one transaction a commit.
type store struct {
	db   *bbolt.DB
	path string
}

// openStore opens the store, or makes a new one for the workspace. It refuses,
// without a write, what this version cannot read exactly.
func openStore(path, workspace string) (*store, error) {
	s := &store{path: path}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make folder of the store: %w", err)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := s.create(workspace); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, fmt.Errorf("look for the store: %w", err)
	case !info.Mode().IsRegular():
		return nil, &storeError{path: path, what: "is not a file; name another --storage.path"}
	default:
		if err := s.check(info.Size(), workspace); err != nil {
			return nil, err
		}
	}
	err = s.guard("open", func() error {
		if s.db, err = s.bolt(path, false); err != nil {
			return err
		}
		return s.addBuckets()
	})
	if err != nil && s.db != nil {
		err = errors.Join(err, s.db.Close())
	}
	return s, err
}

// addBuckets makes the buckets that a store may lack.
func (s *store) addBuckets() error {
	missing, err := s.lacks()
	if err != nil || !missing {
		return err
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range bucketsBeside {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return fmt.Errorf("add %s to store: %w", name, err)
			}
		}
		return nil
	})
}

// lacks reports whether the store was made without the buckets for what lies
// beside the runs.
func (s *store) lacks() (bool, error) {
	missing := 0
	err := s.db.View(func(tx *bbolt.Tx) error {
		for _, name := range bucketsBeside {
			if tx.Bucket(name) == nil {
				missing++
			}
		}
		return nil
	})
	if missing != 0 && missing != len(bucketsBeside) {
		return false, s.damaged(fmt.Errorf("%d kinds of entries are missing", missing))
	}
	return missing != 0, err
}

func (s *store) bolt(path string, readOnly bool) (*bbolt.DB, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:      300 * time.Millisecond,
		ReadOnly:     readOnly,
		FreelistType: bbolt.FreelistMapType,
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, &storeError{path: s.path, what: "is in use by another process; stop that one, or give this one its own --storage.path"}
	case errors.Is(err, fs.ErrPermission):
		return nil, &storeError{path: s.path, what: "cannot be opened", cause: err}
	case err != nil:
		return nil, &storeError{path: s.path, what: damagedAdvice, cause: err}
	}
	return db, nil
}

// create makes an empty store under another name first, so that a crash in the
// middle leaves no file that looks like a store.
func (s *store) create(workspace string) error {
	fresh := s.path + ".new"
	if err := s.discard(fresh); err != nil {
		return err
	}
	db, err := s.bolt(fresh, false)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range slices.Concat(buckets, bucketsBeside) {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		if err := meta.Put(metaFormat, seal([]byte(strconv.Itoa(storeFormat)))); err != nil {
			return err
		}
		return meta.Put(metaWorkspace, seal([]byte(workspace)))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("make store %s: %w", s.path, err)
	}
	if err := os.Rename(fresh, s.path); err != nil {
		return fmt.Errorf("make store: %w", err)
	}
	dir, err := os.Open(filepath.Dir(s.path))
	if err != nil {
		return fmt.Errorf("make store: %w", err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// discard removes what a crash left of a store that was being made: it holds
// nothing. A living process that is making it keeps its lock.
func (s *store) discard(fresh string) error {
	if _, err := os.Stat(fresh); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err := s.guard("open", func() error {
		db, err := s.bolt(fresh, true)
		if err != nil {
			return err
		}
		return db.Close()
	})
	if se := (*storeError)(nil); err != nil && (!errors.As(err, &se) || se.what != damagedAdvice) {
		return err
	}
	if err := os.Remove(fresh); err != nil {
		return fmt.Errorf("remove a half-made store: %w", err)
	}
	return nil
}

// check reads an existing store without writing to it.
func (s *store) check(size int64, workspace string) error {
	return s.guard("check", func() error {
		if size == 0 {
			return &storeError{path: s.path, what: damagedAdvice, cause: errors.New("the file is empty")}
		}
		db, err := s.bolt(s.path, true)
		if err != nil {
			return err
		}
		return errors.Join(db.View(func(tx *bbolt.Tx) error {
			if tx.Size() > size {
				return &storeError{path: s.path, what: damagedAdvice, cause: fmt.Errorf("%d bytes are missing at its end", tx.Size()-size)}
			}
			return s.checkMeta(tx, workspace)
		}), db.Close())
	})
}

func (s *store) checkMeta(tx *bbolt.Tx, workspace string) error {
	meta := tx.Bucket(bucketMeta)
	if meta == nil || meta.Get(metaFormat) == nil {
		return &storeError{path: s.path, what: "was not made by edges_exporter; it was left as it is: name another --storage.path"}
	}
	format, err := unseal(meta.Get(metaFormat))
	if err != nil {
		return &storeError{path: s.path, what: damagedAdvice, cause: err}
	}
	if version, err := strconv.Atoi(string(format)); err != nil || version > storeFormat {
		return &storeError{path: s.path, what: fmt.Sprintf("has format %s, this version reads up to %d; it was left as it is: run the newer edges_exporter that wrote it, or name another --storage.path", format, storeFormat)}
	}
	for _, name := range buckets {
		if tx.Bucket(name) == nil {
			return &storeError{path: s.path, what: damagedAdvice, cause: fmt.Errorf("%s are missing", name)}
		}
	}
	owner, err := unseal(meta.Get(metaWorkspace))
	if err != nil {
		return &storeError{path: s.path, what: damagedAdvice, cause: err}
	}
	if string(owner) != workspace {
		return &storeError{path: s.path, what: fmt.Sprintf("belongs to workspace %q, not %q; it was left as it is: set --edges.workspace=%s, or give this workspace its own --storage.path", owner, workspace, owner)}
	}
	return nil
}

// guard turns what a damaged file does to the database's code, a panic or a
// fault in mapped memory, into an error.
func (s *store) guard(doing string, f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = &storeError{path: s.path, what: damagedAdvice, cause: fmt.Errorf("%s: %v", doing, r)}
		}
	}()
	return f()
}

// update runs f in a transaction that is committed when f returns nil.
func (s *store) update(f func(tx *bbolt.Tx) error) error {
	return s.guard("write", func() error { return s.db.Update(f) })
}

// view runs f in a transaction that only reads.
func (s *store) view(f func(tx *bbolt.Tx) error) error {
	return s.guard("read", func() error { return s.db.View(f) })
}

func (s *store) close() error {
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// damaged says that what was read from the store makes no sense.
func (s *store) damaged(cause error) error {
	return &storeError{path: s.path, what: damagedAdvice, cause: cause}
}

// loadState reads the follower's state; a fresh store has the zero state.
func (s *store) loadState(tx *bbolt.Tx) (state, error) {
	var st state
	b := tx.Bucket(bucketMeta).Get(metaState)
	if b == nil {
		return st, nil
	}
	body, err := unseal(b)
	if err == nil {
		err = json.Unmarshal(body, &st)
	}
	if err != nil {
		return st, s.damaged(fmt.Errorf("state of the follower: %w", err))
	}
	return st, nil
}

// saveState writes the follower's state.
func saveState(tx *bbolt.Tx, st *state) error {
	body, err := json.Marshal(st)
	if err != nil {
		return err
	}
	return tx.Bucket(bucketMeta).Put(metaState, seal(body))
}
