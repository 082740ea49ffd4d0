package disktest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Small says of what a file system is to have little.
type Small struct {
	Bytes int64 // of the file system
	Files int   // that it can still hold; 0: enough
	// Medium is how many bytes the medium takes before it fails; 0: all. What is written
	// beyond is an I/O error.
	Medium int64
}

// SmallVolume is a file system that runs out of something, and gets room again: an
// ext4 in a file, behind a loop device. It takes root.
type SmallVolume struct {
	t          testing.TB
	dir, image string
	medium     string // the file system that holds the image, if that one is to fail
	ballast    []string
}

const ballastBytes = 160 << 20 // of what MakeRoom removes

// NewSmallVolume makes a file system and mounts it at dir. The test is skipped where
// that is not allowed.
func NewSmallVolume(t testing.TB, dir string, small Small) *SmallVolume {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a small volume takes root, mkfs.ext4 and a loop device")
	}
	v := &SmallVolume{t: t, dir: dir}
	holder := t.TempDir()
	if small.Medium > 0 {
		v.medium = filepath.Join(t.TempDir(), "medium")
		image := filepath.Join(holder, "medium")
		v.make(image, small.Medium)
		v.mount(image, v.medium)
		t.Cleanup(func() { v.unmount(v.medium) })
		holder = v.medium
		v.fill(holder, 0)
	}
	v.image = filepath.Join(holder, "volume")
	v.make(v.image, small.Bytes, "-N", "256")
	v.mount(v.image, dir)
	t.Cleanup(func() { v.unmount(dir) })
	if small.Medium == 0 {
		v.fill(dir, small.Files)
	}
	return v
}

func (v *SmallVolume) make(image string, bytes int64, options ...string) {
	v.t.Helper()
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, bytes)); err != nil {
		v.t.Fatal(err)
	}
	v.run("mkfs.ext4", slices.Concat([]string{"-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1"}, options, []string{image})...)
}

// fill takes the room that MakeRoom gives back, and room for files beyond so many.
func (v *SmallVolume) fill(dir string, files int) {
	v.t.Helper()
	ballast := filepath.Join(dir, "ballast")
	v.ballast = append(v.ballast, ballast)
	f, err := os.Create(ballast)
	if err == nil {
		err = errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, ballastBytes), f.Sync(), f.Close())
	}
	var room unix.Statfs_t
	for err == nil && files > 0 {
		if err = unix.Statfs(dir, &room); room.Ffree <= uint64(files) {
			break
		}
		path := fmt.Sprintf("%s-%d", ballast, len(v.ballast))
		v.ballast = append(v.ballast, path)
		err = os.WriteFile(path, nil, 0o600)
	}
	if err != nil {
		v.t.Fatal(err)
	}
}

// MakeRoom ends the shortage, when all processes on the volume have ended.
func (v *SmallVolume) MakeRoom() {
	v.t.Helper()
	if v.medium != "" { // the file system may have given up
		v.unmount(v.dir)
	}
	for _, path := range v.ballast {
		if err := os.Remove(path); err != nil {
			v.t.Fatal(err)
		}
	}
	if v.medium != "" {
		v.mount(v.image, v.dir)
	}
}

func (v *SmallVolume) mount(image, dir string) {
	v.t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		v.t.Fatal(err)
	}
	v.run("mount", "-o", "loop", image, dir)
}

// unmount waits for processes that are on their way out.
func (v *SmallVolume) unmount(dir string) {
	v.t.Helper()
	err := unix.EBUSY
	for deadline := time.Now().Add(10 * time.Second); err == unix.EBUSY && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		err, _ = unix.Unmount(dir, 0).(unix.Errno)
	}
	if err != 0 {
		v.t.Errorf("unmount %s: %v", dir, err)
	}
}

func (v *SmallVolume) run(name string, args ...string) {
	v.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		v.t.Fatalf("%s: %v: %s", name, err, out)
	}
}

// NewMemoryVolume mounts a file system in memory of so many bytes at dir, and returns what
// gives it another size. The test is skipped where that is not allowed.
func NewMemoryVolume(t testing.TB, dir string, bytes int64) (resize func(bytes int64)) {
	t.Helper()
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes))
	}
	if err != nil {
		t.Skipf("a volume in memory takes root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return func(bytes int64) {
		t.Helper()
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%d", bytes)); err != nil {
			t.Fatal(err)
		}
	}
}

// FailingVolume is a file system whose medium can be made to fail: an ext4 without a
// journal, which would give up, in a sparse file of another one, which has room or none.
type FailingVolume struct {
	SmallVolume
}

const (
	failingBytes       = 128 << 20 // of the file system
	failingMediumBytes = 256 << 20 // of the one below
)

// NewFailingVolume makes one and mounts it at dir. The test is skipped where that is not
// allowed.
func NewFailingVolume(t testing.TB, dir string) *FailingVolume {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a volume that fails takes root, mkfs.ext4 and loop devices")
	}
	v := &FailingVolume{SmallVolume{t: t, dir: dir, medium: filepath.Join(t.TempDir(), "medium")}}
	image := filepath.Join(t.TempDir(), "medium")
	v.make(image, failingMediumBytes)
	v.mount(image, v.medium)
	t.Cleanup(func() { v.unmount(v.medium) })
	v.image = filepath.Join(v.medium, "volume")
	v.make(v.image, failingBytes, "-O", "^has_journal")
	v.mount(v.image, dir)
	t.Cleanup(func() { v.unmount(dir) })
	return v
}

// Fail lets the medium take nothing from now on but what replaces something.
func (v *FailingVolume) Fail() {
	v.t.Helper()
	for _, dir := range []string{v.dir, v.medium} {
		d, err := os.Open(dir)
		if err == nil {
			err = errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
		}
		if err != nil {
			v.t.Fatal(err)
		}
	}
	path := filepath.Join(v.medium, "ballast")
	f, err := os.Create(path)
	if err != nil {
		v.t.Fatal(err)
	}
	defer f.Close()
	v.ballast = []string{path}
	const block = 1 << 10
	for at, step := int64(0), int64(failingMediumBytes); step >= block; {
		if unix.Fallocate(int(f.Fd()), 0, at, step) == nil {
			at += step
		} else {
			step /= 2
		}
	}
}

// Mend lets it take everything again. What could not be written is lost by then, though
// whoever reads it finds it until the power is cut.
func (v *FailingVolume) Mend() {
	v.t.Helper()
	for _, path := range v.ballast {
		if err := os.Remove(path); err != nil {
			v.t.Fatal(err)
		}
	}
	v.ballast = nil
}

// PowerCut mounts it anew, when nobody uses it: what is there then, the medium holds.
func (v *FailingVolume) PowerCut() {
	v.t.Helper()
	v.unmount(v.dir)
	v.mount(v.image, v.dir)
}
