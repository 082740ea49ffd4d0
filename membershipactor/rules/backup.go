package rules

import (
	"cmp"
	"slices"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// Bounds of the records of backup jobs, part of what the log means.
const (
	// BackupJobsMax bounds their number.
	BackupJobsMax = 16
	// BackupTextMax bounds each of their texts, in bytes.
	BackupTextMax = 512
	// backupEveryMaxMS bounds BackupJob.every_ms: a year.
	backupEveryMaxMS = 366 * 24 * 3600 * 1000
)

// BackupJob finds the record of a job by its name, or returns nil.
func BackupJob(jobs []*messages.BackupJob, name string) *messages.BackupJob {
	for _, j := range jobs {
		if j.Name == name {
			return j
		}
	}
	return nil
}

// CheckBackup says whether a note is one: INVALID if it is not.
func CheckBackup(n *messages.NoteBackup) *messages.Error {
	j := n.GetJob()
	switch {
	case j.GetName() == "" || len(j.Name) > BackupTextMax:
		return messages.Errorf(messages.Code_INVALID, "a backup job has a name of %d bytes, 1 to %d are allowed", len(j.GetName()), BackupTextMax)
	case len(j.Backup) > BackupTextMax || len(j.Error) > BackupTextMax || len(j.Hash) > 64:
		return messages.Errorf(messages.Code_INVALID, "what backup job %q says is too long", j.Name)
	case j.EveryMs > backupEveryMaxMS || j.VerifiedAtMs < 0 || j.FailedAtMs < 0:
		return messages.Errorf(messages.Code_INVALID, "backup job %q tells times that are none", j.Name)
	}
	return nil
}

// NoteBackup are the records after a note, by name. Refusals: INVALID; CONFLICT if it is of
// another version than the next; NOT_FOUND if there is nothing to forget; BUSY if there are as
// many as are kept.
func NoteBackup(jobs []*messages.BackupJob, n *messages.NoteBackup) ([]*messages.BackupJob, *messages.Error) {
	if err := CheckBackup(n); err != nil {
		return nil, err
	}
	was := BackupJob(jobs, n.Job.Name)
	switch {
	case was == nil && n.Forget:
		return nil, messages.Errorf(messages.Code_NOT_FOUND, "no backup job is called %q", n.Job.Name).WithHint("kvctl cluster health --json names them")
	case n.Job.Version != was.GetVersion()+1:
		return nil, messages.Errorf(messages.Code_CONFLICT, "the record of backup job %q has version %d, and version %d cannot follow", n.Job.Name, was.GetVersion(), n.Job.Version)
	case was == nil && len(jobs) >= BackupJobsMax:
		return nil, messages.Errorf(messages.Code_BUSY, "%d backup jobs are known already, and no more are kept", len(jobs)).WithHint("kvctl backup forget NAME")
	}
	next := slices.DeleteFunc(slices.Clone(jobs), func(j *messages.BackupJob) bool { return j == was })
	if !n.Forget {
		next = append(next, n.Job)
		slices.SortFunc(next, func(a, b *messages.BackupJob) int { return cmp.Compare(a.Name, b.Name) })
	}
	return next, nil
}

// NextBackup is a note with the version that follows. One that tells of a failure alone keeps
// what was verified before.
func NextBackup(jobs []*messages.BackupJob, n *messages.NoteBackup) *messages.NoteBackup {
	n = proto.Clone(n).(*messages.NoteBackup)
	if n.Job != nil {
		was := BackupJob(jobs, n.Job.Name)
		n.Job.Version = was.GetVersion() + 1
		if was != nil && n.Job.VerifiedAtMs == 0 {
			n.Job.VerifiedAtMs, n.Job.Backup, n.Job.Revision, n.Job.Bytes, n.Job.Hash = was.VerifiedAtMs, was.Backup, was.Revision, was.Bytes, was.Hash
		}
	}
	return n
}
