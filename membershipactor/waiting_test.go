package membershipactor

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

func incarnation(n byte) []byte { return bytes.Repeat([]byte{n}, messages.IncarnationSize) }

func waits(name, address string, who byte) *messages.WaitingNode {
	return &messages.WaitingNode{Name: name, Address: address, Incarnation: incarnation(who)}
}

// four are three founders, and a fourth member whose directory is this one; 0: not bound.
func four(who byte) *messages.MembersChanged {
	m := &messages.MembersChanged{ClusterId: bytes.Repeat([]byte{9}, messages.ClusterIDSize), NextRaftId: 5}
	for id := range uint64(3) {
		m.Members = append(m.Members, &messages.Member{RaftId: id + 1, Name: fmt.Sprintf("n%d", id+1), Address: fmt.Sprintf("h:%d", id+1), Incarnation: incarnation(byte(id) + 1)})
	}
	m.Members = append(m.Members, &messages.Member{RaftId: 4, Name: "n4", Address: "h:4", Type: messages.MemberType_LEARNER})
	if who > 0 {
		m.Members[3].Incarnation = incarnation(who)
	}
	return m
}

func TestWhoIsLetIn(t *testing.T) {
	three := four(0)
	three.Members = three.Members[:3]
	for name, row := range map[string]struct {
		members *messages.MembersChanged
		node    *messages.WaitingNode
		code    messages.Code
		says    string
		waits   bool // it is remembered
	}{
		"nobody has added it":                {three, waits("n4", "h:4", 7), messages.Code_BUSY, "", true},
		"it was added, and is not bound yet": {four(0), waits("n4", "h:4", 7), messages.Code_BUSY, "", true},
		"it is bound":                        {four(7), waits("n4", "h:4", 7), messages.Code_OK, "", false},
		"another directory is":               {four(8), waits("n4", "h:4", 7), messages.Code_NOT_ALLOWED, "n4 is a member already, with another data directory", false},
		"a wiped founder":                    {three, waits("n2", "h:2", 7), messages.Code_NOT_ALLOWED, "n2 is a member already", false},
		"a copy of a member's directory":     {three, waits("n4", "h:4", 2), messages.Code_NOT_ALLOWED, "a copy of that of member n2", false},
		"a copy of its own, elsewhere":       {four(7), waits("n4", "h:5", 7), messages.Code_BUSY, "n4 was added at h:4, and this node is reached at h:5", true},
		"it was added at another address":    {four(0), waits("n4", "h:5", 7), messages.Code_BUSY, "n4 was added at h:4", true},
		"no name":                            {three, waits("", "h:4", 7), messages.Code_INVALID, "no name", false},
		"a name that tricks a terminal":      {three, waits("n\x1b[2J", "h:4", 7), messages.Code_INVALID, "no name", false},
		"no address":                         {three, waits("n4", "", 7), messages.Code_INVALID, "no address", false},
		"half an incarnation":                {three, &messages.WaitingNode{Name: "n4", Address: "h:4", Incarnation: []byte("half")}, messages.Code_INVALID, "16 bytes", false},
		"no node":                            {three, nil, messages.Code_INVALID, "no name", false},
	} {
		w := newWaiting()
		answer, warnings := w.onAsk(asker{}, &messages.JoinAsk{Request: 3, Node: row.node}, row.members)
		if answer.Code != row.code || answer.Request != 3 || !strings.Contains(answer.Message, row.says) || len(warnings) > 0 {
			t.Errorf("%s: %s, warnings %q", name, messages.Line(answer), warnings)
		}
		if (len(w.list(50)) > 0) != row.waits || (answer.RaftId == 4) != (row.code == messages.Code_OK) {
			t.Errorf("%s: waiting %d, raft id %d", name, len(w.list(50)), answer.RaftId)
		}
		if answer.Code == messages.Code_NOT_ALLOWED && answer.Hint == "" {
			t.Errorf("%s: no next step", name)
		}
	}
}

func TestWaitingIsBoundedAndForgotten(t *testing.T) {
	w := newWaiting()
	members := four(0)
	ask := func(n *messages.WaitingNode) { w.onAsk(asker{}, &messages.JoinAsk{Node: n}, members) }
	for i := range waitingMax + 10 {
		ask(waits(fmt.Sprintf("x%d", i), fmt.Sprintf("x:%d", i), 7+byte(i)))
	}
	if n := len(w.list(50)); n != waitingMax {
		t.Errorf("%d wait, %d are the most", n, waitingMax)
	}
	w.onTick(waitingTicks, false, members, nil)
	ask(waits("x1", "x:1", 8))
	w.onTick(4, false, members, nil)
	if all := w.list(50); len(all) != 1 || all[0].Name != "x1" || all[0].SilentMs != 200 {
		t.Errorf("waiting: %v", all)
	}
}

// TestAWipedNodeAsksAgain, at its address and under its name, while its old directory is
// remembered: by those that it asked, and by those that they told.
func TestAWipedNodeAsksAgain(t *testing.T) {
	w := newWaiting()
	three := four(0)
	three.Members = three.Members[:3]
	ask := func(who byte) []string {
		_, said := w.onAsk(asker{}, &messages.JoinAsk{Node: waits("n4", "h:4", who)}, three)
		return said
	}
	ask(7)
	w.onTick(supersededTicks+1, false, three, nil)
	if said := ask(8); len(said) > 0 || len(w.nodes) != 1 || w.nodes[0].Incarnation[0] != 8 {
		t.Errorf("%q; %d wait", said, len(w.nodes))
	}
	if w.onMembers(four(7)); len(w.nodes) != 1 {
		t.Error("it was let in with another directory, and is forgotten")
	}
	if w.onMembers(four(8)); len(w.nodes) != 0 {
		t.Error("it was let in, and is remembered")
	}

	c := newCensus(1, 50, "v")
	c.onMembers(three)
	old := waits("n4", "h:4", 7)
	c.onLeader(&messages.LeaderChanged{Leader: 1, Term: 7})
	c.onNodePulse(2, &messages.NodePulse{Term: 7, Waiting: []*messages.WaitingNode{old}})
	c.onTick(supersededTicks + 2)
	c.onWaiting([]*messages.WaitingNode{waits("n4", "h:4", 8)})
	if all := c.everyoneWaiting(); len(all) != 1 || all[0].Incarnation[0] != 8 {
		t.Errorf("of one that died and one that asks: %v", all)
	}
	c.onWaiting(nil)
	c.onTick(waitingTicks / 2)
	all := c.everyoneWaiting()
	if len(all) != 1 || len(w.bindings(four(0), all)) > 0 {
		t.Errorf("who has been silent for long is bound: %v", all)
	}
	c.onTick(waitingTicks)
	if all := c.everyoneWaiting(); len(all) > 0 {
		t.Errorf("who does not ask any more: %v", all)
	}
	c.onNodePulse(2, &messages.NodePulse{Term: 7, Waiting: []*messages.WaitingNode{old}})
	c.onMembers(four(7))
	if all := c.everyoneWaiting(); len(all) > 0 {
		t.Errorf("who was let in waits: %v", all)
	}
}

func TestBinding(t *testing.T) {
	bind := func(who byte) []*messages.BindIncarnation {
		return []*messages.BindIncarnation{{RaftId: 4, Incarnation: incarnation(who)}}
	}
	for name, row := range map[string]struct {
		waits   []*messages.WaitingNode
		members *messages.MembersChanged
		leads   bool
		want    []*messages.BindIncarnation
		warns   string
	}{
		"the one that waits":              {[]*messages.WaitingNode{waits("n4", "h:4", 7), waits("n5", "h:5", 8)}, four(0), true, bind(7), ""},
		"a follower binds nobody":         {[]*messages.WaitingNode{waits("n4", "h:4", 7)}, four(0), false, nil, ""},
		"it is bound":                     {[]*messages.WaitingNode{waits("n4", "h:4", 7)}, four(7), true, nil, ""},
		"it waits at another address":     {[]*messages.WaitingNode{waits("n4", "h:9", 7)}, four(0), true, nil, ""},
		"two under one name":              {[]*messages.WaitingNode{waits("n4", "h:4", 7), waits("n4", "h:5", 8)}, four(0), true, nil, "two nodes wait to be added under the name n4"},
		"two under one name, one address": {[]*messages.WaitingNode{waits("n4", "h:4", 7), waits("n4", "h:4", 8)}, four(0), true, nil, "under the name n4"},
		"a cloned directory":              {[]*messages.WaitingNode{waits("n4", "h:4", 7), waits("n4", "h:5", 7)}, four(0), true, nil, "one data directory runs as two processes"},
		"two at one address":              {[]*messages.WaitingNode{waits("n4", "h:4", 7), waits("n5", "h:4", 8)}, four(0), true, bind(7), "at one address"},
	} {
		w := newWaiting()
		var warnings []string
		ask := func() {
			for _, n := range row.waits {
				_, said := w.onAsk(asker{}, &messages.JoinAsk{Node: n}, four(0))
				warnings = append(warnings, said...)
			}
		}
		ask()
		if early := w.onTick(1, row.leads, row.members, w.list(50)); len(early) > 0 {
			t.Errorf("%s: %v, and it has not asked since the member was added", name, early)
		}
		ask()
		got := w.onTick(1, row.leads, row.members, w.list(50))
		if !slices.EqualFunc(got, row.want, func(a, b *messages.BindIncarnation) bool { return proto.Equal(a, b) }) {
			t.Errorf("%s: %v, want %v", name, got, row.want)
		}
		if all := strings.Join(warnings, "\n"); !strings.Contains(all, row.warns) || (all == "") != (row.warns == "") || len(warnings) > 2 {
			t.Errorf("%s: warnings %q", name, warnings)
		}
		if again := w.onTick(1, row.leads, row.members, w.list(50)); len(again) > 0 {
			t.Errorf("%s: it is proposed at once again: %v", name, again)
		}
		if again := w.onTick(bindTicks, row.leads, row.members, w.list(50)); len(again) != len(row.want) {
			t.Errorf("%s: it is not proposed again: %v", name, again)
		}
	}
}

// TestWhatANodeWasIsNotBound: a node asked, was killed and wiped, and is started again at
// its address and under its name, just when that is added. It is bound as what it is now.
func TestWhatANodeWasIsNotBound(t *testing.T) {
	const was, is, added = 7, 8, 100
	for name, row := range map[string]struct {
		asks  map[uint64]byte // by tick
		heard uint64          // the tick at which another node has heard what it was; 0: none has
		bound uint64          // the tick at which it is; 0: never
	}{
		"nothing else was there":          {map[uint64]byte{95: is, 105: is}, 0, 106},
		"it asks after it was added":      {map[uint64]byte{95: was, 102: is, 112: is, 122: is}, 0, 124},
		"it has asked before, too":        {map[uint64]byte{85: was, 98: is, 108: is, 118: is}, 0, 110},
		"another has heard what it was":   {map[uint64]byte{102: is, 112: is, 122: is}, 96, 124},
		"it is not there yet":             {map[uint64]byte{99: was}, 0, 0},
		"it asks when that is nearly old": {map[uint64]byte{99: was, 160: is}, 0, 162},
	} {
		w, c, bound := newWaiting(), newCensus(1, 50, "v"), uint64(0)
		c.onLeader(&messages.LeaderChanged{Leader: 1, Term: 7})
		for tick := uint64(1); tick < 200; tick++ {
			members := four(0)
			if tick < added {
				members.Members = members.Members[:3]
			}
			c.onMembers(members)
			c.onTick(1)
			for _, b := range w.onTick(1, true, members, c.everyoneWaiting()) {
				if bound = cmp.Or(bound, tick); b.Incarnation[0] != is {
					t.Errorf("%s: it is bound as what it was, at tick %d", name, tick)
				}
			}
			c.onWaiting(w.list(50))
			if who := row.asks[tick]; who > 0 {
				w.onAsk(asker{}, &messages.JoinAsk{Node: waits("n4", "h:4", who)}, members)
			}
			if tick == row.heard {
				c.onNodePulse(2, &messages.NodePulse{Term: 7, Waiting: []*messages.WaitingNode{waits("n4", "h:4", was)}})
			}
		}
		if bound != row.bound {
			t.Errorf("%s: it is bound at tick %d, not %d", name, bound, row.bound)
		}
	}
}

// TestWhoIsAddedHearsItAtOnce: a node that waits asks again once it is added, and hears that
// it is let in, without the time between two of its asks.
func TestWhoIsAddedHearsItAtOnce(t *testing.T) {
	w := newWaiting()
	three := four(0)
	three.Members = three.Members[:3]
	n4, n5 := asker{"client/4", "joining"}, asker{"client/5", "joining"}
	w.onAsk(n4, &messages.JoinAsk{Request: 3, Node: waits("n4", "h:4", 7)}, three)
	w.onAsk(n5, &messages.JoinAsk{Request: 9, Node: waits("n5", "h:5", 8)}, three)
	if calls := w.onMembers(three); len(calls) > 0 {
		t.Errorf("nobody was added: %v", calls)
	}
	calls := w.onMembers(four(0))
	if len(calls) != 1 || calls[0].to != n4 || calls[0].answer.Request != 3 || !calls[0].answer.Again || calls[0].answer.Code != messages.Code_BUSY {
		t.Fatalf("n4 was added: %v", calls)
	}
	if again := w.onMembers(four(0)); len(again) > 0 {
		t.Errorf("it is told twice: %v", again)
	}
	if early := w.bindings(four(0), w.list(50)); len(early) > 0 {
		t.Errorf("it is bound, and has not asked since: %v", early)
	}
	w.onAsk(n4, &messages.JoinAsk{Request: 4, Node: waits("n4", "h:4", 7)}, four(0))
	if bound := w.bindings(four(0), w.list(50)); len(bound) != 1 || bound[0].RaftId != 4 {
		t.Errorf("it has asked since, within the same tick: %v", bound)
	}
	calls = w.onMembers(four(7))
	if len(calls) != 1 || calls[0].to != n4 || calls[0].answer.Request != 4 || calls[0].answer.Code != messages.Code_OK || calls[0].answer.RaftId != 4 {
		t.Errorf("it was let in: %v", calls)
	}
	if last := w.onMembers(four(7)); len(last) > 0 || len(w.nodes) != 1 {
		t.Errorf("it is told again: %v", last)
	}
}
