package state

import (
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/actors/auth"
	"keyval/membershipactor/rules"
	"keyval/messages"
)

// confChange is the configuration change that an entry holds, or nil.
func confChange(e *raftpb.Entry) (*raftpb.ConfChangeV2, error) {
	var change interface {
		proto.Message
		raftpb.ConfChangeI
	}
	switch e.GetType() {
	case raftpb.EntryNormal:
		return nil, nil
	case raftpb.EntryConfChange:
		change = &raftpb.ConfChange{}
	case raftpb.EntryConfChangeV2:
		change = &raftpb.ConfChangeV2{}
	default:
		return nil, messages.Errorf(messages.Code_UNSUPPORTED, "entry %d of the log is of the unknown type %d", e.GetIndex(), e.GetType()).
			WithHint("start a newer version on this data directory")
	}
	if err := proto.Unmarshal(e.GetData(), change); err != nil {
		return nil, messages.Errorf(messages.Code_DAMAGED, "entry %d of the log does not hold a configuration change: %v", e.GetIndex(), err)
	}
	return change.AsV2(), nil
}

// Configuration is who the members are.
func (s *State) Configuration() rules.Configuration {
	return rules.Configuration{Index: s.confIndex, Members: s.members, ConfState: s.conf, NextRaftID: s.nextRaftID}
}

// Operations are the State's own, and never modified.
func (s *State) Operations() []*messages.ClusterOperation { return s.operations }

// Healing is how the cluster heals itself; nil: that was never written. It is never modified.
func (s *State) Healing() *messages.Healing { return s.healing }

// Backups are the records of backup jobs, by name. They are never modified.
func (s *State) Backups() []*messages.BackupJob { return s.backups }

// Auth is who may do what; nil: that was never written. It is never modified.
func (s *State) Auth() *messages.Auth { return s.auth }

// Invitations are the nodes that have a token to come with; nil: there never was one. They are never
// modified.
func (s *State) Invitations() *messages.Invitations { return s.invitations }

func (s *State) reconfigure(c rules.Configuration) {
	s.confIndex, s.members, s.conf, s.nextRaftID = c.Index, c.Members, c.ConfState, c.NextRaftID
}

// applyChange carries out an entry that changes the configuration, or refuses it: then it
// has no effect. Raft is told which, since it would carry out whatever is in its log.
func (s *State) applyChange(b *Batch, index uint64, change *raftpb.ConfChangeV2) error {
	if err := s.begin(b, index, change.GetContext()); err != nil {
		return err
	}
	verdict := &messages.Verdict{Index: index}
	if refused := s.change(b, index, change); refused != nil {
		verdict.Refusal = refused.Message
		s.note(uint64(refused.Code), index, s.confIndex)
	} else {
		verdict.Accepted, verdict.Change = true, change
	}
	verdict.ConfState = s.conf
	b.Verdicts = append(b.Verdicts, verdict)
	return nil
}

// change holds a change of raft's against the command beside it, and carries it out. Without
// an error it takes the context off the change.
func (s *State) change(b *Batch, index uint64, change *raftpb.ConfChangeV2) *messages.Error {
	if len(s.entry.proposals) != 1 {
		return messages.Errorf(messages.Code_INVALID, "the change comes with %d commands, and not with one", len(s.entry.proposals))
	}
	c := &s.command
	var m *messages.ChangeMembers
	if data := s.entry.proposals[0].command; len(data) <= messages.CommandSizeMax && c.read(data) && c.ofMembers() {
		m = readMembers(c.operations[0].value).GetChangeMembers()
	}
	if m == nil {
		return messages.Errorf(messages.Code_INVALID, "the change comes with a command that does not change the members")
	}
	next, derived, err := s.Configuration().Change(m, index, m.GetRecord().GetOperation().GetId())
	if err != nil {
		return err
	}
	operations := s.operations
	if m.Record != nil {
		if operations, err = rules.Record(operations, m.Record, s.logTimeMS); err != nil {
			return err
		}
	}
	asked := &raftpb.ConfChangeV2{Transition: change.Transition, Changes: change.Changes}
	if !proto.Equal(asked, derived) {
		return messages.Errorf(messages.Code_INVALID, "the change is another one for raft than for the members")
	}
	change.Context = nil
	s.reconfigure(next)
	s.healing = rules.SparesOutside(s.healing, next.Members)
	s.keep(b, operations, c.operations[0].value)
	return nil
}

// carryOut carries out a command about members that leaves the configuration as it is, or
// refuses it: then it has no effect.
func (s *State) carryOut(b *Batch, index uint64, c *command) error {
	operations := s.operations
	next, err := s.Configuration(), (*messages.Error)(nil)
	switch kind := readMembers(c.operations[0].value).GetKind().(type) {
	case *messages.Operation_RaiseLevel:
		if err := s.raiseLevel(b, kind.RaiseLevel); err != nil {
			return err
		}
		return nil
	case *messages.Operation_RecordOperation:
		operations, err = rules.Record(operations, kind.RecordOperation, s.logTimeMS)
	case *messages.Operation_BindIncarnation:
		next, err = next.Bind(kind.BindIncarnation)
	case *messages.Operation_UpdateMember:
		next, err = next.Update(kind.UpdateMember, index)
	case *messages.Operation_SetHealing:
		if err = rules.CheckHealing(s.healing, kind.SetHealing.GetHealing(), s.members); err == nil {
			s.healing = kind.SetHealing.Healing
		}
	case *messages.Operation_NoteBackup:
		backups, refused := rules.NoteBackup(s.backups, kind.NoteBackup)
		if err = refused; err == nil {
			s.backups = backups
		}
	case *messages.Operation_SetAuth:
		if err = auth.Check(s.auth, kind.SetAuth.GetAuth()); err == nil {
			s.auth = kind.SetAuth.Auth
		}
	case *messages.Operation_WriteInvitations:
		invitations, refused := auth.WriteInvitations(s.invitations, kind.WriteInvitations)
		if err = refused; err == nil {
			s.invitations = invitations
		}
	default: // raft would know nothing of it
		err = messages.Errorf(messages.Code_INVALID, "members change with the configuration only")
	}
	if err != nil {
		return err
	}
	s.reconfigure(next)
	s.keep(b, operations, c.operations[0].value)
	return nil
}

// keep takes the operations as they are now. cause is what changed them, or members, or both.
func (s *State) keep(b *Batch, operations []*messages.ClusterOperation, cause []byte) {
	s.operations, s.forgetsMS = operations, forgetsMS(operations)
	b.MembersChanged = true
	s.note(notedMembers, s.confIndex, s.nextRaftID)
	s.hash.Write(cause)
}

// forget drops the operations that ended long ago.
func (s *State) forget(b *Batch) {
	s.keep(b, rules.Forget(s.operations, s.logTimeMS), nil)
}

// forgetsMS is the log time after which the first of these operations is forgotten.
func forgetsMS(operations []*messages.ClusterOperation) uint64 {
	first := ^uint64(0)
	for _, o := range operations {
		if rules.Ended(o) {
			first = min(first, rules.KeptUntilMS(o))
		}
	}
	return first
}
