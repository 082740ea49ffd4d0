package actors

import (
	"bytes"
	"cmp"
	"fmt"
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

// cradle is founders with their directories, and what they tell each other.
type cradle struct {
	nodes      map[uint64]*founding
	identities map[uint64]*messages.Identity
	states     map[uint64]*messages.Checkpoint // of the directories that are initialised
	failed     map[uint64]string
	dies       map[uint64]string // at the first effect of this type: "agreed" or "founded"
	served     map[string]bool   // the clusters that anybody took part in
	levels     map[uint64]uint32 // that founders support; absent: 1
}

func newCradle() *cradle {
	return &cradle{
		nodes: map[uint64]*founding{}, identities: map[uint64]*messages.Identity{}, states: map[uint64]*messages.Checkpoint{},
		failed: map[uint64]string{}, dies: map[uint64]string{}, served: map[string]bool{}, levels: map[uint64]uint32{},
	}
}

// start runs a process on a directory; a new one gets an incarnation.
func (c *cradle) start(id uint64, incarnation byte) {
	if c.identities[id] == nil {
		c.identities[id] = founderIdentity(id, incarnation)
	}
	delete(c.failed, id)
	c.nodes[id] = newFounding(id, cmp.Or(c.levels[id], 1), c.identities[id], c.states[id])
}

func (c *cradle) kill(id uint64) { delete(c.nodes, id) }

func (c *cradle) wipe(id uint64) {
	c.kill(id)
	delete(c.identities, id)
	delete(c.states, id)
}

func (c *cradle) take(from uint64, effects []any) {
	for _, e := range effects {
		if c.nodes[from] == nil || c.failed[from] != "" {
			return
		}
		kind := ""
		switch e := e.(type) {
		case tellFounder:
			if to := c.nodes[e.To]; to != nil && c.failed[e.To] == "" {
				c.take(e.To, to.onState(from, proto.Clone(e.State).(*messages.FounderState)))
			}
		case agreed:
			if kind = "agreed"; c.dies[from] != kind {
				c.states[from] = firstCheckpoint("t", e.Agreed)
				c.take(from, c.nodes[from].onInitialised(&messages.Initialised{ClusterId: e.ClusterId}))
			}
		case founded:
			if kind = "founded"; c.dies[from] != kind {
				c.identities[from].ClusterId = e.ClusterId
				c.served[string(e.ClusterId)] = true
			}
		case cannotFound:
			c.failed[from] = e.Message
		}
		if kind != "" && c.dies[from] == kind {
			delete(c.dies, from)
			c.kill(from)
		}
	}
}

func (c *cradle) pass(ticks int) {
	for range ticks {
		for id := uint64(1); id <= 3; id++ {
			if c.nodes[id] != nil && c.failed[id] == "" {
				c.take(id, c.nodes[id].onTick(1))
			}
		}
	}
}

func TestFounderThatIsRefused(t *testing.T) {
	c := newCradle()
	c.start(2, 2)
	f := c.nodes[2]
	for range refusalsMax - 1 {
		if out := f.onRefused(1); out != nil {
			t.Fatalf("one refusal too few: %v", out)
		}
	}
	f.onState(1, &messages.FounderState{RaftId: 1, Token: "t", Founders: c.identities[1].GetFounders()})
	for range refusalsMax - 1 {
		if out := f.onRefused(1); out != nil {
			t.Fatalf("it was heard meanwhile: %v", out)
		}
	}
	if out := f.onRefused(1); len(out) != 1 || !strings.Contains(out[0].(cannotFound).Message, "n1 at h:1 says that it is no founder of this list: n1=h:1") {
		t.Errorf("%v", out)
	}
}

// is lists what has become of each founder.
func (c *cradle) is() string {
	var all []string
	for id := uint64(1); id <= 3; id++ {
		switch {
		case c.failed[id] != "":
			all = append(all, "failed")
		case c.nodes[id] == nil:
			all = append(all, "down")
		case c.nodes[id].founded:
			all = append(all, "founded")
		case c.nodes[id].initialised != nil:
			all = append(all, "initialised")
		default:
			all = append(all, "waits")
		}
	}
	return strings.Join(all, " ")
}

func (c *cradle) startAll() {
	for id := uint64(1); id <= 3; id++ {
		c.start(id, byte(id))
	}
}

// Each row is a history of a founding and what becomes of it. Whatever happens, nobody
// takes part in two clusters, and nobody takes part before all are initialised.
func TestFoundingHistories(t *testing.T) {
	for _, row := range []struct {
		name    string
		history func(c *cradle)
		is      string
		says    string // by whoever failed
	}{
		{"all start", func(c *cradle) { c.startAll() }, "founded founded founded", ""},
		{"one is missing", func(c *cradle) { c.start(1, 1); c.start(2, 2) }, "waits waits down", ""},
		{"one comes late", func(c *cradle) { c.start(1, 1); c.start(2, 2); c.pass(20); c.start(3, 3) }, "founded founded founded", ""},
		{"one starts again before it has initialised", func(c *cradle) {
			c.dies[3] = "agreed"
			c.startAll()
			c.pass(20)
			c.start(3, 0)
		}, "founded founded founded", ""},
		{"nobody takes part while one has not initialised", func(c *cradle) { c.dies[3] = "agreed"; c.startAll() }, "initialised initialised down", ""},
		{"one starts again before it has recorded that it is founded", func(c *cradle) {
			c.dies[3] = "founded"
			c.startAll()
			c.pass(20)
			c.start(3, 0)
		}, "founded founded founded", ""},
		{"one that was heard is wiped, and another comes", func(c *cradle) {
			c.start(1, 1)
			c.start(2, 2)
			c.pass(20)
			c.wipe(1)
			c.start(3, 3)
			c.pass(20)
			c.start(1, 11)
		}, "founded founded founded", ""},
		{"one is wiped after all have initialised, and before anybody takes part", func(c *cradle) {
			c.dies[1] = "agreed"
			c.startAll()
			c.pass(20)
			c.wipe(1)
			c.start(1, 11)
		}, "founded founded founded", ""},
		{"one is wiped after it took part", func(c *cradle) { c.startAll(); c.pass(20); c.wipe(3); c.start(3, 33) },
			"founded founded failed", "this directory is empty, but n3 is a member already"},
		{"the data of one that took part are gone, as in a copy of the time of founding", func(c *cradle) {
			c.startAll()
			c.pass(20)
			c.kill(3)
			delete(c.states, 3)
			c.identities[3].ClusterId = nil
			c.start(3, 0)
		}, "founded founded failed", "counts on the data of this directory, which are gone"},
		{"all start again", func(c *cradle) {
			c.startAll()
			c.pass(20)
			c.startAll()
		}, "founded founded founded", ""},
		{"one that learned of the cluster alone tells it whole", func(c *cradle) {
			c.dies[2], c.dies[3] = "founded", "founded"
			c.startAll()
			c.pass(20)
			clear(c.dies)
			c.start(3, 0)
			c.pass(20)
			c.kill(1)
			c.start(2, 0)
		}, "down founded founded", ""},
		{"all start again, initialised and not founded", func(c *cradle) {
			c.dies[1], c.dies[2], c.dies[3] = "founded", "founded", "founded"
			c.startAll()
			c.pass(20)
			clear(c.dies)
			c.startAll()
		}, "founded founded founded", ""},
		{"one is upgraded before the others have heard it", func(c *cradle) {
			c.dies[3] = "agreed"
			c.startAll()
			c.pass(20)
			c.levels[3] = 2
			c.start(3, 0)
		}, "founded founded founded", ""},
		{"one is upgraded when all have initialised and nobody takes part", func(c *cradle) {
			c.dies[1], c.dies[2], c.dies[3] = "founded", "founded", "founded"
			c.startAll()
			c.pass(20)
			clear(c.dies)
			c.levels[1] = 2
			c.startAll()
		}, "founded founded founded", ""},
		{"one is upgraded when another takes part", func(c *cradle) {
			c.dies[3] = "founded"
			c.startAll()
			c.pass(20)
			c.levels[3] = 2
			c.start(3, 0)
		}, "founded founded founded", ""},
		{"another token", func(c *cradle) {
			c.identities[3] = founderIdentity(3, 3)
			c.identities[3].Token = "other"
			c.start(3, 0)
			c.pass(20)
			c.start(1, 1)
		}, "failed down failed", "another --cluster-token"},
		{"one lists others: it ends, and those who are right wait for it", func(c *cradle) {
			c.identities[3] = founderIdentity(3, 3)
			c.identities[3].Founders[0].Address = "h:9"
			c.startAll()
		}, "waits waits failed", "this node lists other founders than n1 and n2: it lists n1=h:9,n2=h:2,n3=h:3, and they n1=h:1,n2=h:2,n3=h:3"},
		{"one lists others, among them one that serves: it ends at once", func(c *cradle) {
			c.startAll()
			c.pass(20)
			c.wipe(3)
			c.identities[3] = founderIdentity(3, 33)
			c.identities[3].Founders = c.identities[3].Founders[1:]
			c.start(3, 33)
		}, "founded founded failed", "n2 belongs to cluster"},
		{"one that listed others starts with the right list", func(c *cradle) {
			c.identities[3] = founderIdentity(3, 3)
			c.identities[3].Founders[0].Address = "h:9"
			c.startAll()
			c.pass(20)
			c.wipe(3)
			c.start(3, 33)
		}, "founded founded founded", ""},
	} {
		c := newCradle()
		row.history(c)
		c.pass(20)
		if got := c.is(); got != row.is || len(c.served) > 1 {
			t.Errorf("%s: %s in %d clusters (%v), expected %s", row.name, got, len(c.served), c.failed, row.is)
		}
		for _, said := range c.failed {
			if !strings.Contains(said, row.says) {
				t.Errorf("%s: says %s", row.name, said)
			}
		}
		for id, state := range c.states {
			if founded := c.nodes[id] != nil && c.nodes[id].founded; founded && !proto.Equal(state, c.states[1]) {
				t.Errorf("%s: first checkpoints differ", row.name)
			}
		}
	}
}

// A cluster begins at the highest level that all founders support.
func TestFoundingLevel(t *testing.T) {
	for _, row := range []struct {
		levels [3]uint32
		want   uint32
	}{{[3]uint32{1, 1, 1}, 1}, {[3]uint32{2, 1, 2}, 1}, {[3]uint32{3, 2, 3}, 2}, {[3]uint32{2, 2, 2}, 2}} {
		c := newCradle()
		for i, level := range row.levels {
			c.levels[uint64(i)+1] = level
		}
		c.startAll()
		c.pass(20)
		for id := uint64(1); id <= 3; id++ {
			if got := c.states[id].GetLevel(); got != row.want || !c.nodes[id].founded {
				t.Errorf("founders of levels %v: n%d begins at level %d", row.levels, id, got)
			}
		}
	}
}

// A founder that was emptied while another takes part already, unheard by a third: the
// third is initialised as that cluster, and goes on with it.
func TestInitialisedFounderFollowsOneThatTakesPart(t *testing.T) {
	c := newCradle()
	c.dies[2] = "founded" // it never hears that the others have
	c.startAll()
	c.pass(20)
	c.wipe(1)
	c.kill(3)
	c.start(1, 11)
	c.start(2, 0)
	c.pass(20)
	if got := c.is(); got != "waits initialised down" {
		t.Fatalf("without the one that takes part: %s %v", got, c.failed)
	}
	c.start(3, 0)
	c.pass(20)
	if got := c.is(); got != "failed founded founded" || len(c.served) != 1 {
		t.Fatalf("with it: %s %v", got, c.failed)
	}
}

func TestWhatAFounderWaitsFor(t *testing.T) {
	c := newCradle()
	c.start(1, 1)
	if got := c.nodes[1].waitingFor(); got != "n2 (h:2), n3 (h:3)" {
		t.Errorf("alone: %q", got)
	}
	c.identities[3] = founderIdentity(3, 3)
	c.identities[3].Founders[1].Address = "h:9"
	c.start(3, 0)
	c.pass(20)
	if got := c.nodes[1].waitingFor(); got != "n3 lists other founders: n1=h:1,n2=h:9,n3=h:3; this node lists n1=h:1,n2=h:2,n3=h:3" {
		t.Errorf("with one that lists others: %q", got)
	}
}

func TestAClusterOfOneFoundsItself(t *testing.T) {
	f := newFounding(1, 1, &messages.Identity{Incarnation: make([]byte, 16), Founders: numbered([]*messages.Founder{{Name: "a", Address: "h:1"}})}, nil)
	effects := f.onTick(1)
	if len(effects) != 1 {
		t.Fatal(fmt.Sprint(effects))
	}
	effects = f.onInitialised(&messages.Initialised{ClusterId: effects[0].(agreed).ClusterId})
	if _, is := effects[0].(founded); !is {
		t.Fatal(fmt.Sprint(effects))
	}
}
