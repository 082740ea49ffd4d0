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

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

const (
	traceBlockSize = 64 << 10 // bytes that are hashed at a time
	recentMax      = 40       // events that are kept of each host, for a failed run
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
	if t.body(message) {
		h.recent.add(moment{now, actorID, message})
	}
	t.end()
	if t.text != nil {
		fmt.Fprintf(t.text, "%13.6f %s %s <- %s %s\n", now.Seconds(), h.name, actorID, sender, render(message))
	}
}

// body records a message, and reports whether people may want to read it. The
// messages of every tick are recorded as short as can be, and nobody wants them.
func (t *trace) body(message any) (telling bool) {
	switch m := message.(type) {
	case *messages.Tick:
		t.block = binary.AppendUvarint(append(t.block, 'T'), uint64(m.Elapsed))
		return false
	case *messages.Ticked:
		t.block = append(t.block, 't')
		return false
	case *messages.Flush:
		t.block = append(t.block, 'f')
		return false
	case *messages.Appended: // carries its Append, which is recorded
		t.block = append(t.block, 'a')
	case *messages.Applied: // carries its Apply, which is recorded, and the history's hash
		t.block = binary.AppendUvarint(append(t.block, 'A'), m.Index)
		t.block = binary.BigEndian.AppendUint64(t.block, m.HistoryHash)
	case proto.Message:
		t.string(t.name(message))
		t.block, _ = proto.MarshalOptions{Deterministic: true, AllowPartial: true}.MarshalAppend(t.block, m)
	default:
		t.string(t.name(message))
	}
	return true
}

// note records what the world itself did. name is a host's, or "world".
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
		t.digest()
	}
}

// digest adds the block to the hash. Where a block ends depends only on the events, so
// hashing the blocks' fast hashes is as good as hashing all bytes.
func (t *trace) digest() {
	t.hash.Write(binary.BigEndian.AppendUint64(nil, xxhash.Sum64(t.block)))
	t.block = t.block[:0]
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
	t.digest()
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

// moment is one event of a host. Messages are never modified once they are
// sent, so they are rendered only if the run fails.
type moment struct {
	at      time.Duration
	actorID string // empty: the world did it
	message any
}

// recent is the last recentMax moments of a host.
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
