package disktest

import (
	"io"
	"strings"
	"testing"

	"keyval/messages"
	"keyval/storeactor/disk"
)

var archiveClauses = []clause{
	{"an archive keeps what was committed", testArchive},
	{"an archive forgets what was not committed", testArchiveUncommitted},
	{"an archive refuses what makes no sense", testArchiveRefused},
}

// archived writes a file of two parts.
func (n *node) archived(id, content string) disk.ArchiveWriter {
	n.Helper()
	w, err := n.disk.Archive().Create(id)
	n.ok(err)
	for _, part := range []string{content[:len(content)/2], content[len(content)/2:]} {
		written, err := io.WriteString(w, part)
		n.ok(err)
		n.same(written, len(part))
	}
	return w
}

func (n *node) listed(expected ...disk.ArchiveFile) {
	n.Helper()
	got, err := n.disk.Archive().List()
	n.ok(err)
	if len(got) == 0 && len(expected) == 0 {
		return
	}
	n.same(got, expected)
}

func (n *node) reads(id, expected string) {
	n.Helper()
	r, err := n.disk.Archive().Open(id)
	n.ok(err)
	got, err := io.ReadAll(r)
	n.ok(err)
	n.ok(r.Close())
	n.same(string(got), expected)
}

func testArchive(t *testing.T, o Opener) {
	n := start(t, o)
	n.listed()
	long := strings.Repeat("0123456789", 20000)
	file := func(id, content string) disk.ArchiveFile {
		return disk.ArchiveFile{ID: id, Bytes: int64(len(content))}
	}
	for _, f := range []struct{ id, content string }{{"b", "short"}, {"a-1", long}, {"c", ""}, {"0", "zero"}} {
		w := n.archived(f.id, f.content)
		n.ok(w.Commit())
		n.ok(w.Abort()) // too late: does nothing
		if _, err := w.Write([]byte("more")); err == nil || w.Commit() == nil {
			t.Fatal("a file can be written after its commit")
		}
	}
	for _, e := range endings {
		n.listed(file("c", ""), file("b", "short"), file("a-1", long), file("0", "zero"))
		n.reads("a-1", long)
		n.reads("c", "")
		n.ended(e)
	}
	n.ok(n.disk.Archive().Delete("b"))
	n.ok(n.disk.Archive().Delete("0"))
	n.listed(file("c", ""), file("a-1", long))
	n.ended(powerCut)
	n.listed(file("c", ""), file("a-1", long))
	n.ok(n.archived("b", "again").Commit()) // the id is free
	n.reads("b", "again")

	n.staged(100, 3, 40) // another state changes nothing here
	n.ok(n.log.Close())
	n.ok(n.disk.Install(100, 3, HardState(3, 0, 100)))
	n.ended(powerCut)
	n.listed(file("c", ""), file("b", "again"), file("a-1", long))
	n.close()
}

func testArchiveUncommitted(t *testing.T, o Opener) {
	n := start(t, o)
	w := n.archived("given-up", "x")
	n.listed()
	_, err := n.disk.Archive().Open("given-up")
	n.fails(messages.Code_NOT_FOUND, err)
	n.fails(messages.Code_NOT_FOUND, n.disk.Archive().Delete("given-up"))
	n.ok(w.Abort())
	n.ok(w.Abort())
	if _, err := w.Write([]byte("more")); err == nil || w.Commit() == nil {
		t.Fatal("a file can be written after it was given up")
	}
	n.listed()
	for _, e := range endings {
		n.archived("unfinished", "half")
		n.ended(e)
		n.listed()
		w := n.archived("unfinished", "nothing is left of it")
		n.ok(w.Commit())
		n.reads("unfinished", "nothing is left of it")
		n.ok(n.disk.Archive().Delete("unfinished"))
	}
	n.close()
}

func testArchiveRefused(t *testing.T, o Opener) {
	n := start(t, o)
	a := n.disk.Archive()
	for _, id := range []string{"", "A", "a/b", "..", "../identity", "a.b", "-a", strings.Repeat("a", 65)} {
		_, err := a.Create(id)
		n.fails(messages.Code_INVALID, err)
		_, err = a.Open(id)
		n.fails(messages.Code_INVALID, err)
		n.fails(messages.Code_INVALID, a.Delete(id))
	}
	_, err := a.Open("absent")
	n.fails(messages.Code_NOT_FOUND, err)
	n.fails(messages.Code_NOT_FOUND, a.Delete("absent"))
	w := n.archived("one", "1")
	_, err = a.Create("one") // it is being written
	n.fails(messages.Code_CONFLICT, err)
	two := n.archived("two", "2") // another one may be, beside it
	n.ok(w.Commit())
	_, err = a.Create("one")
	n.fails(messages.Code_CONFLICT, err)
	n.ok(two.Commit())
	n.reads("one", "1")
	n.reads("two", "2")
	n.close()
}
