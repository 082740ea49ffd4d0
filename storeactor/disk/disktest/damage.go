package disktest

import (
	"os"
	"path/filepath"
	"testing"

	"keyval/messages"
)

// WriteFile writes a file, with the directory it is in.
func WriteFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// FlipAt flips a bit of a file.
func FlipAt(t testing.TB, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

// Openly is what every reader of a file may answer: its content, or an error that
// has a code and tells what to do.
func Openly(t testing.TB, err error) {
	t.Helper()
	if e, ok := err.(*messages.Error); ok && (e.Hint == "" || e.Code != messages.Code_DAMAGED && e.Code != messages.Code_UNSUPPORTED) {
		t.Fatalf("%v: %v (%s)", e.Code, e, e.Hint)
	} else if err != nil && !ok {
		t.Fatalf("an error without a code: %v", err)
	}
}
