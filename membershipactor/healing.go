package membershipactor

import (
	"google.golang.org/protobuf/proto"

	"keyval/membershipactor/rules"
	"keyval/membershipactor/saga"
	"keyval/messages"
)

// heal begins a replace that nobody asked for, where the settings want it. From then on it is
// an operation like any other.
func (c *changes) heal(k known) {
	var asked *messages.ClusterOperation
	asked, c.heals = saga.Heal(k.View)
	if asked == nil || k.Operation(asked.Id) != nil || c.now < c.healsAt || !k.Replication.GetSettled() {
		return
	}
	record := saga.Begin(asked, k.View)
	d := rules.Check(c.withProposed(k.View), record)
	if d.Err != nil {
		c.heals += ", but not now: " + d.Err.Message
		return
	}
	c.healsAt = c.now + saga.RetryTicks
	c.carryOut(k, saga.Record{Operation: record})
}

// setHealing changes the settings of that. A request that finds them as it wants them changes
// nothing.
func (c *changes) setHealing(k known, r *request, asked *messages.ChangeHealing) (done bool, err *messages.Error) {
	if r.healing == nil || k.Healing.GetVersion() >= r.healing.Version {
		next := rules.NextHealing(k.Healing, asked)
		if err := rules.CheckHealing(k.Healing, next, k.Members); err != nil {
			return true, err
		}
		same := proto.Clone(next).(*messages.Healing)
		same.Version = k.Healing.GetVersion()
		if proto.Equal(same, k.Healing) || r.asked.DryRun {
			return true, nil
		}
		r.healing, r.again = next, c.now // the first time, or another was faster
	}
	if c.due(r) {
		c.propose(&messages.Operation{Kind: &messages.Operation_SetHealing{SetHealing: &messages.SetHealing{Healing: r.healing}}})
	}
	return false, nil
}
