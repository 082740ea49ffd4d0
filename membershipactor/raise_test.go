package membershipactor

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// chamber is a node that has a level raised, and what it does.
type chamber struct {
	raises
}

var operator = asker{"client/1", "desk"}

func newChamber() *chamber {
	c := &chamber{raises: raises{self: 1, supports: 2, round: 70}}
	c.onView(viewOf(1, 2, 1, 2, 3))
	return c
}

func viewOf(level uint32, leader messages.RaftID, ids ...messages.RaftID) View {
	v := View{Level: level, Leader: leader, Term: 1}
	for _, id := range ids {
		v.Members = append(v.Members, &messages.Member{RaftId: id, Name: fmt.Sprintf("n%d", id)})
	}
	return v
}

func (c *chamber) request(number uint64, level uint32) {
	c.onRequest(operator, &messages.ClusterRequest{Request: number, Kind: &messages.ClusterRequest_LevelRaise{LevelRaise: &messages.LevelRaise{Level: level}}})
}

func (c *chamber) hear(from messages.RaftID, highest uint32) {
	c.onAnswer(from, &messages.LevelAnswer{Round: c.round, Min: 1, Max: highest})
}

// says is what was done since the last call, a word for each effect.
func (c *chamber) says() string {
	var words []string
	for _, e := range c.take() {
		switch e := e.(type) {
		case askLevel:
			words = append(words, fmt.Sprintf("ask n%d", e.peer))
		case propose:
			command := new(messages.Command)
			if err := proto.Unmarshal(e.command, command); err != nil || len(command.Session) > 0 || len(command.Operations) != 1 {
				panic("a raise is alone in a command of nobody")
			}
			raise := command.Operations[0].GetRaiseLevel()
			words = append(words, fmt.Sprintf("propose %d>%d %v to n%d", raise.From, raise.To, raise.Members, e.leader))
		case answer:
			words = append(words, fmt.Sprintf("answer #%d %s level %d>%d %s", e.reply.Request, e.reply.Code, e.reply.LevelBefore, e.reply.Level, e.reply.Message))
		}
	}
	return strings.TrimSpace(strings.Join(words, "; "))
}

func TestRaise(t *testing.T) {
	for _, row := range []struct {
		name string
		do   func(*chamber)
		want string // what is said in the end, behind the first questions
	}{
		{"all support it", func(c *chamber) { c.request(5, 2); c.says(); c.hear(2, 2); c.hear(3, 2) }, "propose 1>2 [1 2 3] to n2"},
		{"the newest is meant", func(c *chamber) { c.request(5, 0); c.says(); c.hear(2, 3); c.hear(3, 2) },
			"answer #5 UNSAFE level 1>1 the cluster's level is not raised to 3: n1 supports levels 1 to 2, n3 supports levels 1 to 2"},
		{"one does not support it", func(c *chamber) { c.request(5, 2); c.says(); c.hear(2, 2); c.hear(3, 1) },
			"answer #5 UNSAFE level 1>1 the cluster's level is not raised to 2: n3 supports level 1 alone"},
		{"one does not answer", func(c *chamber) { c.request(5, 2); c.says(); c.hear(2, 2); c.says(); c.onTick(askGiveUpTicks) },
			"answer #5 UNSAFE level 1>1 the cluster's level is not raised to 2: n3 does not answer"},
		{"neither answers, and the newest is meant", func(c *chamber) { c.request(5, 0); c.says(); c.onTick(askGiveUpTicks) },
			"answer #5 UNSAFE level 1>1 the cluster's level is not raised: n2 does not answer, n3 does not answer"},
		{"who does not answer is asked again", func(c *chamber) { c.request(5, 2); c.says(); c.hear(2, 2); c.onTick(askAgainTicks) }, "ask n3"},
		{"an answer to an earlier round", func(c *chamber) {
			c.request(5, 2)
			c.hear(2, 2)
			c.says()
			c.onAnswer(3, &messages.LevelAnswer{Round: c.round - 1, Min: 1, Max: 2})
		}, ""},
		{"an answer of a stranger", func(c *chamber) { c.request(5, 2); c.says(); c.hear(2, 2); c.hear(9, 2); c.hear(0, 2) }, ""},
		{"it is applied", func(c *chamber) { raised(c); c.onView(viewOf(2, 2, 1, 2, 3)) }, "answer #5 OK level 1>2"},
		{"it is applied, and a member came in the same turn", func(c *chamber) { raised(c); c.onView(viewOf(2, 2, 1, 2, 3, 4)) }, "answer #5 OK level 1>2"},
		{"a member comes meanwhile", func(c *chamber) { raised(c); c.onView(viewOf(1, 2, 1, 2, 3, 4)) },
			"answer #5 CONFLICT level 1>1 level or members of the cluster changed meanwhile; the level is 1"},
		{"a member goes while others are asked", func(c *chamber) { c.request(5, 2); c.says(); c.onView(viewOf(1, 2, 1, 2)) },
			"answer #5 CONFLICT level 1>1 level or members of the cluster changed meanwhile; the level is 1"},
		{"another leads", func(c *chamber) { raised(c); c.onView(viewOf(1, 3, 1, 2, 3)) }, "propose 1>2 [1 2 3] to n3"},
		{"nobody leads, then this node does", func(c *chamber) { raised(c); c.onView(viewOf(1, 0, 1, 2, 3)); c.onView(viewOf(1, 1, 1, 2, 3)) }, "propose 1>2 [1 2 3] to n1"},
		{"the proposal may be lost", func(c *chamber) { raised(c); c.onTick(proposeAgainTicks) }, "propose 1>2 [1 2 3] to n2"},
		{"nobody knows what became of it", func(c *chamber) { raised(c); c.onTick(giveUpTicks) },
			"answer #5 OUTCOME_UNKNOWN level 1>1 the raise was proposed, and is not applied here yet"},
		{"nobody ever led", func(c *chamber) {
			c.onView(viewOf(1, 0, 1, 2, 3))
			raised(c)
			c.onTick(giveUpTicks)
		}, "answer #5 NO_LEADER level 1>1 nobody leads; nothing was proposed"},
		{"the level is there", func(c *chamber) { c.request(5, 1); c.says(); c.hear(2, 1); c.hear(3, 1) }, "answer #5 OK level 1>1"},
		{"back", func(c *chamber) { c.onView(viewOf(2, 2, 1, 2, 3)); c.request(5, 1) }, "answer #5 INVALID level 2>2 the cluster is at level 2, which never goes back to 1"},
		{"the same request again is answered twice", func(c *chamber) { raised(c); c.request(5, 2); c.onView(viewOf(2, 2, 1, 2, 3)) },
			"answer #5 OK level 1>2 ; answer #5 OK level 1>2"},
		{"another request meanwhile", func(c *chamber) { raised(c); c.request(6, 2) }, "answer #6 BUSY level 1>1 this node is starting, or has the level raised for somebody else"},
		{"before the node knows its cluster", func(c *chamber) { c.onView(View{}); c.request(5, 2) }, "answer #5 BUSY level 0>0 this node is starting, or has the level raised for somebody else"},
		{"a request of an unknown kind", func(c *chamber) { c.onRequest(operator, &messages.ClusterRequest{Request: 7}) },
			"answer #7 UNSUPPORTED level 1>1 the request is of a kind this node does not know"},
		{"alone", func(c *chamber) { c.onView(viewOf(1, 1, 1)); c.request(5, 0) }, "propose 1>2 [1] to n1"},
	} {
		c := newChamber()
		row.do(c)
		if got := c.says(); got != row.want {
			t.Errorf("%s: %q, expected %q", row.name, got, row.want)
		}
	}
}

// raised has a raise proposed.
func raised(c *chamber) {
	c.request(5, 2)
	c.hear(2, 2)
	c.hear(3, 2)
	c.says()
}
