//go:build !linux

package table

import "os"

// writeBack does nothing: the sync at the end does it all. patched: this file is new.
func writeBack(*os.File, int64, int64, bool) error { return nil }
