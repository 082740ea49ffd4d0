// Package statetest makes commands, entries and reads for tests.
package statetest

import (
	"bytes"

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
		NextRaftId: 4,
		Founders:   []*messages.Founder{{RaftId: 1, Name: "node1"}, {RaftId: 2, Name: "node2"}, {RaftId: 3, Name: "node3"}},
		Token:      "token",
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
	all := &messages.Commands{Level: messages.Level, LogTimeMs: now}
	for _, c := range list {
		all.Proposals = append(all.Proposals, &messages.Proposal{Origin: 1, Command: Marshal(c)})
	}
	return &raftpb.Entry{Index: new(index), Term: new(uint64(1)), Data: Marshal(all)}
}

// Ops is a command of these operations.
func Ops(list ...*messages.Operation) []*messages.Operation { return list }

// GetAt is a read of a key, with a request that tests know.
func GetAt(revision uint64, key string) *messages.Read {
	return &messages.Read{Request: 7, Revision: revision, Kind: &messages.Read_Get{Get: &messages.Get{Key: []byte(key)}}}
}
