package storeactor

import (
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// retention decides how much history goes by itself: what lies beyond so many
// revisions or is older than so much log time, whichever is more. It gives up a
// tenth of that at a time at least. Log time moves with commands only, so a
// cluster at rest keeps what it has.
type retention struct {
	revisions uint64 // 0: no bound
	timeMS    uint64 // of log time; 0: no bound

	// samples say which revision was current at a log time; both rise. They are a
	// tenth of timeMS apart, so there are about a dozen. They begin anew with the
	// process: history then stays longer, never shorter.
	samples []sample
	pause   uint64 // ticks in which nothing is proposed
}

type sample struct{ timeMS, revision uint64 }

// ticked says up to which revision history should go now, or 0. What it said
// and was not done it says again, after a while.
func (r *retention) ticked(ticks, revision, logTimeMS, compacted uint64) uint64 {
	r.sample(revision, logTimeMS)
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

// sample takes note of the revision, and forgets what is not needed any more: of
// the samples that are old enough the newest counts.
func (r *retention) sample(revision, logTimeMS uint64) {
	if r.timeMS == 0 {
		return
	}
	n := len(r.samples)
	if n == 0 || logTimeMS-r.samples[n-1].timeMS >= max(r.timeMS/10, 1) {
		r.samples = append(r.samples, sample{logTimeMS, revision})
	}
	old := 0
	for old+1 < len(r.samples) && r.outlived(r.samples[old+1], logTimeMS) {
		old++
	}
	r.samples = r.samples[:copy(r.samples, r.samples[old:])]
}

func (r *retention) outlived(s sample, logTimeMS uint64) bool { return logTimeMS-s.timeMS >= r.timeMS }

func (r *retention) due(revision, logTimeMS, compacted uint64) uint64 {
	target := uint64(0)
	if r.revisions > 0 && revision > r.revisions {
		target = revision - r.revisions
		if target < compacted+max(r.revisions/10, 1) {
			target = 0
		}
	}
	if len(r.samples) > 0 && r.outlived(r.samples[0], logTimeMS) {
		target = max(target, r.samples[0].revision)
	}
	if target <= compacted {
		return 0
	}
	return target
}

// compaction is the node's own command that gives up history below revision. It
// has no session: it does no harm twice, and nobody waits for it.
func compaction(revision uint64) []byte {
	data, err := proto.Marshal(&messages.Command{Operations: []*messages.Operation{
		{Kind: &messages.Operation_Compact{Compact: &messages.Compact{Revision: revision}}},
	}})
	if err != nil {
		panic(err) // a message of numbers alone
	}
	return data
}
