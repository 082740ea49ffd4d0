// Package inside lets people and programs see into a running node over HTTP: metrics, health
// endpoints, and a page for eyes. It asks the node by messages, when somebody asks it.
package inside

import (
	"context"
	"sync"
	"time"

	"keyval/actors/client"
	"keyval/actors/transport"
	"keyval/cli/doctor"
	"keyval/messages"
)

// Node is a running node: actors.Inspector.
type Node interface {
	Status(context.Context) (*messages.StatusReply, error)
	Cluster(context.Context) (*messages.ClusterReply, error)
	Entry(context.Context) (transport.Entry, error)
	Deny(*messages.Denied)
}

// facts are what a node says of itself and of its cluster at one time.
type facts struct {
	status  *messages.StatusReply // nil: it does not serve
	cluster client.ClusterAnswer  // of the zero reply, then
	starts  bool                  // the node founds or joins: nobody can answer yet
	why     error                 // why status is nil
}

// askMax bounds how long a node may take to answer, and factsMax how long an answer is given
// to others who ask.
const (
	askMax   = time.Second
	factsMax = 200 * time.Millisecond
)

// source asks the node, once for all who ask at the same time.
type source struct {
	mutex sync.Mutex
	node  Node // nil: it is not there yet
	last  facts
	at    time.Time

	known transport.Entry // what the node said last of who may come and do what
}

func (s *source) set(n Node) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.node, s.at = n, time.Time{}
}

func (s *source) ask(ctx context.Context) facts {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if time.Since(s.at) < factsMax {
		return s.last
	}
	s.last, s.at = gather(ctx, s.node), time.Now()
	return s.last
}

// entry is who may come and do what, by what the node has applied now; one that does not answer
// any more can still be looked into, by what it said last.
func (s *source) entry(ctx context.Context) transport.Entry {
	s.mutex.Lock()
	n, known := s.node, s.known
	s.mutex.Unlock()
	if n == nil {
		return known
	}
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	now, err := n.Entry(ctx)
	if err != nil {
		return known
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.known = now
	return now
}

// deny has the node tell of a refusal.
func (s *source) deny(d *messages.Denied) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.node != nil {
		s.node.Deny(d)
	}
}

func gather(ctx context.Context, n Node) (f facts) {
	f.cluster = client.ClusterAnswer{ClusterReply: &messages.ClusterReply{}, At: time.Now()}
	if n == nil {
		f.starts, f.why = true, messages.Errorf(messages.Code_STARTING, "the node has not started yet")
		return f
	}
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	status, err := n.Status(ctx)
	if err != nil {
		f.starts, f.why = messages.CodeOf(err) == messages.Code_STARTING, err
		return f
	}
	reply, err := n.Cluster(ctx)
	if err != nil {
		f.why = err
		return f
	}
	f.status, f.cluster.ClusterReply = status, reply
	return f
}

// examined are the facts for a doctor: of this node, and of those that it knows to be away.
func (f facts) examined() doctor.Facts {
	d := doctor.Facts{Nodes: []doctor.Node{{Name: f.status.Name, Status: f.status}}, Cluster: &f.cluster, Now: f.cluster.At, Alone: true}
	for _, m := range f.cluster.GetView().GetMembers() {
		switch {
		case m.Member.Name == f.status.Name:
			d.Nodes[0].Endpoint = m.Member.Address
		case m.Role == "unreachable":
			d.Nodes = append(d.Nodes, doctor.Node{Name: m.Member.Name, Endpoint: m.Member.Address, Problem: messages.Errorf(messages.Code_UNREACHABLE, "the leader is out of contact with it")})
		}
	}
	return d
}
