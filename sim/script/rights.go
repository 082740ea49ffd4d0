package script

import (
	"strings"

	"keyval/actors/auth"
	"keyval/actors/client"
	"keyval/messages"
)

// user changes what one may do, whose client has his name.
func (p *player) user(w words) *messages.Error {
	m, name := &messages.ChangeAuth{}, w.args[1]
	of := &messages.UserGrant{User: name, Grant: &messages.Grant{}}
	if role := w.args[2:]; len(role) > 0 {
		r, refusal := auth.ParseRole(role[0])
		if refusal != nil {
			return refusal
		}
		of.Grant.Role = r
		if len(role) > 1 {
			of.Grant.Prefix = []byte(role[1])
		}
	}
	switch w.args[0] {
	case "add":
		m.Kind = &messages.ChangeAuth_Add{Add: name}
	case "remove":
		m.Kind = &messages.ChangeAuth_Remove{Remove: name}
	case "grant":
		m.Kind = &messages.ChangeAuth_Grant{Grant: of}
	case "revoke":
		m.Kind = &messages.ChangeAuth_Revoke{Revoke: of}
	default:
		return messages.Errorf(messages.Code_INVALID, "%q is nothing that is done to a user", w.args[0]).WithHint("say add, remove, grant or revoke")
	}
	return p.ask(w, "user "+strings.Join(w.args, " "), &messages.Submit{Cluster: client.AuthRequest(m, false)})
}

// auth says whether roles count.
func (p *player) auth(w words) *messages.Error {
	m := &messages.ChangeAuth{Kind: &messages.ChangeAuth_Enable{Enable: w.args[0] == "on"}}
	return p.ask(w, "auth "+w.args[0], &messages.Submit{Cluster: client.AuthRequest(m, false)})
}
