package sim

import (
	"fmt"
	"strconv"
	"strings"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// snapshotVerbs are about logs that are cut, states that are installed, and history.
var snapshotVerbs = []verb{
	{name: "fill", usage: "COUNT", about: "write so many keys, one after the other, and say only how it ended",
		args: [2]int{1, 1}, do: (*Script).fill},
	{name: "compact", usage: "REVISION [at=NODE] [nowait]", about: "give up history below a revision",
		args: [2]int{1, 1}, options: []string{"at"}, flags: []string{"nowait"}, do: (*Script).compact},
	{name: "snapshot", usage: "create|list|delete [ID] at=NODE", about: "ask a node for its snapshot files",
		args: [2]int{1, 2}, options: []string{"at"}, do: (*Script).snapshot},
	{name: "crash-in", usage: "NODE PLACE", about: "let the process crash when its disk comes to a place (" + crashPlaces() + ")",
		args: [2]int{2, 2}, do: (*Script).crashIn},
	{name: "rot", usage: "NODE [written]", about: "alter a value on the disk of a node; written: it was written so, with a checksum that fits",
		args: [2]int{1, 1}, flags: []string{"written"}, do: (*Script).rotNode},
}

func crashPlaces() string {
	var places []string
	for at := CrashInSave; at < crashPoints; at++ {
		places = append(places, at.String())
	}
	return strings.Join(places, ", ")
}

func (s *Script) fill(w words) *messages.Error {
	n, err := strconv.ParseUint(w.args[0], 10, 16)
	if err != nil || n == 0 {
		return messages.Errorf(messages.Code_INVALID, "%q is no number of keys", w.args[0])
	}
	c := s.client("")
	for range n {
		s.filled++
		operation := &messages.Operation{Kind: &messages.Operation_Put{Put: &messages.Put{
			Key: fmt.Appendf(nil, "f%02d", s.filled), Value: fmt.Appendf(nil, "filled-%d", s.filled),
		}}}
		if refusal := s.submit(c, "", writing(operation), true); refusal != nil {
			return refusal
		}
	}
	s.answer("%d keys are written", n)
	return nil
}

func (s *Script) compact(w words) *messages.Error {
	revision, err := strconv.ParseUint(w.args[0], 10, 64)
	if err != nil {
		return messages.Errorf(messages.Code_INVALID, "%q is no revision", w.args[0])
	}
	c, refusal := s.clientAt(w)
	if refusal != nil {
		return refusal
	}
	return s.submit(c, "compact "+w.args[0], writing(compaction(revision)), !w.flags["nowait"])
}

func (s *Script) snapshot(w words) *messages.Error {
	c, refusal := s.clientAt(w)
	if refusal != nil {
		return refusal
	}
	id := strings.Join(w.args[1:], "")
	r := new(messages.SnapshotRequest)
	switch w.args[0] {
	case "create":
		r.Kind = &messages.SnapshotRequest_Create{Create: &messages.SnapshotCreate{Id: id}}
	case "list":
		r.Kind = &messages.SnapshotRequest_List{List: &messages.SnapshotList{Id: id}}
	case "delete":
		r.Kind = &messages.SnapshotRequest_Delete{Delete: &messages.SnapshotDelete{Id: id}}
	default:
		return messages.Errorf(messages.Code_INVALID, "%q is not done with snapshots: create, list and delete are", w.args[0])
	}
	return s.submit(c, "snapshot "+strings.Join(w.args, " "), &messages.Submit{Snapshot: r}, true)
}

func (s *Script) crashIn(w words) *messages.Error {
	m := s.machine(w.args[0])
	if m == nil {
		return s.noNode(w.args[0])
	}
	for at := CrashInSave; at < crashPoints; at++ {
		if at.String() == w.args[1] {
			m.disk.CrashNext(at)
			return nil
		}
	}
	return messages.Errorf(messages.Code_INVALID, "%q is no place of a disk", w.args[1]).WithHint("places are %s", crashPlaces())
}

func (s *Script) rotNode(w words) *messages.Error {
	m := s.machine(w.args[0])
	if m == nil {
		return s.noNode(w.args[0])
	}
	key, revision, ok := m.disk.Rot(w.flags["written"])
	if !ok {
		return messages.Errorf(messages.Code_CONFLICT, "%s has no synced value to alter", m.name())
	}
	m.rot = rot{key: key, revision: revision}
	s.answer("the value of %s at revision %d is another on the disk of %s", key, revision, m.name())
	return nil
}

// phraseOfSnapshots are the messages about snapshots and audits; empty: it is none.
func (n *names) phraseOfSnapshots(m proto.Message) []string {
	switch m := m.(type) {
	case *messages.ShipSnapshot:
		return []string{snapshotText(m.Message), "to", replicaName(m.Message.GetTo())}
	case *messages.SnapshotShipped:
		if m.Failed {
			return []string{"to", replicaName(m.Peer), "failed"}
		}
		return []string{"to", replicaName(m.Peer)}
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
		return []string{m.Code.String(), digestText(m.Digest)}
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
