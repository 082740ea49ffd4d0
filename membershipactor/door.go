package membershipactor

import (
	"github.com/asynkron/protoactor-go/actor"

	"keyval/messages"
)

// door is what the membership actor does about those who come and those who go: it
// carries out what the cores waiting and departure decide.
type door struct {
	cfg       Config
	members   *messages.MembersChanged // the last; nil: none yet
	waiting   *waiting
	departure *departure
	elsewhere string // the address that people were told this node is not at
}

func newDoor(cfg Config) *door {
	return &door{cfg: cfg, waiting: newWaiting(), departure: newDeparture(cfg.Self, cfg.Name)}
}

// onMembers also holds the own record against the address that this node was started
// with: the record is where the others look for it.
func (d *door) onMembers(ctx actor.Context, m *messages.MembersChanged) {
	d.members = m
	for _, c := range d.waiting.onMembers(m) {
		ctx.Send(d.cfg.Client(c.to.address, c.to.actor), c.answer)
	}
	d.leave(ctx, d.departure.onMembers(m))
	for _, own := range m.Members {
		if own.RaftId != d.cfg.Self || own.Address == d.elsewhere {
			continue
		}
		if d.elsewhere = ""; own.Address != d.cfg.Address {
			d.elsewhere = own.Address
			d.cfg.Logger.Warn("the others look for this node where it is not", "record", own.Address, "advertised", d.cfg.Address,
				"hint", "kvctl cluster update "+own.Name+" "+d.cfg.Address)
		}
	}
}

// onAsk answers who waits to be added. A leader binds who was added at once.
func (d *door) onAsk(ctx actor.Context, m *messages.JoinAsk, leads bool, everyone []*messages.WaitingNode) {
	from := ctx.Sender()
	if from == nil || d.members == nil || d.departure.said != nil {
		return
	}
	answer, warnings := d.waiting.onAsk(asker{from.Address, from.Id}, m, d.members)
	for _, warning := range warnings {
		d.cfg.Logger.Warn(warning)
	}
	ctx.Respond(answer)
	if leads {
		d.bind(ctx, d.waiting.bindings(d.members, everyone))
	}
}

// onRefused hears that a peer takes this node for removed.
func (d *door) onRefused(ctx actor.Context, m *messages.PeerRefused) {
	d.leave(ctx, d.departure.onRefused(m.Peer))
}

func (d *door) onTick(ctx actor.Context, m *messages.Tick, leads bool, everyone []*messages.WaitingNode) {
	d.bind(ctx, d.waiting.onTick(uint64(m.Elapsed), leads, d.members, everyone))
	for _, peer := range d.departure.onTick(uint64(m.Elapsed)) {
		ctx.Send(d.cfg.Peer(peer), &messages.NodePulse{}) // only the link's answer counts
	}
}

func (d *door) bind(ctx actor.Context, bindings []*messages.BindIncarnation) {
	for _, binding := range bindings {
		ctx.Send(d.cfg.Raft, &messages.Propose{Origin: d.cfg.Self, Command: messages.NodeCommand(&messages.Operation{
			Kind: &messages.Operation_BindIncarnation{BindIncarnation: binding},
		})})
	}
}

// leave tells the actors of this node that it was removed.
func (d *door) leave(ctx actor.Context, m *messages.Removed) {
	if m == nil {
		return
	}
	d.cfg.Logger.Warn("this node was removed", "how", m.Why, "confirmed", m.Confirmed)
	for _, to := range []*actor.PID{d.cfg.Transport, d.cfg.Gateway, d.cfg.Node} {
		ctx.Send(to, m)
	}
}

// everyone is who waits to be added, as far as this node was asked.
func (d *door) everyone() []*messages.WaitingNode { return d.waiting.list(d.cfg.TickMS) }
