package actors

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"keyval/messages"
)

// Times and bounds of a node that waits to be added, in ticks and in number.
const (
	joinAskTicks     = 10
	joinEndpointsMax = 64 // given and learned
)

// joining is what a node knows that is no founder and has no RaftID yet. It asks the
// endpoints that it was given, and the members that these name, to let it in, until one
// finds it among the members. Each method is one event, and returns what is to be done.
type joining struct {
	node      *messages.WaitingNode
	endpoints []*joinEndpoint // those that were given first
	request   uint64          // of the last JoinAsk
	ticks     uint32          // since it asked
	refusals  map[string]*messages.JoinAnswer
	members   int    // of the cluster, as it was told last
	cluster   []byte // of the first one that answered
	over      bool   // it has been let in, or never will be
}

// joinEndpoint is a place where a member may be.
type joinEndpoint struct {
	name    string // host:port
	address string // of the node there, logical; empty: there is no link
	dialled bool   // until the link is down again
	request uint64 // of the last JoinAsk to it
	asked   bool   // its node has answered
	note    string // what was wrong last; empty: nothing
}

type (
	// dialMember makes a link to an endpoint, hangUp ends it.
	dialMember struct{ Endpoint string }
	hangUp     struct{ Endpoint string }
	// askMember asks the node of this logical address to let this one in.
	askMember struct {
		Address string
		Ask     *messages.JoinAsk
	}
	// joined: the node is a member.
	joined struct{ *messages.Joined }
	// cannotJoin ends the process: no waiting helps.
	cannotJoin struct{ *messages.Error }
)

func newJoining(node *messages.WaitingNode, endpoints []string) *joining {
	j := &joining{node: node, refusals: map[string]*messages.JoinAnswer{}, ticks: joinAskTicks}
	for _, e := range endpoints {
		j.learn(e)
	}
	return j
}

func (j *joining) learn(endpoint string) {
	known := slices.ContainsFunc(j.endpoints, func(e *joinEndpoint) bool { return e.name == endpoint })
	if !known && endpoint != j.node.Address && len(j.endpoints) < joinEndpointsMax {
		j.endpoints = append(j.endpoints, &joinEndpoint{name: endpoint})
	}
}

// addCommand is what lets a node in.
func addCommand(name, address string) string {
	return fmt.Sprintf("kvctl cluster add %s %s", name, address)
}

// waitingFor says what the node waits for.
func (j *joining) waitingFor() string {
	text := "waiting to be added: " + addCommand(j.node.Name, j.node.Address)
	var notes []string
	for _, e := range j.endpoints {
		switch {
		case e.asked && e.note == "" && e.address != "":
			return text
		case e.note != "":
			notes = append(notes, e.name+": "+e.note)
		}
	}
	if len(notes) > 0 {
		text += "; nobody knows of it yet: " + strings.Join(notes[:min(3, len(notes))], "; ")
	}
	return text
}

// onTick asks everybody anew, and dials who is not there.
func (j *joining) onTick(elapsed uint32) (out []any) {
	if j.ticks += elapsed; j.over || j.ticks < joinAskTicks {
		return nil
	}
	j.ticks = 0
	for _, e := range j.endpoints {
		switch {
		case e.address != "":
			out = append(out, j.ask(e))
		case !e.dialled:
			e.dialled = true
			out = append(out, dialMember{e.name})
		}
	}
	return out
}

func (j *joining) ask(e *joinEndpoint) any {
	j.request++
	e.request = j.request
	return askMember{e.address, &messages.JoinAsk{Request: j.request, Node: j.node}}
}

func (j *joining) at(endpoint string) *joinEndpoint {
	for _, e := range j.endpoints {
		if e.name == endpoint {
			return e
		}
	}
	return nil
}

// onUp: a node was reached. One that does not serve itself lets nobody in.
func (j *joining) onUp(m *messages.LinkUp) []any {
	e := j.at(m.Endpoint)
	switch {
	case e == nil || j.over:
		return []any{hangUp{m.Endpoint}}
	case m.RaftId == 0 || m.WaitingFor != "":
		e.note = fmt.Sprintf("%s does not serve yet", m.Name)
		return []any{hangUp{m.Endpoint}}
	}
	e.address, e.note = messages.NodeAddress(m.RaftId), ""
	return []any{j.ask(e)}
}

// onDown: a link could not be made, or is gone.
func (j *joining) onDown(m *messages.LinkDown) []any {
	e := j.at(m.Endpoint)
	if e == nil {
		return nil
	}
	if e.address != "" || e.note == "" {
		e.note = m.Message
	}
	e.dialled, e.asked, e.address = false, false, ""
	return nil
}

// onAnswer takes an answer to the last JoinAsk to an endpoint.
func (j *joining) onAnswer(m *messages.JoinAnswer) []any {
	i := slices.IndexFunc(j.endpoints, func(e *joinEndpoint) bool { return e.address != "" && e.request == m.Request })
	switch {
	case j.over || i < 0:
		return nil
	case len(m.ClusterId) != messages.ClusterIDSize:
		j.endpoints[i].note = m.Message
		return nil
	case j.cluster != nil && !bytes.Equal(j.cluster, m.ClusterId):
		return j.end(messages.Errorf(messages.Code_CONFLICT, "--join names nodes of two clusters: %x, and %s of %x", j.cluster, j.endpoints[i].name, m.ClusterId).
			WithHint("name nodes of one cluster"))
	}
	from := j.endpoints[i].address
	j.cluster, j.members = m.ClusterId, len(m.Members)
	j.endpoints[i].asked, j.endpoints[i].note = true, ""
	for _, member := range m.Members {
		j.learn(member.Address)
	}
	switch m.Code {
	case messages.Code_OK:
		if m.RaftId == 0 {
			return nil
		}
		j.over = true
		return []any{joined{&messages.Joined{ClusterId: m.ClusterId, RaftId: m.RaftId, Members: m.Members}}}
	case messages.Code_BUSY:
		delete(j.refusals, from)
		j.endpoints[i].note = m.Message
		if m.Again {
			return []any{j.ask(j.endpoints[i])}
		}
		return nil
	}
	j.refusals[from] = m
	j.endpoints[i].note = m.Message
	if 2*len(j.refusals) <= j.members { // one that lags may know an older member of this name
		return nil
	}
	return j.end(messages.Errorf(m.Code, "%s is not let in: %s", j.node.Name, m.Message).WithHint("%s", m.Hint))
}

func (j *joining) end(why *messages.Error) []any {
	j.over = true
	return []any{cannotJoin{why}}
}
