package sim

import (
	"bytes"

	"keyval/messages"
)

// Machine adds a server with an empty disk, which is down.
func (s *Scene) Machine() Server { return Server{s.run.machine()} }

// Join has the next process on a server that is down, and whose disk is empty, ask these
// others to be let into their cluster.
func (s Server) Join(knows []Server) {
	s.server.joins = nil
	for _, other := range knows {
		s.server.joins = append(s.server.joins, other.Address())
	}
	s.server.damaged = false
	s.server.run.check.wiped(s.server.node)
}

// Move gives a server that is down its other address.
func (s Server) Move() { s.server.place = 1 - s.server.place }

// Address is where the node on it is reached.
func (s Server) Address() string { return s.server.listen() }

// IsEmpty reports whether there is nothing in the data directory.
func (s Server) IsEmpty() bool {
	_, err := s.server.disk.Identity()
	return messages.CodeOf(err) == messages.Code_NOT_FOUND
}

// Members are those of the last entry that is committed, by RaftID.
func (s *Scene) Members() []*messages.Member { return s.run.check.reference.state.Members() }

// Operation is the record of an operation as of the last entry that is committed; nil:
// there is none.
func (s *Scene) Operation(id []byte) *messages.ClusterOperation {
	for _, o := range s.run.check.reference.state.Operations() {
		if bytes.Equal(o.Id, id) {
			return o
		}
	}
	return nil
}
