//go:build linux

package examples

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestAnotherModule: the module takes another path, builds under it, and the program that README
// shows is a module beside it.
func TestAnotherModule(t *testing.T) {
	const path = "example.com/some-one/kv"
	dir := t.TempDir()
	copied, mine := filepath.Join(dir, "kv"), filepath.Join(dir, "mine")
	copySources(t, "..", copied)
	if said, err := runIn(copied, "make", "module", "PATH=kv"); err == nil || !strings.Contains(said, "is no path that go get could resolve") {
		t.Errorf("a path that cannot be resolved: %v\n%s", err, said)
	}
	must(t, copied, "make", "module", "PATH="+path)
	if module := must(t, copied, "go", "list", "-m"); strings.TrimSpace(module) != path {
		t.Errorf("the module is %s", module)
	}
	if left, err := runIn(copied, "grep", "-rn", "--include=*.go", `"keyval/`, "."); err == nil {
		t.Errorf("these still have the old path:\n%s", left)
	}
	must(t, copied, "go", "list", "-f", "{{.Name}}", "./...") // every import is found

	readme, err := os.ReadFile(filepath.Join(copied, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, program, found := strings.Cut(string(readme), "```go\npackage main")
	program, _, ended := strings.Cut(program, "```")
	if !found || !ended {
		t.Fatal("README shows no program")
	}
	if err := os.Mkdir(mine, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(mine, "main.go"), []byte("package main"+program), 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, mine, "go", "mod", "init", "example.com/mine")
	must(t, dir, "go", "work", "init", "./kv", "./mine")
	must(t, mine, "go", "build", "-trimpath", "-o", os.DevNull, ".")
}

// TestMakeSaysItFirst: what cannot be done without protoc is not begun, and says what to install;
// make run says that it builds before it does.
func TestMakeSaysItFirst(t *testing.T) {
	programs := t.TempDir()
	for _, name := range []string{"awk", "bash", "git", "go", "grep", "make", "sed"} {
		path, err := exec.LookPath(name)
		if err == nil {
			err = os.Symlink(path, filepath.Join(programs, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, target := range []string{"verify", "generate"} {
		said, err := runIn("..", "env", "-u", "MAKELEVEL", "-u", "MAKEFLAGS", "PATH="+programs, "make", target)
		if first, _, _ := strings.Cut(said, "\n"); err == nil || !strings.Contains(first, "protoc is missing: install protoc ") {
			t.Errorf("make %s: %v\n%s", target, err, said)
		}
	}
	if said := must(t, "..", "env", "-u", "MAKELEVEL", "-u", "MAKEFLAGS", "make", "--dry-run", "run"); !strings.HasPrefix(said, "echo \"building bin/kvctl") {
		t.Errorf("make run begins with\n%s", said)
	}
}

func must(t *testing.T, dir, program string, args ...string) string {
	t.Helper()
	said, err := runIn(dir, program, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, said)
	}
	return said
}

func runIn(dir, program string, args ...string) (string, error) {
	command := exec.Command(program, args...)
	command.Dir = dir
	command.Env = append(os.Environ(), "GOFLAGS=", "PWD="+dir)
	out, err := command.CombinedOutput()
	return string(out), err
}

// copySources copies all but what was made.
func copySources(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", "bin", "dist"}, rel):
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		case !d.Type().IsRegular() || rel == ".git": // of a worktree
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), text, info.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
}
