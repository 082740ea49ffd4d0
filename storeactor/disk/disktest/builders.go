package disktest

import (
	"go.etcd.io/raft/v3/raftpb"
)

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
