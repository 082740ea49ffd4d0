package state

import (
	"cmp"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/storeactor/disk"
)

// FromCheckpoint makes the State that a checkpoint holds, of a replica that supports
// levels up to this one. Errors: UNSUPPORTED if newer software wrote it, DAMAGED if it
// contradicts itself.
func FromCheckpoint(c *messages.Checkpoint, supports uint32) (*State, error) {
	return restore(c, supports, sessionBounds{sessions: SessionsMax, bytes: SessionBytesMax, window: SessionWindow})
}

func restore(c *messages.Checkpoint, supports uint32, bounds sessionBounds) (*State, error) {
	if c.Format > disk.CheckpointFormat || c.Level > supports {
		return nil, messages.Errorf(messages.Code_UNSUPPORTED,
			"the checkpoint has format %d and level %d, newer than this version's %d and %d",
			c.Format, c.Level, disk.CheckpointFormat, supports).WithHint("start the version that wrote it, or a newer one")
	}
	s := &State{
		clusterID:   c.ClusterId,
		founders:    c.Founders,
		token:       c.Token,
		index:       c.Index,
		term:        c.Term,
		revision:    c.Revision,
		logTimeMS:   c.LogTimeMs,
		level:       c.Level,
		supports:    supports,
		conf:        c.ConfState,
		members:     c.Members,
		nextRaftID:  c.NextRaftId,
		confIndex:   c.ConfigurationIndex,
		operations:  c.Operations,
		healing:     c.Healing,
		backups:     c.Backups,
		auth:        c.Auth,
		invitations: c.Invitations,
		compacted:   c.CompactedRevision,
		history:     c.HistoryHash,
		sessions:    newSessions(bounds),
	}
	if s.conf == nil {
		s.conf = &raftpb.ConfState{}
	}
	s.forgetsMS = forgetsMS(s.operations)
	s.sessions.nowMS = c.LogTimeMs
	for _, row := range c.Sessions {
		if err := s.restoreSession(row); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *State) restoreSession(row *messages.Session) error {
	if len(row.Client) != messages.ClientIDSize {
		return messages.Errorf(messages.Code_DAMAGED, "the checkpoint at index %d has a session with a ClientID of %d bytes", s.index, len(row.Client))
	}
	if _, twice := s.sessions.rows[clientID(row.Client)]; twice {
		return messages.Errorf(messages.Code_DAMAGED, "the checkpoint at index %d has session %x twice", s.index, row.Client)
	}
	r := &session{
		client:       clientID(row.Client),
		ttlMS:        row.TtlMs,
		activeMS:     row.ActiveMs,
		ackedBelow:   row.AckedBelow,
		openBeforeMS: row.OpenBeforeMs,
		kept:         outcomes{all: make([]outcome, 0, len(row.Outcomes))},
	}
	for _, o := range row.Outcomes {
		r.kept.insert(outcome{seq: o.Seq, code: o.Code, revision: o.Revision, deleted: o.Deleted, more: o.More, failed: o.FailedCondition})
	}
	s.sessions.add(r, row.Holder, s.logTimeMS)
	return nil
}

// Checkpoint is the whole state. It shares nothing that a later entry changes.
// Equal states have equal checkpoints.
func (s *State) Checkpoint() *messages.Checkpoint {
	return &messages.Checkpoint{
		Format:            disk.CheckpointFormat,
		ClusterId:         s.clusterID,
		Index:             s.index,
		Term:              s.term,
		Revision:          s.revision,
		LogTimeMs:         s.logTimeMS,
		Level:             s.level,
		ConfState:         s.conf,
		Members:           slices.SortedFunc(slices.Values(s.members), byRaftID),
		Sessions:          s.sessions.checkpoint(),
		NextRaftId:        s.nextRaftID,
		CompactedRevision: s.compacted,
		HistoryHash:       s.history,
		Founders:          s.founders,
		Token:             s.token,

		ConfigurationIndex: s.confIndex,
		Operations:         s.operations,
		Healing:            s.healing,
		Backups:            s.backups,
		Auth:               s.auth,
		Invitations:        s.invitations,
	}
}

func byRaftID(a, b *messages.Member) int { return cmp.Compare(a.RaftId, b.RaftId) }

// checkpoint copies all sessions in few, large pieces: it is made between two
// entries, and there may be many sessions.
func (t *sessions) checkpoint() []*messages.Session {
	rows := make([]messages.Session, len(t.rows))
	kept := make([]messages.Outcome, t.kept)
	keptAt := make([]*messages.Outcome, t.kept)
	list := make([]*messages.Session, len(t.rows))
	ids := make([]byte, 0, len(t.rows)*messages.ClientIDSize)
	for i, s := range t.sorted() {
		ids = append(ids, s.client[:]...)
		n := s.kept.len()
		for j, o := range s.kept.list() {
			o.fill(&kept[j])
			keptAt[j] = &kept[j]
		}
		row := &rows[i]
		row.Client = ids[len(ids)-messages.ClientIDSize : len(ids) : len(ids)]
		row.TtlMs, row.ActiveMs = s.ttlMS, s.activeMS
		row.AckedBelow, row.OpenBeforeMs = s.ackedBelow, s.openBeforeMS
		row.Holder = s.holder.name
		row.Outcomes = keptAt[:n:n]
		kept, keptAt = kept[n:], keptAt[n:]
		list[i] = row
	}
	return list
}

func (o outcome) fill(m *messages.Outcome) {
	m.Seq, m.Code, m.Revision, m.Deleted, m.More, m.FailedCondition, m.Unopened = o.seq, o.code, o.revision, o.deleted, o.more, o.failed, o.unopened
}
