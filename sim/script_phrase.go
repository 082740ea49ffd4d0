package sim

import (
	"fmt"
	"strings"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// names calls what is random in a scenario by names that mean something.
type names struct {
	of    map[string]string // by identity
	count map[string]int    // identities of a kind, by whose they are
}

func newNames() *names { return &names{of: map[string]string{}, count: map[string]int{}} }

// give names an identity after its owner: n1.1, and n1.2 after it was wiped.
func (n *names) give(owner string, id []byte) {
	if _, known := n.of[string(id)]; !known && len(id) > 0 {
		n.count[owner]++
		n.of[string(id)] = fmt.Sprintf("%s.%d", owner, n.count[owner])
	}
}

func (n *names) data(machine string, incarnation []byte) { n.give(machine, incarnation) }

// learn takes identities from the messages that bring them first.
func (n *names) learn(from string, m proto.Message) {
	switch m := m.(type) {
	case *messages.Attach:
		n.give(machineOf(from), m.Client)
	case *messages.Founded:
		n.give("id", m.ClusterId)
	case *messages.MembersChanged:
		n.give("id", m.ClusterId)
	}
}

func (n *names) id(id []byte) string {
	if name, known := n.of[string(id)]; known {
		return name
	}
	return fmt.Sprintf("%.4x", id)
}

// inText puts names in the place of identities that stand in a text as hex.
func (n *names) inText(text string) string {
	for id, name := range n.of {
		text = strings.ReplaceAll(text, fmt.Sprintf("%x", id), name)
	}
	return text
}

// nameOfMessage is a message's own name; of one of raft's, what raft calls it.
// Heartbeats that carry a read are none.
func nameOfMessage(m proto.Message) string {
	peer, ok := m.(*messages.RaftMessage)
	if !ok {
		return string(m.ProtoReflect().Descriptor().Name())
	}
	name := peer.Message.GetType().String()
	if noise[name] && len(peer.Message.GetContext()) > 0 {
		return name + "(read)"
	}
	return name
}

// actorName is an actor as the conversation names it: "n1 session-1", and "c" for
// the one actor of a client.
func actorName(speaker string) string {
	machine, id, named := strings.Cut(speaker, " ")
	switch {
	case !named:
		return "network"
	case strings.HasPrefix(id, messages.ActorNode):
		return machine + " " + id[strings.LastIndexByte(id, '/')+1:]
	}
	return machine
}

// kinds are the actors that a filter can name.
var kinds = []string{"client", "gateway", "session", "raft", "log", "machine", "checkpoint", "reader", "membership", "snapshots", "intake", "archive", "audit", "reclaim", "founding", "transport", "ticker", "node", "network"}

// kindOf is what a filter calls an actor: "session", and "client" for a client.
func kindOf(speaker string) string {
	name := actorName(speaker)
	_, actor, ofNode := strings.Cut(name, " ")
	switch {
	case name == "network":
		return name
	case !ofNode:
		return "client"
	}
	kind, _, _ := strings.Cut(actor, "-")
	return kind
}

// phrase is a message on one line, in the shape of messages.Line. What Line would
// show as bytes is opened: commands, entries, and what raft says.
func (n *names) phrase(m proto.Message) string {
	name := nameOfMessage(m)
	var words []string
	say := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	switch m := m.(type) {
	case *messages.RaftMessage:
		words = n.ofPeer(m.Message)
	case *messages.Append:
		words = n.ofAppend(m.Message)
	case *messages.Appended:
		words = append(appendedSnapshot(m.Message), positions(m.Message.GetEntries())...)
	case *messages.Apply:
		words = n.entries(m.Message.GetEntries())
	case *messages.Applied:
		say("index=%d revision=%d", m.Index, m.Revision)
		if m.CompactedRevision > 0 {
			say("compacted=%d", m.CompactedRevision)
		}
	case *messages.LogOpened:
		say("term=%d vote=%s commit=%d base=%d@%d", m.HardState.GetTerm(), replicaName(m.HardState.GetVote()),
			m.HardState.GetCommit(), m.BaseIndex, m.BaseTerm)
		words = append(words, positions(m.Entries)...)
	case *messages.MachineOpened:
		say("index=%d revision=%d log_time_ms=%d", m.Index, m.Revision, m.LogTimeMs)
		if m.CompactedRevision > 0 {
			say("compacted=%d", m.CompactedRevision)
		}
	case *messages.Write:
		words = n.command(m.Command)
	case *messages.Propose:
		words = n.command(m.Command)
	case *messages.Read:
		words = readText(m)
	case *messages.ReadIndex:
		words = readIndexText(m)
	case *messages.ReadAt:
		if m.Index > 0 {
			say("index=%d", m.Index)
		}
		for _, r := range m.Reads {
			words = append(words, readIndexText(r)...)
		}
		if m.Revision > 0 {
			say("revision=%d", m.Revision)
		}
	case *messages.Outcomes:
		for _, o := range m.Outcomes {
			say("%s#%d", n.id(o.Client), o.Outcome.Seq)
			words = append(words, outcome(o.Outcome)...)
		}
	case *messages.Outcome:
		say("#%d", m.Seq)
		words = append(words, outcome(m)...)
	case *messages.WriteCheckpoint:
		c := m.Checkpoint
		say("index=%d revision=%d log_time_ms=%d sessions=%d", c.Index, c.Revision, c.LogTimeMs, len(c.Sessions))
	default:
		return n.phraseOfClients(name, m)
	}
	return name + "{" + strings.Join(words, " ") + "}"
}

// phraseOfClients are the messages of clients and of founding.
func (n *names) phraseOfClients(name string, m proto.Message) string {
	var words []string
	say := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	switch m := m.(type) {
	case *messages.Attach:
		say("client=%s", n.id(m.Client))
	case *messages.WriteReply:
		say("#%d", m.Request)
		words = append(words, outcome(&messages.Outcome{Code: m.Code, Revision: m.Revision, Deleted: m.Deleted, More: m.More})...)
		words = append(words, because(m.Message, m.Leader)...)
	case *messages.ReadReply:
		say("#%d", m.Request)
		words = append(words, outcome(&messages.Outcome{Code: m.Code, Revision: m.Revision})...)
		for _, i := range m.Items {
			say("%s=%q of revision %d", i.Key, i.Value, i.Revision)
		}
		if m.Digest != nil {
			say("%s", digestText(m.Digest))
		}
		words = append(words, because(m.Message, m.Leader)...)
	case *messages.Attached:
		say("%s session=%s log_time_ms=%d", m.Code, sessionText(m.Session), m.LogTimeMs)
		words = append(words, because(m.Message, m.Leader)...)
	case *messages.SessionLeader:
		say("%s term=%d", replicaName(m.Leader.GetRaftId()), m.Term)
	case *messages.LeaderChanged:
		say("%s term=%d", replicaName(m.Leader), m.Term)
	case *messages.FounderState:
		if m.Answer {
			say("answer")
		}
		if len(m.ClusterId) > 0 {
			say("cluster=%s", n.id(m.ClusterId))
		}
		words = append(words, n.founders(m.Founders)...)
	case *messages.Founded:
		say("cluster=%s", n.id(m.ClusterId))
		words = append(words, n.founders(m.Founders)...)
	case *messages.Identified:
		say("cluster=%s", n.id(m.ClusterId))
	case *messages.MembersChanged:
		for _, member := range m.Members {
			say("%s", member.Name)
		}
	case *messages.LinkUp:
		say("%s", m.Name)
	case *messages.LinkDown:
		say("%s %s %q", placeName(m.Endpoint), m.Code, m.Message)
	case *messages.ClientGone:
	case *messages.Done:
		return n.answer(m)
	default:
		if words = n.phraseOfSnapshots(m); words == nil {
			return messages.Line(m)
		}
	}
	return name + "{" + strings.Join(words, " ") + "}"
}

// ofPeer is what one replica says to another.
func (n *names) ofPeer(m *raftpb.Message) []string {
	var words []string
	say := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	if m.GetTerm() > 0 {
		say("term=%d", m.GetTerm())
	}
	switch m.GetType() {
	case raftpb.MsgApp:
		say("after=%d@%d", m.GetIndex(), m.GetLogTerm())
		words = append(words, n.entries(m.GetEntries())...)
		say("commit=%d", m.GetCommit())
	case raftpb.MsgPreVote, raftpb.MsgVote:
		say("last=%d@%d", m.GetIndex(), m.GetLogTerm())
	case raftpb.MsgAppResp, raftpb.MsgReadIndexResp:
		say("index=%d", m.GetIndex())
	case raftpb.MsgHeartbeat:
		say("commit=%d", m.GetCommit())
	}
	if m.GetReject() {
		say("reject")
	}
	return words
}

// ofAppend is what the log is to make durable, and who is told then.
func (n *names) ofAppend(m *raftpb.Message) []string {
	var words []string
	if m.Term != nil && m.GetTerm() > 0 {
		words = append(words, fmt.Sprintf("term=%d vote=%s commit=%d", m.GetTerm(), replicaName(m.GetVote()), m.GetCommit()))
	}
	words = append(words, appendedSnapshot(m)...)
	words = append(words, n.entries(m.GetEntries())...)
	for _, r := range m.GetResponses() {
		if r.GetType() != raftpb.MsgStorageAppendResp {
			words = append(words, fmt.Sprintf("then %s to %s", r.GetType(), replicaName(r.GetTo())))
		}
	}
	return words
}

// appendedSnapshot is the snapshot that an append carries, if it does.
func appendedSnapshot(m *raftpb.Message) []string {
	if m.GetSnapshot().GetMetadata().GetIndex() == 0 {
		return nil
	}
	return []string{"snapshot " + snapshotText(m)}
}

func (n *names) entries(entries []*raftpb.Entry) []string {
	var words []string
	for _, e := range entries {
		words = append(words, fmt.Sprintf("%d@%d[%s]", e.GetIndex(), e.GetTerm(), strings.Join(n.content(e), "; ")))
	}
	return words
}

// content is what an entry wants done; nothing in a new leader's first.
func (n *names) content(e *raftpb.Entry) []string {
	commands := new(messages.Commands)
	if err := proto.Unmarshal(e.GetData(), commands); err != nil {
		return []string{err.Error()}
	}
	var each []string
	for _, p := range commands.Proposals {
		each = append(each, strings.Join(n.command(p.Command), " "))
	}
	return each
}

// positions are entries as index@term, the first and the last of many.
func positions(entries []*raftpb.Entry) []string {
	if len(entries) == 0 {
		return nil
	}
	first, last := entries[0], entries[len(entries)-1]
	if first == last {
		return []string{fmt.Sprintf("%d@%d", first.GetIndex(), first.GetTerm())}
	}
	return []string{fmt.Sprintf("%d@%d to %d@%d", first.GetIndex(), first.GetTerm(), last.GetIndex(), last.GetTerm())}
}

func (n *names) command(data []byte) []string {
	c := new(messages.Command)
	if err := proto.Unmarshal(data, c); err != nil {
		return []string{err.Error()}
	}
	words := []string{fmt.Sprintf("%s#%d", n.id(c.Session), c.Seq)}
	if c.Open != nil {
		words = append(words, "open")
	}
	for _, o := range c.Operations {
		words = append(words, operationText(o))
	}
	return words
}

func operationText(o *messages.Operation) string {
	switch o := o.Kind.(type) {
	case *messages.Operation_Put:
		return fmt.Sprintf("put %s=%s", o.Put.Key, o.Put.Value)
	case *messages.Operation_Delete:
		return fmt.Sprintf("delete %s", o.Delete.Key)
	case *messages.Operation_Compact:
		return fmt.Sprintf("compact %d", o.Compact.Revision)
	default:
		return fmt.Sprintf("%T", o)
	}
}

func readText(r *messages.Read) []string {
	words := []string{fmt.Sprintf("#%d", r.Request)}
	if get := r.GetGet(); get != nil {
		words = append(words, fmt.Sprintf("get %s", get.Key))
	}
	if d := r.GetDigest(); d != nil {
		words = append(words, "digest "+rangeText(d.From, d.To))
	}
	if r.Revision > 0 {
		words = append(words, fmt.Sprintf("of revision %d", r.Revision))
	}
	if r.Consistency == messages.Consistency_STALE {
		words = append(words, "stale")
	}
	return words
}

func readIndexText(r *messages.ReadIndex) []string {
	words := readText(r.Read)
	words[0] = sessionText(r.Session) + words[0]
	return words
}

func sessionText(actorID string) string {
	return strings.TrimPrefix(actorID, messages.ActorGateway+"/")
}

func outcome(o *messages.Outcome) []string {
	words := []string{o.Code.String()}
	if o.Revision > 0 {
		words = append(words, fmt.Sprintf("revision=%d", o.Revision))
	}
	if o.Deleted > 0 {
		words = append(words, fmt.Sprintf("deleted=%d", o.Deleted))
	}
	if o.FailedCondition > 0 {
		words = append(words, fmt.Sprintf("failed=%d", o.FailedCondition))
	}
	return words
}

func because(message string, leader *messages.Leader) []string {
	var words []string
	if message != "" {
		words = append(words, fmt.Sprintf("%q", message))
	}
	if leader != nil {
		words = append(words, "leader="+leader.Name)
	}
	return words
}

// founders are those whose incarnation is known, and ? for the others.
func (n *names) founders(founders []*messages.Founder) []string {
	var words []string
	for _, f := range founders {
		if len(f.Incarnation) == 0 {
			words = append(words, f.Name+".?")
		} else {
			words = append(words, n.id(f.Incarnation))
		}
	}
	return words
}

// answer is what a client was told in the end.
func (n *names) answer(d *messages.Done) string {
	var words []string
	switch {
	case d.Write != nil:
		words = outcome(&messages.Outcome{Code: d.Write.Code, Revision: d.Write.Revision, Deleted: d.Write.Deleted, FailedCondition: d.Write.FailedCondition})
		words = append(words, because(d.Write.Message, nil)...)
	case d.Read != nil:
		words = append(words, d.Read.Code.String())
		for _, i := range d.Read.Items {
			words = append(words, fmt.Sprintf("%q of revision %d,", i.Value, i.Revision))
		}
		if d.Read.Revision > 0 {
			words = append(words, fmt.Sprintf("read at revision %d", d.Read.Revision))
		}
		words = append(words, because(d.Read.Message, nil)...)
	case d.Snapshot != nil:
		words = snapshotAnswer(d.Snapshot)
	}
	if d.Endpoint != "" {
		words = append(words, "by "+placeName(d.Endpoint))
	}
	return strings.Join(words, " ")
}

func replicaName(id messages.RaftID) string {
	if id == 0 {
		return "nobody"
	}
	return nameOf(int(id) - 1)
}

// placeName is the node at an address of the simulated network.
func placeName(endpoint string) string {
	var node, port int
	if _, err := fmt.Sscanf(endpoint, "10.0.0.%d:%d", &node, &port); err != nil {
		return endpoint
	}
	return nameOf(node - 1)
}
