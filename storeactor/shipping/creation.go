package shipping

import (
	"keyval/messages"
	"keyval/storeactor/snapshot"
)

// creationWindow is how many chunks may be with the archive and not written.
const creationWindow = 2

type creationPhase int

const (
	creationBegins  creationPhase = iota // the archive is asked for a file
	creationPins                         // the machine is asked to keep the state
	creationWrites                       // chunks are read and written
	creationEnded                        // the file is whole
	creationFailure                      // nothing is left but the reason
)

// creation writes the state of now to a file: the machine pins it, its rows are read
// like those of a shipment, and the archive writes the chunks. It is a state machine:
// an event in, effects out.
type creation struct {
	config shipmentConfig
	id     string
	holder string // of the pin, and of nothing else ever
	// request is the number under which the archive was asked for the file.
	request uint64
	asker   string // the RequestID of who asked for it

	phase   creationPhase
	source  *snapshot.Source // nil before the state is pinned
	total   uint64           // bytes, about
	written uint64           // chunks below are in the file
	bytes   uint64           // of the file so far
	reading bool
	age     uint32 // ticks since it was asked for
	waited  uint32 // ticks since the machine was asked for something
	reads   int    // how often rows were asked for, for this chunk
	reason  string // why it failed
}

func newCreation(config shipmentConfig, id, holder string, request uint64, asker string) *creation {
	return &creation{config: config, id: id, holder: holder, request: request, asker: asker}
}

// running reports whether it is neither whole nor failed.
func (c *creation) running() bool {
	return c != nil && c.phase != creationEnded && c.phase != creationFailure
}

// onBegun hears that the archive has a file for it.
func (c *creation) onBegun() []effect {
	if c.phase != creationBegins {
		return nil
	}
	c.phase, c.waited = creationPins, 0
	return []effect{post{to: toMachine, message: &messages.PinState{Holder: c.holder}}}
}

func (c *creation) onPinned(m *messages.StatePinned) []effect {
	switch {
	case c.phase != creationPins || m.Holder != c.holder:
		return nil
	case m.Code != messages.Code_OK || m.Checkpoint == nil:
		return c.fail("the state of this node was not pinned: %s", m.Code)
	}
	c.source = snapshot.NewSource(m.Checkpoint, c.config.about, c.config.chunkBytes)
	c.total = m.Bytes + c.source.StateBytes()
	c.phase = creationWrites
	return c.advance()
}

// advance writes what there is, and reads on.
func (c *creation) advance() (out []effect) {
	for c.phase == creationWrites && !c.reading && !c.source.Ended() && c.source.Position() < c.written+creationWindow {
		chunk := c.source.Next()
		if chunk == nil {
			c.reads = 0
			return append(out, c.read())
		}
		out = append(out, c.write(chunk))
	}
	return out
}

func (c *creation) read() effect {
	c.reading, c.waited = true, 0
	c.reads++
	return post{to: toMachine, message: c.source.ReadRows(c.holder)}
}

func (c *creation) write(chunk *messages.SnapshotChunk) effect {
	return post{to: toArchive, message: &messages.WriteChunk{Id: c.id, Chunk: chunk}}
}

func (c *creation) onRows(m *messages.RowsRead) []effect {
	if c.phase != creationWrites || !c.reading || m.Holder != c.holder || m.Sequence != c.source.Position() {
		return nil
	}
	c.reading = false
	if m.Code != messages.Code_OK {
		return c.fail("the rows cannot be read: %s", m.Message)
	}
	chunk, err := c.source.Take(m)
	if err != nil {
		return c.fail("%v", err)
	}
	var out []effect
	if chunk != nil {
		out = append(out, c.write(chunk))
	}
	return append(out, c.advance()...)
}

func (c *creation) onWritten(m *messages.ChunkWritten) []effect {
	switch {
	case m.Id != c.id || !c.running():
		return nil
	case m.Code != messages.Code_OK:
		return c.fail("%s", m.Message)
	case c.phase != creationWrites || m.Sequence != c.written:
		return c.fail("chunk %d was written in place of chunk %d", m.Sequence, c.written)
	}
	c.written++
	c.bytes = m.Bytes
	if c.source.Ended() && c.written == c.source.Position() {
		c.phase = creationEnded
		return []effect{
			c.unpin(), note{"a snapshot was written", false,
				[]any{"snapshot", c.id, "index", c.source.Header().Index, "bytes", c.bytes, "took", duration(c.age, c.config.tickMS), "request", c.asker}},
		}
	}
	return c.advance()
}

func (c *creation) tick(n uint32) []effect {
	c.age += n
	c.waited += n
	switch {
	case c.phase == creationPins && c.waited >= shipPinTicks:
		return c.fail("the state of this node was not pinned")
	case c.phase != creationWrites || !c.reading || c.waited < shipReadTicks:
		return nil
	case c.reads >= shipReadsMax:
		return c.fail("the rows were not read")
	}
	return []effect{c.read()}
}

func (c *creation) unpin() effect {
	return post{to: toMachine, message: &messages.UnpinState{Holder: c.holder}}
}

// fail leaves nothing but the reason.
func (c *creation) fail(format string, args ...any) []effect {
	if !c.running() {
		return nil
	}
	c.phase = creationFailure
	c.reason = messages.Errorf(messages.Code_INTERNAL, format, args...).Message
	return []effect{
		c.unpin(), post{to: toArchive, message: &messages.DropFile{Id: c.id}},
		note{"a snapshot was not written", true, []any{"snapshot", c.id, "reason", c.reason, "request", c.asker}},
	}
}

// info is how it stands, for people.
func (c *creation) info() *messages.SnapshotInfo {
	i := &messages.SnapshotInfo{
		Id: c.id, CreatedAtMs: c.config.about.CreatedAtMs, Version: c.config.about.Version,
		Bytes: c.bytes, BytesTotal: c.total, Writing: c.running(), Error: c.reason,
	}
	if c.source != nil {
		h := c.source.Header()
		i.Index, i.Term, i.Revision, i.CompactedRevision, i.Members = h.Index, h.Term, h.Revision, h.CompactedRevision, h.Members
		i.Rows = c.source.Rows()
	}
	i.BytesTotal = max(i.BytesTotal, i.Bytes)
	return i
}
