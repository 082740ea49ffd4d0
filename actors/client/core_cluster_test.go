package client

import (
	"slices"
	"strings"
	"testing"

	"keyval/messages"
)

func question(tag uint64) *messages.Submit {
	return &messages.Submit{Tag: tag, DeadlineMs: 2000, Cluster: &messages.ClusterRequest{Kind: &messages.ClusterRequest_Query{Query: &messages.ClusterQuery{}}}}
}

func removal(tag uint64) *messages.Submit {
	return &messages.Submit{Tag: tag, DeadlineMs: 2000, Cluster: &messages.ClusterRequest{Configuration: 5, Kind: &messages.ClusterRequest_Begin{
		Begin: &messages.BeginOperation{Operation: &messages.ClusterOperation{Id: []byte("o"), Kind: messages.OperationKind_REMOVE, OldNode: "n3"}},
	}}}
}

const asked = `ClusterRequest{request=1 begin=BeginOperation{operation=ClusterOperation{id="o" kind=REMOVE old_node="n3"}} configuration=5}`

func TestAQuestionNeedsNoSessionAndNoLeader(t *testing.T) {
	s := newScript(t, "a:1")
	s.expect(s.submit(question(1)), "dial a:1")
	s.expect(s.c.linkUp(up("a:1", 1)), "node/1 gateway attach", "node/1 membership ClusterRequest{request=1 query=ClusterQuery{}}")
	s.expect(s.c.clusterReply(&messages.ClusterReply{Request: 1, Leader: leads(2, "b:1", 5)}), "answer 1 OK")
	s.expect(s.attached(gave("session", nil))) // a question is no reason to go to the leader
}

func TestAChangeFollowsRedirectToTheLeader(t *testing.T) {
	s := newScript(t, "a:1")
	s.serve("a:1", nil)
	s.expect(s.submit(removal(1)), "node/1 membership "+asked)
	s.expect(s.c.clusterReply(&messages.ClusterReply{Request: 1, Code: messages.Code_REDIRECT, Leader: leads(2, "b:1", 5)}), "dial b:1")
	s.expect(s.c.linkUp(up("b:1", 2)), "node/2 gateway attach")
	s.expect(s.attached(gave("other", leads(2, "b:1", 5))), "hang a:1")
	s.expect(s.c.tick(50), "node/2 membership "+asked)
	s.expect(s.c.clusterReply(&messages.ClusterReply{Request: 1, Code: messages.Code_CONFLICT}), "answer 1 CONFLICT")
}

func TestAChangeGoesToAKnownLeaderAtOnce(t *testing.T) {
	s := newScript(t, "a:1")
	s.serve("a:1", leads(2, "b:1", 5))
	s.expect(s.submit(removal(1)), "dial b:1", "node/1 membership "+asked)
}

// A dry run is for the leader too, and changes nothing.
func TestADryRunFollowsRedirect(t *testing.T) {
	s := newScript(t, "a:1")
	s.serve("a:1", nil)
	dry := removal(1)
	dry.Cluster.DryRun = true
	s.expect(s.submit(dry), "node/1 membership "+strings.TrimSuffix(asked, "}")+" dry_run=true}")
	s.expect(s.c.clusterReply(&messages.ClusterReply{Request: 1, Code: messages.Code_REDIRECT, Leader: leads(2, "b:1", 5)}), "dial b:1")
	if d := s.answerTo(1, 4000); codeOf(d) == messages.Code_OUTCOME_UNKNOWN {
		t.Errorf("a dry run has an outcome: %s", messages.Line(d))
	}
}

// A change that was sent and not answered may have been begun; one that every answer
// refused was not.
func TestTheOutcomeOfAChange(t *testing.T) {
	s := newScript(t, "a:1")
	s.serve("a:1", nil)
	s.submit(removal(1))
	if d := s.answerTo(1, 4000); codeOf(d) != messages.Code_OUTCOME_UNKNOWN || !strings.Contains(d.Cluster.Message, "may or may not have been begun") || d.Hint != hintUnknownChange {
		t.Errorf("unanswered: %s", messages.Line(d))
	}

	s = newScript(t, "a:1")
	s.serve("a:1", nil)
	s.submit(removal(1))
	s.c.clusterReply(&messages.ClusterReply{Request: 1, Code: messages.Code_REDIRECT, Leader: leads(2, "b:1", 5)})
	s.c.linkDown(down("b:1"))
	var d *messages.Done
	for range 100 {
		for _, e := range s.c.tick(50) {
			switch e := e.(type) {
			case answer:
				d = e.done
			case send:
				if m, ok := e.message.(*messages.ClusterRequest); ok {
					s.c.clusterReply(&messages.ClusterReply{Request: m.Request, Code: messages.Code_REDIRECT, Leader: leads(2, "b:1", 5)})
				}
			case dial:
				s.c.linkDown(down(e.endpoint))
			}
		}
	}
	if d == nil || codeOf(d) != messages.Code_NO_LEADER || !strings.Contains(d.Cluster.Message, "the leader n2 at b:1 was not reached") {
		t.Errorf("redirected to the end: %s", messages.Line(d))
	}
}

func TestWhatIsNoClusterRequest(t *testing.T) {
	s := newScript(t, "a:1")
	s.c.start()
	s.expect(s.submit(&messages.Submit{Tag: 1, Cluster: &messages.ClusterRequest{}}), "answer 1 INVALID")
	big := removal(2)
	big.Cluster.GetBegin().Operation.NewAddress = strings.Repeat("x", clusterSizeMax)
	s.expect(s.submit(big), "answer 2 INVALID")
	s.expect(s.c.clusterReply(&messages.ClusterReply{Request: 7})) // nobody asked for that
}

// membersAt are members with the given RaftIDs, at a:1, b:1 and so on.
func membersAt(ids ...uint64) []*messages.Member {
	var all []*messages.Member
	for _, id := range ids {
		all = append(all, &messages.Member{RaftId: id, Address: string(rune('a'+id-1)) + ":1"})
	}
	return all
}

func news(configuration uint64, ids ...uint64) *messages.Attached {
	return &messages.Attached{Configuration: configuration, Members: membersAt(ids...)}
}

// places is where the client would go, in order.
func (s *script) places() string {
	var names []string
	for _, e := range s.c.links.places() {
		names = append(names, strings.TrimSuffix(e.name, ":1"))
	}
	return strings.Join(names, "")
}

func (s *script) wantPlaces(when, want string) {
	s.t.Helper()
	if got := s.places(); got != want {
		s.t.Errorf("%s: the client goes to %s, want %s", when, got, want)
	}
}

func TestClientOutlivesAllItsEndpoints(t *testing.T) {
	s := newScript(t, "a:1", "b:1", "c:1")
	s.expect(s.c.start(), "dial a:1")
	s.c.linkUp(up("a:1", 1))
	first := gave("session", nil)
	first.Configuration, first.Members = 1, membersAt(1, 2, 3)
	s.attached(first)
	s.wantPlaces("at first", "abc")
	s.expect(s.c.attached(news(10, 1, 3, 4)))
	s.wantPlaces("2 replaced by 4", "acd")
	s.expect(s.c.attached(news(9, 1, 2, 3)))
	s.wantPlaces("after older news", "acd")
	s.c.attached(news(20, 1, 4, 5))
	s.c.attached(news(30, 4, 5, 6))
	s.wantPlaces("all replaced", "def")
	s.submit(put(1))
	s.expect(s.c.linkDown(down("a:1")), "dial e:1")
	s.expect(s.c.linkDown(down("e:1")), "dial f:1")
	s.c.linkUp(up("f:1", 6))
	if line := s.line(s.attached(gave("other", nil))[0]); !strings.HasPrefix(line, "node/6 other write 1") {
		t.Errorf("the write goes on as %s", line)
	}
	s.c.attached(news(40, 6))
	s.wantPlaces("one is left", "f")
	if n := len(s.c.links.learned); n != 1 {
		t.Errorf("%d addresses are remembered", n)
	}
}

func TestEndpointsOfRemovedMembersAreTheLastResort(t *testing.T) {
	s := newScript(t, "a:1", "b:1")
	s.expect(s.c.start(), "dial a:1")
	s.c.linkUp(up("a:1", 1))
	first := gave("session", nil)
	first.Configuration, first.Members = 1, membersAt(1, 2)
	s.attached(first)
	s.c.attached(news(2, 2))
	s.wantPlaces("1 is removed", "b")
	s.submit(put(1))
	s.expect(s.c.linkDown(down("a:1")), "dial b:1")
	s.expect(s.c.linkDown(down("b:1")))
	s.c.now = s.c.links.endpoints[0].retryAt // b is not tried before either
	s.c.links.endpoints[1].retryAt = s.c.now + 1
	s.expect(s.c.tick(0), "dial a:1")
}

func TestAnAliasOfAMemberStays(t *testing.T) {
	s := newScript(t, "alias:1", "z:1")
	s.expect(s.c.start(), "dial alias:1")
	s.c.linkUp(up("alias:1", 1))
	first := gave("session", nil)
	first.Configuration, first.Members = 1, membersAt(1, 2)
	s.attached(first)
	s.wantPlaces("an alias of 1, and one that was never reached", "aliaszab")
	s.c.attached(news(2, 2))
	s.wantPlaces("1 is removed", "zb")
}

func TestAPinnedClientLearnsNoMembers(t *testing.T) {
	s := &script{t, newCore(settings{endpoints: []string{"a:1"}, pinned: true, sessionTTLMs: 60_000})}
	s.serve("a:1", nil)
	s.c.attached(news(1, 1, 2, 3))
	s.wantPlaces("pinned", "a")
	s.c.linkDown(down("a:1"))
	if effects := s.submit(statusOf(1)); slices.Contains(effects, effect(dial{"b:1"})) {
		t.Error("a pinned client went elsewhere")
	}
}

// Without any member that it could go to, a client tries what it was told at first.
func TestWithoutPlacesTheEndpointsAreTried(t *testing.T) {
	s := newScript(t, "a:1")
	s.serve("a:1", nil)
	s.c.links.members = map[uint64]bool{}
	s.c.links.endpoints[0].gone = true
	s.wantPlaces("nothing is left", "a")
}
