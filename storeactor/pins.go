package storeactor

import (
	"slices"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/messages"
)

const (
	pinsMax     = 64   // states that are kept for others, in number
	pinTicksMax = 1200 // a pin that nobody has used for so long goes
)

// pins are the states that others are reading: the engine keeps what they need. A
// holder that fails without unpinning loses its pin after pinTicksMax. At most pinsMax.
type pins struct {
	byHolder map[string]*pin
}

type pin struct {
	compacted uint64 // of its state: the pin keeps nothing for reads below
	idle      uint64 // ticks since it was used
}

// add pins a state and reports whether there was room.
func (p *pins) add(holder string, compacted uint64) bool {
	if _, known := p.byHolder[holder]; !known && len(p.byHolder) >= pinsMax {
		return false
	}
	if p.byHolder == nil {
		p.byHolder = map[string]*pin{}
	}
	p.byHolder[holder] = &pin{compacted: compacted}
	return true
}

func (p *pins) remove(holder string) { delete(p.byHolder, holder) }

// use reports whether what the holder reads, with history given up below compacted,
// is still there.
func (p *pins) use(holder string, compacted uint64) bool {
	pin, ok := p.byHolder[holder]
	if !ok || compacted < pin.compacted {
		return false
	}
	pin.idle = 0
	return true
}

// ticked lets go of what nobody has used for long.
func (p *pins) ticked(n uint64) {
	for holder, pin := range p.byHolder {
		if pin.idle += n; pin.idle >= pinTicksMax {
			delete(p.byHolder, holder)
		}
	}
}

// floor is the revision below which history may be discarded: limit, or less if a pin
// needs more.
func (p *pins) floor(limit uint64) uint64 {
	for _, pin := range p.byHolder {
		limit = min(limit, pin.compacted)
	}
	return limit
}

// pinAsked is a PinState that waits for the state that is being opened.
type pinAsked struct {
	message *messages.PinState
	asker   *actor.PID
}

func (m *machineActor) onPinState(ctx actor.Context, msg *messages.PinState) {
	switch {
	case m.phase == over:
	case m.phase == serving:
		ctx.Respond(m.pin(msg))
	case len(m.pinsAsked) < pinsMax:
		m.pinsAsked = append(m.pinsAsked, pinAsked{msg, ctx.Sender()})
	default:
		ctx.Respond(&messages.StatePinned{Holder: msg.Holder, Code: messages.Code_BUSY})
	}
}

func (m *machineActor) pin(msg *messages.PinState) *messages.StatePinned {
	checkpoint := m.durable
	switch msg.Index {
	case 0:
		checkpoint = m.state.Checkpoint()
	case checkpoint.Index:
	default:
		return &messages.StatePinned{Holder: msg.Holder, Code: messages.Code_COMPACTED}
	}
	if !m.pins.add(msg.Holder, checkpoint.CompactedRevision) {
		return &messages.StatePinned{Holder: msg.Holder, Code: messages.Code_BUSY}
	}
	return &messages.StatePinned{Holder: msg.Holder, Checkpoint: checkpoint, Bytes: uint64(max(m.engine.Size(), 0))}
}

func (m *machineActor) onUnpinState(ctx actor.Context, msg *messages.UnpinState) {
	m.pinsAsked = slices.DeleteFunc(m.pinsAsked, func(p pinAsked) bool { return p.message.Holder == msg.Holder })
	m.pins.remove(msg.Holder)
	m.discard(ctx)
}

// onReadRows hands the request for rows of a pinned state to a reader, which answers.
func (m *machineActor) onReadRows(ctx actor.Context, msg *messages.ReadRows) {
	refuse := func(code messages.Code, reason string) {
		ctx.Respond(&messages.RowsRead{Holder: msg.Holder, Sequence: msg.Sequence, Code: code, Message: reason})
	}
	switch {
	case m.phase == over:
	case m.phase != serving:
		refuse(messages.Code_BUSY, "the node is opening another state")
	case msg.Revision > m.state.Revision() || !m.pins.use(msg.Holder, msg.CompactedRevision):
		refuse(messages.Code_COMPACTED, "this state is not pinned any more")
	default:
		ctx.Forward(m.nextReader())
	}
}
