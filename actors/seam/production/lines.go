package production

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of what waits to be written.
const (
	linesMax     = 4096    // in lines
	lineBytesMax = 1 << 20 // in bytes
)

// Lines is a writer for which nobody waits. What people are told goes to a file, a pipe or
// a terminal, and none of them is sure to take it: a full disk, a reader that stands
// still, a key pressed in a terminal. A node that waited for that would stop serving. So
// lines are queued up to a bound and written by a goroutine. A line that finds no room, or
// cannot be written, is lost and counted; the writer says how many when it has caught up.
type Lines struct {
	to    io.Writer
	says  slog.Handler // writes to it too
	queue chan []byte
	bytes atomic.Int64 // of what is queued; at most lineBytesMax
	lost  atomic.Int64 // lines, since the last time it was said
	once  sync.Once
	close chan struct{} // closed when the writer is to end
	ended chan struct{} // closed when it has
}

var _ io.Writer = (*Lines)(nil)

// NewLines makes a writer. What was lost it says in the format of the handler that format makes.
func NewLines(to io.Writer, format func(io.Writer, *slog.HandlerOptions) slog.Handler) *Lines {
	l := &Lines{to: to, says: format(to, nil), queue: make(chan []byte, linesMax), close: make(chan struct{}), ended: make(chan struct{})}
	go l.write()
	return l
}

// Write queues one line, or a part of one. It never waits and never fails.
func (l *Lines) Write(line []byte) (int, error) {
	size := int64(len(line))
	if l.bytes.Add(size) > lineBytesMax {
		l.lose(size)
		return len(line), nil
	}
	select {
	case l.queue <- append([]byte(nil), line...):
	default:
		l.lose(size)
	}
	return len(line), nil
}

func (l *Lines) lose(size int64) {
	l.bytes.Add(-size)
	l.lost.Add(1)
}

// Close writes what is queued, for as long as patience lasts. Lines that come later are
// lost.
func (l *Lines) Close(patience time.Duration) {
	l.once.Do(func() { close(l.close) })
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-l.ended:
	case <-timer.C:
	}
}

func (l *Lines) write() {
	for {
		select {
		case line := <-l.queue:
			l.put(line)
		case <-l.close:
			for len(l.queue) > 0 {
				l.put(<-l.queue)
			}
			close(l.ended)
			return
		}
	}
}

// put writes a line. What was lost came after all that was queued then, so it is said when
// the queue is empty.
func (l *Lines) put(line []byte) {
	_, err := l.to.Write(line)
	l.bytes.Add(-int64(len(line)))
	if err != nil {
		l.lost.Add(1)
		return
	}
	if lost := l.lost.Load(); lost > 0 && len(l.queue) == 0 {
		said := slog.NewRecord(time.Now(), slog.LevelWarn, "lines were lost here: they were not taken in time", 0)
		said.AddAttrs(slog.Int64("lines", lost))
		if l.says.Handle(context.Background(), said) == nil {
			l.lost.Add(-lost)
		}
	}
}
