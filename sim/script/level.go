package script

import (
	"strconv"

	"keyval/messages"
	"keyval/sim"
)

func levelOf(text string) (uint32, *messages.Error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 0 {
		return 0, messages.Errorf(messages.Code_INVALID, "%q is no level", text)
	}
	return uint32(n), nil
}

func (p *player) raise(w words) *messages.Error {
	what, level := "raise", uint32(0)
	if len(w.args) > 0 {
		n, refusal := levelOf(w.args[0])
		if refusal != nil {
			return refusal
		}
		what, level = "raise "+w.args[0], n
	}
	return p.ask(w, what, &messages.Submit{Cluster: &messages.ClusterRequest{
		Kind: &messages.ClusterRequest_LevelRaise{LevelRaise: &messages.LevelRaise{Level: level}},
	}})
}

func upgrade(_ *player, server sim.Server, w words) *messages.Error {
	level, refusal := levelOf(w.args[1])
	switch {
	case refusal != nil:
		return refusal
	case server.Up():
		return isUp(server)
	}
	server.Upgrade(level)
	return nil
}
