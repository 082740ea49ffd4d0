package disk

import (
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// startsKept bounds the marks that a directory keeps, in number. A node that was heard
// longer ago than so many starts cannot be told from an older copy of itself.
const startsKept = 128

// NextStart counts one more start, of this mark.
func NextStart(before *messages.Starts, mark uint64) *messages.Starts {
	next := &messages.Starts{}
	if before != nil {
		next = proto.Clone(before).(*messages.Starts)
	}
	next.Number++
	next.Marks = append(next.Marks, mark)
	next.Marks = next.Marks[max(0, len(next.Marks)-startsKept):]
	return next
}
