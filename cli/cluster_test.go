package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"keyval/messages"
)

// learnerFour adds node4, a learner on its way, to the fake's members.
func learnerFour(f *fakeCluster) {
	v := f.clusterView()
	v.Members = append(v.Members, &messages.MemberView{
		Member: &messages.Member{RaftId: 4, Name: "node4", Address: "127.0.0.1:7004", Type: messages.MemberType_LEARNER, AddedAtMs: 1_000_000},
		Role:   "learner", ContactKnown: true, Match: 60, Rate: 100, EtaMs: 400, WaitingFor: "node4 lacks 40 entries",
	})
}

func TestClusterQuestions(t *testing.T) {
	f := newFake()
	learnerFour(f)
	f.view.Waiting = []*messages.WaitingNode{{Name: "node5", Address: "127.0.0.1:7005"}, {Name: "node6", Address: "127.0.0.1:7006", Refused: "it is old"}}
	f.view.Operations = []*messages.ClusterOperation{{Id: []byte{0xab, 0xcd, 1, 2, 3}, Kind: messages.OperationKind_ADD, NewNode: "node4", NewAddress: "127.0.0.1:7004", Phase: messages.OperationPhase_CATCH_UP}}
	for line, want := range map[string][]string{
		"cluster members": {
			"ID     ADDRESS         TYPE     STATE     LEADER  SELF\nnode1  127.0.0.1:7001  Voter    Leader    ✓       ✓\nnode2  127.0.0.1:7002  Voter    Follower\n",
			"node4: 60 of 100 entries, 100/s, about 400 ms left; waiting: node4 lacks 40 entries\n",
			"node5 waits to be added: /opt/kvctl cluster add node5 127.0.0.1:7005\n",
			"node6 at 127.0.0.1:7006 asked to be let in, and is not: it is old\n",
			"under way: add node4 at 127.0.0.1:7004, catching up; follow it: /opt/kvctl ops follow abcd0102",
		},
		"cluster members -o simple":   {"node4\t127.0.0.1:7004\tlearner\tlearner\n"},
		"cluster members --json":      {`"id": "node1"`, `"raft_id": "1"`, `"type": "learner"`, `"state": "leader"`, `"is_self": true`, `"lag_entries": "40"`},
		"cluster member node4":        {"raft id       4\n", "catch-up      60 of 100 entries", "added         1970-01-01T00:16:40Z"},
		"cluster member node2 --json": {`"address": "127.0.0.1:7002"`, `"learner_status": null`},
		"cluster leader":              {"node1 at 127.0.0.1:7001 leads, in term 3\n"},
		"cluster leader --json":       {`"is_leader": true`},
		"cluster info":                {"leader         node1\n", "members        4: 3 voters, 1 learner\n", "configuration  12\n", "survives the loss of node1, node2 or node3, not of two"},
		"cluster info --json":         {`"leader_id": "node1"`, `"voter_count": 3`, `"quorum": 2`, `"healthy": true`, `"current_term": "3"`},
		"cluster health":              {"healthy: 4 of 4 members in contact and up to date\n"},
		"cluster health --json":       {`"issues": []`, `"slack": 1`},
		"ops ls":                      {"abcd0102  add   node4  CatchUp"},
		"ops ls --json":               {`"phase": "catch_up"`, `"learner_added": false`},
		"ops show abcd":               {"phase      CatchUp\n"},
		"ops show abcd0102 --json":    {`"id": "abcd010203"`},
	} {
		got := run{cluster: f}.kvctl(t, strings.Fields(line)...)
		if got.code != exitOK {
			t.Errorf("%s: exit code %d: %s", line, got.code, got.stderr)
		}
		for _, w := range want {
			if !strings.Contains(got.out, w) {
				t.Errorf("%s: no %q in\n%s", line, w, got.out)
			}
		}
		if strings.Contains(line, "--json") && (!json.Valid([]byte(got.out)) || got.stderr != "") {
			t.Errorf("%s: not only JSON:\n%s%s", line, got.out, got.stderr)
		}
	}
}

func TestClusterExitCodes(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*fakeCluster)
		line   string
		code   int
		says   string
	}{
		"no such member": {nil, "cluster member node9", exitNotFound, "the members are node1, node2, node3"},
		"no leader":      {func(f *fakeCluster) { f.view.Members[0].Role = "unknown" }, "cluster leader", exitUnreachable, "knows no leader"},
		"degraded":       {func(f *fakeCluster) { f.view.Members[2].Role, f.view.Members[2].SilentMs = "unreachable", 4000 }, "cluster health", exitDegraded, "- node3 at 127.0.0.1:7003 is out of contact for 4s"},
		"no quorum": {func(f *fakeCluster) {
			f.before, f.refuse = nil, messages.Errorf(messages.Code_NO_LEADER, "nobody leads")
		}, "cluster health", exitUnreachable, "no quorum: "},
		"no such operation": {nil, "ops show ab", exitNotFound, "kvctl ops ls lists them"},
		"nobody answers":    {func(f *fakeCluster) { f.down = []string{"127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"} }, "cluster members", exitUnreachable, "start it"},
		"no command":        {nil, "cluster", exitUsage, "cluster needs a command: info, health"},
		"no address":        {nil, "cluster add node4", exitUsage, `"node4" is no ID=ADDRESS`},
		"a bad address":     {nil, "cluster add node4 here", exitUsage, "here"},
		"a bad name":        {nil, "cluster add no/de 127.0.0.1:7004", exitUsage, "letters, digits"},
		"removing unasked":  {nil, "cluster remove node2", exitUnsafe, "cluster remove --yes node2"},
		"replacing unasked": {nil, "cluster replace node2 node4 127.0.0.1:7004", exitUnsafe, "--yes"},
		"refused":           {func(f *fakeCluster) { f.refuse = messages.Errorf(messages.Code_UNSAFE, "no quorum would be left") }, "cluster remove node2 --yes", exitUnsafe, "no quorum would be left"},
		"stale":             {func(f *fakeCluster) { f.refuse = messages.Errorf(messages.Code_CONFLICT, "another is under way") }, "cluster promote node4", exitConflict, "another is under way"},
	} {
		f := newFake()
		f.clusterView()
		if row.change != nil {
			row.change(f)
		}
		got := run{cluster: f}.kvctl(t, strings.Fields(row.line)...)
		if got.code != row.code || !strings.Contains(got.out+got.stderr, row.says) {
			t.Errorf("%s: exit code %d, want %d, and %q in\n%s%s", name, got.code, row.code, row.says, got.out, got.stderr)
		}
	}
}

// carriesOn lets the last operation take these steps, one at a question.
func carriesOn(f *fakeCluster, steps ...messages.OperationPhase) {
	f.onQuestion = func(v *messages.ClusterView) {
		if n := len(v.Operations); n > 0 && len(steps) > 0 {
			o := v.Operations[n-1]
			o.Reached, o.Phase, steps = o.Phase, steps[0], steps[1:]
		}
	}
}

func TestClusterAddShowsItsPhases(t *testing.T) {
	f := newFake()
	learnerFour(f)
	carriesOn(f, messages.OperationPhase_CATCH_UP, messages.OperationPhase_PROMOTION, messages.OperationPhase_COMPLETE)
	f.warnings = []string{"4 voters survive no more losses than 3"}
	got := run{cluster: f}.kvctl(t, "cluster", "add", "node4", "127.0.0.1:7004")
	if got.code != exitOK || !strings.Contains(got.out, "phase      Complete\n") {
		t.Fatalf("exit code %d\n%s%s", got.code, got.out, got.stderr)
	}
	at := 0
	for _, want := range []string{
		"warning: 4 voters survive no more losses than 3\n", "✓ node4 at 127.0.0.1:7004 is a learner\n", "✓ node4 has caught up", "✓ node4 is a voter",
	} {
		i := strings.Index(got.stderr[at:], want)
		if i < 0 {
			t.Errorf("no %q, in this order, in\n%s", want, got.stderr)
			continue
		}
		at += i
	}
	o := f.clusterAsked[0].GetBegin().GetOperation()
	if len(o.Id) != 16 || o.NewNode != "node4" || o.NewAddress != "127.0.0.1:7004" || o.StayLearner {
		t.Errorf("asked for %s", messages.Line(o))
	}
}

func TestSeveralNodesAreAddedOneAfterTheOther(t *testing.T) {
	f := newFake()
	f.onQuestion = func(v *messages.ClusterView) {
		v.Operations[len(v.Operations)-1].Phase = messages.OperationPhase_COMPLETE
	}
	got := run{cluster: f}.kvctl(t, "cluster", "add", "node4=127.0.0.1:7004", "node5=127.0.0.1:7005", "--learner", "--json")
	var all []map[string]any
	if err := json.Unmarshal([]byte(got.out), &all); err != nil || got.code != exitOK || len(all) != 2 || all[1]["new_node_id"] != "node5" || all[0]["stays_learner"] != true {
		t.Errorf("exit code %d: %v\n%s%s", got.code, err, got.out, got.stderr)
	}
	var order []string
	for _, m := range f.clusterAsked {
		order = append(order, fmt.Sprintf("%T", m.Kind)[len("*messages.ClusterRequest_"):])
	}
	if strings.Join(order, " ") != "Begin Query Begin Query" {
		t.Errorf("asked in the order %v", order)
	}
}

func TestAnAddSaysWhyItWaits(t *testing.T) {
	f := newFake()
	f.clusterView()
	asked := 0
	f.onQuestion = func(v *messages.ClusterView) {
		o := v.Operations[0]
		v.Waits = []*messages.OperationWait{{Id: o.Id, Why: "node4 has not joined yet", Hint: "start it: kvctl serve --join 127.0.0.1:7001"}}
		if asked++; asked > 2 {
			o.Phase = messages.OperationPhase_COMPLETE
		}
	}
	got := run{cluster: f}.kvctl(t, "cluster", "add", "node4", "127.0.0.1:7004")
	if got.code != exitOK || strings.Count(got.stderr, "… waiting: node4 has not joined yet\n  start it: kvctl serve --join 127.0.0.1:7001\n") != 1 {
		t.Errorf("exit code %d\n%s", got.code, got.stderr)
	}
}

func TestWaitingEndsBeforeTheOperation(t *testing.T) {
	f := newFake()
	got := run{cluster: f}.kvctl(t, "cluster", "add", "node4", "127.0.0.1:7004", "--wait=false", "-o", "simple")
	id, _, _ := strings.Cut(got.out, "\t")
	if got.code != exitOK || len(id) != 32 || !strings.Contains(got.stderr, "follow it: /opt/kvctl ops follow "+id[:8]) {
		t.Fatalf("exit code %d\n%s%s", got.code, got.out, got.stderr)
	}
	got = run{cluster: f}.kvctl(t, "ops", "follow", id[:8], "--timeout", "300ms")
	if got.code != exitUnknown || !strings.Contains(got.stderr, "is still under way") || !strings.Contains(got.stderr, "ops abort "+id[:8]) {
		t.Errorf("exit code %d\n%s", got.code, got.stderr)
	}
	f.onQuestion = func(v *messages.ClusterView) {
		if v.Operations[0].Aborting {
			v.Operations[0].Phase, v.Operations[0].Code = messages.OperationPhase_FAILED, messages.Code_CONFLICT
		}
	}
	got = run{cluster: f}.kvctl(t, "ops", "abort", id)
	if got.code != exitOK || !strings.Contains(got.stderr, "✓ it is undone") {
		t.Errorf("exit code %d\n%s", got.code, got.stderr)
	}
	got = run{cluster: f}.kvctl(t, "ops", "follow", id)
	if got.code != exitConflict || !strings.Contains(got.stderr, "✗ add node4") {
		t.Errorf("exit code %d\n%s", got.code, got.stderr)
	}
}

// A plan is shown with who may be lost in each step, and its id carries it out, or exits 7.
func TestPlanOfAChange(t *testing.T) {
	f := newFake()
	f.meanwhile = &messages.FaultBudget{Voters: 4, Quorum: 3, Alive: 4, Slack: 1, Available: true, Survives: []string{"node1", "node3"}}
	f.after = &messages.FaultBudget{Voters: 3, Quorum: 2, Alive: 3, Slack: 1, Available: true, Survives: []string{"node1", "node3", "node4"}}
	f.warnings = []string{"it is late"}
	got := run{cluster: f}.kvctl(t, "cluster", "replace", "node2", "node4", "127.0.0.1:7004", "--plan")
	_, id, _ := strings.Cut(got.out, "/opt/kvctl cluster replace --plan ")
	id = strings.TrimSpace(id)
	if want := `plan to replace node2 by node4 at 127.0.0.1:7004, for configuration 12
  now            survives the loss of node1, node2 or node3, not of two
  1. AddLearner  node4 at 127.0.0.1:7004 becomes a learner, without a vote
                 survives the loss of node1, node2 or node3, not of two
  2. CatchUp     node4 gets the state and the log
                 survives the loss of node1, node2 or node3, not of two
  3. Promote     node4 takes over the vote of node2: a majority with and one without node2 is needed
                 survives the loss of node1 or node3, not both
  4. RemoveOld   node2 leaves the cluster
                 survives the loss of node1, node3 or node4, not of two
  warning: it is late
carry it out, unless the members have changed by then:
  /opt/kvctl cluster replace --plan ` + id + "\n"; got.code != exitOK || got.out != want {
		t.Errorf("exit code %d\n%s%s\nwant\n%s", got.code, got.out, got.stderr, want)
	}
	got = run{cluster: f}.kvctl(t, "cluster", "remove", "node2", "--plan", "--json")
	for _, want := range []string{`"plan": "plan:`, `"configuration_index": "12"`, `"phase": "remove_old"`, `"fault_budget": {`, `"before": {`} {
		if !strings.Contains(got.out, want) || !json.Valid([]byte(got.out)) {
			t.Errorf("no %s in\n%s%s", want, got.out, got.stderr)
		}
	}
	removal := strings.TrimSpace(run{cluster: f}.kvctl(t, "cluster", "remove", "node2", "--plan", "-o", "simple").out)
	for line, want := range map[string]string{
		"cluster add node4=127.0.0.1:7004 node5=127.0.0.1:7005 --plan": "a plan is of one change",
		"cluster replace --plan " + removal:                            "it is a plan to remove node2",
		"cluster remove --plan " + removal + "x":                       "not all of one",
		"cluster replace --plan node2":                                 "cluster replace needs OLD NEW",
		"cluster replace " + removal:                                   "cluster replace needs OLD NEW",
	} {
		if got := (run{cluster: f}).kvctl(t, strings.Fields(line)...); got.code != exitUsage || !strings.Contains(got.stderr, want) {
			t.Errorf("%s: exit code %d, no %q in\n%s", line, got.code, want, got.stderr)
		}
	}
	if len(f.view.Operations) != 0 {
		t.Fatalf("begun: %s", messages.Line(f.view))
	}
	got = run{cluster: f}.kvctl(t, "cluster", "remove", "--plan", removal, "--dry-run")
	if got.code != exitOK || !strings.HasPrefix(got.out, "would remove node2\n") {
		t.Errorf("exit code %d\n%s%s", got.code, got.out, got.stderr)
	}
	carriesOn(f, messages.OperationPhase_ADD_LEARNER, messages.OperationPhase_COMPLETE)
	got = run{cluster: f}.kvctl(t, "cluster", "replace", "--plan", id)
	if got.code != exitOK || !strings.Contains(got.stderr, "✓ node2 is removed") || f.clusterAsked[len(f.clusterAsked)-1].Configuration != 0 {
		t.Errorf("exit code %d\n%s%s", got.code, got.out, got.stderr)
	}
	f.view.ConfigurationIndex = 14
	got = run{cluster: f}.kvctl(t, "cluster", "remove", "--plan", removal)
	if got.code != exitConflict || !strings.Contains(got.stderr, "the plan was made for configuration 12, and it is 14 now") {
		t.Errorf("exit code %d\n%s%s", got.code, got.out, got.stderr)
	}
	f.refuse = messages.Errorf(messages.Code_UNSAFE, "no quorum would be left")
	got = run{cluster: f}.kvctl(t, "cluster", "remove", "node2", "--plan")
	if got.code != exitUnsafe || !strings.Contains(got.stderr, "no quorum would be left") {
		t.Errorf("exit code %d\n%s%s", got.code, got.out, got.stderr)
	}
}

func TestDryRunOfAChange(t *testing.T) {
	f := newFake()
	f.after = &messages.FaultBudget{Voters: 2, Quorum: 2, Alive: 2, Available: true, Stops: []string{"node1", "node3"}}
	f.warnings = []string{"2 voters survive no more losses than 1"}
	got := run{cluster: f}.kvctl(t, "cluster", "remove", "node2", "--dry-run")
	want := "would remove node2\n  now:       survives the loss of node1, node2 or node3, not of two\n  then:      budget 0: the loss of node1 or node3 stops writes\n  warning:   2 voters survive no more losses than 1\n"
	if got.code != exitOK || got.out != want {
		t.Errorf("exit code %d\n%s%s", got.code, got.out, got.stderr)
	}
	got = run{cluster: f}.kvctl(t, "cluster", "remove", "node2", "--dry-run", "--json")
	if !strings.Contains(got.out, `"text": "budget 0: the loss of node1 or node3 stops writes"`) || !strings.Contains(got.out, `"meanwhile": null`) {
		t.Errorf("%s", got.out)
	}
	for _, m := range f.clusterAsked {
		if !m.DryRun {
			t.Errorf("asked for %s", messages.Line(m))
		}
	}
	f.refuse = messages.Errorf(messages.Code_UNSAFE, "no")
	if got := (run{cluster: f}).kvctl(t, "cluster", "remove", "node2", "--dry-run"); got.code != exitUnsafe || !strings.Contains(got.stderr, "then:      budget 0") {
		t.Errorf("exit code %d\n%s", got.code, got.stderr)
	}
}

// What was confirmed is bound to the members that were seen.
func TestARemovalIsConfirmed(t *testing.T) {
	f := newFake()
	f.after = &messages.FaultBudget{Voters: 2, Quorum: 2, Alive: 2, Available: true, Stops: []string{"node1", "node3"}}
	got := run{cluster: f, stdin: strings.NewReader("n\n"), inTTY: true, tty: true}.kvctl(t, "cluster", "remove", "node2")
	if got.code != exitFailure || !strings.Contains(got.stderr, "then:      budget 0") || !strings.Contains(got.stderr, "Remove node2? [y/N]") || len(f.view.Operations) != 0 {
		t.Errorf("exit code %d\n%s", got.code, got.stderr)
	}
	f.onQuestion = func(v *messages.ClusterView) {
		for _, o := range v.Operations {
			o.Phase = messages.OperationPhase_COMPLETE
		}
	}
	got = run{cluster: f, stdin: strings.NewReader("y\n"), inTTY: true, tty: true}.kvctl(t, "cluster", "remove", "node2")
	if got.code != exitOK || !strings.Contains(got.stderr, "✓ node2 is removed") {
		t.Errorf("exit code %d\n%s", got.code, got.stderr)
	}
	for _, m := range f.clusterAsked {
		if m.GetBegin() != nil && !m.DryRun && m.Configuration != 12 {
			t.Errorf("begun at configuration %d", m.Configuration)
		}
	}
}

// A no is said, and is a failure: a script must not take it for done.
func TestAutoreplaceIsConfirmed(t *testing.T) {
	f := newFake()
	got := run{cluster: f, stdin: strings.NewReader("n\n"), inTTY: true, tty: true}.kvctl(t, "cluster", "autoreplace", "on")
	if got.code != exitFailure || !strings.Contains(got.stderr, "nothing was changed") || len(f.clusterAsked) != 0 {
		t.Errorf("exit code %d, asked %d times\n%s", got.code, len(f.clusterAsked), got.stderr)
	}
}

func TestTransferAndUpdate(t *testing.T) {
	f := newFake()
	if got := (run{cluster: f}).kvctl(t, "cluster", "transfer", "node2"); got.code != exitOK || got.out != "node2 leads now\n" {
		t.Errorf("exit code %d\n%s%s", got.code, got.out, got.stderr)
	}
	if got := (run{cluster: f}).kvctl(t, "cluster", "update", "node2", "127.0.0.1:8002"); got.code != exitOK || got.out != "node2 is reached at 127.0.0.1:8002\n" {
		t.Errorf("exit code %d\n%s%s", got.code, got.out, got.stderr)
	}
	if got := (run{cluster: f}).kvctl(t, "cluster", "transfer", "node3", "--json"); got.code != exitOK || !strings.Contains(got.out, `"id": "node3"`) {
		t.Errorf("exit code %d\n%s%s", got.code, got.out, got.stderr)
	}
}
