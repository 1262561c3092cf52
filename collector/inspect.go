package collector

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Inspection is what Inspect found.
type Inspection struct {
	// Absent tells that there is no store yet.
	Absent bool
	// InUse tells that another process holds the store, as a running exporter
	// does; it was not looked into.
	InUse bool
	// Runs is the number of runs in it, and Bytes the size of the file.
	Runs, Bytes int64
}

// Inspect reads the whole store at path and compares every checksum, without
// changing anything. While it reads, no exporter can start on that store. What an
// exporter could not start with is an error that matches ErrStore.
func Inspect(ctx context.Context, path, workspace string) (Inspection, error) {
	var found Inspection
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Inspection{Absent: true}, nil
	case err != nil:
		return found, fmt.Errorf("look for the store: %w", err)
	}
	found.Bytes = info.Size()
	s := &store{path: path}
	if !info.Mode().IsRegular() {
		return found, &storeError{path: path, what: "is not a file; name another --storage.path"}
	}
	if found.InUse = s.held(); found.InUse {
		return found, nil
	}
	if err := s.check(info.Size(), workspace); err != nil {
		return found, err
	}
	err = s.guard("read", func() error {
		db, err := s.bolt(path, true)
		if err != nil {
			return err
		}
		return errors.Join(db.View(func(tx *bbolt.Tx) error {
			found.Runs, err = s.readAll(ctx, tx)
			return err
		}), db.Close())
	})
	return found, err
}

// held reports whether another process holds the store. What else there is to
// say of it shows later.
func (s *store) held() (held bool) {
	_ = s.guard("open", func() error {
		db, err := bbolt.Open(s.path, 0o600, &bbolt.Options{Timeout: 50 * time.Millisecond, ReadOnly: true})
		if held = errors.Is(err, bolterrors.ErrTimeout); err != nil {
			return err
		}
		return db.Close()
	})
	return held
}

// readAll reads every value, and returns how many runs there are.
func (s *store) readAll(ctx context.Context, tx *bbolt.Tx) (runs int64, err error) {
	err = tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		sealed := false
		for _, with := range [][]byte{bucketMeta, bucketLabels, bucketSeries, bucketRuns, bucketSchedules, bucketScheduleRuns, bucketDeliveries} {
			sealed = sealed || string(with) == string(name)
		}
		return b.ForEach(func(k, v []byte) error {
			if string(name) == string(bucketRuns) {
				runs++
			}
			if runs%10_000 == 0 && ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if !sealed {
				return nil
			}
			if string(name) == string(bucketSeries) {
				// A series' key is in its checksum.
				v = slices.Concat(k, v)
			}
			if _, err := unseal(v); err != nil {
				return s.damaged(fmt.Errorf("%s: %w", name, err))
			}
			return nil
		})
	})
	return runs, err
}

// Need is what one part of an exporter asks of the API.
type Need struct {
	// What is read: "runs", "schedules", "callbacks" or "credits".
	What string
	// PerMinute is how many requests a minute that takes while all is quiet.
	PerMinute float64
}

// Needs returns what a configuration asks of the API while all is quiet. Of
// cfg, the poll interval and the switches of the collectors count.
func Needs(cfg Config) []Need {
	perMinute := func(every time.Duration) float64 { return float64(time.Minute) / float64(every) }
	all := []Need{{"runs", perMinute(cfg.PollInterval)}}
	if cfg.Schedules {
		all = append(all, Need{collectorSchedules, perMinute(schedulesPace(cfg.PollInterval))})
	}
	if cfg.Callbacks {
		all = append(all, Need{collectorCallbacks, perMinute(callbacksPace(cfg.PollInterval))})
	}
	if cfg.Credits {
		all = append(all, Need{collectorCredits, perMinute(creditsPace(cfg.PollInterval))})
	}
	return all
}
