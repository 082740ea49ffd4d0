package disk

import (
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// startsKept bounds the marks that a directory keeps, in number. A node that was heard
// longer ago than so many starts cannot be told from an older copy of itself.
const startsKept = 128

// NextStart counts one more start, of this mark, of which the log's witness does not know yet.
func NextStart(before *messages.Starts, mark uint64) *messages.Starts {
	next := &messages.Starts{}
	if before != nil {
		next = proto.Clone(before).(*messages.Starts)
	}
	next.Number++
	next.Witnessed = false
	next.Marks = append(next.Marks, mark)
	next.Marks = next.Marks[max(0, len(next.Marks)-startsKept):]
	return next
}

// MeetStarts reports whether the starts of a generation and the witness of its log are of
// one time. A start is counted before the log's witness counts it, and is marked once it does.
func MeetStarts(starts *messages.Starts, witnessed uint64) error {
	if n := starts.GetNumber(); n == witnessed || n == witnessed+1 && !starts.GetWitnessed() {
		return nil
	}
	return Damaged("log and starts are of different times: %d processes were started on them, and the log's witness counts %d",
		starts.GetNumber(), witnessed)
}
