package cli

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/client"
	"keyval/membershipactor/rules"
	"keyval/messages"
	"keyval/storeactor/backup"
)

const (
	// Between two tries of a backup that failed; the wait doubles each time.
	backupRetryMin = 10 * time.Second
	backupRetryMax = 10 * time.Minute
	// The cluster has so long to take a note, before the job goes on without.
	backupNoteTimeout = 30 * time.Second
)

// backupJob makes backups for ever.
type backupJob struct {
	call     *Call
	location backup.Location
	path     string // of the location, as it was given
	name     string // of the job, as the cluster knows it
	every    time.Duration
	keep     int // 0: all
	stale    bool
	failures int
	said     messages.BackupJob // of the last good one
}

func (c *Call) backUpForEver(stale bool) error {
	j := &backupJob{call: c, path: c.Args[0], every: c.flags.Duration("every"), keep: int(c.flags.Uint("keep")), stale: stale}
	switch {
	case j.every < time.Second || j.every > 365*24*time.Hour:
		return c.usage("", "--every %v: from 1s to 8760h are allowed", j.every)
	case c.flags.IsSet("keep") && j.keep < 1:
		return c.usage("", "--keep 0 would keep none")
	case c.flags.String("since") != "":
		return c.usage("", "--every makes whole backups, and --since an increment: give one of both")
	case j.path == "-" || j.path == "":
		return c.usage("", "--every needs a directory or s3://BUCKET/PREFIX")
	}
	l, name, err := backup.Locate(j.path)
	if err != nil {
		return err
	}
	if name != "" {
		return c.usage("make the directory first", "--every needs a directory or s3://BUCKET/PREFIX, and %s is none", j.path)
	}
	j.location = l
	if j.name, err = jobName(j.path); err != nil {
		return err
	}
	due := time.Now()
	names, err := l.Names(c)
	if err != nil {
		return err
	}
	if n := len(names); n > 0 {
		if made, known := backup.MadeAt(names[n-1]); known && made.Before(due) && made.Add(j.every).After(due) {
			due = made.Add(j.every)
			c.note("the newest, %s, is %s old: the next is made in %s", l.Path(names[n-1]), client.Ago(time.Since(made)), client.Ago(time.Until(due)))
		}
	}
	for {
		select {
		case <-time.After(time.Until(due)):
		case <-c.Done():
			return nil
		}
		began := time.Now()
		if !j.once() {
			if c.Err() != nil {
				return nil
			}
			due = time.Now().Add(min(j.every, backupRetryMax, backupRetryMin<<min(j.failures-1, 10)))
			continue
		}
		if due = began.Add(j.every); due.Before(time.Now()) {
			due = time.Now()
		}
	}
}

// jobName is what a job with this place is called: of a directory, with the machine's name.
func jobName(path string) (string, error) {
	if strings.HasPrefix(path, "s3://") {
		return strings.TrimSuffix(path, "/"), nil
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	host, err := os.Hostname()
	if err != nil {
		return "", err
	}
	return host + ":" + absolute, nil
}

// once makes a backup, reads it again, removes what is too old, and tells the cluster. It
// reports whether there is a good one.
func (j *backupJob) once() bool {
	c := j.call
	row, err := j.make()
	if err == nil {
		j.failures = 0
		at := time.Now().UnixMilli()
		hash, _ := hex.DecodeString(row.Hash) // it was made of bytes
		j.said = messages.BackupJob{VerifiedAtMs: at, Backup: filepath.Base(row.Path), Revision: row.Revision, Bytes: row.Bytes, Hash: hash}
		if err := c.printBackup(row, "wrote and verified"); err != nil {
			c.note("%v", err)
		}
		j.prune()
	} else if c.Err() != nil {
		return false
	} else {
		j.failures++
		problem, _ := explain(err)
		c.note("the backup failed: %s", problem.Message)
		if problem.Hint != "" {
			c.note("  next: %s", problem.Hint)
		}
		j.said.FailedAtMs, j.said.Error = time.Now().UnixMilli(), cutText(problem.Message, rules.BackupTextMax)
	}
	j.tell()
	return err == nil
}

func (j *backupJob) make() (row backupJSON, err error) {
	w, err := j.call.copyingTo(j.location, "")
	if err != nil {
		return row, err
	}
	if row, err = w.ofNow(j.stale); err != nil {
		return row, err
	}
	// What was checked on its way is read again from where it stands.
	s, err := j.call.openBackup(row.Path)
	if err != nil {
		return row, err
	}
	defer s.Close()
	r, err := backup.Read(bufio.NewReaderSize(&abandoned{s, j.call}, 1<<20), s.told(w.progress))
	w.progress.end()
	if err != nil {
		return row, broken(err, row.Path+": ")
	}
	if found := hex.EncodeToString(r.Trailer.Hash); found != row.Hash {
		return row, messages.Errorf(messages.Code_DAMAGED, "%s was written with hash %s, and what is there has %s", row.Path, row.Hash, found)
	}
	row.TookMs = time.Since(w.began).Milliseconds()
	return row, nil
}

func (j *backupJob) prune() {
	if j.keep == 0 {
		return
	}
	gone, err := backup.Prune(j.call, j.location, j.keep)
	if len(gone) > 0 {
		j.call.note("removed %s", strings.Join(gone, ", "))
	}
	if err != nil {
		j.call.note("what is too old could not be removed: %v", err)
	}
}

// tell tells the cluster. One that does not hear it is told the next time.
func (j *backupJob) tell() {
	ctx, cancel := context.WithTimeout(j.call, backupNoteTimeout)
	defer cancel()
	j.said.Name, j.said.EveryMs = j.name, uint64(j.every.Milliseconds())
	endpoints, err := j.call.endpoints()
	if err == nil {
		var store Store
		if store, err = j.call.Connect(ctx, endpoints, defaultTimeout); err == nil {
			defer store.Close()
			err = client.ClusterAPI{ClusterAsker: store}.NoteBackup(ctx, &messages.NoteBackup{Job: &j.said})
		}
	}
	if err != nil && j.call.Err() == nil {
		j.call.note("the cluster could not be told: %v", err)
	}
}

// cutText is a text of valid UTF-8 and so many bytes at most.
func cutText(s string, bytes int) string {
	return strings.ToValidUTF8(s[:min(len(s), bytes)], "")
}

func newBackupForget(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "forget",
		Usage:     "let kvctl cluster health say no more of a backup job that is over",
		ArgsUsage: "NAME",
		Description: `NAME is the job's, as kvctl cluster health tells it. Its backups stay. A job that still runs is
there again after its next backup. With --json an object: name, forgotten.`,
		UsageText: `kvctl backup forget s3://bucket/keyval
kvctl backup forget host1:/var/backups/keyval`,
		Action: sh.action(func(c *Call) error {
			if c.Args[0] == "" {
				return c.usage("", "NAME is empty")
			}
			return c.withStore(func(ctx context.Context, store Store) error {
				err := client.ClusterAPI{ClusterAsker: store}.NoteBackup(ctx, &messages.NoteBackup{Job: &messages.BackupJob{Name: c.Args[0]}, Forget: true})
				switch {
				case err != nil:
					return err
				case c.Format.structured():
					return c.printJSON(map[string]any{"name": c.Args[0], "forgotten": true})
				}
				_, err = fmt.Fprintf(c.Stdout, "forgotten: %s\n", c.Args[0])
				return err
			})
		}),
	}
}
