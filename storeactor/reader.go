package storeactor

import (
	"bytes"
	"cmp"
	"fmt"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/messages"
	"keyval/mutant"
	"keyval/storeactor/disk"
)

// readerActor answers reads at revisions that the machine has published, beside
// it: a long scan never holds up an apply. It keeps no state, so it may restart
// at any time; the session whose read was lost asks again. A child of the machine.
type readerActor struct {
	view  readerView
	fatal func(error)
}

// readerView is the part of an Engine that a reader needs.
type readerView interface {
	disk.View
	Export(after disk.Cursor, floor, revision uint64, yield func(disk.Row) bool) error
}

func (r *readerActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *messages.ReadAt:
		r.onReadAt(ctx, m)
	case *messages.ReadRows:
		r.onReadRows(ctx, m)
	default:
		unexpected(ctx)
	}
}

func (r *readerActor) onReadAt(ctx actor.Context, m *messages.ReadAt) {
	for _, asked := range m.Reads {
		reply, err := read(r.view, asked.Read, m.Revision, m.Compacted)
		if messages.CodeOf(err) == messages.Code_DAMAGED {
			r.fatal(err)
			return
		}
		ctx.Send(sessionPID(ctx, asked.Session), reply)
	}
}

func (r *readerActor) onReadRows(ctx actor.Context, m *messages.ReadRows) {
	rows, err := readRows(r.view, m)
	if messages.CodeOf(err) == messages.Code_DAMAGED {
		r.fatal(err)
		return
	}
	ctx.Respond(rows)
}

// sessionPID is a session actor of this node.
func sessionPID(ctx actor.Context, session string) *actor.PID {
	return actor.NewPID(ctx.Self().Address, session)
}

// read answers one read as of revision at most newest. A refusal is an answer; the
// error is the view's, and the reply says it too.
func read(view disk.View, r *messages.Read, newest, compacted uint64) (*messages.ReadReply, error) {
	reply := &messages.ReadReply{Request: r.GetRequest(), Revision: cmp.Or(r.GetRevision(), newest)}
	if err := fill(reply, view, r, newest, compacted); err != nil {
		reply.Items, reply.More, reply.Digest = nil, false, nil
		refuseRead(reply, messages.CodeOf(err), "%v", err)
		return reply, err
	}
	return reply, nil
}

func refuseRead(reply *messages.ReadReply, code messages.Code, format string, args ...any) {
	reply.Code, reply.Message = code, fmt.Sprintf(format, args...)
}

func fill(reply *messages.ReadReply, view disk.View, r *messages.Read, newest, compacted uint64) error {
	switch {
	case reply.Revision > newest:
		refuseRead(reply, messages.Code_INVALID, "revision %d is in the future, the newest is %d", reply.Revision, newest)
		return nil
	case reply.Revision < compacted && !mutant.ReadGivenUp:
		refuseRead(reply, messages.Code_COMPACTED, "revision %d is no longer kept: history is readable from revision %d on", reply.Revision, compacted)
		return nil
	}
	switch kind := r.GetKind().(type) {
	case *messages.Read_Get:
		return get(reply, view, kind.Get.GetKey())
	case *messages.Read_Scan:
		return scan(reply, view, kind.Scan)
	case *messages.Read_Digest:
		return digest(reply, view, kind.Digest)
	}
	refuseRead(reply, messages.Code_INVALID, "the read asks for nothing that this node knows")
	return nil
}

func get(reply *messages.ReadReply, view disk.View, key []byte) error {
	if len(key) == 0 || len(key) > keySizeMax {
		refuseRead(reply, messages.Code_INVALID, "a key has 1 to %d bytes, this one %d", keySizeMax, len(key))
		return nil
	}
	row, found, err := view.Get(key, reply.Revision)
	if err != nil {
		return err
	}
	if !found {
		reply.Code = messages.Code_NOT_FOUND
		return nil
	}
	reply.Items = []*messages.Item{{Key: key, Value: row.Value, Revision: row.Revision}}
	return nil
}

func scan(reply *messages.ReadReply, view disk.View, s *messages.Scan) error {
	if len(s.GetTo()) > 0 && bytes.Compare(s.GetFrom(), s.GetTo()) >= 0 {
		return nil
	}
	limit := ScanRowsMax
	if n := s.GetLimit(); n > 0 && n < ScanRowsMax {
		limit = int(n)
	}
	size := 0
	return view.Scan(s.GetFrom(), s.GetTo(), reply.Revision, s.GetReverse(), func(row disk.Row) bool {
		item := &messages.Item{Key: bytes.Clone(row.Key), Revision: row.Revision}
		if !s.GetKeysOnly() {
			item.Value = bytes.Clone(row.Value)
			if mutant.LentKept { // the engine writes over it
				item.Value = row.Value
			}
		}
		size += len(item.Key) + len(item.Value) + itemBytes
		if len(reply.Items) == limit || len(reply.Items) > 0 && size > ScanBytesMax {
			reply.More = true
			return false
		}
		reply.Items = append(reply.Items, item)
		return true
	})
}

// waitingReads are the reads whose index is not applied yet.
type waitingReads struct {
	batches []*messages.ReadAt
	reads   int // in all batches, at most waitingReadsMax
}

// add takes a batch in and reports whether there was room.
func (w *waitingReads) add(m *messages.ReadAt) bool {
	if w.reads+len(m.Reads) > waitingReadsMax {
		return false
	}
	w.batches = append(w.batches, m)
	w.reads += len(m.Reads)
	return true
}

// release gives out the batches whose index is applied, in the order they came.
func (w *waitingReads) release(applied uint64) []*messages.ReadAt {
	var ready []*messages.ReadAt
	rest := w.batches[:0]
	for _, m := range w.batches {
		if m.Index <= applied {
			ready = append(ready, m)
			w.reads -= len(m.Reads)
		} else {
			rest = append(rest, m)
		}
	}
	clear(w.batches[len(rest):])
	w.batches = rest
	return ready
}
