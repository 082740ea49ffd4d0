package wal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"

	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
)

const exhaustionEnv = "KEYVAL_EXHAUSTION" // as for all tests of disks that run out of something

// TestPagesOfAFailedSync: the system takes pages that it could not write for written. They
// are read when the log is opened again, and no later sync brings them to the medium: what
// is acknowledged on them must not go with the power.
func TestPagesOfAFailedSync(t *testing.T) {
	if os.Getenv(exhaustionEnv) == "" {
		t.Skipf("%s is not set", exhaustionEnv)
	}
	was := wal.SegmentSizeBytes
	wal.SegmentSizeBytes = segmentBytes // so that all goes to one
	t.Cleanup(func() { wal.SegmentSizeBytes = was })
	mount := filepath.Join(t.TempDir(), "mount")
	volume := disktest.NewFailingVolume(t, mount)
	generation := filepath.Join(mount, "generation")
	openLog := func() (*Log, *disk.LogImage) {
		t.Helper()
		l, image, err := reopenLog(generation)
		if err != nil {
			t.Fatal(err)
		}
		return l, image
	}
	if err := os.Mkdir(generation, 0o700); err != nil {
		t.Fatal(err)
	}
	l := createAt(t, generation)
	t.Cleanup(func() { l.Close() })
	first := disktest.First
	index := first.Index
	entries := func(n int) (all []*raftpb.Entry) {
		for range n {
			index++
			all = append(all, &raftpb.Entry{Index: new(index), Term: new(first.Term), Data: bytes.Repeat([]byte{1}, 5000)})
		}
		return all
	}
	if err := l.Save(nil, entries(10)); err != nil {
		t.Fatal(err)
	}
	volume.Fail()
	if err := l.Save(nil, entries(200)); err == nil {
		t.Fatal("the medium did not fail")
	}
	volume.Mend()
	l.Close() // before, it would keep its files: in its place the process ends
	l, image := openLog()
	if last, _ := image.Last(); last != index {
		t.Skipf("this system forgets what it could not write: entry %d of %d is the last", last, index)
	}
	if err := l.Save(nil, entries(1)); err != nil { // acknowledged, with all that is before it
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	volume.PowerCut()
	l, image = openLog()
	if last, _ := image.Last(); last != index {
		t.Errorf("entry %d was acknowledged, and %d is the last", index, last)
	}
	l.Close()
}

// TestRewrittenSegment: another file is in its place, and says the same.
func TestRewrittenSegment(t *testing.T) {
	noise := bytes.Repeat([]byte("record"), rewriteChunk/6)
	for name, content := range map[string][]byte{
		"empty":                {},
		"short":                []byte("x"),
		"zeros alone":          make([]byte, 3*rewriteChunk),
		"zeros behind":         append(bytes.Clone(noise), make([]byte, 2*rewriteChunk+7)...),
		"zeros between":        slices.Concat(noise, make([]byte, 2*rewriteChunk), noise),
		"a last byte, and one": append(make([]byte, rewriteChunk), 1),
	} {
		dir := t.TempDir()
		old, last := filepath.Join(dir, segmentName(0, 0)), filepath.Join(dir, segmentName(1, 5))
		if err := errors.Join(os.WriteFile(old, []byte("old"), 0o600), os.WriteFile(last, content, 0o600)); err != nil {
			t.Fatal(err)
		}
		before, err := os.Stat(last)
		if err == nil {
			err = rewriteLast(dir)
		}
		if err != nil {
			t.Fatal(err)
		}
		after, err := os.Stat(last)
		if err != nil {
			t.Fatal(err)
		}
		found, err := os.ReadFile(last)
		if err != nil {
			t.Fatal(err)
		}
		if os.SameFile(before, after) || !bytes.Equal(found, content) {
			t.Errorf("%s: the same file: %t; the same content: %t", name, os.SameFile(before, after), bytes.Equal(found, content))
		}
		if names, _ := os.ReadDir(dir); len(names) != 2 {
			t.Errorf("%s: the directory holds %v", name, names)
		}
	}
}
