package edges

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
)

// FixedKey returns a Config.Key that always gives the same key.
func FixedKey(key string) func() (string, error) {
	return func() (string, error) { return key, nil }
}

// KeyFile returns a Config.Key that reads the key from a file each time it is
// asked for, so that a changed key is used without a restart. White space
// around the key is left out. While the file cannot be read or is empty, as in
// the middle of its being replaced, the last key goes on being used; logger
// gets a warning then. The error says why the file has no key now.
func KeyFile(path string, logger *slog.Logger) (func() (string, error), error) {
	last, err := readKey(path)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	return func() (string, error) {
		mu.Lock()
		defer mu.Unlock()
		key, err := readKey(path)
		if err != nil {
			logger.Warn("API key file cannot be used, going on with the last key", "err", err)
			return last, nil
		}
		last = key
		return key, nil
	}, nil
}

// maxKeyBytes bounds what is read of a key file.
const maxKeyBytes = 4096

func readKey(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read API key file: %w", err)
	}
	buf := make([]byte, maxKeyBytes+1)
	n, err := f.Read(buf)
	if cerr := f.Close(); n == 0 && cerr != nil {
		err = errors.Join(err, cerr)
	}
	key := strings.TrimSpace(string(buf[:n]))
	switch {
	case n > maxKeyBytes:
		return "", fmt.Errorf("read API key file: %s is too large to hold a key", path)
	case key == "" && err != nil && n > 0:
		return "", fmt.Errorf("read API key file %s: %w", path, err)
	case key == "":
		return "", fmt.Errorf("read API key file: %s holds no key", path)
	}
	return key, nil
}
