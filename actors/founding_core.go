package actors

import (
	"bytes"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/mutant"
)

// foundingAskTicks is how often a founder tells the others its state until all have
// founded the cluster.
const foundingAskTicks = 4

// founding is how the first nodes agree that they are one cluster. The danger is a
// founder whose directory was emptied: if it could found again, what it acknowledged
// would be lost. So every founder makes a random incarnation durable before it sends
// anything, and a cluster is made of incarnations: its id is the hash of them.
//
// Founding has two steps. When all founders say that they know the same incarnations,
// each initialises its directory. When all say that they have, each makes durable that
// it is founded, and takes part. So nobody takes part before all are initialised: a
// founder without data that meets one which takes part has lost them, and is refused.
// Until then a founder that was emptied is heard under its new incarnation, and the
// others initialise their directories anew.
//
// Invariant: a directory is initialised anew only when all founders have told this one
// the same new incarnations, and a founder that takes part never does.
type founding struct {
	self     messages.RaftID
	token    string
	founders []*messages.Founder // those of the identity, with the incarnations heard last

	heard       map[messages.RaftID]*messages.FounderState // of the others, the last
	agreed      []byte                                     // what the directory is being initialised as
	initialised []byte                                     // what it is initialised as; nil: it is not
	founded     bool                                       // this node takes part
	ticks       uint32                                     // since the others were told
	refused     map[messages.RaftID]int                    // times in a row that a node refused the connection, with CONFLICT
}

type (
	// tellFounder sends this node's state to another.
	tellFounder struct {
		To    messages.RaftID
		State *messages.FounderState
	}
	// agreed: the directory is to be initialised. It is answered with onInitialised.
	agreed struct{ *messages.Agreed }
	// founded: the node may take part.
	founded struct{ *messages.Founded }
	// cannotFound ends the process: the founders do not fit together.
	cannotFound struct{ *messages.Error }
)

// newFounding starts from an identity, and from the checkpoint of a directory that is
// initialised.
//
// level is the highest that this node understands. The founders begin at the highest that
// all do: their levels are part of what the cluster's id is made of, as incarnations are.
func newFounding(self messages.RaftID, level uint32, identity *messages.Identity, checkpoint *messages.Checkpoint) *founding {
	f := &founding{
		self: self, refused: map[messages.RaftID]int{}, token: identity.Token, heard: map[messages.RaftID]*messages.FounderState{},
		initialised: checkpoint.GetClusterId(), founded: len(identity.ClusterId) > 0,
	}
	known := identity.Founders
	if f.founded {
		known = checkpoint.GetFounders()
	}
	for _, founder := range known {
		founder = proto.Clone(founder).(*messages.Founder)
		if founder.RaftId == self && !f.founded {
			founder.Incarnation, founder.Level = identity.Incarnation, level
		}
		f.founders = append(f.founders, founder)
	}
	return f
}

// waitingFor says what keeps the cluster from being founded; empty: nothing does.
func (f *founding) waitingFor() string {
	if f.founded {
		return ""
	}
	var missing, others []string
	for _, founder := range f.founders {
		m := f.heard[founder.RaftId]
		switch {
		case founder.RaftId == f.self:
		case m == nil:
			missing = append(missing, fmt.Sprintf("%s (%s)", founder.Name, founder.Address))
		case f.differs(m):
			others = append(others, fmt.Sprintf("%s lists other founders: %s; this node lists %s", founder.Name, foundersText(m.Founders), foundersText(f.founders)))
		}
	}
	if len(others) > 0 {
		return strings.Join(others, "; ")
	}
	return strings.Join(missing, ", ")
}

// onTick tells every other founder this node's state, also one that is known: it may
// have lost its directory since.
func (f *founding) onTick(elapsed uint32) []any {
	if f.founded {
		return nil
	}
	out := f.step()
	if f.ticks += elapsed; f.ticks >= foundingAskTicks {
		f.ticks = 0
		out = append(out, f.tellAll(false)...)
	}
	return out
}

func (f *founding) tellAll(isAnswer bool) []any {
	var out []any
	for _, founder := range f.founders {
		if founder.RaftId != f.self {
			out = append(out, tellFounder{founder.RaftId, f.state(isAnswer)})
		}
	}
	return out
}

// refusalsMax is how often in a row a node may refuse the connection of a founder. One that
// belongs to a cluster from now on does that once, to be heard as what it is now.
const refusalsMax = 3

// onRefused takes the word of a node that it is not the founder that this one's list says:
// it has another RaftID in its own cluster, or is another node's.
func (f *founding) onRefused(from messages.RaftID) []any {
	if f.refused[from]++; f.founded || f.refused[from] < refusalsMax {
		return nil
	}
	return []any{cannotFound{messages.Errorf(messages.Code_CONFLICT, "%s at %s says that it is no founder of this list: %s", f.name(from), f.addressOf(from), foundersText(f.founders)).
		WithHint("see what it is with kvctl status --endpoints %s; to join its cluster start with --join %s on an empty directory", f.addressOf(from), f.addressOf(from))}}
}

// onState handles the state of another founder. The link has verified who sent it.
func (f *founding) onState(from messages.RaftID, m *messages.FounderState) []any {
	if f.founded {
		return f.answer(from, m)
	}
	f.refused[from] = 0
	f.heard[from] = m
	switch {
	case m.Token != f.token:
		return append(f.answer(from, m), cannotFound{messages.Errorf(messages.Code_CONFLICT, "%s was started with another --cluster-token", f.name(from)).
			WithHint("start all founders with the same --cluster-token and --initial-cluster")})
	case f.differs(m) && m.Founded:
		return []any{cannotFound{messages.Errorf(messages.Code_CONFLICT, "%s belongs to cluster %x already, whose founders are %s: this node lists %s",
			f.name(from), m.ClusterId, foundersText(m.Founders), foundersText(f.founders)).
			WithHint("to join that cluster start with --join %s on an empty directory; for a new one list nodes that belong to none", f.addressOf(from))}}
	case f.differs(m):
		return append(f.answer(from, m), f.outvoted()...)
	case m.Founded:
		return f.meetCluster(from, m)
	case f.learn(from, m):
		return append(f.tellAll(true), f.step()...)
	}
	return append(f.answer(from, m), f.step()...)
}

func (f *founding) answer(to messages.RaftID, m *messages.FounderState) []any {
	if m.Answer {
		return nil
	}
	return []any{tellFounder{to, f.state(true)}}
}

// onInitialised takes the answer to agreed. The others wait for it.
func (f *founding) onInitialised(m *messages.Initialised) []any {
	f.initialised = m.ClusterId
	return append(f.tellAll(true), f.step()...)
}

func (f *founding) state(isAnswer bool) *messages.FounderState {
	s := &messages.FounderState{Answer: isAnswer, RaftId: f.self, Token: f.token, ClusterId: f.initialised, Founded: f.founded}
	for _, founder := range f.founders {
		s.Founders = append(s.Founders, proto.Clone(founder).(*messages.Founder))
	}
	return s
}

func (f *founding) differs(m *messages.FounderState) bool {
	return len(f.founders) != len(m.Founders) || foundersText(f.founders) != foundersText(m.Founders)
}

// outvoted ends the node whose list is not that of most founders: it is the one to be
// started anew. The others wait for it.
func (f *founding) outvoted() []any {
	var names []string
	list := ""
	for _, founder := range f.founders {
		if m := f.heard[founder.RaftId]; m != nil && f.differs(m) {
			names, list = append(names, founder.Name), foundersText(m.Founders)
		}
	}
	if 2*len(names) < len(f.founders) {
		return nil
	}
	return []any{cannotFound{messages.Errorf(messages.Code_CONFLICT, "this node lists other founders than %s: it lists %s, and they %s",
		strings.Join(names, " and "), foundersText(f.founders), list).
		WithHint("start all founders with the same --initial-cluster, each on an empty directory")}}
}

func foundersText(founders []*messages.Founder) string {
	var parts []string
	for _, founder := range founders {
		parts = append(parts, founder.Name+"="+founder.Address)
	}
	return strings.Join(parts, ",")
}

func (f *founding) addressOf(id messages.RaftID) string {
	for _, founder := range f.founders {
		if founder.RaftId == id {
			return founder.Address
		}
	}
	return ""
}

func (f *founding) name(id messages.RaftID) string {
	for _, founder := range f.founders {
		if founder.RaftId == id {
			return founder.Name
		}
	}
	return fmt.Sprintf("replica %d", id)
}

// learn takes the incarnation and the level that another founder says it has. It reports
// whether that is news.
func (f *founding) learn(from messages.RaftID, m *messages.FounderState) (news bool) {
	for i, theirs := range m.Founders {
		ours := f.founders[i]
		if theirs.RaftId != from || ours.RaftId != from || len(theirs.Incarnation) != messages.IncarnationSize {
			continue
		}
		if !bytes.Equal(ours.Incarnation, theirs.Incarnation) || ours.Level != theirs.Level {
			ours.Incarnation, ours.Level, news = theirs.Incarnation, theirs.Level, true
		}
	}
	return news
}

// meetCluster handles a founder that takes part already.
func (f *founding) meetCluster(from messages.RaftID, m *messages.FounderState) []any {
	refuse := func(code messages.Code, hint, format string, args ...any) []any {
		return []any{cannotFound{messages.Errorf(code, format, args...).WithHint("%s", hint)}}
	}
	if !bytes.Equal(messages.ClusterID(m.Token, m.Founders), m.ClusterId) {
		return refuse(messages.Code_CONFLICT, "compare `kvctl status --json` of all nodes", "%s is initialised as cluster %x, which its founders do not make", f.name(from), m.ClusterId)
	}
	if bytes.Equal(m.ClusterId, f.initialised) {
		f.founders = m.Founders // since its start this node may not have heard them all
		return f.found()
	}
	for i, theirs := range m.Founders {
		ours := f.founders[i]
		if ours.RaftId == f.self && bytes.Equal(theirs.Incarnation, ours.Incarnation) {
			return refuse(messages.Code_DAMAGED, "this node must not vote: keep its directory for inspection; the other nodes serve on without it",
				"cluster %x counts on the data of this directory, which are gone: %s took part in it", m.ClusterId, ours.Name)
		}
	}
	if mutant.WipedAdopted { // it votes with an empty log
		f.founders, f.agreed = m.Founders, m.ClusterId
		return []any{agreed{&messages.Agreed{ClusterId: m.ClusterId, Founders: m.Founders}}}
	}
	return refuse(messages.Code_CONFLICT, fmt.Sprintf("start it on its old data directory; if that is lost: kvctl cluster replace %[1]s %[1]s %[2]s, then serve --join on an empty directory", f.name(f.self), f.addressOf(f.self)),
		"cluster %x knows %s with other data: this directory is empty, but %s is a member already", m.ClusterId, f.name(f.self), f.name(f.self))
}

// step does what the states of all founders allow.
func (f *founding) step() []any {
	cluster := f.clusterOf(f.founders)
	if cluster == nil {
		return nil
	}
	initialised := true
	for _, founder := range f.founders {
		if founder.RaftId == f.self {
			continue
		}
		m := f.heard[founder.RaftId]
		if m == nil || f.differs(m) || !bytes.Equal(f.clusterOf(m.Founders), cluster) {
			return nil
		}
		initialised = initialised && bytes.Equal(m.ClusterId, cluster)
	}
	switch {
	case !bytes.Equal(f.initialised, cluster) && bytes.Equal(f.agreed, cluster): // it is under way
	case !bytes.Equal(f.initialised, cluster):
		f.agreed = cluster
		return []any{agreed{&messages.Agreed{ClusterId: cluster, Founders: f.state(false).Founders}}}
	case initialised:
		return f.found()
	}
	return nil
}

// clusterOf is the id of the cluster that these founders make; nil while an
// incarnation or a level is unknown.
func (f *founding) clusterOf(founders []*messages.Founder) []byte {
	for _, founder := range founders {
		if len(founder.Incarnation) == 0 || founder.Level == 0 {
			return nil
		}
	}
	return messages.ClusterID(f.token, founders)
}

func (f *founding) found() []any {
	f.founded = true
	return append([]any{founded{&messages.Founded{ClusterId: f.initialised}}}, f.tellAll(true)...)
}
