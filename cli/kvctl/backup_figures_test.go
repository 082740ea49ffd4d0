//go:build linux

package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyval/actors/client"
)

// How much data TestIncrementalBackup has, such as 1GB, and how many keys TestImportUnderKills.
const (
	backupEnv = "KEYVAL_BACKUP"
	importEnv = "KEYVAL_IMPORT"
)

// sha is a hash of a file's lines, as made makes them; nil: as they are.
func sha(t *testing.T, path string, made func([]byte) []byte) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	hash := sha256.New()
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 1<<20), 1<<20)
	for lines.Scan() {
		line := lines.Bytes()
		if made != nil {
			line = made(line)
		}
		hash.Write(append(slices.Clone(line), '\n'))
	}
	if lines.Err() != nil {
		t.Fatal(lines.Err())
	}
	return fmt.Sprintf("%x", hash.Sum(nil))
}

// copied is how long a plain copy of a file takes until it is on disk.
func copied(t *testing.T, path string) time.Duration {
	t.Helper()
	began := time.Now()
	from, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.Create(path + ".copy")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(to.Name())
	defer to.Close()
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Sync(); err != nil {
		t.Fatal(err)
	}
	return time.Since(began)
}

// flips alters a byte of a backup, so many times in turn: each is found, and named by the chunk in which
// it is. (A thousand are found in a smaller one by the tests of package backup.)
func (p *processes) flips(path string, times int) {
	p.t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		p.t.Fatal(err)
	}
	random, was := rand.New(rand.NewPCG(5, 6)), make([]byte, 1)
	for range times {
		at := random.Int64N(info.Size())
		_, err := f.ReadAt(was, at)
		if err == nil {
			_, err = f.WriteAt([]byte{was[0] ^ byte(1+random.IntN(255))}, at)
		}
		if err != nil {
			p.t.Fatal(err)
		}
		_, said, code := p.kvctl("backup", "verify", path)
		named := regexp.MustCompile(`which begins at byte (\d+)\)`).FindStringSubmatch(said)
		if code != 1 || named == nil {
			p.t.Errorf("byte %d is altered, and verify ends with %d: %s", at, code, said)
		} else if begin, _ := strconv.ParseInt(named[1], 10, 64); begin > at || at-begin > 2<<20 {
			p.t.Errorf("byte %d is altered, and verify names byte %d", at, begin)
		}
		if _, err := f.WriteAt(was, at); err != nil {
			p.t.Fatal(err)
		}
	}
}

// A backup, an increment of 1 % changed rows with deletions and history that is given up, the
// loss of all nodes, a restore of both, and what is there then. With KEYVAL_BACKUP it says what
// that takes.
func TestIncrementalBackup(t *testing.T) {
	size, measured := sizeOf(t, backupEnv), true
	if size == 0 {
		t.Parallel()
		size, measured = 3_000_000, false
	}
	p := newCluster(t, freeAddresses(t, 3))
	p.endpoints, p.tuning = p.listens, []string{"--history-revisions", "0", "--history-time", "0"}
	p.found()
	p.leader()
	const value = 4096
	keys := size / value
	began := time.Now()
	p.fill("k/", keys)
	report := func(what string, row map[string]any, bytes float64) {
		ms := row["took_ms"].(float64)
		t.Logf("%-22s %8.2f s  %7.1f MB  %7.1f MB/s", what, ms/1000, bytes/1e6, bytes/1000/max(ms, 1))
	}
	t.Logf("%d keys of %d bytes in %v", keys, value, time.Since(began).Round(time.Second))
	dir := filepath.Join(p.dir, "backups")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	p.done("compact", "--yes")
	first := p.backedUp("backup", filepath.Join(dir, "backup-1.kvb"))
	report("backup", first, first["bytes"].(float64))
	report("backup verify", p.backedUp("backup", "verify", filepath.Join(dir, "backup-1.kvb")), first["bytes"].(float64))
	p.flips(filepath.Join(dir, "backup-1.kvb"), 8)
	took := copied(t, filepath.Join(dir, "backup-1.kvb"))
	report("a plain copy", map[string]any{"took_ms": float64(took.Milliseconds())}, first["bytes"].(float64))

	var rows []client.KeyValue
	for i := 0; i < keys; i += 100 {
		rows = append(rows, client.KeyValue{Key: fmt.Appendf(nil, "k/%06d", i), Value: bytes.Repeat([]byte("new "), value/4)})
	}
	c := p.connect(p.endpoints...)
	for some := range slices.Chunk(rows, 50) {
		if _, err := c.PutAll(t.Context(), some); err != nil {
			t.Fatal(err)
		}
	}
	p.done("delete", "--prefix", "k/00001", "--yes") // ten keys
	p.done("compact", "--yes")                       // of the deletions nothing is left
	p.done("put", "last", "word")
	second := p.backedUp("backup", filepath.Join(dir, "backup-2.kvb"), "--since", dir)
	report("backup --since, 1 %", second, second["file_bytes"].(float64))
	if share := second["file_bytes"].(float64) / first["bytes"].(float64); share > 0.02 {
		t.Errorf("the increment has %.1f %% of the whole", share*100)
	}
	whole := p.backedUp("backup", filepath.Join(p.dir, "whole.kvb"))
	if verified := p.backedUp("backup", "verify", dir); verified["hash"] != second["hash"] || verified["keys"] != whole["keys"] || verified["rows"] != whole["rows"] {
		t.Errorf("%v was written, %v is there, %v is all", second, verified, whole)
	} else {
		report("verify of both", verified, verified["bytes"].(float64))
	}
	before := filepath.Join(p.dir, "before.jsonl")
	began = time.Now()
	p.done("export", "--file", before)
	took = time.Since(began)
	t.Logf("export of %d keys in %v", keys, took.Round(time.Millisecond))

	for i := range p.running {
		p.kill(i)
		if err := os.RemoveAll(p.data(i)); err != nil {
			t.Fatal(err)
		}
	}
	to := fmt.Sprintf("n1=%s,n2=%s,n3=%s", p.data(0), p.data(1), p.data(2))
	restored := p.backedUp("restore", dir, "--to", to, "--initial-cluster", p.initial, "--yes")
	report("restore to 3 nodes", restored, restored["bytes"].(float64))
	p.says(7, []string{"restore", dir, "--to", to, "--initial-cluster", p.initial, "--yes"}, "is not empty")
	began = time.Now()
	for i := range p.running {
		p.start(i)
	}
	p.leader()
	p.done("get", "last")
	t.Logf("start and a first read in %v", time.Since(began).Round(time.Millisecond))
	p.says(0, []string{"verify", "--timeout", "5m"}, "hold the same")
	after := filepath.Join(p.dir, "after.jsonl")
	p.done("export", "--file", after)
	if was, is := sha(t, before, nil), sha(t, after, nil); was != is {
		t.Errorf("before: %s, after: %s", was, is)
	}
	p.says(3, []string{"get", "k/000015"})
	if measured {
		t.Logf("equal: %s", sha(t, after, nil))
	}
	if err := os.Remove(filepath.Join(dir, "backup-1.kvb")); err != nil {
		t.Fatal(err)
	}
	p.says(3, []string{"backup", "verify", dir}, "the chain is broken: backup-2.kvb builds on backup-1.kvb")
}

// keyAndValue is a line of an export without its revision.
func keyAndValue(line []byte) []byte {
	var row map[string]any
	if err := json.Unmarshal(line, &row); err != nil {
		return line
	}
	delete(row, "revision")
	line, _ = json.Marshal(row) // it came from JSON
	return line
}

// imports runs an import until it ends, and calls amid once it has so many keys.
func (p *processes) imports(keys int, amid func(kvctl *os.Process), args ...string) (said string, code int) {
	p.t.Helper()
	c := p.command(append([]string{"import", "--progress", "json"}, args...)...)
	stderr, err := c.StderrPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		p.t.Fatal(err)
	}
	var all strings.Builder
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		var e struct {
			Keys string `json:"keys"`
		}
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Keys == "" {
			all.WriteString(lines.Text() + "\n")
			continue
		}
		if n, _ := strconv.Atoi(e.Keys); n >= keys && amid != nil {
			amid(c.Process)
			amid = nil
		}
	}
	_ = c.Wait() // its code says it
	return all.String(), c.ProcessState.ExitCode()
}

// The leader is killed amid an import, kvctl is interrupted and goes on: in the end all is there
// once, and to import it again changes no value. With KEYVAL_IMPORT that many keys.
func TestImportUnderKills(t *testing.T) {
	keys := 60_000
	if said := os.Getenv(importEnv); said != "" {
		var err error
		if keys, err = strconv.Atoi(said); err != nil || keys < 1000 {
			t.Fatalf("%s=%s is no number of keys", importEnv, said)
		}
	} else {
		t.Parallel()
	}
	p := startCluster(t, 3)
	p.leader()
	all := filepath.Join(p.dir, "all.jsonl")
	f, err := os.Create(all)
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(f)
	for i := range keys {
		if i%10 == 0 {
			fmt.Fprintf(w, "{\"key\":\"k/%08d\",\"value_base64\":\"/w==\"}\n", i)
			continue
		}
		fmt.Fprintf(w, "{\"key\":\"k/%08d\",\"value\":\"%0100d\"}\n", i, i)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	said, code := p.imports(1, func(kvctl *os.Process) {
		victim := p.leader()
		p.kill(victim)
		p.start(victim)
		kvctl.Signal(syscall.SIGINT)
	}, all)
	skip := regexp.MustCompile(`--skip (\d+)`).FindStringSubmatch(said)
	if code == 0 || skip == nil {
		t.Fatalf("interrupted, it ends with %d: %s", code, said)
	}
	killed := 0
	said, code = p.imports(1, func(*os.Process) {
		victim := p.leader()
		p.kill(victim)
		p.start(victim)
		killed++
	}, all, "--skip", skip[1])
	if code != 0 {
		t.Fatalf("%d: %s", code, said)
	}
	t.Logf("%d keys imported in %v; interrupted after %s lines; the leader was killed %d times", keys, time.Since(began).Round(time.Millisecond), skip[1], killed+1)
	out := filepath.Join(p.dir, "out.jsonl")
	began = time.Now()
	p.done("export", "--file", out)
	t.Logf("exported in %v", time.Since(began).Round(time.Millisecond))
	want := sha(t, all, keyAndValue)
	if got := sha(t, out, keyAndValue); got != want {
		t.Errorf("imported %s, exported %s", want, got)
	}
	p.done("import", all)
	again := filepath.Join(p.dir, "again.jsonl")
	p.done("export", "--file", again)
	if got := sha(t, again, keyAndValue); got != want {
		t.Errorf("imported twice: %s, not %s", got, want)
	}
	p.says(0, []string{"verify", "--timeout", "5m"}, "hold the same")
}
