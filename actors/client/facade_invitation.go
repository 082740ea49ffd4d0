package client

import (
	"context"

	"keyval/messages"
)

// Invitations are the nodes that have a token to come with, in the order in which those were made, until
// some time after they have expired. What would be of use to a thief is not told: of keys that
// nobody has taken yet, and that are sealed, there is a byte.
func (a ClusterAPI) Invitations(ctx context.Context) ([]*messages.Invitation, error) {
	r, err := a.AskCluster(ctx, &messages.ClusterRequest{Kind: &messages.ClusterRequest_InvitationQuery{InvitationQuery: &messages.InvitationQuery{}}})
	return r.GetInvitations(), err
}

// Invite has the cluster keep the sealed keys of a node until somebody has taken them, and returns
// what is told of that. BUSY: there are as many as there may be.
func (a ClusterAPI) Invite(ctx context.Context, m *messages.NewInvitation) (*messages.Invitation, error) {
	r, err := a.AskCluster(ctx, &messages.ClusterRequest{Kind: &messages.ClusterRequest_Invitation{Invitation: &messages.ChangeInvitation{Kind: &messages.ChangeInvitation_Add{Add: m}}}})
	switch {
	case err != nil:
		return nil, err
	case len(r.GetInvitations()) != 1: // somebody has removed it meanwhile
		return nil, messages.Errorf(messages.Code_CONFLICT, "the invitation of %s was removed at once", m.GetNode()).At(r.Endpoint, r.RequestID).WithHint("ask who did that: the log of the leader names him")
	}
	return r.GetInvitations()[0], nil
}

// Uninvite removes an invitation by its id. One that is not there is no error.
func (a ClusterAPI) Uninvite(ctx context.Context, id []byte) error {
	_, err := a.AskCluster(ctx, &messages.ClusterRequest{Kind: &messages.ClusterRequest_Invitation{Invitation: &messages.ChangeInvitation{Kind: &messages.ChangeInvitation_Remove{Remove: id}}}})
	return err
}
