package actors

import (
	"errors"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/prometheus/client_golang/prometheus"

	"keyval/actors/auth"
	"keyval/messages"
)

// signToken is seam.World.Sign.
type signToken func(user string, cluster []byte, password uint64, ttl time.Duration) (string, time.Time, error)

// login gives tokens to users whose passwords fit. What compares them is an actor of its own, so
// that those who have to wait are told so at once.
type login struct {
	wiring *wiring
	core   *loginCore
	sign   signToken            // nil: this node gives none
	meters []prometheus.Counter // by code
}

func newLogin(w *wiring, sign signToken, tickMS uint64) actor.Producer {
	return func() actor.Actor {
		return &login{wiring: w, core: newLoginCore(sign != nil, tickMS), sign: sign, meters: loginMeters(w.meter)}
	}
}

func (a *login) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		a.onStarted(ctx)
	case *messages.MembersChanged:
		a.core.onMembers(m)
	case *messages.LoginRequest:
		if ctx.Sender() != nil {
			a.core.onLogin(&loginAsk{address: ctx.Sender().Address, actor: ctx.Sender().Id, m: m})
		}
	case *messages.PasswordCompared:
		a.core.onCompared(m)
	case *messages.Tick:
		ctx.Request(ctx.Sender(), &messages.Ticked{})
		a.core.onTick(m.Elapsed)
	default:
		a.wiring.unexpected(ctx)
	}
	for _, e := range a.core.take() {
		a.run(ctx, e)
	}
}

func (a *login) onStarted(ctx actor.Context) {
	ctx.Request(a.wiring.machine(), &messages.Introduce{})
	_, err := ctx.SpawnNamed(actor.PropsFromProducer(func() actor.Actor { return verifier{a.wiring} }, actor.WithSupervisor(newSupervision(a.wiring))),
		messages.ActorOf(messages.ActorVerifier).Own())
	if err != nil {
		panic("login: spawn the verifier: " + err.Error())
	}
}

func (a *login) run(ctx actor.Context, effect any) {
	switch e := effect.(type) {
	case loginAnswer:
		a.answer(ctx, e.ask, e.reply)
	case loginDenied:
		ctx.Send(a.wiring.local(messages.ActorGateway), e.denied)
	case loginCompare:
		ctx.Request(a.wiring.local(messages.ActorVerifier), e.m)
	case loginGrant:
		a.grant(ctx, e)
	}
}

func (a *login) grant(ctx actor.Context, e loginGrant) {
	reply := &messages.LoginReply{Request: e.ask.m.Request, ClusterId: a.core.cluster}
	token, expires, err := a.sign(e.ask.m.User, a.core.cluster, e.version, e.ttl)
	if err != nil {
		why := messages.Errorf(messages.Code_INTERNAL, "the token could not be signed")
		errors.As(err, &why)
		reply.Code, reply.Message, reply.Hint = why.Code, why.Message, why.Hint
		a.wiring.logger.Error("a token could not be signed", "principal", e.ask.m.User, "reason", err, "hint", "look at the keys of this node: kvctl cert check DIR")
	} else {
		reply.Token, reply.ExpiresMs = token, expires.UnixMilli()
		a.wiring.logger.Info("a user has logged in", "principal", e.ask.m.User, "request", e.ask.request(), "host", auth.HostText(e.ask.m.Host), "expires", expires.UTC().Format(time.RFC3339))
	}
	a.answer(ctx, e.ask, reply)
}

func (a *login) answer(ctx actor.Context, ask *loginAsk, reply *messages.LoginReply) {
	if int(reply.Code) < len(a.meters) {
		a.meters[reply.Code].Inc()
	}
	ctx.Send(a.wiring.ofClient(ask.address, ask.actor), reply)
}

// verifier compares one password after the other.
type verifier struct{ wiring *wiring }

func (v verifier) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *messages.ComparePassword:
		ctx.Respond(&messages.PasswordCompared{Number: m.Number, Fits: auth.Fits(m.Hash, m.Password)})
	default:
		v.wiring.unexpected(ctx)
	}
}
