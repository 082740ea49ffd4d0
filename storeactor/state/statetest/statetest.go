// Package statetest makes commands, entries and reads for tests.
package statetest

import (
	"bytes"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
)

// First is the checkpoint that three founders begin with.
func First() *messages.Checkpoint {
	return &messages.Checkpoint{
		Format:     disk.CheckpointFormat,
		ClusterId:  bytes.Repeat([]byte{7}, messages.ClusterIDSize),
		Index:      1,
		Term:       1,
		Level:      1,
		ConfState:  &raftpb.ConfState{Voters: []uint64{1, 2, 3}},
		Members:    []*messages.Member{{RaftId: 1, Name: "node1"}, {RaftId: 2, Name: "node2"}, {RaftId: 3, Name: "node3"}},
		NextRaftId: 4, ConfigurationIndex: 1,
		Founders: []*messages.Founder{{RaftId: 1, Name: "node1"}, {RaftId: 2, Name: "node2"}, {RaftId: 3, Name: "node3"}},
		Token:    "token",
	}
}

// Client is a ClientID.
func Client(n byte) []byte { return bytes.Repeat([]byte{n}, messages.ClientIDSize) }

// Put is an operation, as those that follow.
func Put(key, value string) *messages.Operation {
	return &messages.Operation{Kind: &messages.Operation_Put{Put: &messages.Put{Key: []byte(key), Value: []byte(value)}}}
}

func Delete(key string) *messages.Operation {
	return &messages.Operation{Kind: &messages.Operation_Delete{Delete: &messages.Delete{Key: []byte(key)}}}
}

func DeleteRange(from, to string, limit uint32) *messages.Operation {
	return &messages.Operation{Kind: &messages.Operation_DeleteRange{
		DeleteRange: &messages.DeleteRange{From: []byte(from), To: []byte(to), Limit: limit}}}
}

func Compact(revision uint64) *messages.Operation {
	return &messages.Operation{Kind: &messages.Operation_Compact{Compact: &messages.Compact{Revision: revision}}}
}

// RaiseLevel is an operation of nodes.
func RaiseLevel(from, to uint32, members ...uint64) *messages.Operation {
	return &messages.Operation{Kind: &messages.Operation_RaiseLevel{RaiseLevel: &messages.RaiseLevel{From: from, To: to, Members: members}}}
}

// If is a condition over one key; the target is one of its oneof, a *messages.Condition_Value
// or another.
func If(key string, comparison messages.Comparison, target any) *messages.Condition {
	return IfRange(key, "", comparison, target)
}

// IfRange is a condition over [from, to).
func IfRange(from, to string, comparison messages.Comparison, target any) *messages.Condition {
	c := &messages.Condition{Key: []byte(from), To: []byte(to), Comparison: comparison}
	switch target := target.(type) {
	case *messages.Condition_Value:
		c.Target = target
	case *messages.Condition_Version:
		c.Target = target
	case *messages.Condition_CreateRevision:
		c.Target = target
	case *messages.Condition_ModRevision:
		c.Target = target
	}
	return c
}

// IfRevision holds while the key's last write is of this revision; 0: while there is no such key.
func IfRevision(key string, revision uint64) *messages.Condition {
	return If(key, messages.Comparison_EQUAL, &messages.Condition_ModRevision{ModRevision: revision})
}

// Opens is what a command that opens its session carries.
func Opens(ttl, before uint64) *messages.OpenSession {
	return &messages.OpenSession{TtlMs: ttl, BeforeMs: before}
}

// Marshal is the bytes of a message.
func Marshal(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

// Entry is one at log time now with these commands, all from node 1.
func Entry(index, now uint64, list ...*messages.Command) *raftpb.Entry {
	return EntryBy("", index, now, list...)
}

// EntryBy is one whose commands are all of a principal.
func EntryBy(principal string, index, now uint64, list ...*messages.Command) *raftpb.Entry {
	all := &messages.Commands{Level: messages.Level, LogTimeMs: now}
	for _, c := range list {
		all.Proposals = append(all.Proposals, &messages.Proposal{Origin: 1, Principal: []byte(principal), Command: Marshal(c)})
	}
	return &raftpb.Entry{Index: new(index), Term: new(uint64(1)), Data: Marshal(all)}
}

// Ops is a command of these operations.
func Ops(list ...*messages.Operation) []*messages.Operation { return list }

// ChangeMembers is an operation, decided upon the configuration of that index.
func ChangeMembers(configuration uint64, list ...*messages.MemberChange) *messages.Operation {
	return &messages.Operation{Kind: &messages.Operation_ChangeMembers{ChangeMembers: &messages.ChangeMembers{Configuration: configuration, Changes: list}}}
}

// Add is a change: node<id> becomes a learner, with an incarnation.
func Add(id uint64) *messages.MemberChange {
	return &messages.MemberChange{Kind: &messages.MemberChange_AddLearner{AddLearner: &messages.AddLearner{
		RaftId: id, Name: fmt.Sprintf("node%d", id), Address: fmt.Sprintf("host:%d", 7000+id), Incarnation: bytes.Repeat([]byte{byte(id)}, messages.IncarnationSize)}}}
}

func Promote(id uint64) *messages.MemberChange {
	return &messages.MemberChange{Kind: &messages.MemberChange_Promote{Promote: &messages.PromoteLearner{RaftId: id}}}
}

func Remove(id uint64) *messages.MemberChange {
	return &messages.MemberChange{Kind: &messages.MemberChange_Remove{Remove: &messages.RemoveMember{RaftId: id}}}
}

// RecordOperation is an operation: the record of the addition of node<n>.
func RecordOperation(n byte, version uint64, phase messages.OperationPhase) *messages.Operation {
	return &messages.Operation{Kind: &messages.Operation_RecordOperation{RecordOperation: &messages.RecordOperation{Operation: &messages.ClusterOperation{
		Id: bytes.Repeat([]byte{n}, messages.OperationIDSize), Version: version, Kind: messages.OperationKind_ADD, Phase: phase, NewNode: fmt.Sprintf("node%d", n)}}}}
}

func BindIncarnation(id uint64, n byte) *messages.Operation {
	return &messages.Operation{Kind: &messages.Operation_BindIncarnation{BindIncarnation: &messages.BindIncarnation{
		RaftId: id, Incarnation: bytes.Repeat([]byte{n}, messages.IncarnationSize)}}}
}

func UpdateMember(configuration, id uint64, address string) *messages.Operation {
	return &messages.Operation{Kind: &messages.Operation_UpdateMember{UpdateMember: &messages.UpdateMember{
		Configuration: configuration, RaftId: id, Address: address}}}
}

// Change is an entry that changes the configuration as the operations beside it say: a
// ChangeMembers, if nobody is up to something.
func Change(index, now uint64, list ...*messages.Operation) *raftpb.Entry {
	change := &raftpb.ConfChangeV2{Context: Entry(index, now, &messages.Command{Operations: list}).GetData()}
	for _, o := range list {
		for _, one := range o.GetChangeMembers().GetChanges() {
			kind, id := raftpb.ConfChangeAddLearnerNode, one.GetAddLearner().GetRaftId()
			if one.GetPromote() != nil {
				kind, id = raftpb.ConfChangeAddNode, one.GetPromote().GetRaftId()
			} else if one.GetRemove() != nil {
				kind, id = raftpb.ConfChangeRemoveNode, one.GetRemove().GetRaftId()
			}
			change.Changes = append(change.Changes, &raftpb.ConfChangeSingle{Type: kind.Enum(), NodeId: &id})
		}
	}
	if len(change.Changes) > 1 {
		change.Transition = raftpb.ConfChangeTransition_ConfChangeTransitionJointExplicit.Enum()
	}
	return &raftpb.Entry{Index: &index, Term: new(uint64(1)), Type: raftpb.EntryConfChangeV2.Enum(), Data: Marshal(change)}
}

// GetAt is a read of a key, with a request that tests know.
func GetAt(revision uint64, key string) *messages.Read {
	return &messages.Read{Request: 7, Revision: revision, Kind: &messages.Read_Get{Get: &messages.Get{Key: []byte(key)}}}
}

// NoteBackup is an operation: that version of the record of a backup job.
func NoteBackup(name string, version uint64, forget bool) *messages.Operation {
	return &messages.Operation{Kind: &messages.Operation_NoteBackup{NoteBackup: &messages.NoteBackup{
		Job: &messages.BackupJob{Name: name, Version: version, EveryMs: 1000, VerifiedAtMs: 7}, Forget: forget,
	}}}
}

// SetAuth is an operation: that version of who may do what, enabled, with root as an admin
// beside these.
func SetAuth(version uint64, users ...*messages.User) *messages.Operation {
	users = append(users, User("root", messages.UserRole_ADMIN, ""))
	return &messages.Operation{Kind: &messages.Operation_SetAuth{SetAuth: &messages.SetAuth{
		Auth: &messages.Auth{Version: version, Enabled: true, Users: users},
	}}}
}

// WriteInvitation is an operation: that version of the invitations, with one more.
func WriteInvitation(version uint64, node string) *messages.Operation {
	return &messages.Operation{Kind: &messages.Operation_WriteInvitations{WriteInvitations: &messages.WriteInvitations{
		Version: version, Put: Invitation(node),
	}}}
}

// Invitation is an open one.
func Invitation(node string) *messages.Invitation {
	id := append(make([]byte, messages.InvitationIDSize-1), node[len(node)-1])
	return &messages.Invitation{Id: id, Node: node, By: "root", ExpiresMs: 7, Proof: make([]byte, 32), Sealed: []byte("sealed")}
}

// User is one with a role.
func User(name string, role messages.UserRole, prefix string) *messages.User {
	return &messages.User{Name: name, Grants: []*messages.Grant{{Role: role, Prefix: []byte(prefix)}}}
}

// SetHealing is an operation: that version of how the cluster heals, with one spare.
func SetHealing(version uint64, spare string) *messages.Operation {
	return &messages.Operation{Kind: &messages.Operation_SetHealing{SetHealing: &messages.SetHealing{
		Healing: &messages.Healing{Version: version, Mode: messages.HealingMode_HEALING_ON, AfterMs: 1000, Spares: []string{spare}},
	}}}
}
