package storeactor

import (
	"fmt"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/actors/telemetry"
	"keyval/messages"
	"keyval/storeactor/disk"
)

// reclaimIfWanted starts a reclaim unless one is under way. A pin delays it.
func (m *machineActor) reclaimIfWanted(ctx actor.Context) {
	d := &m.discarding
	if !d.reclaim || d.floor < m.durable.CompactedRevision || m.reclaim != nil {
		return
	}
	d.reclaim = false
	var err error
	m.reclaim, err = ctx.SpawnNamed(actor.PropsFromProducer(func() actor.Actor {
		return &reclaimActor{config: m.config, engine: m.engine}
	}), childName(messages.ActorReclaim))
	if err != nil {
		m.fail(fmt.Errorf("spawn %s: %w", messages.ActorReclaim, err))
	}
}

// reclaimActor has the engine reclaim space once, which takes long, and stops. There is
// never more than one. A child of the machine.
type reclaimActor struct {
	config MachineConfig
	engine disk.Engine
}

func (r *reclaimActor) Receive(ctx actor.Context) {
	switch ctx.Message().(type) {
	case *actor.Started:
		r.onStarted(ctx)
	default:
		telemetry.Unexpected(ctx, r.config.Logger, r.config.Meter)
	}
}

func (r *reclaimActor) onStarted(ctx actor.Context) {
	err := r.engine.Reclaim()
	switch {
	case messages.CodeOf(err) == messages.Code_DAMAGED:
		r.config.Fatal(err)
	case err != nil:
		r.config.Logger.Warn("the space of history that was given up is not free yet", "reason", err)
	}
	ctx.Stop(ctx.Self())
}
