package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// system is one of the two that are compared.
type system struct {
	name   string
	store  string // which client the loader uses
	loader string // the binary that makes the load
	start  func(data string, secure bool) (*nodes, error)
}

// build makes the binaries of the systems in work: two, or the one that is wanted.
func build(ctx context.Context, s settings, work string) ([]system, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	here, err := output(ctx, "", "go", "list", "-m", "-f", "{{.Dir}}", "keyval/bench")
	if err != nil {
		return nil, fmt.Errorf("%w: run this in KeyVal's directory bench", err)
	}
	etcd := system{name: "etcd", store: storeEtcd, loader: self, start: etcdNodes(filepath.Join(work, "etcd"))}
	if s.only != storeKeyVal && s.against == "" && s.watched == "" {
		if _, err := output(ctx, here, "go", "build", "-o", filepath.Join(work, "etcd"), "./etcd"); err != nil {
			return nil, err
		}
	}
	if s.only == storeEtcd {
		return []system{etcd}, nil
	}
	kvctl := s.kvctl
	if kvctl == "" {
		if kvctl, err = buildKvctl(ctx, filepath.Dir(here), filepath.Join(work, "kvctl")); err != nil {
			return nil, err
		}
	}
	first := system{name: "KeyVal", store: storeKeyVal, loader: self, start: keyvalNodes(kvctl, nil)}
	switch {
	case s.only == storeKeyVal:
		return []system{first}, nil
	case s.watched != "":
		return []system{first, {name: s.watched, store: storeKeyVal, loader: self, start: keyvalNodes(kvctl, watches[s.watched])}}, nil
	case s.against != "":
		second, err := buildOther(ctx, s.against, here, work)
		return []system{first, second}, err
	}
	return []system{first, etcd}, nil
}

func buildKvctl(ctx context.Context, root, to string) (string, error) {
	_, err := output(ctx, root, "go", "build", "-o", to, "./cli/kvctl")
	return to, err
}

// buildOther makes another checkout's server, and this loader with its client.
func buildOther(ctx context.Context, root, here, work string) (system, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return system{}, err
	}
	kvctl, err := buildKvctl(ctx, root, filepath.Join(work, "kvctl-other"))
	if err != nil {
		return system{}, err
	}
	mod, sum := filepath.Join(work, "other.mod"), filepath.Join(work, "other.sum")
	for from, to := range map[string]string{"go.mod": mod, "go.sum": sum} {
		text, err := os.ReadFile(filepath.Join(here, from))
		if err != nil {
			return system{}, err
		}
		if err := os.WriteFile(to, []byte(strings.ReplaceAll(string(text), "keyval => ..", "keyval => "+root)), 0o644); err != nil {
			return system{}, err
		}
	}
	loader := filepath.Join(work, "load-other")
	_, err = output(ctx, here, "go", "build", "-modfile", mod, "-o", loader, ".")
	return system{name: "other", store: storeKeyVal, loader: loader, start: keyvalNodes(kvctl, nil)}, err
}

// output runs a command and returns what it says.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = dir
	out, err := c.CombinedOutput()
	said := strings.TrimSpace(string(out))
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, said)
	}
	return said, nil
}
