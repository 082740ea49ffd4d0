package shipping

import (
	"slices"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/messages"
)

// The clients' side of the snapshots actor: every request is answered once, here or
// when the archive has done its part.

func (s *snapshotsActor) onRequest(ctx actor.Context, m *messages.SnapshotRequest) {
	if ctx.Sender() == nil {
		return
	}
	who := asked{pid: ctx.Sender(), request: m.Request, deletes: m.GetDelete().GetId()}
	if list, ok := m.Kind.(*messages.SnapshotRequest_List); ok && list.List.GetId() == "" {
		who.beside = s.creation
	}
	reply, err := s.request(m)
	switch {
	case err != nil:
		s.reply(ctx, who, refused(0, err))
		return
	case reply != nil:
		s.reply(ctx, who, reply)
		return
	}
	s.debts.requests++
	s.debts.asked[s.debts.requests] = who
	forward := &messages.SnapshotRequest{Request: s.debts.requests, Kind: m.Kind}
	if kind, ok := m.Kind.(*messages.SnapshotRequest_Create); ok {
		s.create(s.debts.requests, kind.Create, who.id())
	}
	ctx.Request(s.archive, forward)
}

// request judges a request: it is refused, answered at once, or for the archive.
func (s *snapshotsActor) request(m *messages.SnapshotRequest) (*messages.SnapshotReply, error) {
	var id string
	switch kind := m.Kind.(type) {
	case *messages.SnapshotRequest_Create:
		id = kind.Create.GetId()
	case *messages.SnapshotRequest_List:
		id = kind.List.GetId()
	case *messages.SnapshotRequest_Delete:
		id = kind.Delete.GetId()
	case *messages.SnapshotRequest_Fetch:
		id = kind.Fetch.GetId()
	default:
		return nil, messages.Errorf(messages.Code_UNSUPPORTED, "the request asks for nothing that this node knows").WithHint("upgrade the nodes first")
	}
	_, listing := m.Kind.(*messages.SnapshotRequest_List)
	if err := messages.CheckSnapshotID(id); err != nil && !(listing && id == "") {
		return nil, err
	}
	mine := s.creation != nil && s.creation.id == id
	_, creating := m.Kind.(*messages.SnapshotRequest_Create)
	if s.creation.running() && (creating || mine && !listing) {
		return nil, messages.Errorf(messages.Code_CONFLICT, "snapshot %s is being written", s.creation.id).WithHint("wait until it is: kvctl snapshot list")
	}
	switch m.Kind.(type) {
	case *messages.SnapshotRequest_List:
		if mine {
			return &messages.SnapshotReply{Snapshots: []*messages.SnapshotInfo{s.creation.info()}}, nil
		}
	case *messages.SnapshotRequest_Fetch:
		s.debts.transient.wanted(id)
	case *messages.SnapshotRequest_Delete:
		if mine {
			s.creation = nil // it failed, and only the reason is left
			return &messages.SnapshotReply{}, nil
		}
	}
	if len(s.debts.asked) >= requestsInHandMax {
		return nil, messages.Errorf(messages.Code_BUSY, "%d requests wait for the snapshots of this node", requestsInHandMax).WithHint("ask again later")
	}
	return nil, nil
}

// create begins once the archive has a file for it.
func (s *snapshotsActor) create(request uint64, m *messages.SnapshotCreate, asker string) {
	config := s.shipmentConfig(&messages.SnapshotHeader{CreatedAtMs: m.GetCreatedAtMs()})
	s.creation = newCreation(config, m.GetId(), s.holder("file"), request, asker)
	s.debts.writing = s.creation.holder
}

// onArchived passes on what the archive answers.
func (s *snapshotsActor) onArchived(ctx actor.Context, m *messages.SnapshotReply) {
	if _, waits := s.debts.asked[m.Request]; !waits {
		return // it was answered when the archive failed
	}
	if c := s.creation; c.running() && c.request == m.Request {
		if m.Code == messages.Code_OK {
			s.run(ctx, c.onBegun())
			m = &messages.SnapshotReply{Request: m.Request, Snapshots: []*messages.SnapshotInfo{c.info()}}
		} else {
			s.creation, s.debts.writing = nil, "" // nothing was pinned yet
		}
	}
	s.answer(ctx, m.Request, m)
}

// answer pays one debt.
func (s *snapshotsActor) answer(ctx actor.Context, n uint64, m *messages.SnapshotReply) {
	who := s.debts.asked[n]
	delete(s.debts.asked, n)
	if who.deletes != "" && m.Code == messages.Code_OK && !messages.IsTransient(who.deletes) {
		s.run(ctx, []effect{note{"a snapshot was deleted", false, []any{"snapshot", who.deletes, "request", who.id()}}})
	}
	s.reply(ctx, who, m)
}

// reply answers a client. A list of all holds what was being written when the client
// asked, unless it has become a file meanwhile.
func (s *snapshotsActor) reply(ctx actor.Context, who asked, m *messages.SnapshotReply) {
	infos := slices.Clone(m.Snapshots)
	if c := who.beside; c != nil && m.Code == messages.Code_OK &&
		!slices.ContainsFunc(infos, func(i *messages.SnapshotInfo) bool { return i.Id == c.id }) {
		infos = append(infos, c.info())
	}
	newestFirst(infos)
	ctx.Request(who.pid, &messages.SnapshotReply{
		Request: who.request, Code: m.Code, Message: m.Message, Snapshots: infos, Node: s.config.Name, Part: m.Part,
	})
}
