package rules

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// Bounds of Healing, part of what the log means.
const (
	// SparesMax bounds the names of Healing.spares, in number.
	SparesMax = 16
	// HealAfterMinMS and HealAfterMaxMS bound Healing.after_ms: 1 s to 7 days. Below, an
	// election alone would look like a loss.
	HealAfterMinMS = 1000
	HealAfterMaxMS = 7 * 24 * 60 * 60 * 1000
	// HealAfterMS is what stands there if nobody says: 10 minutes.
	HealAfterMS = 10 * 60 * 1000
)

// CheckHealing says whether next may follow was, among these members. Refusals: CONFLICT if
// it is of another version, or a spare is a member already; INVALID for what is no Healing.
func CheckHealing(was, next *messages.Healing, members []*messages.Member) *messages.Error {
	_, mode := messages.HealingMode_name[int32(next.GetMode())]
	switch {
	case next == nil || !mode:
		return messages.Errorf(messages.Code_INVALID, "a way of healing with mode %d is none", next.GetMode())
	case next.Version != was.GetVersion()+1:
		return messages.Errorf(messages.Code_CONFLICT, "the settings of healing have version %d, and version %d cannot follow", was.GetVersion(), next.Version)
	case next.AfterMs < HealAfterMinMS || next.AfterMs > HealAfterMaxMS:
		return messages.Errorf(messages.Code_INVALID, "a voter counts as lost after %v: allowed are %v to %v",
			milliseconds(next.AfterMs), milliseconds(HealAfterMinMS), milliseconds(HealAfterMaxMS))
	case len(next.Spares) > SparesMax:
		return messages.Errorf(messages.Code_BUSY, "%d spares, %d are allowed", len(next.Spares), SparesMax).WithHint("remove one: kvctl cluster spare remove NAME")
	}
	for i, name := range next.Spares {
		if err := messages.CheckNodeName(name); err != nil {
			return err
		}
		if i > 0 && next.Spares[i-1] >= name {
			return messages.Errorf(messages.Code_INVALID, "the spares are not sorted, or one stands there twice: %s", name)
		}
		for _, m := range members {
			if m.Name == name {
				return messages.Errorf(messages.Code_CONFLICT, "%s is a member, and no spare", name).WithHint("a spare is a node that waits to be added: kvctl serve --join")
			}
		}
	}
	return nil
}

// SparesOutside is Healing without the spares that are members now. What was given stays as
// it is.
func SparesOutside(h *messages.Healing, members []*messages.Member) *messages.Healing {
	isMember := func(name string) bool {
		return slices.ContainsFunc(members, func(m *messages.Member) bool { return m.Name == name })
	}
	if !slices.ContainsFunc(h.GetSpares(), isMember) {
		return h
	}
	h = proto.Clone(h).(*messages.Healing)
	h.Spares, h.Version = slices.DeleteFunc(h.Spares, isMember), h.Version+1
	return h
}

// NextHealing is the Healing that follows h as asked. Whoever names the first spare hears
// from then on what would be done with it: that is the mode if none was ever said.
func NextHealing(h *messages.Healing, asked *messages.ChangeHealing) *messages.Healing {
	next := &messages.Healing{Version: h.GetVersion() + 1, Mode: h.GetMode(), AfterMs: h.GetAfterMs(), Spares: slices.Clone(h.GetSpares())}
	if h.GetVersion() == 0 {
		next.Mode, next.AfterMs = messages.HealingMode_HEALING_DRY, HealAfterMS
	}
	if asked.Mode != nil {
		next.Mode = *asked.Mode
	}
	if asked.AfterMs != 0 {
		next.AfterMs = asked.AfterMs
	}
	if name := asked.AddSpare; name != "" && !slices.Contains(next.Spares, name) {
		next.Spares = append(next.Spares, name)
		slices.Sort(next.Spares)
	}
	next.Spares = slices.DeleteFunc(next.Spares, func(name string) bool { return name == asked.RemoveSpare })
	return next
}
