package sim

import "keyval/sim/disk"

// Empty takes log and state off the disk of a server that is down, and leaves its
// identity.
func (s Server) Empty() {
	s.server.disk.LoseGeneration()
	s.server.damaged = true
	s.server.run.world.ear.noted(s.Name(), "log and state are gone from the data directory")
}

// Copy copies the data directory of a server that is down.
func (s Server) Copy() disk.Copy { return s.server.disk.Copy() }

// Restore puts a copy in the place of the data directory of a server that is down.
func (s Server) Restore(c disk.Copy) {
	s.server.disk.Restore(c)
	s.server.rolledBack()
	s.server.aged = true
	s.server.run.world.ear.noted(s.Name(), "the data directory is an older copy")
}

// RestoreLog puts log and state of a copy in the place of those of a server that is down, as
// if they belonged there.
func (s Server) RestoreLog(c disk.Copy) {
	s.server.disk.RestoreLog(c, true)
	s.server.rolledBack()
	s.server.aged = true
	s.server.run.world.ear.noted(s.Name(), "log and state are older ones")
}

// rolledBack: what the disk has promised since it was copied is gone, and so is what
// checkers hold a node to when it starts. That the others must not count on it is what
// they check still.
func (s *server) rolledBack() {
	r := s.run.check.nodes[s.node]
	r.acked, r.votes, r.voted, r.opened, r.led = position{}, map[uint64]uint64{}, 0, 0, 0
}
