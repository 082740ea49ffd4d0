//go:build linux

package main

import (
	"bytes"

	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// varies is what differs from run to run.
var varies = regexp.MustCompile(`[0-9a-f]{16,64}|[0-9a-f]{8}-w?[0-9]+|[0-9]+([.,:T-][0-9]+)*Z?( (ms|s|min|B|kB|MB|GB)\b)?`)

// uncertain is said only if the log's last entry was not known to be committed when its node ended.
var uncertain = regexp.MustCompile(`(?m)^There too: .*\n`)

func alike(said string) string {
	said = uncertain.ReplaceAllString(said, "")
	return regexp.MustCompile(` +`).ReplaceAllString(strings.ReplaceAll(varies.ReplaceAllString(said, "#"), "entries", "entry"), " ")
}

// TestOperationsOfBackups runs the commands of the section about backups.
func TestOperationsOfBackups(t *testing.T) {
	p := startCluster(t, 3)
	p.leader()
	p.startStore()
	p.done("put", "config/limit", "10")
	p.fill("k/", 100)
	if err := os.Mkdir(filepath.Join(p.dir, "backups"), 0o700); err != nil {
		t.Fatal(err)
	}
	p.playSection("Back up and restore")
}

// TestOperationsOfRecovery runs those about a node that is damaged, and then those about a quorum
// that is lost.
func TestOperationsOfRecovery(t *testing.T) {
	p := startCluster(t, 3)
	p.leader()
	p.done("put", "config/limit", "10")
	p.done("put", "config/size", "3")
	remove := func(i int, pattern string) {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(p.data(i), pattern))
		if err != nil || len(found) == 0 {
			t.Fatal(found, err)
		}
		for _, path := range found {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.caughtUp(1, 20*time.Second)
	p.kill(1)
	remove(1, "generation-*/state")
	p.refused(1)
	p.playSection("Rebuild a damaged node")
	p.start(1)
	p.caughtUp(1, 20*time.Second)
	for i := range p.running {
		p.kill(i)
	}
	for i := range 2 {
		remove(i, "*")
	}
	p.playSection("The quorum is lost")
}

// playSection runs the commands of a section of OPERATIONS.md, one after the other, and compares
// what they say, but for numbers, with what stands there. -rewrite writes it there.
func (p *processes) playSection(title string) {
	t := p.t
	t.Helper()
	const file = "../../docs/OPERATIONS.md"
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	heading := "\n## " + title + "\n"
	before, rest, begun := strings.Cut(string(old), heading)
	section, after, ended := strings.Cut(rest, "\n## ")
	if !begun || !ended {
		t.Fatal("the section is not there")
	}
	var made strings.Builder
	lines := strings.SplitAfter(section, "\n")
	for i := 0; i < len(lines); i++ {
		made.WriteString(lines[i])
		line, is := strings.CutPrefix(lines[i], "$ kvctl ")
		if !is {
			continue
		}
		var want strings.Builder
		for ; i+1 < len(lines) && !strings.HasPrefix(lines[i+1], "$ ") && !strings.HasPrefix(lines[i+1], "```"); i++ {
			want.WriteString(lines[i+1])
		}
		said := p.inDocs(strings.Fields(line))
		switch {
		case *rewrite:
			made.WriteString(said)
		case alike(said) != alike(want.String()):
			t.Errorf("kvctl %s says\n%s\nand it is written\n%s", strings.TrimSpace(line), said, &want)
		}
	}
	if *rewrite {
		text := before + heading + made.String() + "\n## " + after
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// inDocs runs a command as the documents have it, in the cluster's directory, and returns all
// that it says. A job is ended once it has made one backup.
func (p *processes) inDocs(args []string) string {
	p.t.Helper()
	if args[len(args)-1] == "altered.kvb" {
		p.alter()
	}
	c := p.command(args...)
	c.Dir = p.dir
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	if args[1] != "--every" {
		if err := c.Run(); err != nil && !strings.HasPrefix(said.String(), "kvctl: ") {
			p.t.Errorf("kvctl %s: %v: %s", strings.Join(args, " "), err, &said)
		}
		return p.plain(said.String())
	}
	if err := c.Start(); err != nil {
		p.t.Fatal(err)
	}
	for until := time.Now().Add(60 * time.Second); !strings.Contains(p.done("cluster", "health"), "last verified backup"); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(until) {
			p.t.Error("the job makes no backup")
			break
		}
	}
	p.endJob(c)
	return p.plain(said.String())
}

// plain leaves out of what a command says where kvctl and the directories are, and that it waits.
func (p *processes) plain(said string) string {
	return regexp.MustCompile(`(?m)^waiting for .*\n`).ReplaceAllString(strings.NewReplacer(binary, "kvctl", p.dir+"/", "").Replace(said), "")
}

func (p *processes) endJob(c *exec.Cmd) {
	p.t.Helper()
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Error(err)
	}
	if err := c.Wait(); err != nil {
		p.t.Error(err)
	}
}

// alter makes altered.kvb: the first backup with another byte in its midst.
func (p *processes) alter() {
	p.t.Helper()
	all, err := filepath.Glob(filepath.Join(p.dir, "backups", "backup-2*.kvb"))
	if err != nil || len(all) == 0 {
		p.t.Fatalf("%v %v", all, err)
	}
	b, err := os.ReadFile(all[0])
	if err != nil {
		p.t.Fatal(err)
	}
	b[2000] ^= 1
	if err := os.WriteFile(filepath.Join(p.dir, "altered.kvb"), b, 0o600); err != nil {
		p.t.Fatal(err)
	}
}
