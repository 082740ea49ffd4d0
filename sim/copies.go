package sim

// Empty takes log and state off the disk of a server that is down, and leaves its
// identity.
func (s Server) Empty() {
	s.server.disk.LoseGeneration()
	s.server.damaged = true
	s.server.run.world.ear.noted(s.Name(), "log and state are gone from the data directory")
}
