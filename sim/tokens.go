package sim

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/actors/seam"
	"keyval/actors/transport"
	"keyval/messages"
)

// Users log in, and their tokens outlive what they were given for: one host has the passwords of all, keeps
// every token, and comes with any of them to any node. What a token says is as it was signed, but for
// some that nobody would sign: signatures are of no matter here.

// bearer is the host.
type bearer struct {
	run    *run
	host   *host
	seat   *seat
	dialer seam.Dialer
	up     map[string]bool // by endpoint
	tokens []*transport.Claims
}

const (
	bearerName = "bearer"
	tokensMax  = 32 // that it keeps: the oldest go
)

// What became of tokens.
const (
	cellTokenGood     = "token-let-in"
	cellTokenExpired  = "token-expired"
	cellTokenPassword = "token-of-a-password-that-was-changed"
	cellTokenMember   = "token-of-a-removed-member"
	cellTokenElse     = "token-of-no-use"
)

// bear lets the host come at random times, until the world is healed.
func (r *run) bear() {
	if r.swarm.invitations == 0 {
		return
	}
	b := &bearer{run: r, up: map[string]bool{}}
	b.host = &host{world: r.world, name: bearerName, node: -1, keyless: true, pace: pace{rate: 1}}
	random := reader{stream(r.options.Seed, bearerName)}
	var id [messages.ClientIDSize]byte
	random.Read(id[:])
	seams := b.host.seams(random)
	system, root := seams.Runtime.NewSystem(messages.ClientAddress(id[:]), seams.Logger)
	if _, err := root.SpawnNamed(actor.PropsFromProducer(func() actor.Actor { return b }), bearerName); err != nil {
		panic(fmt.Sprintf("sim: spawn the bearer: %v", err))
	}
	local := transport.Local{Role: messages.Role_CLIENT, Address: system.Address(), Version: "simulated"}
	dialer, err := place{r.world.net, b.host}.Join(system, local, system.NewLocalPID(bearerName))
	if err != nil {
		panic(fmt.Sprintf("sim: the bearer joins: %v", err))
	}
	b.dialer, b.seat = dialer, dialer.(*seat)
	r.bearer, r.world.net.showed = b, r.judgeToken
	r.regularly(bearerName, 0, r.swarm.invitations, func() { r.by(bearerName, b.strike) })
}

func (b *bearer) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *messages.LinkUp:
		b.up[m.Endpoint] = true
	case *messages.LinkDown:
		delete(b.up, m.Endpoint)
	}
}

// strike logs in, or comes with some token to some node.
func (b *bearer) strike() {
	chance := b.run.chaos
	if chance.IntN(3) == 0 {
		b.login()
	}
	endpoint := pick(chance, b.run.endpoints()...)
	if b.up[endpoint] {
		b.dialer.Hang(endpoint)
	}
	if len(b.tokens) > 0 {
		b.seat.shows = pick(chance, b.tokens...)
		b.dialer.Dial(endpoint)
	}
}

// login has a node give a token for a password of which it knows.
func (b *bearer) login() {
	r, chance := b.run, b.run.chaos
	var nodes []*seat
	for _, s := range r.world.net.seats {
		if !s.gone() && s.listen != "" && s.set && s.auth.GetEnabled() && len(s.local.ClusterID) > 0 && !r.servers[s.host.node].lost() {
			nodes = append(nodes, s)
		}
	}
	if len(nodes) == 0 {
		return
	}
	s := pick(chance, nodes...)
	users := slices.DeleteFunc(slices.Clone(s.auth.Users), func(u *messages.User) bool { return u.Password == nil })
	if len(users) == 0 {
		return
	}
	u, now := pick(chance, users...), time.UnixMilli(r.wallMS())
	t := &transport.Claims{User: u.Name, Cluster: s.local.ClusterID, Node: s.host.name, Issued: now, Password: u.Password.Version,
		Expires: now.Add(pick(chance, time.Second, 5*time.Second, transport.TokenLife, transport.TokenLife))}
	switch chance.IntN(24) {
	case 0:
		t.Cluster = []byte("another cluster")
	case 1:
		t.Node = "nobody"
	case 2:
		t.Password += 1 + chance.Uint64N(3)
	case 3:
		t.Expires = now.Add(2 * transport.TokenLifeMax)
	}
	if b.tokens = append(b.tokens, t); len(b.tokens) > tokensMax {
		b.tokens = b.tokens[1:]
	}
}

// judgeToken: a node lets in whose token is good by what it has applied, as the log has it, and nobody else.
func (r *run) judgeToken(to *seat, t *transport.Claims, refusal *messages.Error) {
	now := time.UnixMilli(r.wallMS())
	if r.servers[to.host.node].lost() {
		return // its data the world has altered
	}
	cell, applied := cellTokenGood, r.check.model.rights
	version := to.auth.GetVersion()
	if version >= uint64(len(applied)) {
		r.world.fail("rights are those of the log", "%s has those of version %d, the log has %d", to.host.name, version, len(applied)-1)
		return
	}
	is := applied[version]
	u := userNamed(is, t.User)
	switch {
	case !to.set, !bytes.Equal(t.Cluster, to.local.ClusterID), !is.GetEnabled(), u == nil, t.Expires.Sub(t.Issued) > transport.TokenLifeMax:
		cell = cellTokenElse
	case !now.Before(t.Expires):
		cell = cellTokenExpired
	case !slices.ContainsFunc(to.told, func(m *messages.Member) bool { return m.Name == t.Node }):
		cell = cellTokenMember
	case u.GetPassword().GetVersion() != t.Password:
		cell = cellTokenPassword
	}
	r.coverage[cell]++
	switch {
	case cell == cellTokenGood && refusal != nil:
		r.world.fail("who has a good token is let in", "%s refuses the token of %s, by %s of password %d: %v", to.host.name, t.User, t.Node, t.Password, refusal)
	case cell != cellTokenGood && refusal == nil:
		r.world.fail("who has no good token stays out", "%s lets %s in with a token by %s of password %d, good until %v: %s; it knows %v", to.host.name, t.User, t.Node, t.Password, t.Expires.UTC(), cell, is)
	}
}

// hashOfPassword is the hash of a new password, which differs from all before.
func (w *warden) hashOfPassword() []byte {
	w.passwords++
	return fmt.Appendf(nil, "$2a$10$%053d", w.passwords)
}
