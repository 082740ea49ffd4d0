package files

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
)

// TestArchiveKnowsItsFiles: what else lies in the directory is neither listed nor
// removed; what was never committed is removed at the next start.
func TestArchiveKnowsItsFiles(t *testing.T) {
	dir := makeFiles(t)
	for _, name := range []string{"a.kvsnap", "b.kvsnap.tmp", "B.kvsnap", "a.b.kvsnap", "notes.txt", "c.tmp", "d.kvsnap/file"} {
		disktest.WriteFile(t, filepath.Join(dir, snapshotsName, name), "x")
	}
	d := mustOpen(t, dir)
	found, err := d.Archive().List()
	if err != nil || len(found) != 1 || found[0] != (disk.ArchiveFile{ID: "a", Bytes: 1}) {
		t.Fatalf("%v, %v", found, err)
	}
	left, err := os.ReadDir(filepath.Join(dir, snapshotsName))
	if err != nil || len(left) != 6 {
		t.Fatalf("left: %v, %v", left, err)
	}
}

// TestArchiveSaysWhyItFails: a disk that fails has a code and a next step, and the
// file is of no use afterwards.
func TestArchiveSaysWhyItFails(t *testing.T) {
	d := mustOpen(t, makeFiles(t))
	w, err := d.Archive().Create("a")
	if err != nil {
		t.Fatal(err)
	}
	w.(*archiveWriter).file.Close() // behind its back
	_, err = w.Write([]byte("x"))
	var known *messages.Error
	if !errors.As(err, &known) || known.Code != messages.Code_INTERNAL || known.Hint == "" {
		t.Fatalf("Write: %v", err)
	}
	if again := w.Commit(); messages.CodeOf(again) != messages.Code_INTERNAL {
		t.Fatalf("Commit: %v", again)
	}
	if found, err := d.Archive().List(); err != nil || len(found) != 0 {
		t.Fatalf("%v, %v", found, err)
	}
}
