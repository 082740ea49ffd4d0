package phrase

import (
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// Line is a message on one line, in the shape of messages.Line. What Line would
// show as bytes is opened: commands, entries, and what raft says.
func (n *Names) Line(m proto.Message) string {
	name := NameOf(m)
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
		words = append(words, levelText(m.Level)...)
	case *messages.LogOpened:
		say("term=%d vote=%s commit=%d base=%d@%d", m.HardState.GetTerm(), n.Replica(m.HardState.GetVote()),
			m.HardState.GetCommit(), m.BaseIndex, m.BaseTerm)
		words = append(words, positions(m.Entries)...)
	case *messages.MachineOpened:
		say("index=%d revision=%d log_time_ms=%d", m.Index, m.Revision, m.LogTimeMs)
		if m.CompactedRevision > 0 {
			say("compacted=%d", m.CompactedRevision)
		}
		words = append(words, levelText(m.Level)...)
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

// levelText is a cluster's level, if it is not the first.
func levelText(level uint32) []string {
	if level <= messages.LevelMin {
		return nil
	}
	return []string{fmt.Sprintf("level=%d", level)}
}

func operationText(o *messages.Operation) string {
	switch o := o.Kind.(type) {
	case *messages.Operation_Put:
		return fmt.Sprintf("put %s=%s", o.Put.Key, legible(o.Put.Value))
	case *messages.Operation_Delete:
		return fmt.Sprintf("delete %s", o.Delete.Key)
	case *messages.Operation_Compact:
		return fmt.Sprintf("compact %d", o.Compact.Revision)
	case *messages.Operation_NoteBackup:
		return fmt.Sprintf("note backup %s version %d", o.NoteBackup.GetJob().GetName(), o.NoteBackup.GetJob().GetVersion())
	case *messages.Operation_SetAuth:
		return fmt.Sprintf("set auth version %d, enabled %v, %d users", o.SetAuth.GetAuth().GetVersion(), o.SetAuth.GetAuth().GetEnabled(), len(o.SetAuth.GetAuth().GetUsers()))
	case *messages.Operation_WriteInvitations:
		return fmt.Sprintf("write invitations version %d, %d removed, put %q", o.WriteInvitations.GetVersion(), len(o.WriteInvitations.GetRemove()), o.WriteInvitations.GetPut().GetNode())
	case *messages.Operation_RaiseLevel:
		return fmt.Sprintf("raise level %d to %d", o.RaiseLevel.From, o.RaiseLevel.To)
	default:
		return fmt.Sprintf("%T", o)
	}
}

// legible is a value as text, cut short.
func legible(value []byte) string {
	const most = 60 // bytes
	quoted := strconv.Quote(string(value[:min(len(value), most)]))
	return quoted[1 : len(quoted)-1]
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
	if o.Unopened {
		words = append(words, "unopened")
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
