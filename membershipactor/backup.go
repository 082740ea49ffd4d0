package membershipactor

import (
	"google.golang.org/protobuf/proto"

	"keyval/membershipactor/rules"
	"keyval/messages"
)

// noteBackup writes the record of a backup job. It is done once the state has it, or a later
// one.
func (c *changes) noteBackup(k known, r *request, asked *messages.NoteBackup) (done bool, err *messages.Error) {
	is := rules.BackupJob(k.Backups, asked.GetJob().GetName())
	if r.note != nil {
		switch {
		case is == nil && asked.Forget, is != nil && proto.Equal(is, r.note.Job) && !asked.Forget:
			return true, nil
		case is.GetVersion()+1 != r.note.Job.Version: // another was faster
			r.note, r.again = nil, c.now
		}
	}
	if r.note == nil {
		next := rules.NextBackup(k.Backups, asked)
		if _, err := rules.NoteBackup(k.Backups, next); err != nil || r.asked.DryRun {
			return true, err
		}
		r.note = next
	}
	if c.due(r) {
		c.propose(&messages.Operation{Kind: &messages.Operation_NoteBackup{NoteBackup: r.note}})
	}
	return false, nil
}
