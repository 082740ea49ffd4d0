//go:build !linux

package skl

// adviseHuge does nothing here. patched: this file is new, see huge_linux.go.
func adviseHuge([]byte) {}
