package storeactor

import (
	"log/slog"

	"go.etcd.io/etcd/server/v3/storage/wal"
)

var quiet = slog.New(slog.DiscardHandler)

// Small segments keep the tests fast, and let them cross from one to the next.
func init() { wal.SegmentSizeBytes = 16 << 10 }
