package sim

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"reflect"
	"time"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

const (
	traceBlockSize = 64 << 10 // bytes that are hashed at a time
	recentMax      = 40       // events that are kept of each machine, for a failed run
)

// trace is all that happened, as a hash, and as text if somebody wants to read.
type trace struct {
	hash  hash.Hash
	block []byte
	text  *bufio.Writer // nil: nobody reads
	names map[reflect.Type]string
}

func newTrace(text io.Writer) *trace {
	t := &trace{hash: sha256.New(), block: make([]byte, 0, traceBlockSize*2), names: map[reflect.Type]string{}}
	if text != nil {
		t.text = bufio.NewWriterSize(text, traceBlockSize)
	}
	return t
}

// message records that an actor is given a message.
func (t *trace) message(now time.Duration, h *host, actorID, sender string, message any) {
	t.begin(now, h.name, actorID)
	t.string(sender)
	t.string(t.name(message))
	if m, ok := message.(proto.Message); ok {
		t.block, _ = proto.MarshalOptions{Deterministic: true, AllowPartial: true}.MarshalAppend(t.block, m)
	}
	t.end()
	switch message.(type) {
	case *messages.Tick, *messages.Ticked, *messages.Flush: // too many to be of use
	default:
		h.recent.add(moment{now, actorID, message})
	}
	if t.text != nil {
		fmt.Fprintf(t.text, "%13.6f %s %s <- %s %s\n", now.Seconds(), h.name, actorID, sender, render(message))
	}
}

// note records what the world itself did. name is a machine's, or "world".
func (t *trace) note(now time.Duration, name, text string) {
	t.begin(now, name, "")
	t.string(text)
	t.end()
	if t.text != nil {
		fmt.Fprintf(t.text, "%13.6f %s * %s\n", now.Seconds(), name, text)
	}
}

func (t *trace) begin(now time.Duration, name, actorID string) {
	t.block = binary.AppendUvarint(t.block, uint64(now))
	t.string(name)
	t.string(actorID)
}

func (t *trace) string(s string) {
	t.block = binary.AppendUvarint(t.block, uint64(len(s)))
	t.block = append(t.block, s...)
}

func (t *trace) end() {
	if len(t.block) >= traceBlockSize {
		t.hash.Write(t.block)
		t.block = t.block[:0]
	}
}

func (t *trace) name(message any) string {
	kind := reflect.TypeOf(message)
	name, ok := t.names[kind]
	if !ok {
		name = kind.String()
		t.names[kind] = name
	}
	return name
}

// sum ends the trace.
func (t *trace) sum() string {
	t.hash.Write(t.block)
	t.block = t.block[:0]
	if t.text != nil {
		t.text.Flush()
	}
	return hex.EncodeToString(t.hash.Sum(nil))
}

// render is a message on one line.
func render(message any) string {
	switch m := message.(type) {
	case string:
		return m
	case proto.Message:
		return messages.Line(m)
	default:
		return fmt.Sprintf("%T", message)
	}
}

// moment is one event of a machine. Messages are never modified once they are
// sent, so they are rendered only if the run fails.
type moment struct {
	at      time.Duration
	actorID string // empty: the world did it
	message any
}

// recent is the last recentMax moments of a machine.
type recent struct {
	moments [recentMax]moment
	count   int
}

func (r *recent) add(m moment) {
	r.moments[r.count%recentMax] = m
	r.count++
}

// lines renders the moments, the oldest first.
func (r *recent) lines() []string {
	var lines []string
	for i := max(0, r.count-recentMax); i < r.count; i++ {
		m := r.moments[i%recentMax]
		if m.actorID == "" {
			lines = append(lines, fmt.Sprintf("%13.6f * %s", m.at.Seconds(), render(m.message)))
		} else {
			lines = append(lines, fmt.Sprintf("%13.6f %s %s", m.at.Seconds(), m.actorID, render(m.message)))
		}
	}
	return lines
}
