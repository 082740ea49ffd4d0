package client

import (
	"context"
	"time"

	"keyval/actors/transport"
	"keyval/actors/transport/grpc"
	"keyval/actors/transport/keys"
	"keyval/messages"
)

// LoginOptions say who logs in where.
type LoginOptions struct {
	Endpoints []string   // host:port; any node answers
	Keys      *keys.Ring // what is trusted; a certificate of its own is not needed
	User      string
	Password  string
	TTL       time.Duration // for how long the token is to be good, up to 30 days; 0: 12 hours
	Version   string        // is told to the nodes
}

// LoginResult is what a user has shown with a password.
type LoginResult struct {
	Token    string // it is as good as the password until then: keep it as secret
	Expires  time.Time
	Endpoint string // of the node that gave it
}

// askMax bounds how long one node is waited for, and busyPause is what lies between two rounds.
const (
	askMax    = 15 * time.Second // as a node gives
	busyPause = 500 * time.Millisecond
)

// Login asks the nodes for a token, one after the other, until one answers; again while some are BUSY, until
// ctx ends. A password goes to nodes that prove by a certificate that they are some, and to nobody else.
// NOT_ALLOWED: there is no such user, he has no password, or it is another one, or no node takes anybody
// without a certificate; INVALID: there are no Keys.
func Login(ctx context.Context, o LoginOptions) (LoginResult, error) {
	if err := checkEndpoints(o.Endpoints); err != nil {
		return LoginResult{}, err
	}
	if o.Keys == nil {
		return LoginResult{}, messages.Errorf(messages.Code_INVALID, "without keys nobody can tell whom the password would go to").
			WithHint("name the cluster's authority: its ca.crt")
	}
	network := grpc.New(grpc.Options{Keys: o.Keys, Token: func() string { return "" }})
	for {
		busy := false
		var why error
		for _, endpoint := range o.Endpoints {
			result, answered, err := loginAt(ctx, network, endpoint, o)
			switch code := messages.CodeOf(err); {
			case err == nil:
				return result, nil
			case code == messages.Code_BUSY || code == messages.Code_STARTING:
				busy, why = true, err
			case answered:
				return LoginResult{}, err
			case !busy && (why == nil || code == messages.Code_NOT_ALLOWED): // a node that starts lets nobody in yet
				why = err
			}
		}
		if !busy || ctx.Err() != nil {
			return LoginResult{}, why
		}
		select {
		case <-ctx.Done():
			return LoginResult{}, why
		case <-time.After(busyPause):
		}
	}
}

// loginAt asks one node. answered: the error is what it said to the password.
func loginAt(ctx context.Context, network *grpc.Network, endpoint string, o LoginOptions) (result LoginResult, answered bool, err error) {
	ctx, done := context.WithTimeout(ctx, askMax)
	defer done()
	local := grpc.Asker(o.Version)
	answer, err := network.Ask(ctx, endpoint, local, &messages.LoginRequest{Request: 1, User: o.User, Password: o.Password, TtlMs: uint64(o.TTL.Milliseconds())})
	if err != nil {
		return result, false, err
	}
	r, is := answer.(*messages.LoginReply)
	switch {
	case !is:
		return result, true, messages.Errorf(messages.Code_INVALID, "%s answered a login with %T", endpoint, answer)
	case r.Code != messages.Code_OK:
		return result, true, (&messages.Error{Code: r.Code, Message: transport.Legible(r.Message), Hint: transport.Legible(r.Hint)}).
			At(endpoint, messages.RequestIDOfNode(local.Address, r.Request))
	}
	return LoginResult{Token: r.Token, Expires: time.UnixMilli(r.ExpiresMs), Endpoint: endpoint}, true, nil
}
