package actors

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

func founderIdentity(id uint64, incarnation byte) *messages.Identity {
	return &messages.Identity{Incarnation: bytes.Repeat([]byte{incarnation}, 16), Token: "t", Founders: numbered([]*messages.Founder{
		{Name: "n2", Address: "h:2"}, {Name: "n1", Address: "h:1"}, {Name: "n3", Address: "h:3"},
	})}
}

// converse ticks founders and carries what they tell each other, until nothing
// more is said; absent ones hear nothing.
func converse(nodes map[uint64]*founding, ticks int) (done map[uint64]*messages.Founded, failed map[uint64]string) {
	done, failed = map[uint64]*messages.Founded{}, map[uint64]string{}
	var take func(from uint64, effects []any)
	take = func(from uint64, effects []any) {
		for _, e := range effects {
			switch e := e.(type) {
			case tellFounder:
				if to := nodes[e.To]; to != nil && failed[e.To] == "" {
					take(e.To, to.onState(from, proto.Clone(e.State).(*messages.FounderState)))
				}
			case founded:
				done[from] = e.Founded
			case cannotFound:
				failed[from] = e.Message
			}
		}
	}
	for range ticks {
		for id := uint64(1); id <= 3; id++ {
			if nodes[id] != nil && failed[id] == "" {
				take(id, nodes[id].onTick(1))
			}
		}
	}
	return done, failed
}

func TestFoundersAgreeOnOneCluster(t *testing.T) {
	nodes := map[uint64]*founding{}
	for id := uint64(1); id <= 2; id++ {
		nodes[id] = newFounding(id, founderIdentity(id, byte(id)), nil)
	}
	if done, failed := converse(nodes, 20); len(done)+len(failed) != 0 {
		t.Fatalf("without the third: %v %v", done, failed)
	}
	if w := nodes[1].waitingFor(); w != "n3 (h:3)" {
		t.Fatalf("waits for %q", w)
	}
	nodes[3] = newFounding(3, founderIdentity(3, 3), nil)
	done, failed := converse(nodes, 20)
	if len(done) != 3 || len(failed) != 0 {
		t.Fatalf("%v %v", done, failed)
	}
	for id, d := range done {
		if !proto.Equal(d, done[1]) {
			t.Errorf("founder %d: %s, founder 1: %s", id, messages.Line(d), messages.Line(done[1]))
		}
	}
	if !proto.Equal(firstCheckpoint("t", done[1]), firstCheckpoint("t", done[3])) {
		t.Error("first checkpoints differ")
	}
}

func TestALateFounderJoinsWhatTheOthersInitialised(t *testing.T) {
	nodes := map[uint64]*founding{}
	for id := uint64(1); id <= 3; id++ {
		nodes[id] = newFounding(id, founderIdentity(id, byte(id)), nil)
	}
	done, _ := converse(nodes, 20)
	nodes[3] = newFounding(3, founderIdentity(3, 3), nil) // started again before it initialised
	again, failed := converse(nodes, 20)
	if len(failed) != 0 || !proto.Equal(again[3], done[1]) {
		t.Fatalf("%v %v", again, failed)
	}
}

// A founder that heard one founder but not another goes on asking both: the one
// it knows may have initialised meanwhile, and the other may never come back.
func TestALateFounderHearsOfTheClusterFromAnyFounder(t *testing.T) {
	first := &founding{self: 1, token: "t", founders: newFounding(1, founderIdentity(1, 1), nil).founders}
	late := newFounding(3, founderIdentity(3, 3), nil)
	late.onState(1, first.state(false))
	for i, f := range first.founders {
		f.Incarnation = founderIdentity(0, byte(i+1)).Incarnation
	}
	first.clusterID = messages.ClusterID("t", first.founders)
	if done, failed := converse(map[uint64]*founding{1: first, 3: late}, 20); done[3] == nil || len(failed) != 0 {
		t.Fatalf("%v %v", done, failed)
	}
}

func TestFoundersThatDoNotFitTogether(t *testing.T) {
	for name, row := range map[string]struct {
		third *founding
		says  string
	}{
		"empty directory under a name that is taken": {newFounding(3, founderIdentity(3, 99), nil), "this directory is empty, but n3 is a member already"},
		"another token": {newFounding(3, func() *messages.Identity {
			i := founderIdentity(3, 3)
			i.Token = "other"
			return i
		}(), nil), "another --cluster-token"},
		"another list": {newFounding(3, func() *messages.Identity {
			i := founderIdentity(3, 3)
			i.Founders[0].Address = "h:9"
			return i
		}(), nil), "lists other founders"},
	} {
		nodes := map[uint64]*founding{}
		for id := uint64(1); id <= 3; id++ {
			nodes[id] = newFounding(id, founderIdentity(id, byte(id)), nil)
		}
		converse(nodes, 20)
		nodes[3] = row.third
		done, failed := converse(nodes, 20)
		if !strings.Contains(failed[3], row.says) || len(done) != 0 || len(failed) != 1 {
			t.Errorf("%s: %v %v", name, done, failed)
		}
	}
}

func TestAClusterOfOneFoundsItself(t *testing.T) {
	f := newFounding(1, &messages.Identity{Incarnation: make([]byte, 16), Founders: numbered([]*messages.Founder{{Name: "a", Address: "h:1"}})}, nil)
	done, _ := converse(map[uint64]*founding{1: f}, 1)
	if done[1] == nil {
		t.Fatal("still waiting")
	}
}
