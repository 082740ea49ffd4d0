package shipping

import (
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"keyval/messages"
)

// diary keeps what an operator reads at the default level.
type diary struct {
	mutex sync.Mutex
	text  strings.Builder
}

func (d *diary) Write(line []byte) (int, error) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.text.Write(line)
}

func (d *diary) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(d, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// says waits for a line that begins so.
func (d *diary) says(t *testing.T, begin string) {
	t.Helper()
	eventually(t, begin, func() bool {
		d.mutex.Lock()
		defer d.mutex.Unlock()
		return strings.Contains("\n"+d.text.String(), "\n"+begin)
	})
}

// TestPeopleAreTold: what becomes of snapshots is said where people look.
func TestPeopleAreTold(t *testing.T) {
	_, h := newStreet(t, 2, nil)
	a, b := h[0], h[1]
	a.ask(creates("first", 1234))
	a.diary.says(t, `level=INFO msg="a snapshot was written" snapshot=first index=9 bytes=`)
	arrives(t, a, b)
	b.send(&messages.Installed{Index: 9})
	a.raft.Expect("SnapshotShipped{peer=2}")
	a.diary.says(t, `level=INFO msg="a snapshot was sent to a follower" peer=node2 index=9 bytes=`)
	b.diary.says(t, `level=INFO msg="a snapshot comes in" peer="the node with raft id 1" index=9 bytes=`)
	b.diary.says(t, `level=INFO msg="a snapshot was installed" index=9 peer=node1 bytes=`)
}

func TestPeopleAreToldOfFailures(t *testing.T) {
	s, h := newStreet(t, 2, nil)
	a, b := h[0], h[1]
	b.disk.writeErr = io.ErrShortWrite
	s.refuses(t, a, msgSnap(1, 2), 1)
	a.diary.says(t, `level=WARN msg="a snapshot was not sent to a follower" peer=node2 index=9 code=INTERNAL reason="node2: `)
	b.diary.says(t, `level=WARN msg="a snapshot did not come in" peer=node1 index=9 code=INTERNAL reason=`)
	a.disk.writeErr = io.ErrShortWrite
	a.ask(creates("second", 1234))
	a.diary.says(t, `level=WARN msg="a snapshot was not written" snapshot=second reason=`)
}
