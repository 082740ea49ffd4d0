//go:build linux

package main

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"keyval/storeactor/disk"
	"keyval/storeactor/files"
)

// A disk that alters a value is found out, the node ends, and starts no more; the others
// serve on. If the row's checksum tells, whoever reads it finds out; if the disk alters
// that with it, the node holds other data than the others.
func TestAlteredNodeEndsItself(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		written bool
		said    string
	}{
		{"rot", false, "is not what was written"},
		{"another value written", true, "this node holds other rows"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := startCluster(t, 3)
			altered := (p.leader() + 1) % 3
			load := &loader{t: t, client: p.connect(p.endpoints...), size: 100}
			load.fill(0, 500, "true")
			// With a compaction comes a checkpoint: what is below is not written anew at the next start.
			if out, said, code := p.kvctl("compact", "--yes"); code != 0 {
				t.Fatalf("compact ends with %d: %s%s", code, out, said)
			}
			p.same(500)
			p.kill(altered)
			alter(t, p.data(altered), "load/00000123", test.written)

			p.start(altered)
			c := p.running[altered]
			select {
			case <-c.ended:
			case <-time.After(30 * time.Second):
				out, said, code := p.kvctl("verify")
				t.Fatalf("n%d still runs; verify ends with %d: %s%s", altered+1, code, out, said)
			}
			p.set(altered, nil)
			said := c.log.String() + p.refused(altered)
			if n := strings.Count(said, test.said); n < 2 || !strings.Contains(said, "next:") {
				t.Errorf("it says:\n%s", said)
			}
			if out, said, code := p.kvctl("verify"); code != 9 || !strings.Contains(said, fmt.Sprintf("n%d could not be asked", altered+1)) {
				t.Errorf("verify ends with %d: %s%s", code, out, said)
			}
			load.fill(500, 510, "true")
		})
	}
}

// alter gives a key another value at the revision it has, in the data of a node that
// does not run; written: as a command would have written it, with its checksum.
func alter(t *testing.T, dir, key string, written bool) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	d, err := files.Open(dir, slog.New(slog.DiscardHandler), nil)
	check(err)
	checkpoint, err := d.Checkpoint()
	check(err)
	engine, err := d.OpenEngine(checkpoint)
	check(err)
	row, found, err := engine.Get([]byte(key), checkpoint.Revision)
	if check(err); !found {
		t.Fatalf("%s is not in the checkpoint at revision %d", key, checkpoint.Revision)
	}
	row.Value = append([]byte("al"), row.Value[2:]...)
	if written {
		row.Sum = row.Checksum()
	}
	check(engine.Write([]disk.Row{row}))
	check(engine.Sync())
	check(engine.Close())
	check(d.Close())
}
