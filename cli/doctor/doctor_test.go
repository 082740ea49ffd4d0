package doctor

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"keyval/actors/client"
	"keyval/messages"
)

// patient is a cluster of three voters, all well, whose first leads.
func patient() Facts {
	f := Facts{Now: time.Unix(1_800_000_000, 0), Cluster: &client.ClusterAnswer{At: time.Unix(1_800_000_000, 0), ClusterReply: &messages.ClusterReply{
		Node: "node1", View: &messages.ClusterView{Commit: 70, Leader: 1, PulseKnown: true},
		Before: &messages.FaultBudget{Voters: 3, Quorum: 2, Alive: 3, Slack: 1, Available: true, Survives: []string{"node1", "node2", "node3"}},
	}}}
	for i, role := range []string{"leader", "follower", "follower"} {
		name, at := fmt.Sprintf("node%d", i+1), fmt.Sprintf("10.0.0.%d:7001", i+1)
		f.Nodes = append(f.Nodes, Node{Name: name, Endpoint: at, Asked: f.Now.Add(-50 * time.Millisecond), Heard: f.Now.Add(50 * time.Millisecond), Status: &messages.StatusReply{
			WallMs: f.Now.UnixMilli(), ClusterId: []byte{1}, Name: name, Version: "v1", Level: 1, LevelMax: 1, Leader: &messages.Leader{RaftId: 1},
		}})
		f.Cluster.View.Members = append(f.Cluster.View.Members, &messages.MemberView{
			Member: &messages.Member{RaftId: uint64(i + 1), Name: name, Address: at}, Role: role, Match: 70, Applied: 70, ContactKnown: true,
		})
	}
	return f
}

// dies: a node answers nobody any more, and the others know.
func dies(f *Facts, i int) {
	f.Nodes[i].Status, f.Nodes[i].Problem = nil, messages.Errorf(messages.Code_UNREACHABLE, "nothing listens at %s", f.Nodes[i].Endpoint)
	f.Cluster.View.Members[i].Role, f.Cluster.View.Members[i].SilentMs = "unreachable", 61_000
	b := f.Cluster.Before
	b.Alive--
	if b.Alive < b.Quorum {
		b.Available = false
	} else if b.Slack = b.Alive - b.Quorum; b.Slack == 0 {
		b.Survives, b.Stops = nil, []string{"node1", "node2"}
	}
}

// syncs lets the logs of the nodes have taken so many ms to be durable, a hundred times; 0: not yet.
func syncs(f *Facts, ms ...int) {
	for i, n := range ms {
		if f.Nodes[i].Status == nil {
			continue
		}
		timing := &messages.Timing{Of: "log_sync", FirstUs: 500}
		for bound := 500; bound < 10_000_000; bound *= 2 {
			timing.Recent = append(timing.Recent, 0)
			if n > 0 && n*1000 <= bound {
				timing.Recent[len(timing.Recent)-1] = 100
			}
		}
		f.Nodes[i].Status.Vitals = &messages.Vitals{Timings: []*messages.Timing{timing}}
	}
}

func TestExamine(t *testing.T) {
	for _, row := range []struct {
		name  string
		fault func(*Facts)
		first string // the beginning of the first finding; empty: nothing is found
		next  string // a part of what to do about it
		all   int
	}{
		{"all is well", func(*Facts) {}, "", "", 0},
		{"one of three is lost", func(f *Facts) { dies(f, 2) }, "danger: node3 at 10.0.0.3:7001 is out of contact for 1m1s", "kvctl cluster replace node3 NEW HOST:PORT", 1},
		{"two of three are lost", func(f *Facts) {
			dies(f, 1)
			dies(f, 2)
			f.Nodes[0].Status.Leader, f.Read = nil, errors.New("no leader")
		}, "down: nobody leads", "start node2 (10.0.0.2:7001), or node3 (10.0.0.3:7001)", 1},
		{"all are lost", func(f *Facts) {
			for i := range 3 {
				f.Nodes[i].Status, f.Nodes[i].Problem = nil, messages.Errorf(messages.Code_UNREACHABLE, "nothing listens")
			}
			f.Cluster, f.Read = nil, nil
		}, "down: no node answers", "start the nodes", 1},
		{"they are there, and cannot agree", func(f *Facts) {
			f.Cluster.Before, f.Read = nil, errors.New("no leader")
			for i := range f.Nodes {
				f.Nodes[i].Status.Leader = nil
			}
		}, "down: nobody leads", "look in their logs for peers that are not reached", 1},
		{"an endpoint of another cluster", func(f *Facts) { f.Nodes[2].Status.ClusterId = []byte{2} }, "danger: 10.0.0.1:7001 and 10.0.0.3:7001 are nodes of two clusters", "endpoints of one cluster", 1},
		{"damaged data", func(f *Facts) {
			dies(f, 1)
			f.Nodes[1].Problem = messages.Errorf(messages.Code_DAMAGED, "the checkpoint cannot be read")
		}, "danger: node2 has damaged data", "kvctl rebuild --data DIR", 2},
		{"a full disk", func(f *Facts) {
			f.Nodes[0].Status.WritesRefused = "node2 has 9 MB of room"
			f.Cluster.View.Members[1].Lacks = "9 MB of 200 MB are free"
		}, "down: writes that need room are refused", "make room", 2},
		{"a disk that is nearly full", func(f *Facts) { f.Cluster.View.Members[1].Lacks = "9 MB of 200 MB are free" }, "danger: node2 has too little room", "make room", 1},
		{"one node alone knows of no leader", func(f *Facts) {
			f.Nodes, f.Alone = f.Nodes[:1], true
			f.Nodes[0].Status.Leader, f.Cluster.Before = nil, nil
		}, "down: nobody leads", "kvctl doctor asks all nodes", 1},
		{"reads hang", func(f *Facts) { f.Read = errors.New("2s have passed") }, "down: a linearizable read did not come back", "kvctl cluster transfer", 1},
		{"one disk is slow", func(f *Facts) { syncs(f, 4, 400, 4) }, "warning: the disk of node2 is slow: p99 of its log's fsync is 509ms, and 4ms at most of the others'", "kvctl cluster replace node2 NEW HOST:PORT", 1},
		{"one disk is slow, and the quorum needs it", func(f *Facts) {
			dies(f, 2)
			syncs(f, 4, 400, 4)
		}, "danger: node3", "", 2},
		{"all disks are slow alike", func(f *Facts) { syncs(f, 300, 400, 300) }, "", "", 0},
		{"one disk is slower, and fast enough", func(f *Facts) { syncs(f, 1, 20, 1) }, "", "", 0},
		{"one disk was slow once", func(f *Facts) {
			syncs(f, 4, 4, 4)
			recent := f.Nodes[1].Status.Vitals.Timings[0].Recent
			for i := range recent[:len(recent)-1] {
				recent[i] -= min(recent[i], 2) // two of a hundred took longer than all bounds but the last
			}
		}, "", "", 0},
		{"nobody knows of other disks", func(f *Facts) { syncs(f, 0, 400, 0) }, "", "", 0},
		{"reads are slow", func(f *Facts) { f.Took = 700 * time.Millisecond }, "warning: a linearizable read took 700ms", "keyval_log_sync_seconds", 1},
		{"a node that is cut off from kvctl alone", func(f *Facts) {
			f.Nodes[1].Status, f.Nodes[1].Problem = nil, messages.Errorf(messages.Code_TIMED_OUT, "no answer")
		}, "warning: node2 does not answer here, and the leader is in contact with it", "firewall", 1},
		{"a follower that lags", func(f *Facts) { f.Cluster.View.Commit = 20_000 }, "warning: node1 is 19930 entries behind", "disk", 3},
		{"a follower that needs a snapshot", func(f *Facts) { f.Cluster.View.Members[2].SnapshotNeeded = true }, "warning: node3 has fallen so far behind", "gets one by itself", 1},
		{"an operation that waits", func(f *Facts) {
			f.Cluster.View.Operations = []*messages.ClusterOperation{{Id: []byte{1, 2, 3, 4}, Kind: messages.OperationKind_REPLACE, OldNode: "node2", NewNode: "node4", Phase: messages.OperationPhase_CATCH_UP}}
			f.Cluster.View.Waits = []*messages.OperationWait{{Id: []byte{1, 2, 3, 4}, Why: "node4 is out of contact", Hint: "start node4"}}
		}, "warning: the replace of node2 by node4 does not go on", "start node4", 1},
		{"an operation that goes on", func(f *Facts) {
			f.Cluster.View.Operations = []*messages.ClusterOperation{{Id: []byte{1, 2, 3, 4}, Kind: messages.OperationKind_REPLACE, OldNode: "node2", NewNode: "node4", Phase: messages.OperationPhase_CATCH_UP}}
			f.Cluster.View.Waits = []*messages.OperationWait{{Id: []byte{1, 2, 3, 4}, Why: "node4 gets a snapshot, 40 % of it so far"}}
		}, "", "", 0},
		{"an operation that waits for a learner that has never run", func(f *Facts) {
			f.Cluster.View.Members = append(f.Cluster.View.Members, &messages.MemberView{
				Member: &messages.Member{RaftId: 4, Name: "node4", Address: "10.0.0.4:7001", Type: messages.MemberType_LEARNER}, Role: "unreachable", SilentMs: 3000, ContactKnown: true,
			})
			f.Cluster.View.Operations = []*messages.ClusterOperation{{Id: []byte{1, 2, 3, 4}, Kind: messages.OperationKind_ADD, NewNode: "node4", Phase: messages.OperationPhase_CATCH_UP}}
			f.Cluster.View.Waits = []*messages.OperationWait{{Id: []byte{1, 2, 3, 4}, Why: "node4 has not joined yet", Hint: "start it"}}
		}, "warning: the add of node4 does not go on", "start it", 1},
		{"a certificate that expires soon", func(f *Facts) {
			f.Nodes[1].Status.Keys = &messages.Keys{Certificate: "node/node2", ExpiresMs: f.Now.Add(5 * 24 * time.Hour).UnixMilli(), ExpiresWhat: "its certificate"}
		}, "warning: node2: ", "kvctl cert list", 1},
		{"a backup that is too old", func(f *Facts) {
			f.Cluster.View.Backups = []*messages.BackupJob{{Name: "h:/b", EveryMs: 3_600_000, VerifiedAtMs: f.Now.Add(-5 * time.Hour).UnixMilli()}}
		}, "warning: the backup to h:/b is too old: one is to be made every 60 min; last verified backup 5 h ago", "kvctl backup forget h:/b", 1},
		{"a backup that fails, in good time", func(f *Facts) {
			f.Cluster.View.Backups = []*messages.BackupJob{{Name: "h:/b", EveryMs: 3_600_000, VerifiedAtMs: f.Now.Add(-time.Hour).UnixMilli(), FailedAtMs: 1, Error: "no space"}}
		}, "warning: the last backup to h:/b failed; last verified backup 60 min ago", "tries again", 1},
		{"a clock that drifts", func(f *Facts) { f.Nodes[2].Status.WallMs += 7000 }, "warning: the clock of node3 is 7s ahead of that of node", "timedatectl", 1},
		{"one that is behind", func(f *Facts) { f.Nodes[0].Status.WallMs -= 7000 }, "warning: the clock of node1 is 7s behind that of node", "timedatectl", 1},
		{"the clock of who asks", func(f *Facts) {
			for i := range f.Nodes {
				f.Nodes[i].Status.WallMs += 7000
			}
		}, "", "", 0},
		{"a node that answers late", func(f *Facts) { f.Nodes[1].Heard = f.Nodes[1].Heard.Add(8 * time.Second) }, "", "", 0},
		{"two versions", func(f *Facts) { f.Nodes[1].Status.Version = "v2" }, "note: nodes run different versions", "kvctl cluster upgrade --check", 1},
		{"a level that may be raised", func(f *Facts) {
			for i := range f.Nodes {
				f.Nodes[i].Status.LevelMax = 2
			}
		}, "note: the cluster works at level 1, and all nodes support 2", "kvctl cluster level raise", 1},
		{"two voters", func(f *Facts) { f.Cluster.View.Members, f.Nodes = f.Cluster.View.Members[:2], f.Nodes[:2] }, "note: there are 2 voters", "kvctl cluster add", 1},
		{"two voters on one machine", func(f *Facts) { f.Cluster.View.Members[1].Member.Address = "10.0.0.1:7002" }, "note: node1 and node2 run on 10.0.0.1", "on another machine", 1},
		{"a learner that was forgotten", func(f *Facts) {
			f.Cluster.View.Members = append(f.Cluster.View.Members, &messages.MemberView{
				Member: &messages.Member{RaftId: 4, Name: "node4", Address: "10.0.0.4:7001", Type: messages.MemberType_LEARNER}, Role: "learner", Ready: true, Match: 70, ContactKnown: true,
			})
		}, "note: node4 is a learner, and could vote", "kvctl cluster promote node4", 1},
		{"a node that waits", func(f *Facts) {
			f.Cluster.View.Waiting = []*messages.WaitingNode{{Name: "node4", Address: "10.0.0.4:7001"}}
		}, "note: node4 at 10.0.0.4:7001 waits to be added", "kvctl cluster add node4 10.0.0.4:7001", 1},
	} {
		f := patient()
		row.fault(&f)
		all := Examine(f)
		if len(all) != row.all {
			t.Errorf("%s: %d findings, want %d: %+v", row.name, len(all), row.all, all)
		}
		if len(all) == 0 {
			continue
		}
		if got := all[0].Urgency.String() + ": " + all[0].What; !strings.HasPrefix(got, row.first) || row.first == "" {
			t.Errorf("%s: first is %q, want %q", row.name, got, row.first)
		}
		if !strings.Contains(all[0].Next, row.next) {
			t.Errorf("%s: next is %q, want %q in it", row.name, all[0].Next, row.next)
		}
		for _, x := range all {
			if x.Next == "" || x.What == "" {
				t.Errorf("%s: nothing to do is said: %+v", row.name, x)
			}
		}
	}
}
