package state

import (
	"fmt"

	"go.etcd.io/raft/v3/confchange"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// confChange is the configuration change that an entry holds, or nil.
func confChange(e *raftpb.Entry) (*raftpb.ConfChangeV2, error) {
	var change interface {
		proto.Message
		raftpb.ConfChangeI
	}
	switch e.GetType() {
	case raftpb.EntryNormal:
		return nil, nil
	case raftpb.EntryConfChange:
		change = &raftpb.ConfChange{}
	case raftpb.EntryConfChangeV2:
		change = &raftpb.ConfChangeV2{}
	default:
		return nil, messages.Errorf(messages.Code_UNSUPPORTED, "entry %d of the log is of the unknown type %d", e.GetIndex(), e.GetType()).
			WithHint("start a newer version on this data directory")
	}
	if err := proto.Unmarshal(e.GetData(), change); err != nil {
		return nil, messages.Errorf(messages.Code_DAMAGED, "entry %d of the log does not hold a configuration change: %v", e.GetIndex(), err)
	}
	return change.AsV2(), nil
}

// changed is the configuration after change, by raft's own rules. Only what these
// allow is proposed, so anything else is a broken invariant.
func changed(conf *raftpb.ConfState, change *raftpb.ConfChangeV2, index uint64) *raftpb.ConfState {
	changer := confchange.Changer{Tracker: tracker.MakeProgressTracker(1, 0), LastIndex: index}
	config, progress, err := confchange.Restore(changer, conf)
	if err != nil {
		panic(fmt.Sprintf("the configuration before entry %d is invalid: %v", index, err))
	}
	changer.Tracker.Config, changer.Tracker.Progress = config, progress
	if change.LeaveJoint() {
		config, _, err = changer.LeaveJoint()
	} else if autoLeave, ok := change.EnterJoint(); ok {
		config, _, err = changer.EnterJoint(autoLeave, change.Changes...)
	} else {
		config, _, err = changer.Simple(change.Changes...)
	}
	if err != nil {
		panic(fmt.Sprintf("the configuration change of entry %d is invalid: %v", index, err))
	}
	changer.Tracker.Config = config
	return changer.Tracker.ConfState()
}
