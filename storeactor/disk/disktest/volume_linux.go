package disktest

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Volume is a file system of its own whose power can be cut: an ext4 in a file,
// behind a loop device. It takes root.
//
// A cut is the file system's own emergency stop. From that moment on nothing more
// reaches the medium, neither data nor journal: what was not synced is lost, but
// for what the kernel had happened to write out. Processes that go on meet errors.
type Volume struct {
	t          testing.TB
	image, dir string
	random     *rand.Rand
	cuts       int
}

// NewVolume makes a file system and mounts it at dir. The test is skipped where
// that is not allowed.
func NewVolume(t testing.TB, dir string, seed uint64) *Volume {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a volume whose power can be cut takes root, mkfs.ext4 and a loop device")
	}
	v := &Volume{t: t, dir: dir, image: filepath.Join(t.TempDir(), "volume"), random: rand.New(rand.NewPCG(seed, 0))}
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(v.image, nil, 0o600), os.Truncate(v.image, 8<<30)); err != nil {
		t.Fatal(err)
	}
	v.run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", v.image)
	v.mount()
	t.Cleanup(func() { v.unmount() })
	return v
}

func (v *Volume) run(name string, args ...string) {
	v.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		v.t.Fatalf("%s: %v: %s", name, err, out)
	}
}

func (v *Volume) mount() {
	v.t.Helper()
	v.run("mount", "-o", "loop", v.image, v.dir)
}

// unmount waits for processes that are on their way out.
func (v *Volume) unmount() {
	v.t.Helper()
	err := unix.EBUSY
	for deadline := time.Now().Add(10 * time.Second); err == unix.EBUSY && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		err, _ = unix.Unmount(v.dir, 0).(unix.Errno)
	}
	if err != 0 {
		v.t.Fatalf("unmount %s: %v", v.dir, err)
	}
}

// canary is a file that is never synced, another one for each cut: ext4 hurries to
// write what takes the place of something. Its name may survive, since the sync of
// another file takes all names along; its content does not.
func (v *Volume) canary() string {
	return filepath.Join(v.dir, fmt.Sprintf("never-synced-%d", v.cuts))
}

// Cut cuts the power. Before, some data that nobody has synced may reach the
// medium, as a kernel under load would have it.
func (v *Volume) Cut() {
	v.t.Helper()
	if v.random.IntN(2) == 0 {
		v.writeSome()
	}
	v.cuts++
	if err := os.WriteFile(v.canary(), []byte("x"), 0o600); err != nil {
		v.t.Fatal(err)
	}
	d, err := os.Open(v.dir)
	if err != nil {
		v.t.Fatal(err)
	}
	defer d.Close()
	const shutdown, noLogFlush = 0x8004587d, 2 // of the kernel's ext4.h
	if err := unix.IoctlSetPointerInt(int(d.Fd()), shutdown, noLogFlush); err != nil {
		v.t.Fatalf("cut the power of %s: %v", v.dir, err)
	}
}

// writeSome begins to write parts of files.
func (v *Volume) writeSome() {
	filepath.WalkDir(v.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || v.random.IntN(2) == 0 {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return nil // it is gone
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil || info.Size() == 0 {
			return nil
		}
		// Where it does nothing, less is written: also a cut.
		_ = unix.SyncFileRange(int(f.Fd()), v.random.Int64N(info.Size()), 4096*(1+v.random.Int64N(64)), unix.SYNC_FILE_RANGE_WRITE)
		return nil
	})
}

// Restore gives the power back, when all processes on the volume have ended.
func (v *Volume) Restore() {
	v.t.Helper()
	v.unmount()
	v.mount()
	if content, err := os.ReadFile(v.canary()); len(content) > 0 || err != nil && !os.IsNotExist(err) {
		v.t.Fatalf("the power cut took nothing: a file that was never synced holds %q (%v)", content, err)
	}
}
