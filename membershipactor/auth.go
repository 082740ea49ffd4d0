package membershipactor

import (
	"google.golang.org/protobuf/proto"

	"keyval/actors/auth"
	"keyval/messages"
)

// setAuth changes who may do what. That the asker may is decided upon the version before, and
// the change takes effect only if that is the last one: so it need not be asked again later.
func (c *changes) setAuth(k known, r *request, asked *messages.ChangeAuth) (done bool, err *messages.Error) {
	if r.auth != nil && proto.Equal(k.Auth, r.auth) {
		return true, nil
	}
	if r.auth == nil || k.Auth.GetVersion() >= r.auth.Version {
		next, err := auth.Next(k.Auth, asked, r.asked.Principal, messages.RequestIDOfNode(r.from.address, r.asked.Request))
		if err != nil || next == nil || r.asked.DryRun {
			return true, err
		}
		r.auth, r.again = next, c.now // the first time, or another was faster
	}
	if c.due(r) {
		c.propose(&messages.Operation{Kind: &messages.Operation_SetAuth{SetAuth: &messages.SetAuth{Auth: r.auth}}})
	}
	return false, nil
}
