package skl

// patched: this file is new. A put into a list of a hundred thousand keys walks over some
// ten pages of the arena that are in no cache, and looks up where each of them is.

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePage is what the processors of today have, or less than that.
const hugePage = 2 << 20

// adviseHuge asks for huge pages under an arena, which is written from one end to the
// other. Without them all is as before, so an error says nothing.
func adviseHuge(arena []byte) {
	start := int(-uintptr(unsafe.Pointer(unsafe.SliceData(arena))) & (hugePage - 1))
	if pages := (len(arena) - start) / hugePage; pages > 0 {
		_ = unix.Madvise(arena[start:][:pages*hugePage], unix.MADV_HUGEPAGE)
	}
}
