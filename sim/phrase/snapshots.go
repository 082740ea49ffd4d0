package phrase

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// phraseOfSnapshots are the messages about snapshots and audits; empty: it is none.
func (n *Names) phraseOfSnapshots(m proto.Message) []string {
	switch m := m.(type) {
	case *messages.ShipSnapshot:
		return []string{snapshotText(m.Message), "to", n.Replica(m.Message.GetTo())}
	case *messages.SnapshotShipped:
		if m.Failed {
			return []string{"to", n.Replica(m.Peer), "failed"}
		}
		return []string{"to", n.Replica(m.Peer)}
	case *messages.StagedSnapshot:
		return []string{snapshotText(m.Message)}
	case *messages.SnapshotOffer:
		return []string{snapshotText(m.Message)}
	case *messages.SnapshotPull:
		words := []string{fmt.Sprintf("next=%d window=%d", m.Next, m.Window)}
		if m.Again {
			words = append(words, "again")
		}
		return words
	case *messages.SnapshotPiece:
		return chunkText(m.Chunk)
	case *messages.StageChunk:
		return chunkText(m.Chunk)
	case *messages.WriteChunk:
		return append([]string{m.Id}, chunkText(m.Chunk)...)
	case *messages.ChunkStaged:
		words := []string{fmt.Sprintf("#%d", m.Sequence), m.Code.String()}
		if m.Sealed {
			words = append(words, "sealed")
		}
		return append(words, because(m.Message, nil)...)
	case *messages.SnapshotEnd:
		return append([]string{m.Code.String()}, because(m.Message, nil)...)
	case *messages.StatePinned:
		words := []string{m.Holder, m.Code.String()}
		if c := m.Checkpoint; c != nil {
			words = append(words, fmt.Sprintf("index=%d revision=%d compacted=%d", c.Index, c.Revision, c.CompactedRevision))
		}
		return words
	case *messages.RowsRead:
		words := []string{m.Holder, fmt.Sprintf("#%d", m.Sequence), m.Code.String(), fmt.Sprintf("rows=%d", m.Count)}
		if m.More {
			words = append(words, "more")
		}
		return words
	case *messages.Checkpointed:
		words := []string{fmt.Sprintf("%d@%d compacted=%d", m.Index, m.Term, m.CompactedRevision)}
		if m.Thorough {
			words = append(words, "thorough")
		}
		return words
	case *messages.CutLog:
		return []string{fmt.Sprintf("up to %d@%d", m.Index, m.Term)}
	case *messages.AuditAsk:
		return []string{rangeText(m.From, m.To), fmt.Sprintf("at revision %d", m.Revision)}
	case *messages.AuditVerdict:
		return []string{rangeText(m.From, m.To), fmt.Sprintf("at revision %d", m.Revision)}
	case *messages.AuditAnswer:
		words := []string{m.Code.String(), digestText(m.Digest)}
		if from := m.Lineage.GetFrom(); len(from) > 0 {
			words = append(words, "copied from", n.Replica(from[0]))
		}
		return words
	case *messages.AuditConfirmed:
		return []string{fmt.Sprintf("index=%d", m.Index)}
	case *messages.VouchState:
		return []string{"for", n.Replica(m.Peer)}
	case *messages.StateVouched:
		return append([]string{m.Code.String()}, because(m.Message, nil)...)
	}
	return nil
}

// rangeText is a range of keys.
func rangeText(from, to []byte) string {
	switch {
	case len(from)+len(to) == 0:
		return "all keys"
	case len(to) == 0:
		return fmt.Sprintf("[%s, end]", from)
	}
	return fmt.Sprintf("[%s, %s)", from, to)
}

func digestText(d *messages.RangeDigest) string {
	text := fmt.Sprintf("%.4x rows=%d", d.GetHash(), d.GetRows())
	if d.GetMore() {
		text += fmt.Sprintf(" up to %s, more", d.Last)
	}
	return text
}

// snapshotText is what a raft message has of a snapshot, as index@term.
func snapshotText(m *raftpb.Message) string {
	s := m.GetSnapshot().GetMetadata()
	return fmt.Sprintf("%d@%d", s.GetIndex(), s.GetTerm())
}

func chunkText(c *messages.SnapshotChunk) []string {
	words := []string{fmt.Sprintf("#%d", c.Sequence), c.Kind.String()}
	if len(c.First) > 0 {
		words = append(words, fmt.Sprintf("%s to %s", c.First, c.Last))
	}
	return words
}

// snapshotAnswer is what a client was told of snapshot files.
func snapshotAnswer(r *messages.SnapshotReply) []string {
	words := append([]string{r.Code.String()}, because(r.Message, nil)...)
	if p := r.Part; p != nil {
		words = append(words, fmt.Sprintf("bytes %d to %d of %d", p.From, p.From+uint64(len(p.Body)), p.Total))
	}
	for _, i := range r.Snapshots {
		switch {
		case i.Writing:
			words = append(words, i.Id+" (being written)")
		case i.Error != "":
			words = append(words, fmt.Sprintf("%s (%s)", i.Id, i.Error))
		default:
			words = append(words, fmt.Sprintf("%s (index %d, revision %d, %d rows)", i.Id, i.Index, i.Revision, i.Rows))
		}
	}
	return words
}
