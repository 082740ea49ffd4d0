package rules

import (
	"fmt"
	"strings"
	"testing"

	"keyval/messages"
)

func TestNoteBackup(t *testing.T) {
	job := func(name string, version uint64) *messages.BackupJob {
		return &messages.BackupJob{Name: name, Version: version}
	}
	var many []*messages.BackupJob
	for i := range BackupJobsMax {
		many = append(many, job(fmt.Sprintf("%02d", i), 1))
	}
	jobs := []*messages.BackupJob{job("a", 3), job("c", 1)}
	for name, test := range map[string]struct {
		jobs []*messages.BackupJob
		note *messages.NoteBackup
		code messages.Code
		want string // names and versions afterwards
	}{
		"the first":         {nil, &messages.NoteBackup{Job: job("a", 1)}, messages.Code_OK, "a1"},
		"amid others":       {jobs, &messages.NoteBackup{Job: job("b", 1)}, messages.Code_OK, "a3 b1 c1"},
		"the next":          {jobs, &messages.NoteBackup{Job: job("a", 4)}, messages.Code_OK, "a4 c1"},
		"the same again":    {jobs, &messages.NoteBackup{Job: job("a", 3)}, messages.Code_CONFLICT, ""},
		"one too far":       {jobs, &messages.NoteBackup{Job: job("a", 5)}, messages.Code_CONFLICT, ""},
		"forgotten":         {jobs, &messages.NoteBackup{Job: job("a", 4), Forget: true}, messages.Code_OK, "c1"},
		"forgotten too old": {jobs, &messages.NoteBackup{Job: job("a", 3), Forget: true}, messages.Code_CONFLICT, ""},
		"unknown":           {jobs, &messages.NoteBackup{Job: job("x", 1), Forget: true}, messages.Code_NOT_FOUND, ""},
		"too many":          {many, &messages.NoteBackup{Job: job("x", 1)}, messages.Code_BUSY, ""},
		"one of many":       {many[:1], &messages.NoteBackup{Job: job("00", 2)}, messages.Code_OK, "002"},
		"without a job":     {jobs, &messages.NoteBackup{}, messages.Code_INVALID, ""},
		"without a name":    {jobs, &messages.NoteBackup{Job: job("", 1)}, messages.Code_INVALID, ""},
		"too long a name":   {jobs, &messages.NoteBackup{Job: job(strings.Repeat("x", BackupTextMax+1), 1)}, messages.Code_INVALID, ""},
		"too long an error": {jobs, &messages.NoteBackup{Job: &messages.BackupJob{Name: "a", Version: 4, Error: strings.Repeat("x", BackupTextMax+1)}}, messages.Code_INVALID, ""},
		"a time before all": {jobs, &messages.NoteBackup{Job: &messages.BackupJob{Name: "a", Version: 4, VerifiedAtMs: -1}}, messages.Code_INVALID, ""},
	} {
		next, err := NoteBackup(test.jobs, test.note)
		var got []string
		for _, j := range next {
			got = append(got, fmt.Sprint(j.Name, j.Version))
		}
		code := messages.Code_OK
		if err != nil {
			code = err.Code
		}
		if code != test.code || strings.Join(got, " ") != test.want {
			t.Errorf("%s: %v %q, %v", name, code, got, err)
		}
		if jobs[0].Name != "a" || len(jobs) != 2 {
			t.Fatalf("%s modified what was there", name)
		}
	}
	jobs[0].VerifiedAtMs, jobs[0].Revision = 7, 9
	failed := &messages.NoteBackup{Job: &messages.BackupJob{Name: "a", FailedAtMs: 8, Error: "no room"}}
	if n := NextBackup(jobs, failed); n.Job.Version != 4 || n.Job.VerifiedAtMs != 7 || n.Job.Revision != 9 || n.Job.Error == "" {
		t.Errorf("%v", n)
	}
}
