package production

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// sink takes what it is given one at a time, when the test lets it.
type sink struct {
	let chan error // what each Write answers
	out bytes.Buffer
}

func (s *sink) Write(p []byte) (int, error) {
	if err := <-s.let; err != nil {
		return 0, err
	}
	return s.out.Write(p)
}

func TestLinesNeverWait(t *testing.T) {
	for name, row := range map[string]struct {
		lines, size int
		fail        int // of the first writes
		lost        int
	}{
		"all are taken":    {lines: 10, size: 20},
		"too many":         {lines: linesMax + 8, size: 20, lost: 7}, // the writer holds one
		"too many bytes":   {lines: 8, size: lineBytesMax / 4, lost: 4},
		"none may be said": {lines: 10, size: 20, fail: 3, lost: 3},
	} {
		t.Run(name, func(t *testing.T) {
			s := &sink{let: make(chan error)}
			l := NewLines(s, func(to io.Writer, o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(to, o) })
			_, _ = l.Write(make([]byte, row.size))
			for len(l.queue) > 0 { // the writer has taken the first, and waits for the sink
				time.Sleep(time.Millisecond)
			}
			for range row.lines - 1 {
				if n, err := l.Write(make([]byte, row.size)); n != row.size || err != nil {
					t.Fatalf("%d, %v", n, err)
				}
			}
			began := time.Now()
			l.Close(10 * time.Millisecond)
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("closing a sink that takes nothing took %v", took)
			}
			for range row.fail {
				s.let <- errors.New("no room")
			}
			close(s.let)
			l.Close(10 * time.Second)
			said := ""
			if row.lost > 0 {
				said = fmt.Sprintf(`"lines":%d}`+"\n", row.lost)
			}
			if out := s.out.String(); !strings.HasSuffix(out, said) || strings.Contains(out, `"lines":`) != (row.lost > 0) {
				t.Errorf("it ends with %q, want %q", out[max(0, len(out)-80):], said)
			}
		})
	}
}
