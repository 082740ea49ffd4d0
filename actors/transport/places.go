package transport

import (
	"time"

	"keyval/messages"
)

// Standing is what a node knows of who is behind a connection that came in.
type Standing int

const (
	Stranger Standing = iota // has not said who it is
	Client
	Newcomer // a node that is not known as a member here, or not yet
	Member

	Standings // how many there are, and nobody's
)

// Held counts the connections of each standing.
type Held [Standings]int

// Places bound the connections that came in, in number. Strangers and clients never
// take those of nodes, and none of them the descriptors that files need.
type Places struct {
	Strangers, Clients, Nodes int
}

const (
	strangersMax = 512  // few would be soon crowded out, more cost memory
	clientsMax   = 4096 // each costs two goroutines and some 150 KiB
	// nodesMax is room for eight members with a connection a lane, twice over, since one
	// that was cut stands until that is noticed.
	nodesMax = 48
	// descriptorsMin is what a node needs beside the files that its directory holds:
	// a half for connections, and as much for new files, links to members and the rest.
	descriptorsMin = 256
	// userShare is the part of the clients' places that one user has at most: a half.
	userShare = 2
	// idleMin is how long whoever makes room for another must have been silent.
	idleMin = time.Minute
)

// AllPlaces are those of a node that may have as many descriptors as it likes.
var AllPlaces = Places{Strangers: strangersMax, Clients: clientsMax, Nodes: nodesMax}

// PlacesWithin are the places of a node that may open so many descriptors and whose
// directory holds so many files. It is INVALID if that is not enough to be a node with.
func PlacesWithin(descriptors, files int) (Places, *messages.Error) {
	free := descriptors - files
	if free < descriptorsMin {
		return Places{}, messages.Errorf(messages.Code_INVALID, "a process may open %d files here, and this node needs %d: its directory holds %d, and %d are for new ones, members and clients",
			descriptors, files+descriptorsMin, files, descriptorsMin).
			WithHint("raise the limit of open files (ulimit -Hn %d, or LimitNOFILE= of its unit) and start again: nothing was touched", max(4*(files+descriptorsMin), 1<<16))
	}
	all := free / 2
	p := Places{Nodes: nodesMax, Strangers: min(strangersMax, all/4)}
	p.Clients = min(clientsMax, all-p.Nodes-p.Strangers)
	return p, nil
}

// Fewer reports whether a node has fewer places than it would have without a limit.
func (p Places) Fewer() bool { return p != AllPlaces }

// Seat decides about a connection that is to have a standing; it is in held, if at
// all, as the stranger that it was. It may have the place as it is (nobody), for
// another's that has to leave (of that standing), or not at all. idle is how long the
// idlest of a standing has been silent. own are the connections that the same user has: at his
// share he has to make room himself, so idle and who leaves are of his own then.
func (p Places) Seat(held Held, own int, idle func(Standing) time.Duration, as Standing) (leaves Standing, enters bool) {
	const nobody = Standings
	nodes := held[Newcomer] + held[Member]
	switch {
	case as == Stranger:
		all := p.Strangers + p.Clients + p.Nodes
		if held[Stranger] < p.Strangers && held[Stranger]+held[Client]+nodes < all {
			return nobody, true
		}
		return Stranger, held[Stranger] > 0
	case as == Client && held[Client] < p.Clients && !p.AtShare(own), as > Client && nodes < p.Nodes:
		return nobody, true
	case as == Member && held[Newcomer] > 0: // it has a place, whoever has to leave
		return Newcomer, true
	case as == Member && held[Client] > 0:
		return Client, true
	case as == Member:
		return nobody, true
	}
	return as, held[as] > 0 && idle(as) >= idleMin
}

// AtShare reports whether a user with so many connections has all that one user may have here:
// half of those for clients, so that he shuts nobody out.
func (p Places) AtShare(own int) bool { return own >= max(1, p.Clients/userShare) }

// Full is what whoever is turned away hears. node is this node's name, and user who asks, with
// so many connections of his own.
func (p Places) Full(node string, as Standing, user string, own int) *messages.Error {
	if as == Client && p.AtShare(own) {
		return messages.Errorf(messages.Code_BUSY, "user %s has %d connections to node %s, and no user may have more of its %d", user, own, node, p.Clients).
			WithHint("close connections that nobody uses, or use another node of the cluster")
	}
	if as == Client {
		return messages.Errorf(messages.Code_BUSY, "node %s serves %d clients, and takes no more", node, p.Clients).
			WithHint("use another node of the cluster, or close connections that nobody uses; with a higher limit of open files a node takes up to %d", clientsMax)
	}
	return messages.Errorf(messages.Code_BUSY, "node %s has %d connections of nodes, and takes no more", node, p.Nodes).
		WithHint("it takes members first: see who connects to it")
}

// Parting is what whoever has to leave for another hears.
func (p Places) Parting(node string) *messages.Error {
	return messages.Errorf(messages.Code_BUSY, "node %s is full, and this connection was silent for the longest time", node).
		WithHint("connect again when there is something to ask, or use another node of the cluster")
}
