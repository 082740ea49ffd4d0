//go:build !linux

package cli

import "os/exec"

// bindToParent does nothing: only Linux ends children with their parent.
func bindToParent(*exec.Cmd) {}

// portOwner knows nobody: only Linux says who listens where.
func portOwner(int) string { return "" }
