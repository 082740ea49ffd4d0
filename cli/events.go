package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"keyval/messages"
)

// Bounds of what a node keeps of its log in memory, for a status that asks for it.
const (
	eventsMax     = 200
	eventBytesMax = 32 << 10 // of all texts
	eventMax      = 512      // bytes of one text
)

// events is a log that keeps its newest lines of level info and above, whatever the log below
// it takes. They go into reports of defects and onto a page, so they are free of what clients
// stored: of texts only those are kept that eventWords names, of errors what the operating
// system says and the code.
type events struct {
	slog.Handler
	kept *keptEvents
	set  string // what is said of each line of this logger
}

// keptEvents is shared by all that was made of one log. The newest stands last.
type keptEvents struct {
	mu    sync.Mutex
	all   []*messages.Event
	bytes int
}

func newEvents(h slog.Handler) *events { return &events{Handler: h, kept: &keptEvents{}} }

// Enabled implements slog.Handler.
func (e *events) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || e.Handler.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (e *events) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo {
		e.kept.add(&messages.Event{AtMs: r.Time.UnixMilli(), Level: strings.ToLower(r.Level.String()), Text: e.text(r)})
	}
	if !e.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return e.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (e *events) WithAttrs(attrs []slog.Attr) slog.Handler {
	set := e.set
	for _, a := range attrs {
		set += eventWord(a)
	}
	return &events{e.Handler.WithAttrs(attrs), e.kept, set}
}

// WithGroup implements slog.Handler. Names of groups are left out: nobody here uses them.
func (e *events) WithGroup(name string) slog.Handler {
	return &events{e.Handler.WithGroup(name), e.kept, e.set}
}

func (e *events) text(r slog.Record) string {
	var text strings.Builder
	message, _, badger := strings.Cut(r.Message, "badger: ")
	text.WriteString(message)
	if badger { // it writes keys into its lines
		text.WriteString("badger has something to say, which is in the log only")
	}
	text.WriteString(e.set)
	r.Attrs(func(a slog.Attr) bool {
		text.WriteString(eventWord(a))
		return true
	})
	return strings.ToValidUTF8(text.String()[:min(text.Len(), eventMax)], "")
}

// eventWords are the attributes whose texts are names, addresses and fixed words of nodes.
var eventWords = []string{
	"actor", "address", "advertised", "before", "by", "certificate", "cluster", "code", "confirmed", "expires", "founders",
	"is", "lacks", "leader", "listen", "member", "missing", "node", "peer", "record", "request", "snapshot", "type", "why",
}

// eventWord is " name=value"; empty: the value may hold anything.
func eventWord(a slog.Attr) string {
	switch v := a.Value.Resolve(); v.Kind() {
	case slog.KindBool, slog.KindInt64, slog.KindUint64, slog.KindFloat64, slog.KindDuration, slog.KindTime:
		return fmt.Sprintf(" %s=%v", a.Key, v)
	case slog.KindString:
		if slices.Contains(eventWords, a.Key) {
			return fmt.Sprintf(" %s=%q", a.Key, v.String())
		}
	case slog.KindAny:
		err, _ := v.Any().(error)
		if said := saidBySystem(err); said != "" {
			return fmt.Sprintf(" %s=%q", a.Key, said)
		}
	}
	return ""
}

// saidBySystem is what of an error cannot come from a client.
func saidBySystem(err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Error()
	}
	if e, ok := errors.AsType[*os.SyscallError](err); ok {
		return e.Error()
	}
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return e.Error()
	}
	if e, ok := errors.AsType[*messages.Error](err); ok {
		return e.Code.String()
	}
	return ""
}

func (k *keptEvents) add(e *messages.Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.all = append(k.all, e)
	k.bytes += len(e.Text)
	for len(k.all) > eventsMax || k.bytes > eventBytesMax {
		k.bytes -= len(k.all[0].Text)
		k.all = k.all[1:]
	}
}

// newest are all that are kept, the newest last.
func (k *keptEvents) newest() []*messages.Event {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.all)
}
