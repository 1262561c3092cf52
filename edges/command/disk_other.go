//go:build !unix || netbsd || openbsd || solaris || illumos

package command

import "errors"

// freeBytes is not to be had on this system.
func freeBytes(string) (uint64, error) {
	return 0, errors.New("this system is not asked")
}
