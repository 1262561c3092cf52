package tests

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// buildTools builds the real programs once for all tests, those that are
// missing, and returns the folder that they are in.
var buildTools = sync.OnceValues(func() (string, error) {
	var stderr bytes.Buffer
	cmd := exec.Command("./tools.sh")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return stderr.String(), err
	}
	return strings.TrimSpace(string(out)), nil
})

// tool returns the path of one of the real programs.
func tool(t *testing.T, name string) string {
	t.Helper()
	folder, err := buildTools()
	if err != nil {
		t.Fatalf("build the tools: %v\n%s", err, folder)
	}
	return filepath.Join(folder, name)
}

func runTool(t *testing.T, name string, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), tool(t, name), args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func TestCheckRules(t *testing.T) {
	runTool(t, "promtool", "check", "rules", "--lint=all", "--lint-fatal", rulesFile)
}

func TestCheckAlertmanagerConfig(t *testing.T) {
	runTool(t, "amtool", "check-config", "../alertmanager.yml")
}

// TestRules runs promtool's tests of the rules, a file at a time.
func TestRules(t *testing.T) {
	files, err := filepath.Glob("*.test.yml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test files: %v", err)
	}
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			runTool(t, "promtool", "test", "rules", file)
		})
	}
}
