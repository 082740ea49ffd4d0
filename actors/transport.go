package actors

import (
	"slices"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/actors/auth"
	"keyval/actors/seam"
	"keyval/actors/transport"
	"keyval/messages"
	"keyval/storeactor/disk"
)

// transportActor owns the node's place in the network: it opens it, says who the members
// are, and closes it.
type transportActor struct {
	wiring  *wiring
	disk    disk.Disk
	network seam.Network
	listen  string
	*place
}

// place outlives a restart of the actor: connections stay open, and the peers stay known,
// since nobody would name them again.
type place struct {
	local transport.Local
	known transport.Known
	peers []*messages.Member // whom it links to, and does not refuse
	hub   seam.Hub           // nil: not opened yet

	removed bool // this node was: it serves no client any more
}

func newTransport(w *wiring, d disk.Disk, network seam.Network, listen string, local transport.Local) actor.Producer {
	p := &place{local: local}
	return func() actor.Actor {
		return &transportActor{wiring: w, disk: d, network: network, listen: listen, place: p}
	}
}

func (a *transportActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		a.onStarted(ctx)
	case *messages.Identified:
		a.local.Starts = m.Starts
		a.identify(m.ClusterId, m.WaitingFor)
	case *messages.Removed:
		a.removed = true
		a.identify(a.local.ClusterID, m.Why)
	case *messages.MembersChanged:
		a.peers = peersOf(a.peers, m)
		a.known = a.known.With(a.peers, m.NextRaftId)
		if a.hub != nil {
			a.hub.SetPeers(a.peers, m.NextRaftId)
			if m.NextRaftId > 0 {
				a.hub.SetAuth(m.Auth)
				a.hub.SetInvitedUntil(auth.InvitationsUntil(m.Invitations))
			}
		}
		serves := m.NextRaftId > 0 && a.local.WaitingFor != "" && !a.removed // its first snapshot is there
		if len(m.ClusterId) > 0 && (len(a.local.ClusterID) == 0 || serves) {
			a.identify(m.ClusterId, "")
		}
	case *messages.PeerStarted:
		a.onPeerStarted(m)
	case *messages.ClientGone, *messages.Denied:
		ctx.Send(a.wiring.local(messages.ActorGateway), m)
	case *messages.PeerGone:
		ctx.Send(a.wiring.raft(), m)
	case *messages.PeerRefused:
		ctx.Send(a.wiring.raft(), m)
		if m.Code == messages.Code_REMOVED {
			ctx.Send(a.wiring.membership(), m)
		}
		if m.Code == messages.Code_CONFLICT {
			ctx.Send(a.wiring.local(messages.ActorFounding), m)
		}
	case *actor.Stopping:
		if a.hub != nil {
			a.hub.Close()
			a.hub = nil
		}
	default:
		a.wiring.unexpected(ctx)
	}
}

// peersOf are the members, and those who were peers before until it is durable that they are
// members no more: whoever is refused by a majority gives its directory up.
func peersOf(before []*messages.Member, m *messages.MembersChanged) []*messages.Member {
	peers := slices.Clone(m.Members)
	for _, p := range before {
		known := slices.ContainsFunc(m.Members, func(member *messages.Member) bool { return member.RaftId == p.RaftId })
		if m.NextRaftId > 0 && !m.Settled && !known {
			peers = append(peers, p)
		}
	}
	return peers
}

func (a *transportActor) onStarted(ctx actor.Context) {
	if a.hub != nil { // restarted: a MembersChanged may be lost
		ctx.Request(a.wiring.machine(), &messages.Introduce{})
		return
	}
	hub, err := a.network.Serve(ctx.ActorSystem(), a.listen, a.local, ctx.Self())
	if err != nil {
		a.wiring.fatal(err)
		return
	}
	a.hub = hub
	heard, err := a.disk.Heard()
	if err != nil {
		a.wiring.fatal(err)
		return
	}
	a.known = a.known.Remember(heard)
	a.hub.Remember(heard)
}

// onPeerStarted records that a member was started anew. An older copy of its directory
// is refused by it, also after this node has been started anew.
func (a *transportActor) onPeerStarted(m *messages.PeerStarted) {
	a.known = a.known.Remember(&messages.StartsHeard{Heard: []*messages.Start{m.Start}})
	if err := a.disk.Hear(a.known.Heard()); err != nil {
		a.wiring.fatal(err)
	}
}

func (a *transportActor) identify(cluster []byte, waitingFor string) {
	a.local.ClusterID, a.local.WaitingFor = cluster, waitingFor
	if a.hub != nil {
		a.hub.Identify(a.local)
	}
}
