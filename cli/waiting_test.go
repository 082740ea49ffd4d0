package cli

import (
	"context"
	"testing"
	"time"

	"keyval/messages"
)

func TestTrouble(t *testing.T) {
	node := func(name, role, leader string, kind messages.MemberType) member {
		m := member{address: name + ":1", kind: kind, nodeJSON: nodeJSON{Name: name, Role: role, Leader: leader, clusterID: []byte("c")}}
		if role == unreachable {
			m.problem = messages.Errorf(messages.Code_UNREACHABLE, "connection refused")
		}
		return m
	}
	const voter, learner = messages.MemberType_VOTER, messages.MemberType_LEARNER
	for name, row := range map[string]struct {
		all  []member
		want string
	}{
		"all is well":              {[]member{node("a", "leader", "a", voter), node("b", "follower", "a", voter), node("c", "follower", "a", voter)}, ""},
		"one is gone":              {[]member{node("a", "leader", "a", voter), node("b", "follower", "a", voter), node("c", unreachable, "", voter)}, ""},
		"two are gone":             {[]member{node("a", "candidate", "", voter), node("b", unreachable, "", voter), node("c", unreachable, "", voter)}, "1 of 3 members answers, 2 are needed: no writes and no linearizable reads"},
		"a learner does not count": {[]member{node("a", "leader", "a", voter), node("b", unreachable, "", voter), node("c", "learner", "a", learner)}, "1 of 2 members answers, 2 are needed: no writes and no linearizable reads"},
		"nobody leads":             {[]member{node("a", "candidate", "", voter), node("b", "follower", "", voter), node("c", unreachable, "", voter)}, "2 of 3 members answer, and none leads: an election is under way"},
	} {
		got := ""
		if p := troubleOf(row.all); p != nil {
			got = p.Message
		}
		if got != row.want {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
	}
}

// TestDeserted: where nobody listens, nobody is waited for.
func TestDeserted(t *testing.T) {
	cluster := newFake()
	cluster.down = []string{"127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"}
	cluster.patient = true
	began := time.Now()
	got := run{cluster: cluster}.kvctl(t, "put", "k", "v", "--timeout", "1m")
	got.check(t, 5, "")
	if want := "kvctl: nobody listens: 127.0.0.1:7001: connection refused; 127.0.0.1:7002: connection refused; 127.0.0.1:7003: connection refused\n" +
		"  endpoint: 127.0.0.1:7001\n  next: start the node there with kvctl serve, or name other endpoints\n"; got.stderr != want {
		t.Errorf("stderr %q", got.stderr)
	}
	if waited := time.Since(began); waited > 30*time.Second {
		t.Errorf("it waited %v", waited)
	}
}

func TestInterrupted(t *testing.T) {
	cluster := newFake()
	cluster.down = []string{"127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"}
	cluster.patient = true
	ctx, interrupt := context.WithCancel(context.Background())
	interrupt()
	if got := (run{cluster: cluster, ctx: ctx}).kvctl(t, "put", "k", "v"); got.code != exitInterrupted {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
}
