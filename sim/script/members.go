package script

import (
	"encoding/binary"
	"fmt"
	"strings"

	"keyval/messages"
	"keyval/sim"
	"keyval/sim/phrase"
)

// join starts a node that waits to be added: on a machine that is new, or on one that is
// down and was wiped.
func (p *player) join(w words) *messages.Error {
	var knows []sim.Server
	for _, server := range p.scene.Servers() {
		if at, given := w.options["knows"]; given && server.Name() == at || !given && server.Up() {
			knows = append(knows, server)
		}
	}
	if len(knows) == 0 {
		return p.noNode(w.options["knows"])
	}
	server, there := p.server(w.args[0])
	machines := len(p.scene.Servers())
	switch {
	case there && server.Up():
		return isUp(server)
	case there && !server.IsEmpty():
		return messages.Errorf(messages.Code_CONFLICT, "%s has a data directory", server.Name()).WithHint("empty it with: wipe %s", server.Name())
	case there:
	case machines == nodesMax || w.args[0] != phrase.Node(machines):
		return messages.Errorf(messages.Code_INVALID, "%q is not the next machine", w.args[0]).WithHint("that is %s; there are %d at most", phrase.Node(machines), nodesMax)
	default:
		server = p.scene.Machine()
	}
	server.Join(knows)
	p.start(server)
	return nil
}

// operation asks for an operation about a node, and waits for its end.
func operation(kind messages.OperationKind) func(*player, words) *messages.Error {
	return func(p *player, w words) *messages.Error {
		for _, name := range w.args {
			if _, there := p.server(name); !there {
				return p.noNode(name)
			}
		}
		server, _ := p.server(w.args[len(w.args)-1]) // the new one, if there is an old one too
		p.operations++
		o := &messages.ClusterOperation{Id: make([]byte, messages.OperationIDSize), Kind: kind, StayLearner: w.flags["learner"]}
		binary.BigEndian.PutUint64(o.Id, p.operations)
		if kind == messages.OperationKind_REMOVE || kind == messages.OperationKind_REPLACE {
			o.OldNode = w.args[0]
		}
		if kind != messages.OperationKind_REMOVE {
			o.NewNode = server.Name()
		}
		if kind == messages.OperationKind_ADD || kind == messages.OperationKind_REPLACE {
			o.NewAddress = server.Address()
		}
		what := fmt.Sprintf("%s %s", kind, strings.Join(w.args, " by "))
		begin := &messages.ClusterRequest{Kind: &messages.ClusterRequest_Begin{Begin: &messages.BeginOperation{Operation: o}}}
		if refusal := p.ask(w, what, &messages.Submit{Cluster: begin}); refusal != nil || w.flags["nowait"] {
			return refusal
		}
		if p.scene.Operation(o.Id) == nil {
			return nil // it was refused, and the answer says why
		}
		p.pass(func() bool { return ended(p.scene.Operation(o.Id)) })
		is := p.scene.Operation(o.Id)
		if !ended(is) {
			return messages.Errorf(messages.Code_TIMED_OUT, "%s is in phase %s after %v", what, is.Phase, patience)
		}
		p.answer("%s", strings.TrimSpace(fmt.Sprintf("%s: %s %s", what, is.Phase, is.Error)))
		return nil
	}
}

func ended(o *messages.ClusterOperation) bool {
	return o.Phase == messages.OperationPhase_COMPLETE || o.Phase == messages.OperationPhase_FAILED
}

func (p *player) transfer(w words) *messages.Error {
	return p.ask(w, "transfer "+w.args[0], &messages.Submit{Cluster: &messages.ClusterRequest{
		Kind: &messages.ClusterRequest_Transfer{Transfer: &messages.TransferLeadership{To: w.args[0]}},
	}})
}

func (p *player) move(server sim.Server) {
	server.Move()
	p.answer("%s is at %s from now on", server.Name(), server.Address())
}

func (p *player) update(w words) *messages.Error {
	return p.ask(w, "update "+w.args[0], &messages.Submit{Cluster: &messages.ClusterRequest{
		Kind: &messages.ClusterRequest_Address{Address: &messages.ChangeAddress{Name: w.args[0], Address: w.args[1]}},
	}})
}

// members says who the members are, as of the last entry that is committed.
func (p *player) members(words) *messages.Error {
	for _, m := range p.scene.Members() {
		bound := "bound"
		if len(m.Incarnation) == 0 {
			bound = "not bound yet"
		}
		p.answer("replica %d: %s at %s, %s, %s", m.RaftId, m.Name, m.Address, m.Type, bound)
	}
	return nil
}
