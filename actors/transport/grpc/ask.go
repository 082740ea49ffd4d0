package grpc

import (
	"context"
	"crypto/rand"
	"errors"
	"io"

	"google.golang.org/protobuf/proto"

	"keyval/actors/transport"
	"keyval/messages"
)

// Asker is who asks one thing: a client whose name nobody knows.
func Asker(version string) transport.Local {
	var id [messages.ClientIDSize]byte
	_, _ = rand.Read(id[:]) // it never fails
	return transport.Local{Role: messages.Role_CLIENT, Address: messages.ClientAddress(id[:]), Version: version}
}

// Ask asks the node at an endpoint one thing, on a connection of its own, and returns what it
// answers: that is for those who cannot come as anybody yet, and need no session. ctx bounds it all.
// The error is a *messages.Error; one of code OUTCOME_UNKNOWN says that the node may have done
// what was asked for.
func (g *Network) Ask(ctx context.Context, endpoint string, local transport.Local, question proto.Message) (proto.Message, error) {
	d, failed := g.dial(ctx, endpoint, local, transport.Known{}, 0, messages.Lane_CONTROL)
	if failed != nil {
		return nil, failed.Error
	}
	defer d.close()
	e, err := messages.Seal(messages.KindOf(question).Actor, "asker", question)
	if err != nil {
		return nil, messages.Errorf(messages.Code_INTERNAL, "%v", err)
	}
	parcel := &messages.Frame{Kind: &messages.Frame_Parcel{Parcel: &messages.Parcel{Envelopes: []*messages.Envelope{e}}}}
	if err := d.SendMsg(&outgoing{control: parcel}); err != nil && err != io.EOF {
		return nil, broken(endpoint, err)
	}
	in := &incoming{}
	defer in.free()
	switch err := d.RecvMsg(in); {
	case ctx.Err() != nil:
		return nil, messages.Errorf(messages.Code_OUTCOME_UNKNOWN, "%s did not answer in time", endpoint)
	case err != nil:
		unknown := broken(endpoint, err)
		unknown.Code = messages.Code_OUTCOME_UNKNOWN
		return nil, unknown
	}
	if in.Control != nil {
		return nil, transport.Refused(endpoint, in.Control.GetRefusal())
	}
	if len(in.Envelopes) == 0 {
		return nil, messages.Errorf(messages.Code_INVALID, "%s answered with nothing", endpoint)
	}
	answer, err := d.conn.Open(in.Envelopes[0])
	var why *messages.Error
	if err != nil && !errors.As(err, &why) {
		why = messages.Errorf(messages.Code_INVALID, "%s answered with something else: %v", endpoint, err)
	}
	if why != nil {
		return nil, why
	}
	return answer, nil
}
