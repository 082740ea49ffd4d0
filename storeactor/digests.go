package storeactor

import (
	"slices"

	"github.com/asynkron/protoactor-go/actor"
	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/storeactor/state"
)

// digestsMax bounds the indexes for whose state somebody waits, in number.
const digestsMax = 16

// digests are the indexes at which the state is to be hashed. Members compare it at equal
// index, and each is somewhere else in the log: so one chooses an index a little ahead,
// and all wait for it. What a put pays for that is one comparison of numbers an entry; the
// hash is made by a reader.
type digests struct {
	waiting []digestAsked
	ready   []digestAsked // their checkpoint is made

	ticked uint64 // entries that were applied up to the last tick
	pace   uint64 // entries between the last two ticks
}

type digestAsked struct {
	request    uint64
	index      uint64
	asker      *actor.PID
	checkpoint *messages.Checkpoint
}

// tick takes note of how fast entries come.
func (d *digests) tick(applied uint64) {
	d.pace, d.ticked = applied-min(d.ticked, applied), applied
}

// ahead is an index that others hear of before they have applied it; the present one where
// nothing moves.
func (d *digests) ahead(applied uint64) uint64 {
	if applied == d.ticked && d.pace == 0 {
		return applied
	}
	return applied + 2*max(d.pace, applied-min(d.ticked, applied), 1)
}

// passed makes the checkpoints that are waited for, once an entry is applied.
func (d *digests) passed(s *state.State, e *raftpb.Entry) {
	if len(d.waiting) == 0 {
		return
	}
	d.waiting = slices.DeleteFunc(d.waiting, func(w digestAsked) bool {
		if w.index == e.GetIndex() {
			w.checkpoint = s.Checkpoint()
			d.ready = append(d.ready, w)
		}
		return w.index <= e.GetIndex()
	})
}

func (m *machineActor) onReadState(ctx actor.Context, msg *messages.ReadState) {
	asked := digestAsked{request: msg.Request, index: msg.Index, asker: ctx.Sender()}
	answer := func(code messages.Code) {
		ctx.Respond(&messages.StateRead{Request: msg.Request, Code: code, Index: asked.index})
	}
	if m.phase != serving {
		answer(messages.Code_INVALID)
		return
	}
	if asked.index == 0 {
		asked.index = m.digests.ahead(m.state.Index())
		answer(messages.Code_OK)
	}
	switch at := m.state.Index(); {
	case asked.index < at:
		answer(messages.Code_COMPACTED)
	case asked.index == at:
		asked.checkpoint = m.state.Checkpoint()
		m.digests.ready = append(m.digests.ready, asked)
		m.giveDigests(ctx)
	default:
		if len(m.digests.waiting) == digestsMax { // the asker of the oldest has given up
			m.digests.waiting = m.digests.waiting[1:]
		}
		m.digests.waiting = append(m.digests.waiting, asked)
	}
}

// giveDigests has readers hash the states that were waited for.
func (m *machineActor) giveDigests(ctx actor.Context) {
	for _, d := range m.digests.ready {
		ctx.RequestWithCustomSender(m.nextReader(), &messages.HashState{Request: d.request, Checkpoint: d.checkpoint}, d.asker)
	}
	m.digests.ready = nil
}

func (r *readerActor) onHashState(ctx actor.Context, m *messages.HashState) {
	hash := state.Digest(m.Checkpoint)
	ctx.Respond(&messages.StateRead{Request: m.Request, Index: m.Checkpoint.Index, Hash: hash[:]})
}
