//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyval/actors/client"
	"keyval/messages"
	"keyval/storeactor/backup"
)

// startStore runs a store that speaks S3, with a bucket keyval, and has kvctl use it.
func (p *processes) startStore() *exec.Cmd {
	p.t.Helper()
	server := filepath.Join(p.dir, "gofakes3")
	build := exec.Command("go", "build", "-o", server, "github.com/johannesboyne/gofakes3/cmd/gofakes3")
	build.Dir = filepath.Join("testdata", "s3")
	if out, err := build.CombinedOutput(); err != nil {
		p.t.Fatalf("%v: %s", err, out)
	}
	address := freeAddresses(p.t, 1)[0]
	c := exec.Command(server, "-host", address, "-backend", "memory", "-initialbucket", "keyval", "-quiet")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(until) {
			p.t.Fatal(err)
		}
	}
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_S3": "http://" + address, "AWS_ACCESS_KEY_ID": "one", "AWS_SECRET_ACCESS_KEY": "two", "AWS_REGION": "us-east-1",
	} {
		p.t.Setenv(name, value)
	}
	return c
}

// fill writes n keys of 4 KiB that nothing compresses.
func (p *processes) fill(prefix string, n int) {
	p.t.Helper()
	c := p.connect(p.endpoints...)
	const writers, batch = 8, 50
	var all sync.WaitGroup
	for id := range writers {
		all.Go(func() {
			random := rand.NewChaCha8([32]byte{7, byte(id)})
			for at := id * batch; at < n; at += writers * batch {
				var rows []client.KeyValue
				for i := at; i < min(n, at+batch); i++ {
					row := client.KeyValue{Key: fmt.Appendf(nil, "%s%06d", prefix, i), Value: make([]byte, 4096)}
					_, _ = random.Read(row.Value) // it never fails
					rows = append(rows, row)
				}
				if _, err := c.PutAll(p.t.Context(), rows); err != nil {
					p.t.Error(err)
					return
				}
			}
		})
	}
	if all.Wait(); p.t.Failed() {
		p.t.FailNow()
	}
}

// says wants a command to end with a code, and to say all of these.
func (p *processes) says(code int, args []string, all ...string) {
	p.t.Helper()
	out, stderr, got := p.kvctl(args...)
	for _, what := range all {
		if !strings.Contains(out+stderr, what) {
			p.t.Errorf("kvctl %s does not say %q: %s%s", strings.Join(args, " "), what, out, stderr)
		}
	}
	if got != code {
		p.t.Errorf("kvctl %s: exit code %d, not %d: %s%s", strings.Join(args, " "), got, code, out, stderr)
	}
}

// Backups and increments go to a store that speaks S3 and come back from it; what is broken off
// is not there.
func TestBackupToAStore(t *testing.T) {
	p := startCluster(t, 1)
	p.leader()
	server := p.startStore()
	p.fill("k/", 6000) // more than one part of an upload
	const prod = "s3://keyval/prod"
	first := p.backedUp("backup", prod+"/first.kvb")
	if verified := p.backedUp("backup", "verify", prod+"/first.kvb"); verified["hash"] != first["hash"] || verified["bytes"] != first["bytes"] {
		t.Errorf("%v was written, %v is there", first, verified)
	}
	p.says(7, []string{"backup", prod + "/first.kvb"}, "is there already")
	p.fill("k/00000", 1)
	p.done("delete", "k/000009")
	second := p.backedUp("backup", prod, "--since", prod+"/first.kvb")
	if second["since"] != "first.kvb" || second["file_bytes"].(float64) > 100_000 {
		t.Errorf("%v", second)
	}
	if verified := p.backedUp("backup", "verify", prod); verified["hash"] != second["hash"] || verified["path"] != second["path"] || verified["file_bytes"] != second["file_bytes"] {
		t.Errorf("%v was written, %v is there", second, verified)
	}
	if shown := p.backedUp("backup", "show", prod); shown["since"] != "first.kvb" || shown["links"] != float64(1) || shown["revision"] != second["revision"] {
		t.Errorf("%v", shown)
	}
	if drill := p.backedUp("backup", "drill", prod, "--nodes", "1"); drill["equal"] != true || drill["hash"] != second["hash"] {
		t.Errorf("%v", drill)
	}
	p.says(2, []string{"backup", p.dir, "--since", prod}, "an increment stands beside the backup on which it builds")
	p.says(3, []string{"backup", "verify", "s3://keyval/none"}, "holds no backup-*.kvb")
	p.says(3, []string{"backup", "verify", prod + "/none.kvb"}, "there is no backup s3://keyval/prod/none.kvb")
	p.says(3, []string{"backup", "s3://nowhere/prod"}, "there is no bucket nowhere")
	p.says(2, []string{"backup", "s3://"}, "names no bucket")

	// What is not complete is not there, and nothing is written over.
	l, name, err := backup.Locate("s3://keyval/half/b.kvb")
	if err != nil {
		t.Fatal(err)
	}
	begin := func() backup.Upload {
		t.Helper()
		u, err := l.Create(t.Context(), name, 0)
		if err == nil {
			_, err = u.Write(make([]byte, 40_000_000)) // two parts are uploaded, and one waits
		}
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	absent := func(when string) {
		t.Helper()
		if f, _, err := l.Open(t.Context(), name); messages.CodeOf(err) != messages.Code_NOT_FOUND {
			t.Errorf("%s: %v %v", when, f, err)
		}
	}
	given, one, other := begin(), begin(), begin()
	absent("amid uploads")
	if err := given.Abort(); err != nil {
		t.Error(err)
	}
	absent("after one was given up")
	if err := one.Commit(); err != nil {
		t.Error(err)
	}
	if err := other.Commit(); messages.CodeOf(err) != messages.Code_CONFLICT {
		t.Errorf("a second of the name: %v", err)
	}
	if err := other.Abort(); err != nil {
		t.Error(err)
	}

	server.Process.Kill()
	p.says(5, []string{"backup", "verify", prod}, "AWS_ENDPOINT_URL says where the store is")
}

// A job makes backups, keeps the newest, and the cluster says how old the last good one is;
// also after a restart of all, and when it fails.
func TestBackupJob(t *testing.T) {
	t.Parallel()
	p := startCluster(t, 3)
	p.leader()
	p.fill("k/", 20)
	dir := filepath.Join(p.dir, "backups")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	p.says(2, []string{"backup", "--every", "1s", filepath.Join(dir, "x.kvb")}, "--every needs a directory")
	p.says(2, []string{"backup", "--every", "1s", dir, "--since", dir}, "give one of both")
	p.says(2, []string{"backup", "--keep", "1", dir}, "--keep goes with --every")
	start := func(every string) (*exec.Cmd, *bytes.Buffer) {
		c, said := p.command("backup", "--every", every, "--keep", "2", dir), &bytes.Buffer{}
		c.Stderr = said
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		return c, said
	}
	c, said := start("2s")
	defer func() { c.Process.Kill() }()
	health := func(what string, is func(code int, h *client.ClusterHealth) bool) {
		t.Helper()
		for until := time.Now().Add(40 * time.Second); ; time.Sleep(200 * time.Millisecond) {
			out, stderr, code := p.kvctl("cluster", "health", "--json")
			h := &client.ClusterHealth{}
			if err := json.Unmarshal([]byte(out), h); err == nil && is(code, h) {
				return
			}
			if time.Now().After(until) {
				t.Fatalf("%s: %d, %s%s\n%s", what, code, out, stderr, said)
			}
		}
	}
	host, _ := os.Hostname()
	job := host + ":" + dir
	good := func(code int, h *client.ClusterHealth) bool {
		return code == 0 && len(h.Backups) == 1 && h.Backups[0].Name == job && h.Backups[0].VerifiedAt != nil && h.Backups[0].Error == ""
	}
	health("a first backup", good)
	p.says(0, []string{"cluster", "health"}, "backups: last verified backup ", " s ago ("+job+", revision ")
	names := func() []string {
		all, err := filepath.Glob(filepath.Join(dir, "backup-*.kvb"))
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	first := names()[0]
	for until := time.Now().Add(60 * time.Second); slices.Contains(names(), first); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%s is kept: %v\n%s", first, names(), said)
		}
	}
	if n := len(names()); n > 3 {
		t.Errorf("%v", names())
	}
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	health("a failure", func(code int, h *client.ClusterHealth) bool {
		return code == 9 && len(h.Issues) > 0 && strings.Contains(h.Issues[0], "failed") && strings.Contains(h.Issues[0], "last verified backup")
	})
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	health("it is well again", good)
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
	for i := range p.running {
		p.kill(i)
	}
	for i := range p.running {
		p.start(i)
	}
	p.leader()
	health("the cluster remembers", good)
	if c, said = start("1h"); c.Process != nil {
		time.Sleep(time.Second)
		c.Process.Signal(syscall.SIGTERM)
		if err := c.Wait(); err != nil || !strings.Contains(said.String(), "the next is made in 59 min") {
			t.Errorf("%v\n%s", err, said)
		}
	}
	p.done("backup", "forget", job)
	p.says(3, []string{"backup", "forget", job}, "no backup job is called")
	health("it is forgotten", func(code int, h *client.ClusterHealth) bool { return code == 0 && len(h.Backups) == 0 })
}
