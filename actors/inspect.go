package actors

import (
	"context"
	"errors"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/protobuf/proto"

	"keyval/actors/transport"
	"keyval/messages"
)

// Inspector asks a running node about itself, from outside of its actors and without a
// connection. Its methods may be called at the same time.
type Inspector struct{ node *Node }

// Inspect is the node's inspector.
func (n *Node) Inspect() Inspector { return Inspector{n} }

// Status is what the node says to kvctl status. STARTING: it founds, joins or stops, and the
// actor that would answer is not there. TIMED_OUT: it is there, and did not answer in time.
func (i Inspector) Status(ctx context.Context) (*messages.StatusReply, error) {
	reply := &messages.StatusReply{}
	err := i.ask(ctx, messages.ActorGateway, &messages.StatusRequest{Request: 1, Events: true}, func(m any) (ok bool) {
		reply, ok = m.(*messages.StatusReply)
		return ok
	})
	if err == nil && reply.Code != messages.Code_OK {
		err = messages.Errorf(reply.Code, "too many ask for the status of this node")
	}
	return reply, err
}

// Cluster is what the node knows of its cluster, without its asking others.
func (i Inspector) Cluster(ctx context.Context) (*messages.ClusterReply, error) {
	reply := &messages.ClusterReply{}
	err := i.ask(ctx, messages.ActorMembership, &messages.ClusterRequest{Request: 1, Kind: &messages.ClusterRequest_Query{Query: &messages.ClusterQuery{}}},
		func(m any) (ok bool) {
			reply, ok = m.(*messages.ClusterReply)
			return ok
		})
	return reply, err
}

// Entry is who may come and do what, as this node has applied it. The error is as of Status; or it
// does not know that yet.
func (i Inspector) Entry(ctx context.Context) (transport.Entry, error) {
	state := &messages.MembersChanged{}
	err := i.ask(ctx, messages.ActorMachine, &messages.Introduce{}, func(m any) (ok bool) {
		state, ok = m.(*messages.MembersChanged)
		return ok
	})
	switch {
	case err != nil:
		return transport.Entry{}, err
	case state.NextRaftId == 0:
		return transport.Entry{}, messages.Errorf(messages.Code_STARTING, "the node has no state yet")
	}
	return transport.EntryOf(state), nil
}

// Deny has the node tell that it has refused somebody something.
func (i Inspector) Deny(d *messages.Denied) {
	i.node.root.Send(i.node.System.NewLocalPID(messages.ActorGateway), d)
}

// inspectMax bounds a question whose context has no end.
const inspectMax = 2 * time.Second

func (i Inspector) ask(ctx context.Context, name string, question proto.Message, takes func(any) bool) error {
	timeout := inspectMax
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline))
	}
	answer, err := i.node.root.RequestFuture(i.node.System.NewLocalPID(name), question, timeout).Result()
	switch {
	case errors.Is(err, actor.ErrDeadLetter):
		return messages.Errorf(messages.Code_STARTING, "the node serves nobody yet")
	case err != nil || !takes(answer):
		return messages.Errorf(messages.Code_TIMED_OUT, "the actor %s of this node has not answered within %v", messages.ActorOf(name).Kind(), timeout.Round(time.Millisecond))
	}
	return nil
}
