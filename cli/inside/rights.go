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

// judge is the HTTP status of a request that is refused, and why it is; 0: it is let in. secured:
// the node has keys, so that whoever asks has to have proved who he is.
func judge(secured bool, from transport.Principal, rights transport.Rights, need auth.Need) (status int, why *messages.Error) {
	switch {
	case secured && from.Kind == transport.Keyless:
		return http.StatusUnauthorized, messages.Errorf(messages.Code_NOT_ALLOWED, "this needs the certificate of a user, and the request came without one").
			WithHint("curl --cacert ca.crt --cert client.crt --key client.key, with those that kvctl cert create-client USER makes; or the token of kvctl login as a bearer's; /livez, /readyz and /version need none")
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
		entry := transport.Entry{}
		if token := bearer(r); r.TLS == nil || len(r.TLS.PeerCertificates) > 0 || token != "" { // else the answer is known
			entry = p.source.entry(r.Context())
		}
		from, why := p.whoAsks(r, entry)
		status := http.StatusUnauthorized
		switch {
		case why == nil:
			status, why = judge(r.TLS != nil, from, entry.Rights, need)
		case why.Code == messages.Code_BUSY:
			status = http.StatusServiceUnavailable
		}
		if why == nil {
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

// bearer is the token that a request brings; empty: it brings none. A scheme's letters may be small
// ones (RFC 9110, 11.1).
func bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// whoAsks is who has proved who he is, by a certificate or else by a token of kvctl login; Keyless:
// he brings neither.
func (p *Page) whoAsks(r *http.Request, entry transport.Entry) (from transport.Principal, why *messages.Error) {
	if r.TLS == nil {
		return from, nil
	}
	if chain := r.TLS.PeerCertificates; len(chain) > 0 {
		from = keys.PrincipalOf(chain)
		if err := p.options.Keys.Stale(chain, false); err != nil {
			why = messages.Errorf(messages.Code_NOT_ALLOWED, "the certificate of %s is good no more: %v", from, err).
				WithHint("connect again with one that is: kvctl cert check")
		}
		return from, why
	}
	if token := bearer(r); token != "" {
		claims, _, err := p.options.Keys.Prove(token)
		if err != nil {
			return from, messages.Errorf(messages.Code_NOT_ALLOWED, "the token is not good: %s", transport.Legible(err.Error())).
				WithHint("log in again: kvctl login USER")
		}
		return transport.AtDoor(entry.Local, entry.Known, entry.Rights, claims, p.options.Keys.Now())
	}
	return from, nil
}

// refuse says why, and what to do, as kvctl does.
func refuse(w http.ResponseWriter, status int, why *messages.Error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="keyval"`)
		w.Header().Set("Connection", "close") // another certificate needs another connection
	}
	w.WriteHeader(status)
	fmt.Fprintf(w, "%s\nnext: %s\n", why.Message, why.Hint)
}
