package saga

import (
	"strings"
	"testing"

	"keyval/membershipactor/rules"
	"keyval/messages"
)

// When a leader replaces a voter by itself, and what it says else. The world's dead are
// silent for 50 s.
func TestHeal(t *testing.T) {
	type alter func(*world, *rules.View)
	spare := func(name string) alter {
		return func(_ *world, v *rules.View) {
			v.Waiting = append(v.Waiting, &messages.WaitingNode{Name: name, Address: "h9:7000", Incarnation: incarnationOf(9)})
		}
	}
	settings := func(mode messages.HealingMode, afterMS uint64) alter {
		return func(_ *world, v *rules.View) {
			v.Healing = &messages.Healing{Version: 1, Mode: mode, AfterMs: afterMS, Spares: []string{"node8", "node9"}}
		}
	}
	on, dry, off := settings(messages.HealingMode_HEALING_ON, 10_000), settings(messages.HealingMode_HEALING_DRY, 10_000), settings(messages.HealingMode_HEALING_OFF, 10_000)
	ended := func(phase messages.OperationPhase, raftID uint64) alter {
		return func(_ *world, v *rules.View) {
			v.Operations = []*messages.ClusterOperation{{Id: make([]byte, 16), Kind: kindReplace, OldNode: "node3", OldRaftId: raftID, NewNode: "node7", Phase: phase}}
		}
	}
	for name, row := range map[string]struct {
		voters int
		dead   []uint64
		alter  []alter
		begins string // the new node
		says   string
	}{
		"a spare takes the place":    {3, []uint64{3}, []alter{on, spare("node9")}, "node9", "node3 is out of contact since 50s: it is replaced by node9"},
		"nobody is lost":             {3, nil, []alter{on, spare("node9")}, "", ""},
		"never said":                 {3, []uint64{3}, []alter{spare("node9")}, "", ""},
		"off":                        {3, []uint64{3}, []alter{off, spare("node9")}, "", ""},
		"dry":                        {3, []uint64{3}, []alter{dry, spare("node9")}, "", "it would be replaced by node9 at h9:7000"},
		"not for long enough":        {3, []uint64{3}, []alter{settings(messages.HealingMode_HEALING_ON, 60_000), spare("node9")}, "", "node3 is out of contact since 50s: it counts as lost after 1m0s"},
		"two of five":                {5, []uint64{3, 4}, []alter{on, spare("node9")}, "", "node3 and node4 are out of contact: nothing is replaced while more than one voter is"},
		"two of three, no quorum":    {3, []uint64{2, 3}, []alter{on, spare("node9")}, "", "more than one voter"},
		"one of two, no quorum":      {2, []uint64{2}, []alter{on, spare("node9")}, "", "without a quorum"},
		"no spare waits":             {3, []uint64{3}, []alter{on}, "", "no spare waits"},
		"one that is no spare waits": {3, []uint64{3}, []alter{on, spare("node7")}, "", "no spare waits"},
		"two claim to be the spare": {3, []uint64{3}, []alter{on, spare("node9"), func(_ *world, v *rules.View) {
			v.Waiting = append(v.Waiting, &messages.WaitingNode{Name: "node9", Address: "h8:7000", Incarnation: incarnationOf(8)})
		}}, "", "no spare waits"},
		"the spare asks no more":                         {3, []uint64{3}, []alter{on, spare("node9"), func(_ *world, v *rules.View) { v.Waiting[0].SilentMs = 5000 }}, "", "no spare waits"},
		"the spare's software is old":                    {3, []uint64{3}, []alter{on, spare("node9"), func(_ *world, v *rules.View) { v.Waiting[0].Refused = "old" }}, "", "no spare waits"},
		"it is replaced already":                         {3, []uint64{3}, []alter{on, spare("node9"), ended(catchUp, 3)}, "", ""},
		"that failed before":                             {3, []uint64{3}, []alter{on, spare("node9"), ended(failed, 3)}, "", "an operator has to see to it"},
		"another node of that name was replaced in vain": {3, []uint64{3}, []alter{on, spare("node9"), ended(failed, 1)}, "node9", ""},
		"a learner is lost": {3, nil, []alter{on, spare("node9"), func(_ *world, v *rules.View) {
			v.Members = append(v.Members, &messages.Member{RaftId: 9, Name: "node5", Type: messages.MemberType_LEARNER})
			v.Replication.Progress = append(v.Replication.Progress, &messages.Progress{RaftId: 9, SilentTicks: 1000})
		}}, "", ""},
		"not settled":   {3, []uint64{3}, []alter{on, spare("node9"), func(_ *world, v *rules.View) { v.Replication.Settled = false }}, "", "node3 is out of contact"},
		"another leads": {3, []uint64{3}, []alter{on, spare("node9"), func(_ *world, v *rules.View) { v.Replication.Leader = 2 }}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(nil, row.voters)
			for _, id := range row.dead {
				w.kill(id)
			}
			w.leader = 1
			v := w.view()
			for _, a := range row.alter {
				a(w, &v)
			}
			o, says := Heal(v)
			if o.GetNewNode() != row.begins || !strings.Contains(says, row.says) || (says == "") != (row.says == "" && row.begins == "") {
				t.Errorf("begins %s, and says %q", messages.Line(o), says)
			}
			if o == nil {
				return
			}
			if again, _ := Heal(v); string(again.Id) != string(o.Id) {
				t.Error("the same decision is another operation")
			}
			if d := rules.Check(v, Begin(o, v)); d.Err != nil {
				t.Errorf("the rules forbid it: %v", d.Err)
			}
		})
	}
}
