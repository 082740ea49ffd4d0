package actors

import (
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/actors/seam"
	"keyval/messages"
)

// ticker is the only source of time in a node: each beat of the seam is a Tick for every
// actor that hears ticks. An actor that is slow must not find a heap of them in its
// mailbox, so it is sent none before it has answered the last with Ticked. The beats that
// it missed are counted in the next Tick.
type ticker struct {
	wiring   *wiring
	seam     seam.Ticker
	interval time.Duration
	stop     func()
	hearers  []*hearer
}

// hearer is one actor that hears ticks.
type hearer struct {
	name    string
	elapsed uint32 // beats since its last Tick
	busy    bool   // it has not answered its last Tick
}

func newTicker(w *wiring, s seam.Ticker, interval time.Duration) actor.Producer {
	return func() actor.Actor { return &ticker{wiring: w, seam: s, interval: interval} }
}

func (a *ticker) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		root, self := ctx.ActorSystem().Root, ctx.Self().Id
		a.stop = a.seam.Start(a.interval, func() { root.Send(a.wiring.local(self), &messages.Tick{Elapsed: 1}) })
	case *messages.Tick:
		a.onBeat(ctx)
	case *messages.Ticked:
		a.onTicked(ctx)
	case *messages.HearTicks:
		a.onHearTicks(m)
	case *actor.Stopping, *actor.Restarting:
		a.stop()
	default:
		a.wiring.unexpected(ctx)
	}
}

func (a *ticker) onBeat(ctx actor.Context) {
	a.wiring.beats.Add(1)
	for _, h := range a.hearers {
		h.elapsed++
		if h.busy {
			continue
		}
		ctx.Request(a.wiring.local(h.name), &messages.Tick{Elapsed: h.elapsed})
		h.elapsed, h.busy = 0, true
	}
}

func (a *ticker) onHearTicks(m *messages.HearTicks) {
	for _, name := range m.Names {
		a.hearers = slices.DeleteFunc(a.hearers, func(h *hearer) bool { return h.name == name })
		a.hearers = append(a.hearers, &hearer{name: name})
	}
}

func (a *ticker) onTicked(ctx actor.Context) {
	for _, h := range a.hearers {
		if h.name == ctx.Sender().GetId() {
			h.busy = false
		}
	}
}
