package inside

import (
	"fmt"
	"net/http"
	"strings"

	"keyval/actors/auth"
	"keyval/actors/transport"
	"keyval/actors/transport/keys"
	"keyval/messages"
)

// What those who look need, as they would at the node's other door: the page tells what
// StatusRequest does. Profiles tell what a process has in memory.
var (
	toLook, _ = auth.OfRequest(&messages.StatusRequest{})
	toProfile = auth.Whole(messages.UserRole_OPERATOR)
)

// law is what a node holds those against who look. The zero law knows nothing yet.
type law struct {
	rights  transport.Rights
	members transport.Known
	local   transport.Local // of it, the cluster
}

func lawOf(m *messages.MembersChanged) law {
	return law{transport.KnownRights(m.Auth), transport.Known{}.With(m.Members, m.NextRaftId), transport.Local{ClusterID: m.ClusterId}}
}

// bearer begins the header of a request that comes with a token of kvctl login.
const bearer = "Bearer "

// who asks: whom the certificate of his connection names, or without one his token.
func (p *Page) who(r *http.Request, l law) (from transport.Principal, why *messages.Error) {
	if from = keys.PrincipalOf(r.TLS.PeerCertificates); from.Kind != transport.Keyless {
		if err := p.options.Keys.Stale(r.TLS.PeerCertificates, false); err != nil {
			why = messages.Errorf(messages.Code_NOT_ALLOWED, "the certificate of %s is good no more: %v", from, err).
				WithHint("connect again with one that is: kvctl cert check")
		}
		return from, why
	}
	token, shown := strings.CutPrefix(r.Header.Get("Authorization"), bearer)
	if !shown {
		return from, nil
	}
	claims, _, err := p.options.Keys.Prove(strings.TrimSpace(token))
	if err != nil {
		return from, messages.Errorf(messages.Code_NOT_ALLOWED, "the token is not good: %v", err).WithHint("log in again: kvctl login USER")
	}
	return transport.AtDoor(l.local, l.members, l.rights, claims, p.options.Keys.Now())
}

// judge is the HTTP status of a request that is refused, and why it is; 0: it is let in. secured:
// the node has keys, so that whoever asks has to have proved who he is.
func judge(secured bool, from transport.Principal, rights transport.Rights, need auth.Need) (status int, why *messages.Error) {
	switch {
	case secured && from.Kind == transport.Keyless:
		return http.StatusUnauthorized, messages.Errorf(messages.Code_NOT_ALLOWED, "this needs the certificate or the token of a user, and the request came without").
			WithHint("curl --cacert ca.crt --cert client.crt --key client.key, with those that kvctl cert create-client USER makes, or -H 'Authorization: Bearer TOKEN', of kvctl login; /livez, /readyz and /version need none")
	case from.Kind == transport.Unnamed:
		return http.StatusForbidden, messages.Errorf(messages.Code_NOT_ALLOWED, "the certificate names neither a node nor a user").
			WithHint("use the certificate of a user: kvctl cert create-client USER")
	}
	why = rights.Lack(from, need)
	switch {
	case why == nil:
		return 0, nil
	case why.Code == messages.Code_BUSY:
		return http.StatusServiceUnavailable, why.WithHint("ask again in a moment; /livez and /readyz say how it is")
	case from.Kind == transport.NodeKey:
		why = messages.Errorf(messages.Code_NOT_ALLOWED, "the certificate of %s is no user's, and users need a role here", from).
			WithHint("use the certificate of a user: kvctl cert create-client USER")
	}
	return http.StatusForbidden, why
}

// guarded answers those who have what is needed, by what this node has applied.
func (p *Page) guarded(need auth.Need, then http.HandlerFunc) http.HandlerFunc {
	if p.options.Plain {
		return then
	}
	return func(w http.ResponseWriter, r *http.Request) {
		from, l := transport.Principal{}, law{}
		if r.TLS == nil || len(r.TLS.PeerCertificates) > 0 || r.Header.Get("Authorization") != "" { // else the answer is known
			l = p.source.law(r.Context())
		}
		if r.TLS != nil {
			var why *messages.Error
			if from, why = p.who(r, l); why != nil {
				w.Header().Set("Connection", "close")
				refuse(w, http.StatusUnauthorized, why)
				return
			}
		}
		status, why := judge(r.TLS != nil, from, l.rights, need)
		if status == 0 {
			then(w, r)
			return
		}
		if status == http.StatusForbidden {
			host := r.RemoteAddr[:strings.LastIndexByte(r.RemoteAddr, ':')]
			p.source.deny(&messages.Denied{Principal: from.User(), Why: why.Message, Request: r.Pattern + " from " + host})
		}
		refuse(w, status, why)
	}
}

// refuse says why, and what to do, as kvctl does.
func refuse(w http.ResponseWriter, status int, why *messages.Error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="keyval"`)
	}
	w.WriteHeader(status)
	fmt.Fprintf(w, "%s\nnext: %s\n", why.Message, why.Hint)
}
