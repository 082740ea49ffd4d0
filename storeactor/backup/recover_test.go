package backup

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/storeactor/files"
	"keyval/storeactor/state/statetest"
)

var quiet = slog.New(slog.DiscardHandler)

// someDirectory is of a stopped node: a restored one, whose log goes on by these keys.
func someDirectory(t *testing.T, keys ...string) *files.Found {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "n1")
	file, _ := someBackup(t)
	made, err := Restore(bytes.NewReader(file), somePlan(map[string]string{"n1": dir}))
	if err != nil {
		t.Fatal(err)
	}
	d, err := files.Open(dir, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Start(1); err != nil {
		t.Fatal(err)
	}
	log, image, err := d.OpenLog()
	if err != nil {
		t.Fatal(err)
	}
	checkpoint, err := d.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	index, _ := image.Last()
	var entries []*raftpb.Entry
	opens := []*messages.OpenSession{statetest.Opens(60_000, checkpoint.LogTimeMs+1000), nil, nil}
	for i, key := range keys {
		entries = append(entries, statetest.Entry(index+uint64(i)+1, checkpoint.LogTimeMs, &messages.Command{Session: statetest.Client(1), Seq: uint64(i) + 1, Open: opens[i], Operations: statetest.Ops(statetest.Put(key, "of "+key))}))
		entries[i].Term = new(uint64(1))
	}
	if err := log.Save(nil, entries); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	found, err := files.Inspect(dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if last, _ := found.Image.Last(); last != index+uint64(len(keys)) || !bytes.Equal(found.Identity.ClusterId, made.ClusterID) {
		t.Fatalf("the log ends at %d", last)
	}
	return found
}

func somePlan(dirs map[string]string) Plan {
	p := Plan{Directories: dirs, RevisionGap: 100, Random: rand.NewChaCha8([32]byte{byte(len(dirs))})}
	for i := range uint64(len(dirs)) {
		p.Founders = append(p.Founders, &messages.Founder{RaftId: i + 1, Name: fmt.Sprintf("n%d", i+1), Address: fmt.Sprintf("127.0.0.1:%d", 7001+i)})
	}
	return p
}

// Wherever a recovery was broken off, the same one comes to the same end; another does not
// go on with it, and one that was done is not done again.
func TestRecoverGoesOn(t *testing.T) {
	from := someDirectory(t, "x", "y", "z")
	for _, test := range []struct {
		name  string
		leave func(t *testing.T, r Recovery) // what was done before
		code  messages.Code
		says  string
	}{
		{"from nothing", func(*testing.T, Recovery) {}, messages.Code_OK, ""},
		{"behind the plan", func(t *testing.T, r Recovery) { check(t, r.prepare()) }, messages.Code_OK, ""},
		{"in the copying", func(t *testing.T, r Recovery) {
			check(t, r.prepare())
			check(t, os.MkdirAll(filepath.Join(r.Stage, copyName, "generation-1"), 0o700))
		}, messages.Code_OK, ""},
		{"behind the state", func(t *testing.T, r Recovery) {
			check(t, r.prepare())
			check(t, r.replay(filepath.Join(r.Stage, stateName)))
		}, messages.Code_OK, ""},
		{"in the restoring", func(t *testing.T, r Recovery) {
			check(t, r.prepare())
			check(t, r.replay(filepath.Join(r.Stage, stateName)))
			check(t, r.clear())
			file, _ := someBackup(t)
			other := r.Plan
			_, err := Restore(bytes.NewReader(file), other)
			check(t, err)
			check(t, os.RemoveAll(filepath.Join(r.Plan.Directories["n2"], "CURRENT")))
		}, messages.Code_OK, ""},
		{"a node was started", func(t *testing.T, r Recovery) {
			check(t, r.prepare())
			check(t, r.clear())
			file, _ := someBackup(t)
			_, err := Restore(bytes.NewReader(file), r.Plan)
			check(t, err)
			d, err := files.Open(r.Plan.Directories["n2"], quiet, nil)
			check(t, err)
			_, err = d.Start(7)
			check(t, err)
			check(t, d.Close())
		}, messages.Code_CONFLICT, "a node was started on"},
		{"another recovery", func(t *testing.T, r Recovery) {
			r.Plan.RevisionGap++
			check(t, r.prepare())
		}, messages.Code_CONFLICT, "another recovery"},
		{"a directory that holds something", func(t *testing.T, r Recovery) {
			check(t, os.Mkdir(r.Plan.Directories["n2"], 0o700))
			check(t, os.WriteFile(filepath.Join(r.Plan.Directories["n2"], "mine"), nil, 0o600))
		}, messages.Code_CONFLICT, "is not empty"},
	} {
		t.Run(test.name, func(t *testing.T) {
			at := t.TempDir()
			r := Recovery{From: from, Stage: filepath.Join(at, "stage"), Now: time.Unix(9, 0),
				Plan: somePlan(map[string]string{"n1": filepath.Join(at, "n1"), "n2": filepath.Join(at, "n2")})}
			test.leave(t, r)
			done, err := Recover(r)
			if messages.CodeOf(err) != test.code || test.says != "" && !strings.Contains(err.Error(), test.says) {
				t.Fatalf("%v, expected %s with %q", err, test.code, test.says)
			}
			if test.code != messages.Code_OK {
				return
			}
			// The backup is of revision 9, and so many keys; each of the three makes a revision.
			if done.Header.Revision != from.Checkpoint.Revision+3 || done.Keys != 3+3 || done.Revision != from.Checkpoint.Revision+3+100 {
				t.Errorf("%d keys at revision %d, from %d on", done.Keys, done.Header.Revision, done.Revision)
			}
			if bytes.Equal(done.ClusterID, from.Identity.ClusterId) {
				t.Error("it is the old cluster")
			}
			if _, err := os.Stat(r.Stage); !os.IsNotExist(err) {
				t.Errorf("the stage is left: %v", err)
			}
			for _, dir := range r.Plan.Directories {
				if found, err := files.Inspect(dir, quiet); err != nil || found.Unread != nil || !bytes.Equal(found.Identity.ClusterId, done.ClusterID) {
					t.Errorf("%s: %v, %v", dir, err, found.Unread)
				}
			}
			if _, err := Recover(r); messages.CodeOf(err) != messages.Code_CONFLICT {
				t.Errorf("a second time: %v", err)
			}
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
