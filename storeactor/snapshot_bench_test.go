package storeactor

import (
	"bytes"
	"fmt"
	"testing"

	"keyval/storeactor/disk"
)

// benchRows are rows of about 1 KiB each, in all so many bytes.
func benchRows(total int) []disk.Row {
	var rows []disk.Row
	value := bytes.Repeat([]byte("v"), 1<<10)
	for i := range total >> 10 {
		rows = append(rows, disk.Row{Key: fmt.Appendf(nil, "key-%08d", i), Value: value, Revision: uint64(i + 5)})
	}
	return rows
}

// BenchmarkSnapshotChunks: cutting 64 MiB of rows that are read already, and checking
// what was cut: the work of the two snapshots actors for each byte.
func BenchmarkSnapshotChunks(b *testing.B) {
	const total = 64 << 20
	state := stateAt(total, 4)
	chunks := chunksOf(b, state, benchRows(total), snapshotChunkBytes)
	b.Run("cut", func(b *testing.B) {
		b.SetBytes(total)
		for b.Loop() {
			var tally snapshotTally
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
			check := &snapshotCheck{}
			for _, c := range chunks {
				if _, err := check.take(c); err != nil {
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
			if _, t, err := glanceSnapshot(bytes.NewReader(file), int64(len(file))); err != nil || t.Rows != total>>10 {
				b.Fatal(t, err)
			}
		}
	})
}
