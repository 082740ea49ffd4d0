package script

import (
	"strings"

	"keyval/messages"
)

func (p *player) snapshot(w words) *messages.Error {
	id := strings.Join(w.args[1:], "")
	r := new(messages.SnapshotRequest)
	switch w.args[0] {
	case "create":
		r.Kind = &messages.SnapshotRequest_Create{Create: &messages.SnapshotCreate{Id: id}}
	case "list":
		r.Kind = &messages.SnapshotRequest_List{List: &messages.SnapshotList{Id: id}}
	case "delete":
		r.Kind = &messages.SnapshotRequest_Delete{Delete: &messages.SnapshotDelete{Id: id}}
	default:
		return messages.Errorf(messages.Code_INVALID, "%q is not done with snapshots: create, list and delete are", w.args[0])
	}
	return p.ask(w, "snapshot "+strings.Join(w.args, " "), &messages.Submit{Snapshot: r})
}
