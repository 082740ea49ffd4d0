package sim

import (
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"keyval/actors/client"
	"keyval/messages"
)

// Users and roles that come and go: a warden who gives clients roles and takes them while they
// write and read, and what a log means of that, computed anew.

// warden is the client who says who may do what.
type warden struct {
	*customer
	enabled   bool // it was asked for, so that it is not again once the world is healed
	passwords int  // that he has set
}

const wardenName = "warden"

// tenured are the roles of those who keep theirs: a cluster that nobody may run tells nothing.
var tenured = map[string]messages.UserRole{
	wardenName: messages.UserRole_ADMIN, "operator": messages.UserRole_OPERATOR, "keeper": messages.UserRole_OPERATOR, inviterName: messages.UserRole_OPERATOR,
}

// drawRights draws how often the warden changes something. In a fair world everybody may do
// everything.
func (s *swarm) drawRights(chance *rand.Rand, o Options) {
	if o.Faults && chance.IntN(4) == 0 {
		s.rights = pick(chance, 50*time.Millisecond, 200*time.Millisecond, time.Second)
	}
}

// appoint lets the warden change rights at random times, until the world is healed.
func (r *run) appoint() {
	if r.swarm.rights == 0 {
		return
	}
	r.warden = &warden{customer: r.customer(wardenName)}
	r.warden.start()
	r.regularly("rights", 0, r.swarm.rights, func() {
		if r.check.reference != nil && len(r.warden.under) == 0 {
			r.by("rights", func() { r.warden.ask(r.warden.draw()) })
		}
	})
	r.haunt()
}

func (w *warden) ask(m *messages.ChangeAuth) {
	if m != nil {
		w.submit(&messages.Submit{Cluster: client.AuthRequest(m, false)})
	}
}

// draw is the next change: first those that let auth be enabled, then anything that leaves the
// warden in his place.
func (w *warden) draw() *messages.ChangeAuth {
	r := w.run
	is := r.check.model.auth
	names := []string{thiefName}
	for _, c := range r.clients {
		names = append(names, c.name)
	}
	for _, name := range names {
		role := tenured[name]
		switch {
		case userNamed(is, name) == nil && (!is.GetEnabled() || role != 0 || r.chaos.IntN(4) == 0):
			return &messages.ChangeAuth{Kind: &messages.ChangeAuth_Add{Add: name}}
		case role != 0 && len(userNamed(is, name).GetGrants()) == 0:
			return granting(name, &messages.Grant{Role: role})
		}
	}
	if !is.GetEnabled() {
		if w.enabled && r.chaos.IntN(3) > 0 {
			return nil
		}
		w.enabled = true
		return &messages.ChangeAuth{Kind: &messages.ChangeAuth_Enable{Enable: true}}
	}
	u := pick(r.chaos, is.Users...)
	if n := r.chaos.IntN(12); n < 3 {
		p := &messages.ChangePassword{User: u.Name, Hash: w.hashOfPassword()}
		if n == 0 && u.Password != nil {
			p.Hash = nil
		}
		return &messages.ChangeAuth{Kind: &messages.ChangeAuth_Password{Password: p}}
	}
	if tenured[u.Name] != 0 {
		return nil
	}
	switch n := r.chaos.IntN(20); {
	case n == 0:
		return &messages.ChangeAuth{Kind: &messages.ChangeAuth_Remove{Remove: u.Name}}
	case n == 1:
		return &messages.ChangeAuth{Kind: &messages.ChangeAuth_Enable{Enable: false}}
	case n < 10 && len(u.Grants) > 0:
		return &messages.ChangeAuth{Kind: &messages.ChangeAuth_Revoke{Revoke: &messages.UserGrant{User: u.Name, Grant: pick(r.chaos, u.Grants...)}}}
	}
	g := &messages.Grant{Role: pick(r.chaos, messages.UserRole_WRITER, messages.UserRole_WRITER, messages.UserRole_VIEWER, messages.UserRole_OPERATOR)}
	if prefix := pick(r.chaos, "", "", "k", "k0", "k1", "still"); prefix != "" && g.Role != messages.UserRole_OPERATOR {
		g.Prefix = []byte(prefix)
	}
	return granting(u.Name, g)
}

func granting(user string, g *messages.Grant) *messages.ChangeAuth {
	return &messages.ChangeAuth{Kind: &messages.ChangeAuth_Grant{Grant: &messages.UserGrant{User: user, Grant: g}}}
}

// openUp: in a healed world the warden can end that rights count; what comes then is everybody's
// affair. One who asked for the contrary before may be heard late.
func (r *run) openUp() {
	if r.warden == nil || r.check.reference == nil {
		return
	}
	limit := r.world.clock.now + settleMax + r.shipping()
	for again := r.world.clock.now; !r.world.over(); r.world.run(r.world.clock.now + r.swarm.options.TickInterval) {
		if !r.check.model.auth.GetEnabled() && len(r.warden.under) == 0 {
			r.world.run(r.world.clock.now + time.Second)
			if !r.check.model.auth.GetEnabled() {
				return
			}
		}
		if r.world.clock.now >= limit {
			r.world.fail("rights can be changed", "the warden cannot end that roles count: %v", r.check.model.auth)
		}
		if r.world.clock.now >= again {
			again = r.world.clock.now + time.Second
			r.warden.ask(&messages.ChangeAuth{Kind: &messages.ChangeAuth_Enable{Enable: false}})
		}
	}
}

// What became of rights.
const (
	cellDenied   = "denied-in-the-log"
	cellUnread   = "denied-a-read"
	cellRightful = "allowed-by-a-role"
	cellGiven    = "rights-changed"
)

// meet counts what rights have made of an answer.
func (r *run) meet(op *operation, d *messages.Done) {
	switch {
	case r.warden == nil:
	case op.submit.Cluster.GetAuth() != nil && d.Cluster.GetCode() == messages.Code_OK:
		r.coverage[cellGiven]++
	case d.Write.GetCode() == messages.Code_NOT_ALLOWED:
		r.coverage[cellDenied]++
	case d.Read.GetCode() == messages.Code_NOT_ALLOWED:
		r.coverage[cellUnread]++
	case d.Write != nil && d.Write.Code == messages.Code_OK && r.check.model.auth.GetEnabled():
		r.coverage[cellRightful]++
	}
}

// userNamed finds a user.
func userNamed(a *messages.Auth, name string) *messages.User {
	if i := slices.IndexFunc(a.GetUsers(), func(u *messages.User) bool { return u.Name == name }); i >= 0 {
		return a.Users[i]
	}
	return nil
}

// may reports whether a principal may read, or write, the key, or all keys of [from, to) where to
// is not empty; end says that the range has no end.
func may(a *messages.Auth, principal string, write bool, from, to string, end bool) bool {
	if !a.GetEnabled() {
		return true
	}
	for _, g := range userNamed(a, principal).GetGrants() {
		role := g.Role == messages.UserRole_WRITER || g.Role == messages.UserRole_ADMIN || !write && (g.Role == messages.UserRole_VIEWER || g.Role == messages.UserRole_OPERATOR)
		prefix := string(g.Prefix)
		inside := strings.HasPrefix(from, prefix)
		switch {
		case !end && to == "": // one key
		case end:
			inside = prefix == ""
		case from >= to: // no key at all
			inside = true
		default: // the simulator's keys are of small letters and digits
			inside = inside && (prefix == "" || to <= prefix[:len(prefix)-1]+string(prefix[len(prefix)-1]+1))
		}
		if role && inside {
			return true
		}
	}
	return false
}

// mayRun reports whether a principal has the role of an operator, or more.
func mayRun(a *messages.Auth, principal string) bool {
	return !a.GetEnabled() || slices.ContainsFunc(userNamed(a, principal).GetGrants(), func(g *messages.Grant) bool {
		return g.Role == messages.UserRole_OPERATOR || g.Role == messages.UserRole_ADMIN
	})
}

// allows reports whether a principal may do all that is in a command.
func (m *model) allows(principal string, c *messages.Command) bool {
	if !m.auth.GetEnabled() {
		return true
	}
	for _, n := range c.Conditions {
		open := string(n.To) == "\x00"
		to := string(n.To)
		if open {
			to = ""
		}
		if !may(m.auth, principal, false, string(n.Key), to, open) {
			return false
		}
	}
	for _, o := range slices.Concat(c.Operations, c.Otherwise) {
		ok := false
		switch k := o.Kind.(type) {
		case *messages.Operation_Put:
			ok = may(m.auth, principal, true, string(k.Put.Key), "", false)
		case *messages.Operation_Delete:
			ok = may(m.auth, principal, true, string(k.Delete.Key), "", false)
		case *messages.Operation_DeleteRange:
			ok = may(m.auth, principal, true, string(k.DeleteRange.From), string(k.DeleteRange.To), len(k.DeleteRange.To) == 0)
		case *messages.Operation_Compact:
			ok = mayRun(m.auth, principal)
		}
		if !ok {
			return false
		}
	}
	return true
}

// setAuth takes what the log says of rights. The nodes write none that may not be, so that its
// version is the one that follows is all there is to ask.
func (m *model) setAuth(a *messages.Auth) {
	if a.GetVersion() == m.auth.GetVersion()+1 {
		m.auth = a
		m.rights = append(m.rights, a)
	}
}

// rightsSince is the place among all rights of those that a request has brought; 0: it has none.
func (m *model) rightsSince(request string) (version int) {
	for i, a := range m.rights {
		if a.GetRequest() == request {
			return i
		}
	}
	return 0
}

// mayHaveRead reports whether a read could be answered so, by rights since a version: what is
// read linearizably is read by those of a moment while it was under way.
func (m *model) mayHaveRead(principal string, r *messages.Read, since int, allowed bool) bool {
	var from, to []byte
	end := false
	switch k := r.Kind.(type) {
	case *messages.Read_Get:
		from = k.Get.Key
	case *messages.Read_Scan:
		from, to, end = k.Scan.From, k.Scan.To, len(k.Scan.To) == 0
	case *messages.Read_Digest:
		from, to, end = k.Digest.From, k.Digest.To, len(k.Digest.To) == 0
	}
	return slices.ContainsFunc(m.rights[since:], func(a *messages.Auth) bool {
		return may(a, principal, false, string(from), string(to), end) == allowed
	})
}
