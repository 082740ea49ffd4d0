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
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/sim/phrase"
)

const traceBlockSize = 64 << 10 // bytes that are hashed at a time

// trace is all that happened, as a hash, and as text if somebody wants to read.
type trace struct {
	hash  hash.Hash
	block []byte
	text  *bufio.Writer // nil: nobody reads
	only  Filter        // of the text
	types map[reflect.Type]string
	names *phrase.Names
	last  timeline
}

// Filter is what somebody wants to read of a trace: lines of these hosts, of these kinds
// of actors, and of these messages. What is empty lets all pass.
type Filter struct {
	Hosts, Actors, Messages []string
}

func (f Filter) passes(host, actorID string, message any) bool {
	among := func(wanted []string, is string) bool { return len(wanted) == 0 || slices.Contains(wanted, is) }
	if !among(f.Hosts, host) || !among(f.Actors, phrase.Kind(host+" "+actorID)) {
		return false
	}
	body, ours := message.(proto.Message)
	return len(f.Messages) == 0 || ours && slices.Contains(f.Messages, phrase.NameOf(body))
}

func newTrace(text io.Writer, only Filter) *trace {
	t := &trace{hash: sha256.New(), block: make([]byte, 0, traceBlockSize*2), only: only, types: map[reflect.Type]string{}, names: phrase.New()}
	if text != nil {
		t.text = bufio.NewWriterSize(text, traceBlockSize)
	}
	return t
}

// message records that an actor is given a message.
func (t *trace) message(now time.Duration, h *host, actorID, sender string, message any) {
	m := moment{at: now, host: h.name, actorID: actorID, sender: sender, message: message}
	t.begin(now, h.name, actorID)
	t.string(sender)
	if t.body(message) {
		t.last.add(m)
	}
	t.end()
	if t.text != nil && t.only.passes(h.name, actorID, message) {
		fmt.Fprintf(t.text, "%s %s\n", stamp(now), m.line(t.names))
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

// note records what the world itself did. name is a host's, or "world". No filter of the
// text leaves it out.
func (t *trace) note(now time.Duration, name, text string) {
	t.begin(now, name, "")
	t.string(text)
	t.end()
	if t.text != nil {
		fmt.Fprintf(t.text, "%s %s * %s\n", stamp(now), name, text)
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
	name, ok := t.types[kind]
	if !ok {
		name = kind.String()
		t.types[kind] = name
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
