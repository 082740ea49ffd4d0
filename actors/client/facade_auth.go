package client

import (
	"context"

	"keyval/messages"
)

// AuthInfo is who may do what, as far as whoever asks is told.
type AuthInfo struct {
	*messages.Auth        // never nil; of who is no admin, while it is enabled, with himself alone
	Principal      string // who asks: whom his certificate names; empty: he has none
}

// GetAuth asks who may do what.
func (a ClusterAPI) GetAuth(ctx context.Context) (AuthInfo, error) {
	r, err := a.AskCluster(ctx, &messages.ClusterRequest{Kind: &messages.ClusterRequest_AuthQuery{AuthQuery: &messages.AuthQuery{}}})
	if err != nil {
		return AuthInfo{}, err
	}
	info := AuthInfo{&messages.Auth{}, r.GetPrincipal()}
	if r.GetAuth() != nil {
		info.Auth = r.GetAuth()
	}
	return info, nil
}

// ChangeAuth changes the users, or whether roles count, and returns when that is so. What is so
// already is no error. NOT_ALLOWED: who asks is no admin; NOT_FOUND: there is no such user; UNSAFE:
// nobody, or not who asks, could change it ever again.
func (a ClusterAPI) ChangeAuth(ctx context.Context, m *messages.ChangeAuth, dryRun bool) error {
	_, err := a.AskCluster(ctx, AuthRequest(m, dryRun))
	return err
}

// AuthRequest: see ChangeAuth.
func AuthRequest(m *messages.ChangeAuth, dryRun bool) *messages.ClusterRequest {
	return &messages.ClusterRequest{Kind: &messages.ClusterRequest_Auth{Auth: m}, DryRun: dryRun}
}
