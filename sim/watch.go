package sim

import (
	"strings"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// received, departs, died and counted implement watcher.
func (r *run) received(h *host, actorID string, message any) {
	if h.node < 0 {
		return
	}
	s := r.servers[h.node]
	r.check.received(h.node, h.memory, actorID, message)
	r.follow(s, actorID, message)
	switch message := message.(type) {
	case *messages.MembersChanged:
		if actorID == messages.ActorMembership {
			s.knows.told(message, r.world.clock.now)
		}
	case *messages.Propose:
		if actorID == messages.ActorRaft {
			r.proposed(s, message)
		}
	case *messages.ProposeChange:
		if actorID == messages.ActorRaft {
			r.promotes(s, message)
			r.leaves(s, message)
		}
	case *messages.LeaderChanged:
		if actorID == messages.ActorGateway {
			s.leader, s.fenced = message.Leader, message.Fenced
			if s.leader != 0 && s.leader == s.id() {
				r.aimed(aimElected, s)
			}
		}
	case *messages.RaftMessage:
		if actorID == messages.ActorRaft && message.Message.GetFrom() != s.id() {
			r.check.membership.hears(message.Message.GetFrom())
		}
		if m := message.Message; m.GetType() == raftpb.MsgAppResp && !m.GetReject() {
			s.acks[m.GetFrom()] = position{m.GetIndex(), m.GetTerm()}
		}
	case *messages.PeerRefused:
		s.voices[message.Peer] = true
		if message.Code == messages.Code_REMOVED {
			s.removers[message.Peer] = true
		}
	case *messages.RecordSuspicion:
		r.suspects(s, message)
	case *messages.VouchState:
		s.vouching[message.Peer] = true
	case *messages.LogOpened, *messages.MachineOpened:
		s.serves()
	case *messages.CheckpointWritten:
		r.aimed(aimCheckpoint, s)
	case *messages.Append:
		if len(message.Message.GetEntries()) > 0 {
			r.aimed(aimAppend, s)
		}
	}
}

func (r *run) departs(h *host, to messages.RaftID, body proto.Message) {
	r.check.departs(h.node, body)
	node, there := r.check.holder(to)
	if answer, is := body.(*messages.LossAnswer); is && there {
		heard := r.servers[node]
		for _, id := range append([]messages.RaftID{r.servers[h.node].id()}, answer.Followers...) {
			heard.voices[id] = true
		}
	}
	if p, is := departing(body); is {
		r.phased(p, r.servers[h.node])
	}
	if _, ships := body.(*messages.SnapshotOffer); ships && !r.options.blind && !r.servers[h.node].vouching[to] {
		r.world.fail("states are vouched for", "%s offers its state to replica %d, and has asked nobody whether they hold the same", h.name, to)
	}
	rm, ok := body.(*messages.RaftMessage)
	if ok && !r.options.blind && r.servers[h.node].disk.Suspected() {
		r.world.fail("suspected nodes are mute", "%s sends %v", h.name, rm.Message.GetType())
	}
	if kind := rm.GetMessage().GetType(); ok && (kind == raftpb.MsgVote || kind == raftpb.MsgPreVote) {
		r.check.membership.campaigns(rm.Message.GetFrom())
	}
	if ok && !rm.Message.GetReject() {
		switch rm.Message.GetType() {
		case raftpb.MsgVoteResp:
			r.aimed(aimVote, r.servers[h.node])
		case raftpb.MsgAppResp:
			r.aimed(aimAck, r.servers[h.node])
		}
	}
}

func (r *run) committed() {
	if r.swarm.aims[aimCommit] > 0 && r.strikes() {
		r.by(aimCommit.crash(), func() { r.aimed(aimCommit, r.victim()) })
	}
}

// died: a process ended itself. Only a fault of its disk that it just met, or a
// panic of its core, explains that, and its last words have to name it.
func (r *run) died(h *host, why string) {
	if h.node < 0 {
		r.world.fail("no process ends itself", "client %s: %s", h.name, why)
		return
	}
	s := r.servers[h.node]
	struck := s.struckAt == r.world.steps
	cause, _ := s.disk.LastFault()
	if why := s.disk.Condemned(); why != "" {
		switch {
		case s.rotten():
			r.coverage[s.rotCell(why)]++
		case s.aged:
			r.coverage[cellCondemned]++
		default:
			r.world.fail("sound disks are not condemned", "%s: %s", s.name(), why)
			return
		}
		s.damaged = true
	}
	if s.joins != nil && !h.memory.log && strings.Contains(why, "not let in") {
		s.crash(false)
		s.restartLater()
		return
	}
	switch {
	case !struck && !s.damaged && !h.doomed:
		r.world.fail("no process ends itself", "%s: %s", h.name, why)
		return
	case struck && !strings.Contains(why, cause), !struck && h.doomed && !strings.Contains(why, injectedCause):
		r.world.fail("last words say why", "%s: %s", h.name, why)
		return
	}
	r.coverage["ended-itself x "+s.role()]++
	powerCut := r.chaos.IntN(2) == 0
	r.world.clock.after(0, nil, func() {
		s.crash(powerCut)
		if s.damaged {
			return
		}
		if r.healed {
			s.start()
		} else {
			s.restartLater()
		}
	})
}

// suspects: only a disk that lost something is suspected, and only a majority condemns it.
func (r *run) suspects(s *server, m *messages.RecordSuspicion) {
	switch {
	case m.Condemned == "" && len(m.Suspicion.GetAccusations()) > 0 && !s.aged:
		r.world.fail("sound disks are not suspected", "%s: %v", s.name(), m.Suspicion)
	case m.Condemned != "" && !r.options.blind && 2*len(s.voices) <= r.votersMin():
		r.world.fail("majorities condemn", "%s has heard %d of %d: %s", s.name(), len(s.voices), r.votersMin(), m.Condemned)
	}
}

func (r *run) counted(h *host, fault string) {
	if h.node >= 0 {
		r.count(fault, r.servers[h.node])
	}
}
