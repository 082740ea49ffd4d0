package storeactor

import (
	"fmt"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/messages"
	"keyval/storeactor/disk"
)

// A disk that is full ends its node: no state may be served that could not be written. So a
// node says well before that it has little room left, and the cluster refuses what would
// take more of it.

// Bounds of room, below which a node says that it lacks some.
const (
	roomTicks          = 20 // between two looks
	roomFilesMin       = 100
	roomDescriptorsMax = 256 // at most a quarter of the limit: a node may be given few
)

// room is what a node lacks; the zero room: nothing.
type room struct {
	lacks string // for people
	what  int    // which of its parts, from 1
}

// after is what it lacks after another look. What it lacks once it lacks until there is a
// quarter more than the bound, so that it does not come and go. bytesMin is the bound of
// bytes; 0: the tenth part of the disk, 512 MiB to 2 GiB; below 0: nothing is ever lacking.
func (r room) after(now disk.Room, bytesMin int64) room {
	if bytesMin < 0 {
		return room{}
	}
	needed := now.BytesNeeded(bytesMin)
	for i, part := range []struct {
		free, all, needed, unit uint64
		text                    string
	}{
		{now.Bytes, now.BytesAll, needed, 1 << 20, "%d MB free, %d MB are needed"},
		{now.Files, now.FilesAll, max(roomFilesMin, now.FilesAll/10), 1, "room for %d files, %d are needed"},
		{now.Descriptors, now.DescriptorsAll, min(roomDescriptorsMax, now.DescriptorsAll/4), 1, "%d descriptors left, %d are needed"},
	} {
		bound := part.needed
		if r.what == i+1 {
			bound += bound / 4
		}
		if part.all > 0 && part.free < bound {
			return room{fmt.Sprintf(part.text, part.free/part.unit, bound/part.unit), i + 1}
		}
	}
	return room{}
}

// lookForRoom tells membership what is left. A look that fails says nothing: whoever writes
// next will find out.
func (m *machineActor) lookForRoom(ctx actor.Context, elapsed uint32) {
	if m.roomAge += elapsed; m.roomAge < roomTicks {
		return
	}
	m.roomAge = 0
	now, err := m.config.Disk.Room()
	if err != nil {
		m.config.Logger.Warn("nobody knows how much room the disk has", "reason", err)
		return
	}
	before := m.room
	m.room = m.room.after(now, m.config.RoomBytes)
	switch {
	case before.lacks == "" && m.room.lacks != "":
		m.config.Logger.Warn("there is little room left", "lacks", m.room.lacks, "hint", "make room on this disk: kvctl snapshot list, kvctl compact; else replace this node by one that has more")
	case before.lacks != "" && m.room.lacks == "":
		m.config.Logger.Info("there is room again", "bytes", now.Bytes)
	}
	ctx.Send(m.config.Membership, &messages.RoomSeen{Bytes: now.Bytes, Lacks: m.room.lacks})
}
