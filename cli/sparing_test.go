package cli

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// TestLogIsSparing: what is said over and over is said ever less often, and what is left out
// is counted; nothing else suffers from it.
func TestLogIsSparing(t *testing.T) {
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	write := func(level slog.Level, records func(say func(after time.Duration, level slog.Level, message string))) []string {
		var out bytes.Buffer
		h := newSparing(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level})).WithAttrs([]slog.Attr{slog.String("node", "n1")})
		records(func(after time.Duration, level slog.Level, message string) {
			if err := h.Handle(context.Background(), slog.NewRecord(began.Add(after), level, message, 0)); err != nil {
				t.Fatal(err)
			}
		})
		return strings.Split(strings.TrimSpace(out.String()), "\n")
	}
	flood := func(say func(time.Duration, slog.Level, string)) {
		for i := range 36_000 { // for an hour
			say(time.Duration(i)*100*time.Millisecond, slog.LevelWarn, "a connection was refused")
		}
		say(time.Hour, slog.LevelInfo, "a leader is elected")
	}
	got := write(slog.LevelInfo, flood)
	if most := linesAtOnce + int(time.Hour/lineInterval) + 1; len(got) > most || len(got) < most-2 {
		t.Errorf("%d lines, want about %d", len(got), most)
	}
	if last, before := got[len(got)-1], got[len(got)-2]; !strings.Contains(last, "elected") || strings.Contains(last, "kept") ||
		!strings.Contains(before, fmt.Sprintf("node=n1 kept_silent=%d", int(lineInterval/(100*time.Millisecond))-1)) {
		t.Errorf("it ends with\n%s\n%s", before, last)
	}
	if got := write(slog.LevelDebug, flood); len(got) != 36_001 {
		t.Errorf("with debug %d lines", len(got))
	}
	got = write(slog.LevelInfo, func(say func(time.Duration, slog.Level, string)) {
		for i := range 10_000 {
			say(0, slog.LevelError, fmt.Sprint("always another ", i))
		}
	})
	if len(got) != messagesSpare+linesAtOnce {
		t.Errorf("%d lines of messages that are each another", len(got))
	}
}
