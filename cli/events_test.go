package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"keyval/messages"
)

// TestEvents: a node remembers what its log said from info on, whatever the log takes, without
// what clients stored, and no more of it than it may.
func TestEvents(t *testing.T) {
	var log bytes.Buffer
	h := newEvents(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError}))
	say := slog.New(h).With("node", "n1")
	say.Debug("a detail")
	say.Info("a leader is elected", "leader", "n2", "term", uint64(7))
	say.Warn("a request was denied", "principal", "alice", "reason", "no writer of secret")
	say.Error("badger: Key [secret, 3]")
	say.Warn("refused", "cause", fmt.Errorf("secret: %w", &fs.PathError{Op: "sync", Path: "wal", Err: syscall.EIO}), "code", "INTERNAL")
	say.Warn("refused", "reason", messages.Errorf(messages.Code_CONFLICT, "secret is there"))
	say.Warn("failed", "reason", errors.New("secret"), "value", []byte("secret"))
	var got []string
	for _, e := range h.kept.newest() {
		got = append(got, e.Level+" "+e.Text)
	}
	want := []string{
		`info a leader is elected node="n1" leader="n2" term=7`,
		`warn a request was denied node="n1"`,
		`error badger has something to say, which is in the log only node="n1"`,
		`warn refused node="n1" cause="sync wal: input/output error" code="INTERNAL"`,
		`warn refused node="n1" reason="CONFLICT"`,
		`warn failed node="n1"`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("it keeps\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "secret") {
		t.Errorf("the log itself takes errors alone, and whole: %s", text)
	}
	for i := range 10 * eventsMax {
		say.Info("again", "snapshot", strings.Repeat("x", 10*(i%100)), "index", i)
	}
	all, bytes := h.kept.newest(), 0
	for _, e := range all {
		bytes += len(e.Text)
		if len(e.Text) > eventMax {
			t.Fatalf("a text of %d bytes", len(e.Text))
		}
	}
	if len(all) > eventsMax || bytes > eventBytesMax || bytes < eventBytesMax/2 || !strings.Contains(all[len(all)-2].Text, `"`+strings.Repeat("x", 400)) {
		t.Errorf("it keeps %d lines, %d bytes, the last %s", len(all), bytes, all[len(all)-1].Text)
	}
}
