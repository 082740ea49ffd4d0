package script

import (
	"slices"
	"strconv"
	"strings"

	"keyval/messages"
	"keyval/sim"
	"keyval/sim/disk"
	"keyval/sim/phrase"
)

// onNode is a verb about one node.
func onNode(do func(*player, sim.Server, words) *messages.Error) func(*player, words) *messages.Error {
	return func(p *player, w words) *messages.Error {
		server, there := p.server(w.args[0])
		if !there {
			return p.noNode(w.args[0])
		}
		return do(p, server, w)
	}
}

// onProcess is a verb about a node that is up.
func onProcess(do func(sim.Server)) func(*player, words) *messages.Error {
	return onNode(func(_ *player, server sim.Server, _ words) *messages.Error {
		if !server.Up() {
			return isDown(server)
		}
		do(server)
		return nil
	})
}

// onHardware is a verb about a node that is down.
func onHardware(do func(*player, sim.Server)) func(*player, words) *messages.Error {
	return onNode(func(p *player, server sim.Server, _ words) *messages.Error {
		if server.Up() {
			return isUp(server)
		}
		do(p, server)
		return nil
	})
}

func isUp(server sim.Server) *messages.Error {
	return messages.Errorf(messages.Code_CONFLICT, "%s is up", server.Name())
}

func isDown(server sim.Server) *messages.Error {
	return messages.Errorf(messages.Code_CONFLICT, "%s is down", server.Name())
}

func wipe(_ *player, server sim.Server) { server.Wipe() }

func (p *player) copy(server sim.Server) { p.copies[server.Name()] = server.Copy() }

func restore(p *player, server sim.Server, w words) *messages.Error {
	copied, there := p.copies[server.Name()]
	switch {
	case server.Up():
		return isUp(server)
	case !there:
		return messages.Errorf(messages.Code_CONFLICT, "there is no copy of %s", server.Name()).WithHint("make one with: copy %s", server.Name())
	}
	if w.flags["parts"] {
		server.RestoreLog(copied)
	} else {
		server.Restore(copied)
	}
	return nil
}

func empty(_ *player, server sim.Server) { server.Empty() }

func (p *player) leaders(words) *messages.Error {
	for _, server := range p.scene.Servers() {
		if server.Up() {
			p.answer("%s knows as leader: %s", server.Name(), p.names.Replica(server.State().Leader))
		}
	}
	return nil
}

func (p *player) status(words) *messages.Error {
	for _, server := range p.scene.Servers() {
		if !server.Up() {
			p.answer("%s down", server.Name())
			continue
		}
		is := server.State()
		p.answer("%s %s term=%d durable=%d commit=%d applied=%d", server.Name(), is.Role, is.Term, is.Durable, is.Commit, is.Applied)
	}
	return nil
}

func forget(p *player, server sim.Server, w words) *messages.Error {
	other, there := p.server(w.args[1])
	switch {
	case !there:
		return p.noNode(w.args[1])
	case !server.Up():
		return isDown(server)
	}
	server.Forget(other)
	return nil
}

func forge(p *player, server sim.Server, w words) *messages.Error {
	other, there := p.server(w.args[1])
	index, err := strconv.ParseUint(w.args[2], 10, 64)
	switch {
	case !there:
		return p.noNode(w.args[1])
	case !server.Up():
		return isDown(server)
	case err != nil:
		return messages.Errorf(messages.Code_INVALID, "%q is no index", w.args[2])
	}
	server.Forge(other, index)
	return nil
}

func panicNext(_ *player, server sim.Server, w words) *messages.Error {
	if !server.Up() {
		return isDown(server)
	}
	name := strings.TrimPrefix(w.args[1], messages.ActorNode+"/")
	fragile := sim.Fragile()
	i := slices.IndexFunc(fragile, func(a *messages.Actor) bool { return a.Kind() == name })
	if i < 0 {
		return messages.Errorf(messages.Code_INVALID, "%q is no actor that may fail and start anew", w.args[1]).
			WithHint("%s are", strings.Join(phrase.KindsOf(fragile), ", "))
	}
	server.Panic(fragile[i])
	return nil
}

func crashPlaces() string {
	var places []string
	for _, at := range disk.CrashPoints() {
		places = append(places, at.String())
	}
	return strings.Join(places, ", ")
}

func crashIn(_ *player, server sim.Server, w words) *messages.Error {
	for _, at := range disk.CrashPoints() {
		if at.String() == w.args[1] {
			server.CrashIn(at)
			return nil
		}
	}
	return messages.Errorf(messages.Code_INVALID, "%q is no place of a disk", w.args[1]).WithHint("places are %s", crashPlaces())
}

func rot(p *player, server sim.Server, w words) *messages.Error {
	key, revision, ok := server.Rot(w.flags["written"])
	if !ok {
		return messages.Errorf(messages.Code_CONFLICT, "%s has no synced value to alter", server.Name())
	}
	p.answer("the value of %s at revision %d is another on the disk of %s", key, revision, server.Name())
	return nil
}
