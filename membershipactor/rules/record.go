package rules

import (
	"bytes"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/mutant"
)

// Bounds of the records of operations. As all of this package that a machine asks, they are
// part of what the log means.
const (
	// OperationsMax bounds the operations that are under way, in number.
	OperationsMax = 16
	// EndedMax bounds those that have ended and are kept, in number, and EndedMaxMS for how
	// long they are, in log time: 7 days.
	EndedMax   = 64
	EndedMaxMS = 7 * 24 * 60 * 60 * 1000
	// ErrorSizeMax bounds ClusterOperation.error, in bytes.
	ErrorSizeMax = 1024
)

// Ended reports whether an operation has come to its end.
func Ended(o *messages.ClusterOperation) bool {
	return o.GetPhase() == messages.OperationPhase_COMPLETE || o.GetPhase() == messages.OperationPhase_FAILED
}

// Record is the list of operations with this one written, at log time now. It keeps the
// order in which they began; the list that was given stays as it is. Refusals: CONFLICT if
// the record is of another version, has ended, or is about a member that another operation
// is about; BUSY if too many are under way; INVALID for what is no record.
func Record(all []*messages.ClusterOperation, m *messages.RecordOperation, now uint64) ([]*messages.ClusterOperation, *messages.Error) {
	o := m.GetOperation()
	if err := checkRecord(o); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(other *messages.ClusterOperation) bool { return bytes.Equal(other.Id, o.Id) })
	var err *messages.Error
	if i < 0 {
		err = checkFirst(all, o)
	} else {
		err = checkNext(all[i], o)
	}
	if err != nil {
		return nil, err
	}
	o = proto.Clone(o).(*messages.ClusterOperation)
	o.ChangedLogMs = now
	next := slices.Clone(all)
	if i < 0 {
		next = append(next, o)
	} else {
		next[i] = o
	}
	return Forget(next, now), nil
}

// Forget is the list without the ended operations that are too old at log time now, or too
// many: those that began first go first. The list that was given stays as it is.
func Forget(all []*messages.ClusterOperation, now uint64) []*messages.ClusterOperation {
	ended := 0
	for _, o := range all {
		if Ended(o) {
			ended++
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(o *messages.ClusterOperation) bool {
		if !Ended(o) || ended <= EndedMax && now <= KeptUntilMS(o) {
			return false
		}
		ended--
		return true
	})
}

// KeptUntilMS is the last log time at which an ended operation is kept for its age.
func KeptUntilMS(o *messages.ClusterOperation) uint64 {
	return o.GetChangedLogMs() + min(EndedMaxMS, math.MaxUint64-o.GetChangedLogMs())
}

func checkRecord(o *messages.ClusterOperation) *messages.Error {
	_, kind := messages.OperationKind_name[int32(o.GetKind())]
	_, phase := messages.OperationPhase_name[int32(o.GetPhase())]
	_, code := messages.Code_name[int32(o.GetCode())]
	switch {
	case len(o.GetId()) != messages.OperationIDSize:
		return messages.Errorf(messages.Code_INVALID, "the id of an operation has %d bytes, this one %d", messages.OperationIDSize, len(o.GetId()))
	case !kind || o.Kind == messages.OperationKind_OPERATION_UNKNOWN || !phase || o.Phase == messages.OperationPhase_PHASE_NONE || !code:
		return messages.Errorf(messages.Code_INVALID, "an operation of kind %d in phase %d with code %d is none", o.GetKind(), o.GetPhase(), o.GetCode())
	case len(o.Error) > ErrorSizeMax:
		return messages.Errorf(messages.Code_INVALID, "the error of an operation has %d bytes, %d are allowed", len(o.Error), ErrorSizeMax)
	case o.OldNode == "" && o.NewNode == "":
		return messages.Errorf(messages.Code_INVALID, "an operation names the node that it is about")
	}
	for _, name := range []string{o.OldNode, o.NewNode} {
		if name != "" {
			if err := messages.CheckNodeName(name); err != nil {
				return err
			}
		}
	}
	if o.NewAddress != "" {
		return messages.CheckMemberAddress(o.NewAddress)
	}
	return nil
}

// checkFirst says whether an operation may begin.
func checkFirst(all []*messages.ClusterOperation, o *messages.ClusterOperation) *messages.Error {
	if o.Version != 1 {
		return messages.Errorf(messages.Code_CONFLICT, "there is no such operation, and this is version %d of its record", o.Version)
	}
	live := 0
	for _, other := range all {
		if Ended(other) {
			continue
		}
		live++
		if node := shared(o, other); node != "" && !mutant.TwoSagas {
			return messages.Errorf(messages.Code_CONFLICT, "another operation is about %s", node).
				WithHint("wait until it has ended, or abort it")
		}
	}
	if live >= OperationsMax {
		return messages.Errorf(messages.Code_BUSY, "%d operations are under way, as many as may be", live).WithHint("wait until one has ended")
	}
	return nil
}

// checkNext says whether a record may follow that of the same operation.
func checkNext(was, o *messages.ClusterOperation) *messages.Error {
	switch {
	case o.Version != was.Version+1:
		return messages.Errorf(messages.Code_CONFLICT, "the record has version %d, and version %d cannot follow", was.Version, o.Version)
	case Ended(was):
		return messages.Errorf(messages.Code_CONFLICT, "the operation has ended")
	case o.Kind != was.Kind || o.OldNode != was.OldNode || o.NewNode != was.NewNode || o.NewAddress != was.NewAddress || o.StayLearner != was.StayLearner:
		return messages.Errorf(messages.Code_INVALID, "an operation does not become another")
	}
	return nil
}

// shared is the name of a node that both operations are about, or empty.
func shared(a, b *messages.ClusterOperation) string {
	for _, node := range []string{a.OldNode, a.NewNode} {
		if node != "" && (node == b.OldNode || node == b.NewNode) {
			return node
		}
	}
	return ""
}
