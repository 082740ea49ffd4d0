//go:build linux

package files

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"keyval/messages"
	"keyval/storeactor/disk/disktest"
)

const nobody = 65534

// TestFilesOfAnotherUser: whichever file of a directory belongs to somebody else, the
// node says that it may not, what to do, and not that its data are damaged; and once it
// may, it starts with all of them. It takes root.
func TestFilesOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it takes root to be another user")
	}
	base, err := os.MkdirTemp("", "keyval-refused")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	self := copySelf(t, base)
	dir := filepath.Join(base, "node")
	if err := os.Rename(usedFiles(t), dir); err != nil {
		t.Fatal(err)
	}
	own := func(path string, uid int) {
		if err := os.Chown(path, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	var files []string
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil {
			files = append(files, path)
			own(path, nobody)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	start := func() (string, error) {
		c := exec.Command(self)
		c.Env = append(os.Environ(), refusedEnvironment+"="+dir)
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := c.CombinedOutput()
		return string(out), err
	}
	for _, path := range files {
		name, _ := filepath.Rel(dir, path)
		info, err := os.Lstat(path)
		if err != nil { // what comes and goes with each start
			continue
		}
		if err := os.Chmod(path, info.Mode().Perm()&0o700); err != nil {
			t.Fatal(err)
		}
		own(path, 0)
		said, err := start()
		if err == nil || strings.Count(said, "\n") != 2 || !strings.Contains(said, messages.Code_NOT_ALLOWED.String()) || !strings.Contains(said, "next: give this user the directory") {
			t.Errorf("%s: %v\n%s", name, err, said)
		}
		own(path, nobody)
	}
	if said, err := start(); err != nil {
		t.Errorf("with all of its files: %s", said)
	}
}

// copySelf puts this program where another user may run it.
func copySelf(t *testing.T, dir string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "self")
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// usedFiles is the directory of a node that was in use.
func usedFiles(t *testing.T) string {
	t.Helper()
	dir := makeFiles(t)
	useLog(t, dir)
	return dir
}

// TestFullDisksAtStart: a start on a file system without room says so, and is no damage;
// with room the directory is as it was.
func TestFullDisksAtStart(t *testing.T) {
	volume := filepath.Join(t.TempDir(), "volume")
	resize := disktest.NewMemoryVolume(t, volume, 1<<30)
	dir := filepath.Join(volume, "data")
	if out, err := exec.Command("cp", "-a", usedFiles(t), dir).CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	if err := begin(dir); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var disk syscall.Statfs_t
	if err := syscall.Statfs(volume, &disk); err != nil {
		t.Fatal(err)
	}
	used := int64(disk.Blocks-disk.Bfree) * disk.Bsize
	refusals := 0
	for _, room := range []int64{0, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20} {
		resize(used + room)
		c := exec.Command(self)
		c.Env = append(os.Environ(), refusedEnvironment+"="+dir)
		out, err := c.CombinedOutput()
		said := string(out)
		if err != nil {
			refusals++
		}
		if err != nil && (!strings.Contains(said, messages.Code_INTERNAL.String()) || !strings.Contains(said, "next: make room on the disk")) {
			t.Errorf("with %d bytes of room: %v\n%s", room, err, said)
		}
	}
	if refusals == 0 {
		t.Error("no start was refused")
	}
	resize(1 << 30)
	if err := begin(dir); err != nil {
		t.Errorf("with room: %v", err)
	}
}

// TestUnreadableDiscard: what Badger counts for a value log that holds nothing is no
// reason to give a directory up: whatever that file is, the node starts, or its error says
// that it may go, and so it is.
func TestUnreadableDiscard(t *testing.T) {
	dir := usedFiles(t)
	if err := begin(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, firstName, stateName, "DISCARD")
	for name, row := range map[string]struct {
		make   func() error
		starts bool
	}{
		"a directory":       {func() error { return os.Mkdir(path, 0o700) }, false},
		"a link to itself":  {func() error { return os.Symlink(path, path) }, false},
		"a link to nowhere": {func() error { return os.Symlink("/nowhere/at/all", path) }, false},
		"a pipe":            {func() error { return syscall.Mkfifo(path, 0o600) }, false},
		"missing":           {func() error { return nil }, true},
		"empty":             {func() error { return os.WriteFile(path, nil, 0o600) }, true},
		"five bytes":        {func() error { return os.WriteFile(path, []byte("five!"), 0o600) }, true},
		"cut short":         {func() error { return os.WriteFile(path, make([]byte, 100), 0o600) }, true},
		"noise":             {func() error { return os.WriteFile(path, bytes.Repeat([]byte{0xa5}, 1<<20), 0o600) }, true},
		"noise and zeros": {func() error {
			return os.WriteFile(path, append(bytes.Repeat([]byte{7}, 1000), make([]byte, 1<<20-1000)...), 0o600)
		}, true},
	} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if err := row.make(); err != nil {
			t.Fatal(err)
		}
		var said *messages.Error
		err := begin(dir)
		switch {
		case row.starts && err != nil:
			t.Errorf("%s: %v", name, err)
		case row.starts:
		case !errors.As(err, &said) || said.Code != messages.Code_INTERNAL || !strings.Contains(said.Message, path+" is unreadable") || !strings.Contains(said.Hint, "move that file away"):
			t.Errorf("%s: %v", name, err)
		}
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if err := begin(dir); err != nil {
			t.Errorf("%s, and then without it: %v", name, err)
		}
	}
}
