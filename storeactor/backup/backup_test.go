package backup

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/files"
	"keyval/storeactor/snapshot"
	"keyval/storeactor/snapshot/snapshottest"
)

// backupOf is a backup with these rows, and where each of its chunks begins.
func backupOf(t testing.TB, c *messages.Checkpoint, rows []disk.Row, chunkBytes int) (file []byte, begins []int64) {
	t.Helper()
	var b bytes.Buffer
	w := snapshot.NewWriter(&b)
	for i, chunk := range snapshottest.Cut(t, snapshot.NewSource(c, &messages.SnapshotHeader{CreatedAtMs: 7, CreatedBy: "node1"}, chunkBytes), rows) {
		begins = append(begins, int64(b.Len()))
		if i == 0 {
			begins[0] = int64(len("keyval snapshot 1\n"))
		}
		if err := w.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes(), begins
}

func someBackup(t testing.TB) ([]byte, []int64) {
	return backupOf(t, snapshottest.StateAt(9, 4), snapshottest.SomeRows(), 60)
}

func TestABackupIsRead(t *testing.T) {
	file, begins := someBackup(t)
	var told uint64
	c, err := Read(bytes.NewReader(file), func(n uint64) { told = n })
	if err != nil {
		t.Fatal(err)
	}
	// Of a, b, c and d the newest are live, but b's is a deletion.
	if c.Keys != 3 || c.Rows.Count != 8 || c.Bytes != uint64(len(file)) || told != c.Bytes || c.Trailer.Chunks != uint64(len(begins)-1) || c.Header.Revision != 9 {
		t.Errorf("%+v", c)
	}
	var live Tally
	for _, r := range []disk.Row{snapshottest.Row("a", 9, "nine"), snapshottest.Row("c", 1, "one"), snapshottest.Row("d", 7, "seven")} {
		live.row(r)
	}
	if !bytes.Equal(live.Sum(), c.Live.Sum()) || bytes.Equal(live.Sum(), c.Rows.Sum()) {
		t.Errorf("%x", c.Live.Sum())
	}
}

// Whatever byte is altered, and wherever the file ends, verify says so, and names the chunk.
func TestDamageIsFoundAndNamed(t *testing.T) {
	var rows []disk.Row
	for i := range uint64(300) {
		rows = append(rows, snapshottest.Row(fmt.Sprintf("key-%04d", i), i+1, strings.Repeat(fmt.Sprint(i), 20)))
	}
	file, begins := backupOf(t, snapshottest.StateAt(300, 0), rows, 2000)
	chunkAt := func(at int64) (n int) { // the magic line is the first chunk's
		for n+1 < len(begins) && begins[n+1] <= at {
			n++
		}
		return n
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		at := random.Int64N(int64(len(file)))
		bad := bytes.Clone(file)
		bad[at] ^= byte(1 + random.IntN(255))
		_, err := Read(bytes.NewReader(bad), nil)
		n := chunkAt(at)
		where := fmt.Sprintf("(chunk %d, which begins at byte %d)", n, begins[n])
		if at < begins[0] {
			where = "(chunk 0, which begins at byte 0)"
		}
		if messages.CodeOf(err) != messages.Code_DAMAGED || !strings.Contains(err.Error(), where) {
			t.Fatalf("byte %d is altered, %s: %v", at, where, err)
		}
	}
	for range 1000 {
		n := random.IntN(len(file))
		if _, err := Read(bytes.NewReader(file[:n]), nil); messages.CodeOf(err) != messages.Code_DAMAGED || !strings.Contains(err.Error(), "(chunk ") {
			t.Fatalf("%d of %d bytes: %v", n, len(file), err)
		}
	}
	_, err := Read(bytes.NewReader(append(bytes.Clone(file), 0)), nil)
	if want := fmt.Sprintf("something follows its end (chunk %d, which begins at byte %d)", len(begins), len(file)); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, not %s", err, want)
	}
}

// plan is one for a cluster of two nodes, whose directories are not there yet.
func plan(t *testing.T) Plan {
	t.Helper()
	dir := t.TempDir()
	return Plan{
		Founders:    []*messages.Founder{{RaftId: 1, Name: "n1", Address: "127.0.0.1:7101"}, {RaftId: 2, Name: "n2", Address: "127.0.0.1:7102"}},
		Directories: map[string]string{"n1": filepath.Join(dir, "n1"), "n2": filepath.Join(dir, "n2")},
		RevisionGap: 1000, Random: rand.NewChaCha8([32]byte{1}),
	}
}

// Users are restored, or the new cluster would be everybody's; unless that is what is wanted.
func TestRestoredUsers(t *testing.T) {
	c := snapshottest.StateAt(9, 4)
	if c.Auth == nil {
		t.Fatal("the backup has no users")
	}
	if got := checkpointOf(c, plan(t)); !proto.Equal(got.Auth, c.Auth) {
		t.Errorf("%v, not %v", got.Auth, c.Auth)
	}
	without := plan(t)
	without.WithoutAuth = true
	if got := checkpointOf(c, without); got.Auth != nil {
		t.Errorf("%v", got.Auth)
	}
}

func TestRestoreMakesANewCluster(t *testing.T) {
	file, _ := someBackup(t)
	p := plan(t)
	r, err := Restore(bytes.NewReader(file), p)
	if err != nil {
		t.Fatal(err)
	}
	if r.Revision != 1009 || r.Keys != 3 || !strings.HasPrefix(r.Token, "restored-") {
		t.Errorf("%+v", r)
	}
	var first *messages.Checkpoint
	for name, dir := range p.Directories {
		d, err := files.Open(dir, slog.New(slog.DiscardHandler), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if is, err := d.Initialised(); !is || err != nil {
			t.Fatalf("%s: %v, %v", name, is, err)
		}
		id, err := d.Identity()
		if err != nil || id.Name != name || !bytes.Equal(id.ClusterId, r.ClusterID) || id.Token != r.Token || len(id.Founders) != 2 {
			t.Errorf("%v, %v", id, err)
		}
		c, err := d.Checkpoint()
		if err != nil {
			t.Fatal(err)
		}
		old := snapshottest.StateAt(9, 4)
		if len(c.Sessions) > 0 || len(c.Operations) > 0 || old.Invitations == nil || c.Invitations != nil || c.CompactedRevision != 4 || c.Level != old.Level || len(c.Members) != 2 || bytes.Equal(c.ClusterId, old.ClusterId) {
			t.Errorf("%v", c)
		}
		if !proto.Equal(c.Auth, old.Auth) {
			t.Errorf("the users are %v, and were %v", c.Auth, old.Auth)
		}
		if first != nil && !proto.Equal(first, c) {
			t.Errorf("the founders begin differently: %v and %v", first, c)
		}
		first = c
		for _, f := range c.Founders {
			if (f.Name == name) != bytes.Equal(f.Incarnation, id.Incarnation) {
				t.Errorf("%s has incarnation %x, %s is known with %x", name, id.Incarnation, f.Name, f.Incarnation)
			}
		}
		log, image, err := d.OpenLog()
		if err != nil || image == nil {
			t.Fatal(err)
		}
		log.Close()
		engine, err := d.OpenEngine(c)
		if err != nil {
			t.Fatal(err)
		}
		for revision, want := range map[uint64]string{1009: "nine", 9: "nine", 8: ""} {
			if row, found, err := engine.Get([]byte("a"), revision); err != nil || !found || string(row.Value) != want {
				t.Errorf("a at %d: %v, %v", revision, row, err)
			}
		}
		engine.Close()
	}
	// Again, it is another cluster.
	other := plan(t)
	other.Random = rand.NewChaCha8([32]byte{2})
	again, err := Restore(bytes.NewReader(file), other)
	if err != nil || bytes.Equal(again.ClusterID, r.ClusterID) {
		t.Errorf("%+v, %v", again, err)
	}
}

func TestRestoreRefuses(t *testing.T) {
	file, _ := someBackup(t)
	for name, test := range map[string]struct {
		change func(*Plan)
		file   []byte
		code   messages.Code
		says   string
	}{
		"one directory is missing": {func(p *Plan) { delete(p.Directories, "n2") }, file, messages.Code_INVALID, "1 directories are given for a cluster of 2 nodes"},
		"of another name":          {func(p *Plan) { p.Directories["n3"] = p.Directories["n2"]; delete(p.Directories, "n2") }, file, messages.Code_INVALID, "n2 has no directory"},
		"one directory twice":      {func(p *Plan) { p.Directories["n2"] = p.Directories["n1"] }, file, messages.Code_INVALID, "have the same directory"},
		"one holds something": {func(p *Plan) {
			if err := errors.Join(os.Mkdir(p.Directories["n2"], 0o700), os.WriteFile(filepath.Join(p.Directories["n2"], "x"), nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		}, file, messages.Code_CONFLICT, "is not empty: it holds x"},
		"a damaged backup": {func(*Plan) {}, append(bytes.Clone(file[:len(file)-9]), file[len(file)-8:]...), messages.Code_DAMAGED, "(chunk "},
		"an empty one":     {func(*Plan) {}, nil, messages.Code_DAMAGED, "does not begin as a snapshot"},
	} {
		t.Run(name, func(t *testing.T) {
			p := plan(t)
			test.change(&p)
			_, err := Restore(bytes.NewReader(test.file), p)
			if messages.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v", err)
			}
			// What was there is there still, and nothing else.
			for _, dir := range p.Directories {
				entries, err := os.ReadDir(dir)
				if err != nil && !os.IsNotExist(err) || len(entries) > 1 || len(entries) == 1 && entries[0].Name() != "x" {
					t.Errorf("%s holds %v, %v", dir, entries, err)
				}
			}
		})
	}
}

// A directory whose making broke off has lost its data: nothing is founded from it.
func TestABrokenOffRestoreFoundsNothing(t *testing.T) {
	file, _ := someBackup(t)
	p := plan(t)
	r := &restoration{plan: p, open: openFiles}
	if err := r.found(); err != nil {
		t.Fatal(err)
	}
	if _, err := read(bytes.NewReader(file), nil, r.begin, r.write); err != nil {
		t.Fatal(err)
	}
	n1 := r.disks[0]
	err := n1.disk.WriteIdentity(&messages.Identity{
		Format: disk.IdentityFormat, Incarnation: n1.founder.Incarnation, Name: "n1", ClusterId: r.first.ClusterId, Founders: p.Founders,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n1.disk.Initialised(); messages.CodeOf(err) != messages.Code_DAMAGED {
		t.Errorf("%v", err)
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
}
