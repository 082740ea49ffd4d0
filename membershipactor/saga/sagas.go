package saga

import (
	"encoding/hex"

	"keyval/membershipactor/rules"
	"keyval/messages"
)

// Sagas are the operations that a leader carries on. They are never modified: a step makes
// others. The zero value is what a new leader begins with.
type Sagas struct {
	live  map[string]pending // by the operation's id
	leave pending            // of a joint configuration that no operation is about
}

// pending is what one saga remembers beside its record. It may be forgotten at any time.
type pending struct {
	version  uint64 // of the record that the last step was proposed upon
	index    uint64 // of the configuration that it was
	changes  bool   // it changes the configuration, or the leader
	proposed bool
	ticks    uint64 // since then
	why      rules.Why
}

// waits reports whether what was proposed may still show, for the same record and
// configuration.
func (p pending) waits(version, index uint64) bool {
	return p.proposed && p.version == version && p.index == index && p.ticks < RetryTicks
}

// Why says why an operation waits. Nothing: it does not, or is not under way here.
func (s Sagas) Why(id []byte) rules.Why { return s.live[string(id)].why }

// Step is what is to be done now for all operations under way, elapsed ticks after the step
// before. One of them at a time changes the configuration or the leader; the others wait.
// A node that does not lead does nothing.
func (s Sagas) Step(v rules.View, elapsed uint64) (Sagas, []Effect) {
	if !v.Leads() {
		return Sagas{}, nil
	}
	after := Sagas{live: make(map[string]pending, len(s.live))}
	var effects []Effect
	changing, owned := "", false
	for _, o := range v.Operations {
		if p := s.live[string(o.Id)]; p.changes && p.index == v.Index && p.ticks+elapsed < RetryTicks && !rules.Ended(o) {
			changing = string(o.Id)
			break
		}
	}
	for _, o := range v.Operations {
		if rules.Ended(o) {
			continue
		}
		owned = owned || swapping(o)
		id, p := string(o.Id), s.live[string(o.Id)]
		p.ticks += elapsed
		if p.waits(o.Version, v.Index) {
			after.live[id] = p
			continue
		}
		effect, why := next(o, v)
		_, records := effect.(Record)
		changes := effect != nil && !records
		switch {
		case changes && changing != "" && changing != id:
			effect, why = nil, rules.Why{Kind: rules.AnotherChange, Other: hex.EncodeToString([]byte(changing))}
		case changes:
			changing = id
		}
		again := p.proposed && p.version == o.Version && p.index == v.Index
		p = pending{version: o.Version, index: v.Index, changes: changes && effect != nil, proposed: effect != nil, why: why}
		if effect != nil {
			effects = append(effects, effect)
			if why.Kind == rules.Nothing && again { // the first time it takes a moment only
				p.why = rules.Why{Kind: rules.Writing}
			}
		}
		after.live[id] = p
	}
	if v.Joint() && !owned {
		if effect := after.leaveJoint(s.leave, v, elapsed); effect != nil {
			effects = append(effects, effect)
		}
	}
	return after, effects
}

// leaveJoint ends a joint configuration that no operation is about.
func (s *Sagas) leaveJoint(p pending, v rules.View, elapsed uint64) Effect {
	p.ticks += elapsed
	s.leave = p
	if p.waits(0, v.Index) || v.Steady().Kind != rules.Nothing {
		return nil
	}
	s.leave = pending{index: v.Index, proposed: true}
	return Change{&messages.ChangeMembers{Configuration: v.Index}}
}
