package disktest

import (
	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/storeactor/disk"
)

var (
	// Identity and First are what a directory is made from. Nobody modifies them.
	Identity = &messages.Identity{Format: 1, Incarnation: []byte("0123456789abcdef"), Name: "node1", Listen: "127.0.0.1:7001",
		Founders: []*messages.Founder{{RaftId: 1, Name: "node1", Address: "127.0.0.1:7001"}}}
	First = &messages.Checkpoint{Format: 1, ClusterId: []byte("fedcba9876543210"), Index: 1, Term: 1,
		ConfState: &raftpb.ConfState{Voters: []uint64{1}}, NextRaftId: 2}
)

// Whole are rows with what a command adds to them: a key's first version, where
// nothing else is said, and the checksum.
func Whole(rows ...disk.Row) []disk.Row {
	for i := range rows {
		r := &rows[i]
		if !r.Deleted && r.Created == 0 {
			r.Created, r.Version = r.Revision, 1
		}
		*r = r.Summed()
	}
	return rows
}

// Entries have these terms, from the index behind base on.
func Entries(base uint64, terms ...uint64) []*raftpb.Entry {
	var es []*raftpb.Entry
	for i, term := range terms {
		es = append(es, &raftpb.Entry{Term: new(term), Index: new(base + 1 + uint64(i)), Type: raftpb.EntryNormal.Enum(), Data: []byte("data")})
	}
	return es
}

// HardState is one of this term, vote and commit index.
func HardState(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: new(term), Vote: new(vote), Commit: new(commit)}
}
