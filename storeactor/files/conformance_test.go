package files_test

import (
	"log/slog"
	"path/filepath"
	"testing"

	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
	"keyval/storeactor/files"
)

func TestFilesKeepTheContract(t *testing.T) {
	disktest.Run(t, func(t *testing.T) disktest.Opener {
		return &directory{t: t, path: filepath.Join(t.TempDir(), "data")}
	})
}

// directory is a node's directory. A crash leaves a copy of it, as the page
// cache has it at that moment; the process goes on in the old one, unheard.
type directory struct {
	t    *testing.T
	path string
}

func (d *directory) Open() (disk.Disk, error) {
	return files.Open(d.path, slog.New(slog.DiscardHandler), nil)
}

func (d *directory) Crash() {
	left := filepath.Join(d.t.TempDir(), "data")
	if err := disktest.CopyDirectory(d.path, left); err != nil {
		d.t.Fatal(err)
	}
	d.path = left
}
