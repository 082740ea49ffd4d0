package y

// This file is KeyVal's; see PATCHES.md.

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Fault is a page of a mapped file that could not be read or written: the disk is
// full, or failed.
type Fault struct{ What string }

func (f *Fault) Error() string {
	return fmt.Sprintf("%s: the disk did not take or give a page of a file: it is full, or failed", f.What)
}

// CatchFault does f and makes an error of a fault in it, which else ends the process.
func CatchFault(what string, f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		if _, fault := r.(interface {
			runtime.Error
			Addr() uintptr
		}); !fault {
			panic(r)
		}
		err = &Fault{What: what}
	}()
	return f()
}
