package backup

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/snapshot/snapshottest"
)

// chainOf writes n backups of a state that changes into dir, all but the first upon the one
// before, and returns their names and the whole files that they stand for.
func chainOf(t testing.TB, dir string, n int) (names []string, whole [][]byte) {
	t.Helper()
	l := directory(dir)
	var rows []disk.Row
	for i := range uint64(400) {
		rows = append(rows, snapshottest.Row(fmt.Sprintf("key-%04d", i), i+1, strings.Repeat(fmt.Sprint(i), 20)))
	}
	for link := range n {
		revision := uint64(400 + link)
		if link > 0 {
			rows[link*7] = snapshottest.Row(string(rows[link*7].Key), revision, "new")
			rows = append(rows[:300], rows[301:]...) // deleted, and given up
		}
		file, _ := backupOf(t, snapshottest.StateAt(revision, revision-1), rows, 2000)
		names, whole = append(names, fmt.Sprintf("backup-%d.kvb", link)), append(whole, file)
		if link == 0 {
			if err := os.WriteFile(filepath.Join(dir, names[0]), file, 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		since, err := LookSince(t.Context(), l, names[link-1])
		if err != nil {
			t.Fatal(err)
		}
		u, err := l.Create(t.Context(), names[link], 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := since.WriteIncrement(t.Context(), bytes.NewReader(file), u); err != nil {
			t.Fatal(err)
		}
		if err := u.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	return names, whole
}

func readChain(t testing.TB, dir, name string) ([]byte, error) {
	c, err := Open(t.Context(), directory(dir), name)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return io.ReadAll(c)
}

// Whatever was written, deleted or compacted between them: a chain makes the files that whole
// backups would have been.
func TestAChainMakesWholeBackups(t *testing.T) {
	dir := t.TempDir()
	names, whole := chainOf(t, dir, 5)
	for i, name := range names {
		if made, err := readChain(t, dir, name); err != nil || !bytes.Equal(made, whole[i]) {
			t.Errorf("%s: %d bytes of %d: %v", name, len(made), len(whole[i]), err)
		}
		g, err := GlanceAt(t.Context(), directory(dir), name)
		if err != nil || g.Base.GetLinks() != uint32(i) || g.Header.Revision != uint64(400+i) {
			t.Errorf("%s: %v %v", name, g, err)
		}
	}
	c, err := Open(t.Context(), directory(dir), names[4])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := plan(t)
	if r, err := Restore(c, p); err != nil || r.Header.Revision != 404 || r.Rows.Count != 396 {
		t.Errorf("%+v %v", r, err)
	}
	// A file of the chain may have another name.
	if err := os.Rename(filepath.Join(dir, names[1]), filepath.Join(dir, "backup-else.kvb")); err != nil {
		t.Fatal(err)
	}
	if made, err := readChain(t, dir, names[4]); err != nil || !bytes.Equal(made, whole[4]) {
		t.Errorf("%v", err)
	}
}

// Which link is broken, and why, is said; none of it makes a backup.
func TestABrokenChainIsNamed(t *testing.T) {
	remove := func(t *testing.T, path string) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	alter := func(at int) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[(at+len(b))%len(b)] ^= 1
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, test := range map[string]struct {
		link int
		harm func(*testing.T, string)
		code messages.Code
		says []string
	}{
		"the first is gone":       {0, remove, messages.Code_NOT_FOUND, []string{"backup-1.kvb builds on backup-0.kvb (revision 400, hash ", "and that is not in "}},
		"one amid is gone":        {1, remove, messages.Code_NOT_FOUND, []string{"backup-2.kvb builds on backup-1.kvb"}},
		"the first is altered":    {0, alter(3000), messages.Code_DAMAGED, []string{"backup-2.kvb: backup-1.kvb: backup-0.kvb: the snapshot is damaged: ", "which begins at byte"}},
		"the first's end":         {0, alter(-30), messages.Code_DAMAGED, []string{"backup-1.kvb builds on backup-0.kvb", "it has no end"}},
		"one amid is altered":     {2, alter(300), messages.Code_DAMAGED, []string{"backup-2.kvb: the snapshot is damaged: ", "which begins at byte"}},
		"the last one is altered": {3, alter(300), messages.Code_DAMAGED, []string{"the snapshot is damaged: ", "which begins at byte"}},
		"another in its place": {1, func(t *testing.T, path string) {
			file, _ := backupOf(t, snapshottest.StateAt(9, 4), snapshottest.SomeRows(), 60)
			if err := os.WriteFile(path, file, 0o600); err != nil {
				t.Fatal(err)
			}
		}, messages.Code_CONFLICT, []string{"backup-2.kvb builds on backup-1.kvb", "what is there under that name has revision 9 and hash"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			names, _ := chainOf(t, dir, 4)
			test.harm(t, filepath.Join(dir, names[test.link]))
			c, err := Open(t.Context(), directory(dir), names[3])
			if err == nil {
				defer c.Close()
				_, err = Read(c, nil)
			}
			if messages.CodeOf(err) != test.code {
				t.Errorf("%v: %v", messages.CodeOf(err), err)
			}
			for _, says := range test.says {
				if err == nil || !strings.Contains(err.Error(), says) {
					t.Errorf("%q is not in: %v", says, err)
				}
			}
		})
	}
}

// Any byte of any file of a chain: it is found.
func TestDamageOfAChainIsFound(t *testing.T) {
	dir := t.TempDir()
	names, _ := chainOf(t, dir, 3)
	random := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		path := filepath.Join(dir, names[random.IntN(len(names))])
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(b)
		at := random.IntN(len(b))
		bad[at] ^= byte(1 + random.IntN(255))
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Open(t.Context(), directory(dir), names[2])
		if err == nil {
			_, err = Read(c, nil)
			_ = c.Close()
		}
		if err == nil {
			t.Fatalf("byte %d of %s is altered, and nobody says so", at, path)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// An increment is made upon an older backup of the same cluster alone.
func TestAnIncrementIsRefused(t *testing.T) {
	dir := t.TempDir()
	names, _ := chainOf(t, dir, 2)
	since, err := LookSince(t.Context(), directory(dir), names[1])
	if err != nil {
		t.Fatal(err)
	}
	other := snapshottest.StateAt(500, 499)
	other.ClusterId = bytes.Repeat([]byte{9}, messages.ClusterIDSize)
	for says, state := range map[string]*messages.Checkpoint{
		"and this is cluster 0909": other, "and node1 is at 300 only": snapshottest.StateAt(300, 299),
	} {
		file, _ := backupOf(t, state, nil, 2000)
		if _, _, err := since.WriteIncrement(t.Context(), bytes.NewReader(file), io.Discard); messages.CodeOf(err) != messages.Code_CONFLICT || !strings.Contains(err.Error(), says) {
			t.Errorf("%v", err)
		}
	}
}

// What one that stays builds on stays; where one cannot be read, all stay.
func TestPruneKeepsBases(t *testing.T) {
	dir := t.TempDir()
	names, whole := chainOf(t, dir, 3)
	for _, name := range []string{"backup-3.kvb", "backup-4.kvb", "other.kvb"} {
		if err := os.WriteFile(filepath.Join(dir, name), whole[2], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		keep int
		gone string
	}{{9, "[]"}, {5, "[]"}, {3, "[]"}, {2, "[backup-0.kvb backup-1.kvb backup-2.kvb]"}, {1, "[backup-3.kvb]"}} {
		gone, err := Prune(t.Context(), directory(dir), test.keep)
		if err != nil || fmt.Sprint(gone) != test.gone {
			t.Errorf("%d are kept: %v is gone, %v", test.keep, gone, err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 || len(names) != 3 {
		t.Errorf("%v %v", left, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "backup-5.kvb"), []byte("no backup"), 0o600); err != nil {
		t.Fatal(err)
	}
	if gone, err := Prune(t.Context(), directory(dir), 1); len(gone) > 0 || err == nil || !strings.Contains(err.Error(), "nothing older is removed") {
		t.Errorf("%v %v", gone, err)
	}
}
