package state

import (
	"cmp"

	"keyval/messages"
)

// Retention decides how much history is given up without being asked for: what exceeds
// a number of revisions, an age in log time, or a number of bytes of commands, whichever
// is most. It waits until a tenth of a bound has gathered. Log time moves with commands
// only, so a cluster at rest keeps what it has.
type Retention struct {
	Revisions uint64 // 0: no bound
	TimeMS    uint64 // of log time; 0: no bound
	Bytes     uint64 // of commands; 0: historyBytesMax

	ages, sizes milestones // revisions by log time, and by bytes that were applied
	applied     uint64     // bytes of commands since the process began
	pause       uint64     // ticks in which nothing is proposed
}

// Ticked says up to which revision history should go now, or 0. What it said
// and was not done it says again, after a while.
func (r *Retention) Ticked(ticks, revision, logTimeMS, compacted uint64) uint64 {
	r.ages.pass(r.TimeMS, logTimeMS, revision)
	r.sizes.pass(r.bytesMax(), r.applied, revision)
	if r.pause > ticks {
		r.pause -= ticks
		return 0
	}
	r.pause = 0
	due := r.due(revision, logTimeMS, compacted)
	if due > 0 {
		r.pause = retentionTicks
	}
	return due
}

// Applied counts bytes of commands.
func (r *Retention) Applied(bytes uint64) { r.applied += bytes }

func (r *Retention) bytesMax() uint64 { return cmp.Or(r.Bytes, historyBytesMax) }

func (r *Retention) due(revision, logTimeMS, compacted uint64) uint64 {
	target := uint64(0)
	if r.Revisions > 0 && revision > r.Revisions {
		target = revision - r.Revisions
		if target < compacted+max(r.Revisions/10, 1) {
			target = 0
		}
	}
	target = max(target, r.ages.behind(r.TimeMS, logTimeMS), r.sizes.behind(r.bytesMax(), r.applied))
	if target <= compacted {
		return 0
	}
	return target
}

// milestones say which revision was current when log time, or the bytes applied, had a
// value. Both only rise. Milestones are a tenth of a bound apart, so there are about a
// dozen. They begin anew with the process: history then stays longer, never shorter.
type milestones struct{ points []milestone }

type milestone struct{ at, revision uint64 }

// pass takes note of the revision, and forgets what is not needed any more: of
// the points that lie beyond the bound the last counts. A bound of 0 is none.
func (m *milestones) pass(bound, at, revision uint64) {
	if bound == 0 {
		return
	}
	n := len(m.points)
	if n == 0 || at-m.points[n-1].at >= max(bound/10, 1) {
		m.points = append(m.points, milestone{at, revision})
	}
	old := 0
	for old+1 < len(m.points) && at-m.points[old+1].at >= bound {
		old++
	}
	m.points = m.points[:copy(m.points, m.points[old:])]
}

// behind is the revision that lies beyond the bound, or 0.
func (m *milestones) behind(bound, at uint64) uint64 {
	if len(m.points) == 0 || at-m.points[0].at < bound {
		return 0
	}
	return m.points[0].revision
}

// CompactCommand is the node's own command that gives up history below revision. It
// has no session: it does no harm twice, and nobody waits for it.
func CompactCommand(revision uint64) []byte {
	return messages.NodeCommand(&messages.Operation{Kind: &messages.Operation_Compact{Compact: &messages.Compact{Revision: revision}}})
}
