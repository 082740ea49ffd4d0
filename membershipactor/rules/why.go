package rules

import (
	"fmt"
	"strings"
	"time"
)

// Kind is a kind of reason for which an operation waits; messages.WaitReason has the same numbers.
type Kind int

const (
	Nothing       Kind = iota
	Unsettled          // the leader is new, or the members changed just now
	NoQuorum           // nothing can be committed; Node: whose return would make a quorum
	Refused            // Node is not let in, for the reason Other
	NotJoined          // Node was not heard since it was added
	Unreachable        // Node is silent, for Count ms
	Snapshot           // Node gets one: Count of about Total bytes
	Lag                // Node lacks Count entries; for about Total ms, 0: not known
	Slow               // Node answers and takes nothing, for Count ms, of Total entries
	Steady             // Node is close for Count of Total ms
	AnotherChange      // Other is changing the members
	Transferring       // the lead goes to Node
	NobodyToLead       // no voter that stays could take the lead from Node
	TooFewAfter        // Count live voters would be left of Total that are needed; Node: whose return helps
	Behind             // voters that decide behind the change lag: Node
	Writing            // the next step is proposed, and not applied yet
)

// Why is the reason for which an operation does not go on. It is a value, so that programs
// and people hear the same.
type Why struct {
	Kind         Kind
	Node         string // a name, or several in words
	Address      string // of Node
	Other        string // the id of another operation; of Refused, the reason
	Endpoints    []string
	Count, Total uint64
}

// String says it in a clause, for people.
func (w Why) String() string {
	switch w.Kind {
	case Unsettled:
		return "the leader has not applied an entry of its own behind the last change yet"
	case NoQuorum:
		return fmt.Sprintf("no quorum is in contact; the return of %s would make one", w.Node)
	case Refused:
		return fmt.Sprintf("%s is not let in: %s", w.Node, w.Other)
	case NotJoined:
		return fmt.Sprintf("%s has not joined yet", w.Node)
	case Unreachable:
		return fmt.Sprintf("%s at %s is out of contact since %v", w.Node, w.Address, milliseconds(w.Count))
	case Snapshot:
		if w.Total == 0 {
			return fmt.Sprintf("%s gets a snapshot", w.Node)
		}
		return fmt.Sprintf("%s gets a snapshot, %d %% of it so far", w.Node, min(100, w.Count*100/w.Total))
	case Lag:
		if w.Total == 0 {
			return fmt.Sprintf("%s lacks %d entries", w.Node, w.Count)
		}
		return fmt.Sprintf("%s lacks %d entries, for about %v", w.Node, w.Count, milliseconds(w.Total))
	case Slow:
		return fmt.Sprintf("%s answers, but has taken none of %d entries for %v: its disk may be slow or full", w.Node, w.Total, milliseconds(w.Count))
	case Steady:
		return fmt.Sprintf("%s has caught up for %v, %v are wanted", w.Node, milliseconds(w.Count), milliseconds(w.Total))
	case AnotherChange:
		return cond(w.Other == "", "another change of the members ends first", fmt.Sprintf("operation %s changes the members first", w.Other))
	case Transferring:
		return fmt.Sprintf("the lead goes to %s", w.Node)
	case NobodyToLead:
		return fmt.Sprintf("%s leads, and no other voter that stays is close enough behind to take the lead", w.Node)
	case TooFewAfter:
		return fmt.Sprintf("%d voters in contact would be left, %d are needed; the return of %s would help", w.Count, w.Total, w.Node)
	case Behind:
		return fmt.Sprintf("%s has to catch up first", w.Node)
	case Writing:
		return "the next step is being written to the log"
	}
	return ""
}

// Hint is what somebody can do about it; empty: wait.
func (w Why) Hint() string {
	switch w.Kind {
	case NotJoined:
		return fmt.Sprintf("start it: kvctl serve --join %s --name %s --listen %s --data DIR", strings.Join(w.Endpoints, ","), w.Node, w.Address)
	case Refused:
		return fmt.Sprintf("start %s with the version that the members run", w.Node)
	case Unreachable, NoQuorum, TooFewAfter:
		return "start " + w.Node + ", or look at the network between"
	case Slow:
		return "look at the disk of " + w.Node
	case AnotherChange:
		return cond(w.Other == "", "", "follow it: kvctl ops follow "+w.Other)
	}
	return ""
}

func milliseconds(n uint64) time.Duration { return time.Duration(n) * time.Millisecond }
