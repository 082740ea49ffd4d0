package wal

import (
	"fmt"
	"testing"

	"go.etcd.io/etcd/server/v3/storage/wal"

	"keyval/storeactor/disk/disktest"
)

// BenchmarkLogSave saves 64 entries of 1 KiB at a time, by the size of segments,
// without cuts and with one every 16 MiB.
//
//	go test ./storeactor -run '^$' -bench LogSave -benchtime 4000x -count 4
func BenchmarkLogSave(b *testing.B) {
	for _, segment := range []int64{64 * 1000 * 1000, 32 << 20, segmentBytes, 4 << 20} {
		for _, cut := range []bool{false, true} {
			b.Run(fmt.Sprintf("segment=%d/cut=%t", segment, cut), func(b *testing.B) { benchmarkSaves(b, segment, cut) })
		}
	}
}

func benchmarkSaves(b *testing.B, segment int64, cut bool) {
	defer func(before int64) { wal.SegmentSizeBytes = before }(wal.SegmentSizeBytes)
	wal.SegmentSizeBytes = segment
	l := benchmarkLog(b)
	terms, data := make([]uint64, 64), make([]byte, 1<<10)
	for i := range terms {
		terms[i] = 2
	}
	b.SetBytes(int64(len(terms) * len(data)))
	for n := 0; b.Loop(); n++ {
		benchmarkSave(b, l, terms, data)
		if cut && n%256 == 255 {
			if err := l.Cut(l.hardState.GetCommit(), 2); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkLogOpen opens a log that holds 16 MiB behind its base, of 128 MiB that
// were written.
func BenchmarkLogOpen(b *testing.B) {
	for _, segment := range []int64{64 * 1000 * 1000, segmentBytes, 4 << 20} {
		b.Run(fmt.Sprintf("segment=%d", segment), func(b *testing.B) {
			defer func(before int64) { wal.SegmentSizeBytes = before }(wal.SegmentSizeBytes)
			wal.SegmentSizeBytes = segment
			l := benchmarkLog(b)
			terms, data := make([]uint64, 64), make([]byte, 1<<10)
			for i := range terms {
				terms[i] = 2
			}
			for n := range 2048 {
				benchmarkSave(b, l, terms, data)
				if n == 1791 {
					if err := l.Cut(l.hardState.GetCommit(), 2); err != nil {
						b.Fatal(err)
					}
				}
			}
			generation := l.dir[:len(l.dir)-len(dirName)-1]
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				l, image, err := reopenLog(generation)
				if err != nil || len(image.Entries) == 0 {
					b.Fatal(err)
				}
				l.Close()
			}
		})
	}
}

func benchmarkLog(b *testing.B) *Log {
	generation := b.TempDir()
	if err := Create(generation, disktest.First, disktest.HardState(1, 0, 1), nil, disktest.Identity, 0, quiet); err != nil {
		b.Fatal(err)
	}
	l, _, err := reopenLog(generation)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	return l
}

func benchmarkSave(b *testing.B, l *Log, terms []uint64, data []byte) {
	commit := disktest.HardState(2, 1, l.index)
	es := disktest.Entries(l.index, terms...)
	for _, e := range es {
		e.Data = data
	}
	if err := l.Save(commit, es); err != nil {
		b.Fatal(err)
	}
}
