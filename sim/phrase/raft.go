package phrase

import (
	"fmt"
	"strings"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// ofPeer is what one replica says to another.
func (n *Names) ofPeer(m *raftpb.Message) []string {
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
func (n *Names) ofAppend(m *raftpb.Message) []string {
	var words []string
	if m.Term != nil && m.GetTerm() > 0 {
		words = append(words, fmt.Sprintf("term=%d vote=%s commit=%d", m.GetTerm(), n.Replica(m.GetVote()), m.GetCommit()))
	}
	words = append(words, appendedSnapshot(m)...)
	words = append(words, n.entries(m.GetEntries())...)
	for _, r := range m.GetResponses() {
		if r.GetType() != raftpb.MsgStorageAppendResp {
			words = append(words, fmt.Sprintf("then %s to %s", r.GetType(), n.Replica(r.GetTo())))
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

func (n *Names) entries(entries []*raftpb.Entry) []string {
	var words []string
	for _, e := range entries {
		words = append(words, fmt.Sprintf("%d@%d[%s]", e.GetIndex(), e.GetTerm(), strings.Join(n.content(e), "; ")))
	}
	return words
}

// content is what an entry wants done; nothing in a new leader's first.
func (n *Names) content(e *raftpb.Entry) []string {
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

func (n *Names) command(data []byte) []string {
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
