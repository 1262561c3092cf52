// Command dashboards writes the project's Grafana dashboards, as JSON files,
// into the current directory or the one that is given.
package main

//go:generate go run .

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	dir := "."
	if len(os.Args) > 1 {
		dir = os.Args[1]
	}
	if err := write(dir); err != nil {
		fmt.Fprintln(os.Stderr, "dashboards:", err)
		os.Exit(1)
	}
}

// boards makes all dashboards.
func boards() []*board { return []*board{runs(), action(), exporter()} }

func write(dir string) error {
	for _, b := range boards() {
		text, err := b.json()
		if err != nil {
			return err
		}
		//nolint:gosec // The files are for everybody to read, Grafana's user included.
		if err := os.WriteFile(filepath.Join(dir, b.uid+".json"), text, 0o644); err != nil {
			return fmt.Errorf("write dashboard %q: %w", b.title, err)
		}
	}
	return nil
}
