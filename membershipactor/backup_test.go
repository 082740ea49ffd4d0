package membershipactor

import (
	"fmt"
	"testing"

	"keyval/membershipactor/rules"
	"keyval/messages"
)

// A note is answered once the state has it; one that another overtook comes behind that.
func TestBackupsAreNoted(t *testing.T) {
	note := func(name string, at int64) *messages.ClusterRequest {
		return &messages.ClusterRequest{Request: uint64(at), Kind: &messages.ClusterRequest_Backup{Backup: &messages.NoteBackup{Job: &messages.BackupJob{Name: name, VerifiedAtMs: at}}}}
	}
	forget := func(name string) *messages.ClusterRequest {
		return &messages.ClusterRequest{Kind: &messages.ClusterRequest_Backup{Backup: &messages.NoteBackup{Job: &messages.BackupJob{Name: name}, Forget: true}}}
	}
	s := newStand(t)
	s.ask(note("a", 1))
	s.ask(note("a", 2)) // both are version 1
	if len(s.answers) != 0 || len(s.log) != 2 {
		t.Fatalf("%v, %d proposed", s.answers, len(s.log))
	}
	s.apply()
	s.tick(1)
	s.apply()
	s.tick(1)
	if j := rules.BackupJob(s.k.Backups, "a"); fmt.Sprint(s.answers) != "[OK OK]" || j.GetVersion() != 2 || j.GetVerifiedAtMs() != 2 {
		t.Errorf("%v, %v", s.answers, s.k.Backups)
	}
	s.answers = nil
	s.ask(forget("x"))
	s.ask(forget("a"))
	s.apply()
	s.tick(1)
	s.ask(note("", 1))
	if fmt.Sprint(s.answers) != `[NOT_FOUND no backup job is called "x" OK INVALID a backup job has a name of 0 bytes, 1 to 512 are allowed]` || len(s.k.Backups) != 0 {
		t.Errorf("%v, %v", s.answers, s.k.Backups)
	}
}
