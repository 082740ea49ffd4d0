package cli

import (
	"context"
	"log/slog"
	"sync"
	"time"

	limit "golang.org/x/time/rate"
)

// Bounds of the log: what strangers, or a peer that comes and goes, can have written. Lines of
// one message are counted together, whatever they say of.
const (
	linesAtOnce   = 30               // of one message
	lineInterval  = 20 * time.Second // from then on, between two of them
	messagesSpare = 256              // messages that are counted each for itself; all others together
)

// sparing is a log that says what goes on and on ever less often, and how many lines it has
// kept to itself. Below it, lines of debug are not counted: who asks for them wants all.
type sparing struct {
	slog.Handler
	counts *lineCounts
}

// lineCounts is shared by all that was made of one sparing log.
type lineCounts struct {
	mu  sync.Mutex
	all map[string]*lineCount // by message
}

type lineCount struct {
	rate *limit.Limiter
	kept int // lines since the last that was written
}

func newSparing(h slog.Handler) slog.Handler {
	return &sparing{h, &lineCounts{all: map[string]*lineCount{}}}
}

// Handle implements slog.Handler. It goes by the times of the records.
func (s *sparing) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo && !s.Enabled(ctx, slog.LevelDebug) {
		kept, written := s.counts.take(r)
		if !written {
			return nil
		}
		if kept > 0 {
			r = r.Clone()
			r.AddAttrs(slog.Int("kept_silent", kept))
		}
	}
	return s.Handler.Handle(ctx, r)
}

// take reports whether a record is to be written, and how many like it were not before.
func (c *lineCounts) take(r slog.Record) (kept int, written bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	message := r.Message
	if _, known := c.all[message]; !known && len(c.all) >= messagesSpare {
		message = ""
	}
	l := c.all[message]
	if l == nil {
		l = &lineCount{rate: limit.NewLimiter(limit.Every(lineInterval), linesAtOnce)}
		c.all[message] = l
	}
	if !l.rate.AllowN(r.Time, 1) {
		l.kept++
		return 0, false
	}
	kept, l.kept = l.kept, 0
	return kept, true
}

// WithAttrs implements slog.Handler.
func (s *sparing) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &sparing{s.Handler.WithAttrs(attrs), s.counts}
}

// WithGroup implements slog.Handler.
func (s *sparing) WithGroup(name string) slog.Handler {
	return &sparing{s.Handler.WithGroup(name), s.counts}
}
