package actors

import (
	"fmt"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/actors/seam"
	"keyval/actors/transport"
	"keyval/messages"
)

// transportActor is the actor "transport". It owns the node's place in the network:
// it opens it, tells it who belongs there, and closes it.
type transportActor struct {
	wiring  *wiring
	network seam.Network
	listen  string
	*place
}

// place outlives an actor that fails: the one that starts anew goes on with the
// connections that stand and the peers that nobody would name again.
type place struct {
	local transport.Local
	hub   seam.Hub // nil: not opened yet
}

func newTransport(w *wiring, network seam.Network, listen string, local transport.Local) actor.Producer {
	p := &place{local: local}
	return func() actor.Actor { return &transportActor{wiring: w, network: network, listen: listen, place: p} }
}

func (a *transportActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		a.onStarted(ctx)
	case *messages.Identified:
		a.identify(m.ClusterId, m.WaitingFor)
	case *messages.MembersChanged:
		if a.hub != nil {
			a.hub.SetPeers(m.Members)
		}
		if len(m.ClusterId) > 0 && len(a.local.ClusterID) == 0 {
			a.identify(m.ClusterId, "")
		}
	case *messages.ClientGone:
		ctx.Send(a.wiring.local(messages.ActorGateway), m)
	case *actor.Stopping:
		if a.hub != nil {
			a.hub.Close()
			a.hub = nil
		}
	case actor.SystemMessage, actor.AutoReceiveMessage:
	default:
		a.wiring.logger.Warn("transport: unexpected message", "type", fmt.Sprintf("%T", m))
	}
}

func (a *transportActor) onStarted(ctx actor.Context) {
	if a.hub != nil { // what the one that failed had in hand is lost
		ctx.Request(a.wiring.machine(), &messages.Introduce{})
		return
	}
	hub, err := a.network.Serve(ctx.ActorSystem(), a.listen, a.local, ctx.Self())
	if err != nil {
		a.wiring.fatal(err)
		return
	}
	a.hub = hub
}

func (a *transportActor) identify(cluster []byte, waitingFor string) {
	a.local.ClusterID, a.local.WaitingFor = cluster, waitingFor
	if a.hub != nil {
		a.hub.Identify(a.local)
	}
}
