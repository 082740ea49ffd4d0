package seam

import (
	"github.com/asynkron/protoactor-go/actor"

	"keyval/actors/transport"
	"keyval/messages"
)

// Network links actor systems: gRPC in production, the simulated network in
// the simulator.
type Network interface {
	// Serve joins a node's system to the network at a listening address
	// (host:port). events is told ClientGone, Denied, PeerGone once for every process of a
	// peer that dies in a way that can be noticed, and PeerRefused whenever a peer that was
	// dialled lets this node in no more. It is the caller's part to have
	// given the system its logical address.
	Serve(system *actor.ActorSystem, listen string, local transport.Local, events *actor.PID) (Hub, error)
	// Join joins a client's system, which never listens. events is told LinkUp
	// and LinkDown for every Dial.
	Join(system *actor.ActorSystem, local transport.Local, events *actor.PID) (Dialer, error)
}

// Hub is a node's place in the network. Its methods do not block.
type Hub interface {
	// Identify replaces who this node says it is. Links made under another cluster id are
	// closed, and those of clients once it waits for something.
	Identify(local transport.Local)
	// SetPeers replaces the nodes this one links to, and whom it may refuse: next is as
	// in transport.Known.With.
	// What is sent to a node that is none of them goes over the connections that it
	// made itself, and is dropped without one. Links are made as messages need them,
	// kept, and made again with a bounded, growing delay while a peer is away.
	SetPeers(peers []*messages.Member, next messages.RaftID)
	// SetAuth says who may do what from now on. Until then clients with a certificate are
	// answered that this node is starting, where that matters.
	SetAuth(*messages.Auth)
	// SetInvitedUntil says until when, in ms of wall time since 1970, nodes may come that have a
	// token and no keys yet; 0: none may.
	SetInvitedUntil(ms int64)
	// Remember says which starts of other nodes were heard by processes before this
	// one. Whoever is heard that was started anew, events is told of as PeerStarted.
	Remember(heard *messages.StartsHeard)
	// Close ends all links and the listener, and waits until that is done.
	Close()
}

// Dialer is a client's place in the network. Its methods do not block.
type Dialer interface {
	// Dial makes a link to host:port; once it is up, PIDs with the logical
	// address that the node proved go over it. One LinkUp, later one LinkDown; or
	// one LinkDown alone. Dialling an endpoint that is up or being dialled does
	// nothing.
	Dial(endpoint string)
	// Hang ends the link to endpoint, if there is one; a LinkDown follows.
	Hang(endpoint string)
	Close()
}
