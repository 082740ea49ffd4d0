package snapshot

import (
	"bytes"
	"testing"

	"keyval/messages"
	"keyval/storeactor/snapshot/snapshottest"
)

// BenchmarkSnapshotChunks: cutting 64 MiB of rows that are read already, and checking
// what was cut: the work of the two snapshots actors for each byte.
func BenchmarkSnapshotChunks(b *testing.B) {
	const total = 64 << 20
	state := snapshottest.StateAt(total, 4)
	chunks := chunksOf(b, state, snapshottest.BenchRows(total), ChunkBytesMax)
	b.Run("cut", func(b *testing.B) {
		b.SetBytes(total)
		for b.Loop() {
			var tally tally
			for _, c := range chunks {
				before := tally.clone()
				_ = before
				tally.seal(c.Kind, c.First, c.Last, c.Body, 0)
			}
		}
	})
	b.Run("check", func(b *testing.B) {
		b.SetBytes(total)
		for b.Loop() {
			check := &Check{}
			for _, c := range chunks {
				if _, err := check.Take(c); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	file := fileOf(b, chunks)
	b.Run("read a file", func(b *testing.B) {
		b.SetBytes(int64(len(file)))
		for b.Loop() {
			if _, rows, err := readSnapshot(bytes.NewReader(file)); err != nil || len(rows) != total>>10 {
				b.Fatal(len(rows), err)
			}
		}
	})
	b.Run("glance at a file", func(b *testing.B) {
		for b.Loop() {
			if _, t, err := Glance(bytes.NewReader(file), int64(len(file)), messages.Level); err != nil || t.Rows != total>>10 {
				b.Fatal(t, err)
			}
		}
	})
}
