package client

import (
	"fmt"
	"strings"
	"testing"

	"keyval/messages"
)

// The phases that each operation goes through, with who may be lost in each.
func TestPlans(t *testing.T) {
	now, meanwhile, after := "now", "meanwhile", "after"
	add, promote, remove, replace := messages.OperationKind_ADD, messages.OperationKind_PROMOTE, messages.OperationKind_REMOVE, messages.OperationKind_REPLACE
	for name, row := range map[string]struct {
		o    *messages.ClusterOperation
		want []string
		says string
	}{
		"add":                 {&messages.ClusterOperation{Kind: add, NewNode: "n6", NewAddress: "h:6"}, []string{"AddLearner now", "CatchUp now", "Promote after"}, "n6 at h:6 becomes a learner"},
		"add a learner":       {&messages.ClusterOperation{Kind: add, NewNode: "n6", NewAddress: "h:6", StayLearner: true}, []string{"AddLearner now"}, "without a vote"},
		"promote":             {&messages.ClusterOperation{Kind: promote, NewNode: "n4"}, []string{"Promote after"}, "n4 becomes a voter"},
		"remove":              {&messages.ClusterOperation{Kind: remove, OldNode: "n2"}, []string{"RemoveOld after"}, "n2 leaves the cluster"},
		"remove the leader":   {&messages.ClusterOperation{Kind: remove, OldNode: "n1"}, []string{"RemoveOld after"}, "n1 hands the lead over"},
		"replace":             {&messages.ClusterOperation{Kind: replace, OldNode: "n2", NewNode: "n6", NewAddress: "h:6"}, []string{"AddLearner now", "CatchUp now", "Promote meanwhile", "RemoveOld after"}, "a majority with and one without n2"},
		"replace a learner":   {&messages.ClusterOperation{Kind: replace, OldNode: "n4", NewNode: "n6", NewAddress: "h:6"}, []string{"AddLearner now", "CatchUp now", "RemoveOld after"}, "n4 leaves"},
		"replace by a waiter": {&messages.ClusterOperation{Kind: replace, OldNode: "n2", NewNode: "n5"}, []string{"AddLearner now", "CatchUp now", "Promote meanwhile", "RemoveOld after"}, "n5 at h:5"},
	} {
		t.Run(name, func(t *testing.T) {
			f := theCluster()
			budget := func(who string) *messages.FaultBudget {
				return &messages.FaultBudget{Available: true, Stops: []string{who}}
			}
			f.reply.Before, f.reply.Meanwhile, f.reply.After = budget(now), budget(meanwhile), budget(after)
			p, _, err := api(f).Plan(t.Context(), row.o)
			if err != nil {
				t.Fatal(err)
			}
			var steps, texts []string
			for _, s := range p.Steps {
				steps, texts = append(steps, fmt.Sprintf("%v %s", s.Phase, s.Budget.Stops[0])), append(texts, s.Text)
			}
			if strings.Join(steps, ", ") != strings.Join(row.want, ", ") || !strings.Contains(strings.Join(texts, "; "), row.says) {
				t.Errorf("%q: %q", steps, texts)
			}
			if dry := f.asked[len(f.asked)-1]; !dry.DryRun || dry.Configuration != 50 || p.ConfigurationIndex != 50 || p.Change == "" {
				t.Errorf("%+v, asked %s", p, messages.Line(dry))
			}
			m, cluster, err := ParsePlan(p.ID)
			o := m.GetBegin().GetOperation()
			if err != nil || m.Configuration != 50 || cluster[0] != 0xab || len(o.GetId()) != messages.OperationIDSize || !IsPlan(p.ID) {
				t.Fatalf("%s: %v, %s", p.ID, err, messages.Line(m))
			}
			if o.Kind != row.o.Kind || o.OldNode != row.o.OldNode || o.NewNode != row.o.NewNode || o.StayLearner != row.o.StayLearner || (o.NewNode == "n5") != (o.NewAddress == "h:5") {
				t.Errorf("%s", messages.Line(o))
			}
		})
	}
}

// A plan is carried out as it was made: upon the same members of the same cluster, once.
func TestCarryOutAPlan(t *testing.T) {
	removal := &messages.ClusterOperation{Kind: messages.OperationKind_REMOVE, OldNode: "n2"}
	for name, row := range map[string]struct {
		then func(*fakeCluster)
		id   func(string) string
		want messages.Code
		says string
	}{
		"at once": {},
		"twice": {then: func(f *fakeCluster) {
			f.reply.View.ConfigurationIndex = 51 // the first time has changed the members
		}, id: func(id string) string { return id }},
		"others are members": {then: func(f *fakeCluster) { f.reply.View.ConfigurationIndex = 51 }, want: messages.Code_CONFLICT, says: "made for configuration 50, and it is 51"},
		"another cluster":    {then: func(f *fakeCluster) { f.reply.View.ClusterId = []byte{0xcd} }, want: messages.Code_CONFLICT, says: "another cluster, ab000000"},
		"half of it":         {id: func(id string) string { return id[:len(id)-3] }, want: messages.Code_INVALID, says: "not all of one"},
		"a letter is another": {id: func(id string) string {
			return id[:20] + strings.Map(func(r rune) rune { return 'a' + ('b' - r&1) }, id[20:21]) + id[21:]
		}, want: messages.Code_INVALID, says: "no plan"},
		"none":           {id: func(string) string { return "plan:" }, want: messages.Code_INVALID, says: "no plan"},
		"a name":         {id: func(string) string { return "n2" }, want: messages.Code_INVALID, says: "no plan"},
		"nobody answers": {then: func(f *fakeCluster) { f.reply.Code, f.reply.Message = messages.Code_NO_LEADER, "nobody" }, want: messages.Code_NO_LEADER},
	} {
		t.Run(name, func(t *testing.T) {
			f := whole()
			p, _, err := api(f).Plan(t.Context(), removal)
			if err != nil {
				t.Fatal(err)
			}
			id := p.ID
			if name == "twice" {
				if _, err := api(f).CarryOut(t.Context(), id); err != nil {
					t.Fatal(err)
				}
			}
			if row.then != nil {
				row.then(f)
			}
			if row.id != nil {
				id = row.id(id)
			}
			_, err = api(f).CarryOut(t.Context(), id)
			if messages.CodeOf(err) != row.want || !strings.Contains(fmt.Sprint(err), row.says) {
				t.Errorf("%v, want %v: %s", err, row.want, row.says)
			}
			if begun := f.asked[len(f.asked)-1].GetBegin(); row.want == messages.Code_OK && (begun == nil || f.asked[len(f.asked)-1].Configuration != 50) {
				t.Errorf("asked for %s", messages.Line(f.asked[len(f.asked)-1]))
			}
		})
	}
	if a, err := api(whole()).CarryOut(t.Context(), "plan:aa"); err == nil || a.ClusterReply != nil {
		t.Errorf("%v", err)
	}
	f := whole()
	one, _, _ := api(f).Plan(t.Context(), removal)
	two, _, _ := api(f).Plan(t.Context(), removal)
	if one.ID == two.ID {
		t.Error("a plan that came to nothing cannot be made again")
	}
	f.refuse = &messages.ClusterReply{Code: messages.Code_UNSAFE, Message: "no"}
	if p, _, err := api(f).Plan(t.Context(), removal); messages.CodeOf(err) != messages.Code_UNSAFE || p != nil {
		t.Errorf("%v", err)
	}
}
