package backup

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/files"
)

// stopped is the directory of a node of three whose log has an entry a term, behind entry 1.
func stopped(id uint64, commit uint64, terms ...uint64) Surveyed {
	conf := &raftpb.ConfState{Voters: []uint64{1, 2, 3}}
	c := &messages.Checkpoint{Format: disk.CheckpointFormat, ClusterId: []byte("cluster"), Index: 1, Term: 1, ConfState: conf, NextRaftId: 4, ConfigurationIndex: 1}
	for n := range uint64(3) {
		c.Members = append(c.Members, &messages.Member{RaftId: n + 1, Name: fmt.Sprintf("n%d", n+1)})
	}
	image := &disk.LogImage{BaseIndex: 1, BaseTerm: 1, HardState: &raftpb.HardState{Term: new(uint64(9)), Vote: new(uint64(0)), Commit: new(commit)}}
	for i, term := range terms {
		image.Entries = append(image.Entries, &raftpb.Entry{Index: new(uint64(i) + 2), Term: new(term)})
	}
	return Surveyed{Found: &files.Found{
		Dir: fmt.Sprintf("d%d", id), Identity: &messages.Identity{Name: fmt.Sprintf("n%d", id), RaftId: id, ClusterId: c.ClusterId},
		Checkpoint: c, Image: image, Suspicion: &messages.Suspicion{},
	}}
}

func changed(s Surveyed, change func(*Surveyed)) Surveyed {
	change(&s)
	return s
}

func TestJudge(t *testing.T) {
	other := changed(stopped(2, 1, 1), func(s *Surveyed) { s.Identity.ClusterId = []byte("another") })
	condemned := changed(stopped(2, 5, 1, 1, 1, 1), func(s *Surveyed) { s.Condemned = "it differs" })
	suspected := changed(stopped(2, 5, 1, 1, 1, 1), func(s *Surveyed) { s.Suspicion.Accusations = []*messages.Accusation{{RaftId: 1}} })
	retired := changed(stopped(2, 5, 1, 1, 1, 1), func(s *Surveyed) { s.Retired = "removed" })
	unread := changed(stopped(2, 5, 1, 1, 1, 1), func(s *Surveyed) { s.Unread = errors.New("rows are gone") })
	damaged := changed(stopped(2, 5, 1, 1, 1, 1), func(s *Surveyed) { s.Refused, s.Image = errors.New("the log is damaged"), nil })
	for _, test := range []struct {
		name      string
		found     []Surveyed
		best      int
		commit    uint64
		answering []uint64
		quorum    bool
		refused   string
	}{
		{"one of three", []Surveyed{stopped(1, 2, 1, 1)}, 0, 2, nil, false, ""},
		{"one of three, and another answers", []Surveyed{stopped(1, 2, 1, 1)}, 0, 2, []uint64{3}, true, ""},
		{"itself answers not twice", []Surveyed{stopped(1, 2, 1, 1)}, 0, 2, []uint64{1}, false, ""},
		{"one of another number answers", []Surveyed{stopped(1, 2, 1, 1)}, 0, 2, []uint64{7}, false, ""},
		{"two of three", []Surveyed{stopped(1, 2, 1, 1), stopped(2, 3, 1, 1, 1)}, 1, 3, nil, true, ""},
		{"the later term is longer", []Surveyed{stopped(1, 4, 1, 1, 1, 1), stopped(3, 4, 1, 1, 1, 2), stopped(2, 2, 1, 1)}, 1, 4, nil, true, ""},
		{"a later term lacks what is committed", []Surveyed{stopped(1, 4, 1, 1, 1), stopped(2, 2, 1, 2, 2, 2)}, 0, 4, nil, true, ""},
		{"the longer of those that have it", []Surveyed{stopped(1, 4, 1, 1, 1), stopped(2, 2, 1, 2, 2, 2), stopped(3, 3, 1, 1, 1, 1)}, 2, 4, nil, true, ""},
		{"nothing", nil, -1, 0, nil, false, ""},
		{"another cluster", []Surveyed{stopped(1, 1), other}, 0, 0, nil, false, "of cluster"},
		{"two copies", []Surveyed{stopped(1, 1), stopped(1, 2, 1)}, 0, 0, nil, false, "of one member"},
		{"a condemned one counts for nothing", []Surveyed{stopped(1, 1), condemned}, 0, 1, nil, false, ""},
		{"nor a suspected one", []Surveyed{stopped(1, 1), suspected}, 0, 1, nil, false, ""},
		{"nor a retired one", []Surveyed{stopped(1, 1), retired}, 0, 1, nil, false, ""},
		{"nor one that does not start", []Surveyed{stopped(1, 1), unread}, 0, 1, nil, false, ""},
		{"nor one whose log is damaged", []Surveyed{damaged, stopped(1, 1)}, 1, 1, nil, false, ""},
		{"all are damaged", []Surveyed{damaged}, -1, 0, nil, false, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := Judge(test.found)
			if test.refused != "" {
				if messages.CodeOf(err) != messages.Code_CONFLICT || !strings.Contains(err.Error(), test.refused) {
					t.Errorf("%v, expected CONFLICT with %q", err, test.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if s.Best != test.best || s.Commit != test.commit {
				t.Errorf("best %d, commit %d, expected %d and %d", s.Best, s.Commit, test.best, test.commit)
			}
			if got := s.Quorum(append(s.Usable(), test.answering...)); got != test.quorum {
				t.Errorf("quorum: %v", got)
			}
		})
	}
}

// Until it is known that a change of the members is committed, a quorum of the old members
// or of the new ones could be had; in a joint configuration it takes both.
func TestQuorumOfEither(t *testing.T) {
	before, joint := &raftpb.ConfState{Voters: []uint64{1, 2, 3}}, &raftpb.ConfState{Voters: []uint64{3, 4, 5}, VotersOutgoing: []uint64{1, 2, 3}}
	for _, test := range []struct {
		configurations []*raftpb.ConfState
		present        []uint64
		quorum         bool
	}{
		{[]*raftpb.ConfState{before}, []uint64{1, 2}, true},
		{[]*raftpb.ConfState{joint}, []uint64{1, 2}, false},
		{[]*raftpb.ConfState{joint}, []uint64{4, 5}, false},
		{[]*raftpb.ConfState{joint}, []uint64{1, 3, 4}, true},
		{[]*raftpb.ConfState{before, joint}, []uint64{1, 2}, true},
		{nil, []uint64{1, 2, 3}, false},
	} {
		if got := (&Survey{configurations: test.configurations}).Quorum(test.present); got != test.quorum {
			t.Errorf("%v of %v: %v", test.present, test.configurations, got)
		}
	}
}
