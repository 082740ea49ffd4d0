//go:build !linux

package cli

import (
	"os/exec"
	"time"
)

// bindToParent does nothing: only Linux ends children with their parent.
func bindToParent(*exec.Cmd) {}

// portOwner knows nobody: only Linux says who listens where.
func portOwner(int) string { return "" }

// listens, ownCPU and processCPU know nothing: they read what only Linux has.
func listens(int, int) bool                { return false }
func ownCPU() (time.Duration, bool)        { return 0, false }
func processCPU(int) (time.Duration, bool) { return 0, false }
