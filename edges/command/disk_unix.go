//go:build unix && !netbsd && !openbsd && !solaris && !illumos

package command

import "syscall"

// freeBytes is how much an ordinary process can still write where path lies.
func freeBytes(path string) (uint64, error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(path, &stat); err != nil {
		return 0, err
	}
	return uint64(stat.Bavail) * uint64(stat.Bsize), nil //nolint:gosec,unconvert // their types differ by system; neither is negative
}
