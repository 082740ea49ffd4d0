package grpc

import (
	"log/slog"
	"sync/atomic"
	"time"
)

// Limited logs at most one line an interval, and how many it kept to itself: for what strangers can
// cause as often as they like. Its methods may be called from anywhere.
type Limited struct {
	logger *slog.Logger
	prefix string
	next   atomic.Int64 // Unix nanoseconds before which nothing is said
	kept   atomic.Int64
}

const logInterval = time.Second

// NewLimited writes to a logger. Each line begins with prefix.
func NewLimited(logger *slog.Logger, prefix string) *Limited {
	return &Limited{logger: logger, prefix: prefix}
}

// Warn is as slog's.
func (l *Limited) Warn(message string, args ...any) {
	now, next := time.Now().UnixNano(), l.next.Load()
	if now < next || !l.next.CompareAndSwap(next, now+int64(logInterval)) {
		l.kept.Add(1)
		return
	}
	if kept := l.kept.Swap(0); kept > 0 {
		args = append(args, "kept_silent", kept)
	}
	l.logger.Warn(l.prefix+message, args...)
}
