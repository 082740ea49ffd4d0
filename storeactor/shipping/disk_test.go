package shipping

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/actortest"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
	"keyval/storeactor/files"
	"keyval/storeactor/snapshot"
	"keyval/storeactor/snapshot/snapshottest"
)

// realDisk is an initialised data directory.
func realDisk(t testing.TB) disk.Disk {
	t.Helper()
	d, err := files.Open(t.TempDir(), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if err := errors.Join(d.WriteIdentity(disktest.Identity), disk.Initialise(d, disktest.First), d.Found(disktest.First.ClusterId, 0)); err != nil {
		t.Fatal(err)
	}
	return d
}

// A snapshot goes from a machine to another node's disk, is installed there, and
// gives the same rows again; and so does a file of it.
func TestSnapshotOnARealDisk(t *testing.T) {
	d := realDisk(t)
	_, houses := newStreet(t, 2, func(c *Config) {
		c.Disk, c.ChunkBytes = d, 10_000
		if c.Self == 1 {
			c.Disk = realDisk(t)
		}
	})
	a, b := houses[0], houses[1]
	state := snapshottest.StateAt(5000, 4)
	state.ClusterId, state.ConfState = disktest.First.ClusterId, disktest.First.ConfState
	a.vault.checkpoint, a.vault.rows = state, nil
	for i := range uint64(2000) {
		key := fmt.Sprintf("key-%05d", i)
		a.vault.rows = append(a.vault.rows, snapshottest.Gone(key, 3000+i), snapshottest.Row(key, i+5, fmt.Sprint("value of ", i)))
	}
	wish := msgSnap(1, 2)
	wish.Snapshot.Metadata.ConfState = disktest.First.ConfState
	a.send(&messages.ShipSnapshot{Message: wish})
	actortest.Take[*messages.StagedSnapshot](b.raft)

	if err := d.Install(9, 3, disktest.HardState(5, 0, 9)); err != nil {
		t.Fatal(err)
	}
	b.send(&messages.Installed{Index: 9})
	a.raft.Expect("SnapshotShipped{peer=2}")
	at, err := d.Checkpoint()
	if err != nil || !proto.Equal(at, state) {
		t.Fatalf("%v, %v", at, err)
	}
	engine, err := d.OpenEngine(at)
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	var exported []disk.Row
	if err := engine.Export(disk.Cursor{}, at.CompactedRevision, at.Revision, func(r disk.Row) bool {
		exported = append(exported, disk.Row{Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value), Revision: r.Revision, Deleted: r.Deleted})
		return true
	}); err != nil {
		t.Fatal(err)
	}
	same := func(x, y disk.Row) bool {
		return bytes.Equal(x.Key, y.Key) && bytes.Equal(x.Value, y.Value) && x.Revision == y.Revision && x.Deleted == y.Deleted
	}
	if !slices.EqualFunc(exported, a.vault.rows, same) {
		t.Errorf("%d rows are there, %d were sent", len(exported), len(a.vault.rows))
	}

	a.ask(creates("first", 1))
	if infos := a.written(); len(infos) != 1 || infos[0].Error != "" || infos[0].Rows != uint64(len(a.vault.rows)) {
		t.Fatalf("it lists %v", infos)
	}
	if shown := a.ask(lists("first")); shown.Snapshots[0].Error != "" {
		t.Errorf("it shows %s", messages.Line(shown))
	}
	if reply := a.ask(deletes("first")); reply.Code != messages.Code_OK {
		t.Errorf("%s", messages.Line(reply))
	}
	a.Stop(a.snapshots)
	b.Stop(b.snapshots)
}

// BenchmarkStaging: 64 MiB of chunks are checked, staged and sealed on a real disk.
func BenchmarkStaging(b *testing.B) {
	const total = 64 << 20
	disk, chunks := realDisk(b), snapshottest.Cut(b, snapshot.NewSource(snapshottest.StateAt(total, 4), &messages.SnapshotHeader{}, snapshot.ChunkBytesMax), snapshottest.BenchRows(total))
	b.SetBytes(total)
	for b.Loop() {
		staging, err := disk.Stage()
		if err != nil {
			b.Fatal(err)
		}
		check := &snapshot.Check{}
		for _, c := range chunks {
			rows, err := check.Take(c)
			if err == nil && len(rows) > 0 {
				err = staging.Write(rows)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		if err := errors.Join(staging.Seal(check.Checkpoint()), staging.Drop()); err != nil {
			b.Fatal(err)
		}
	}
}
