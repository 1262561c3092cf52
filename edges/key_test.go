package edges

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFixedKey(t *testing.T) {
	if key, err := FixedKey(testKey)(); key != testKey || err != nil {
		t.Errorf("got %q, %v", key, err)
	}
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))

	for name, text := range map[string]string{"empty": "", "only spaces": " \n\t\n", "too large": testKey + strings.Repeat("x", maxKeyBytes)} {
		write(text)
		if _, err := KeyFile(path, logger); err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), testKey) {
			t.Errorf("%s: error %v, want one that names the file", name, err)
		}
	}
	if _, err := KeyFile(path+"-missing", logger); err == nil || !strings.Contains(err.Error(), path+"-missing") {
		t.Errorf("missing: error %v, want one that names the file", err)
	}

	write("\n " + testKey + " \r\n")
	key, err := KeyFile(path, logger)
	if err != nil {
		t.Fatal(err)
	}
	want := func(want string) {
		t.Helper()
		if got, err := key(); got != want || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	want(testKey)
	write(testKey + "-2\n")
	want(testKey + "-2")
	if log.Len() > 0 {
		t.Errorf("log: %s", &log)
	}
	write("")
	want(testKey + "-2")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	want(testKey + "-2")
	if strings.Count(log.String(), "level=WARN") != 2 || strings.Contains(log.String(), testKey) {
		t.Errorf("log: %s", &log)
	}
	write(testKey + "-3")
	want(testKey + "-3")
}
