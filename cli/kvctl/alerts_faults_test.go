//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyval/actors/transport"
	"keyval/actors/transport/keys"
	"keyval/storeactor/disk/disktest"
)

// watched is a kvctl dev of three that Prometheus looks at.
type watched struct {
	*processes
	t    *testing.T
	w    *watch
	name string // of the cluster, as Prometheus calls it
	data string
}

func (w *watch) dev(t *testing.T, name, data string, flags ...string) *watched {
	t.Helper()
	c := &watched{devIn(t, data, append([]string{"--metrics"}, flags...)...), t, w, name, data}
	c.listens = c.endpoints
	w.scrape(t, name, c.endpoints...)
	w.await(t, name, "", time.Now(), time.Minute, "KeyValNoLeader")
	time.Sleep(5 * scrapeEvery) // what grows is seen from here on
	return c
}

func (c *watched) see(fault string, alerts string, do, mend func()) {
	c.t.Helper()
	c.w.see(c.t, c.name, fault, 90*time.Second, strings.Fields(alerts), do, mend)
}

// run has kvctl do something on the cluster that must come off.
func (c *watched) run(args ...string) {
	c.t.Helper()
	if out, said, code := c.kvctl(args...); code != 0 {
		c.t.Fatalf("kvctl %s: %d: %s%s", strings.Join(args, " "), code, out, said)
	}
}

// control has the kvctl dev do something.
func (c *watched) control(args ...string) string {
	c.t.Helper()
	out, err := exec.Command(binary, append(append([]string{"dev"}, args...), "--data", c.data)...).CombinedOutput()
	if err != nil {
		c.t.Fatalf("kvctl dev %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// pids are the processes of the members, by name.
func (c *watched) pids() map[string]int {
	c.t.Helper()
	out, _, _ := c.kvctl("status", "--json")
	all := map[string]int{}
	for _, found := range regexp.MustCompile(`"name": "(\w+)",[^}]*?"pid": (\d+)`).FindAllStringSubmatch(out, -1) {
		all[found[1]], _ = strconv.Atoi(found[2])
	}
	return all
}

func (c *watched) signal(pid int, s syscall.Signal) {
	c.t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		c.t.Fatal(err)
	}
}

// page is where member i shows its metrics.
func (c *watched) page(i int) string {
	return strings.Trim(strings.TrimPrefix(pageOf(c.endpoints[i]), "http:"), "/")
}

func (c *watched) indexOf(name string) int { return int(name[len(name)-1] - '1') }

// followers are the members that do not lead.
func (c *watched) followers() (names []string) {
	leader := c.leaderName()
	for i := range c.endpoints {
		if name := fmt.Sprintf("node%d", i+1); name != leader {
			names = append(names, name)
		}
	}
	return names
}

// beside starts a program that goes on until end, or the test ends.
func (c *watched) beside(command *exec.Cmd) (end func()) {
	c.t.Helper()
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		c.t.Fatal(err)
	}
	ended := false
	end = func() {
		if !ended {
			ended = true
			_ = command.Process.Signal(os.Interrupt) // strace lets go of its process then
			patience := time.AfterFunc(10*time.Second, func() { _ = command.Process.Kill() })
			_ = command.Wait()
			patience.Stop()
		}
	}
	c.t.Cleanup(end)
	return end
}

func nothing() {}

// faultsOfMembers are of processes and of who is a member.
func faultsOfMembers(t *testing.T, w *watch) {
	c := w.dev(t, "keyval-members", filepath.Join(t.TempDir(), "cluster"))
	killed := c.followers()[0]
	c.see("kill -9 of one of three", "KeyValBudgetSpent KeyValNodeDown KeyValMemberUnreachable", func() { c.killMember(killed) }, func() { c.control("start", killed) })

	pids, frozen := c.pids(), c.followers()
	c.see("SIGSTOP of two of three", "KeyValNoLeader KeyValWritesStopped", func() {
		frozen[0] = c.leaderName() // whoever leads stands still too
		c.signal(pids[frozen[0]], syscall.SIGSTOP)
		c.signal(pids[frozen[1]], syscall.SIGSTOP)
	}, func() {
		c.signal(pids[frozen[0]], syscall.SIGCONT)
		c.signal(pids[frozen[1]], syscall.SIGCONT)
	})

	late := c.followers()[0]
	end := nothing
	c.see("SIGSTOP of a follower under load", "KeyValMemberLags", func() {
		c.signal(c.pids()[late], syscall.SIGSTOP)
		end = c.beside(c.command("bench", "--clients", "4", "--duration", "5m"))
	}, func() {
		end()
		c.signal(pids[late], syscall.SIGCONT)
	})

	c.see("the lead is moved on again and again", "KeyValLeaderFlaps", func() {
		for began := time.Now(); time.Since(began) < 20*time.Second && w.state("KeyValLeaderFlaps", c.name) != "firing"; {
			_, _, _ = c.kvctl("cluster", "transfer", c.followers()[0]) // it may be refused: the next one comes
		}
	}, nothing)

	slow := c.followers()[0]
	load := c.beside(c.command("bench", "--clients", "2", "--rate", "50", "--duration", "5m"))
	c.see("each fsync of a follower returns 0.4 s late (strace)", "KeyValSlowDisk", func() {
		end = c.beside(exec.Command("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync",
			"-e", "inject=fdatasync,fsync:delay_exit=400000", "-p", strconv.Itoa(c.pids()[slow])))
	}, func() { end() })
	load()

	absent := freeAddresses(t, 1)[0]
	c.see("an added node does not run", "KeyValOperationStuck", func() { _, _, _ = c.kvctl("cluster", "add", "node9", absent, "--timeout", "1s") }, func() {
		out, _, _ := c.kvctl("ops", "ls", "-o", "simple")
		for _, line := range strings.Split(out, "\n") {
			if id, _, _ := strings.Cut(line, "\t"); id != "" && !strings.Contains(line, "complete") && !strings.Contains(line, "failed") {
				c.run("ops", "abort", id)
			}
		}
	})

	var address string
	c.see("a node runs that nobody has added", "KeyValNotServing", func() {
		address = string(regexp.MustCompile(`node4 runs at (\S+)`).FindSubmatch([]byte(c.control("add", "node4")))[1])
		w.scrape(t, c.name, append(c.endpoints, address)...)
	}, func() { c.run("cluster", "add", "node4", address, "--timeout", "1m") })
	c.see("a fourth voter", "KeyValEvenVoters", nothing, func() {
		c.run("cluster", "remove", "node4", "--yes", "--timeout", "1m")
		w.scrape(t, c.name, c.endpoints...)
	})
}

// faultsOfMachines are of disks and keys, and of software.
func faultsOfMachines(t *testing.T, w *watch) {
	t.Run("a full disk", func(t *testing.T) {
		volume := filepath.Join(t.TempDir(), "volume")
		disktest.NewSmallVolume(t, volume, disktest.Small{Bytes: 2400 << 20})
		c := w.dev(t, "keyval-room", filepath.Join(volume, "cluster"), "--room", "200MiB")
		ballast := filepath.Join(volume, "ballast")
		c.see("a file system fills up to 100 MB", "KeyValRoomLow KeyValWritesRefused", func() { fillTo(t, volume, ballast, 100<<20) }, func() {
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
		})
		w.scrape(t, c.name)
	})
	t.Run("keys", func(t *testing.T) {
		c := w.dev(t, "keyval-keys", filepath.Join(t.TempDir(), "cluster"), "--secure", "--metrics-plain")
		node := transport.Principal{Kind: transport.NodeKey, Name: "node2"}
		issue := func(age time.Duration) {
			a := keys.Authority{Dir: c.authority.Dir, Now: func() time.Time { return time.Now().Add(-age) }}
			err := os.Rename(a.Of(node), a.Of(node)+time.Now().Format(".150405.000"))
			if _, _, wrong := a.Issue(node, []string{"127.0.0.1", "localhost"}); err != nil || wrong != nil {
				t.Fatal(err, wrong)
			}
		}
		c.see("a certificate that is good for 25 days", "KeyValCertificateExpires", func() { issue(340 * 24 * time.Hour) }, func() { issue(0) })
		w.scrape(t, c.name)
	})
	t.Run("another value", func(t *testing.T) {
		c := w.dev(t, "keyval-altered", filepath.Join(t.TempDir(), "cluster"))
		load := &loader{t: t, client: c.connect(c.endpoints...), size: 100}
		load.fill(0, 500, "true")
		c.run("compact", "--yes")
		altered := c.followers()[0]
		c.see("a value is altered on a disk, its checksum with it", "KeyValMembersDiffer", func() {
			c.control("stop", altered)
			alter(t, filepath.Join(c.data, altered), "load/00000123", true)
			_ = exec.Command(binary, "dev", "start", altered, "--data", c.data).Run() // it ends by itself, soon
		}, nothing)
		w.scrape(t, c.name)
	})
	t.Run("a defect", func(t *testing.T) {
		c := w.dev(t, "keyval-defect", filepath.Join(t.TempDir(), "cluster"))
		c.control("stop", "node3")
		c.beside(exec.Command(built(t, change{"actors/session.go", "	case *messages.Read:\n", "	case *messages.Read:\n		panic(\"a defect that was put in\")\n"}), "serve", "--data", filepath.Join(c.data, "node3"), "--metrics-listen", c.page(2)))
		w.await(t, c.name, "", time.Now(), time.Minute, "KeyValNodeDown", "KeyValMemberUnreachable")
		c.see("a build whose sessions panic at a read", "KeyValActorFailed", func() {
			_ = exec.Command(binary, "get", "k", "--timeout", "1s", "--endpoints", c.endpoints[2]).Run() // no answer
		}, nothing)
		w.scrape(t, c.name)
	})
	t.Run("snapshots", func(t *testing.T) {
		// What it is brought takes 1.5 s, so that Prometheus sees the new process count from 0.
		c := w.dev(t, "keyval-snapshots", filepath.Join(t.TempDir(), "cluster"), "--history-revisions", "10", "--snapshot-rate", "2MiB")
		late := c.followers()[0]
		at, led := c.indexOf(late), c.indexOf(c.leaderName())
		leader := c.connect(c.endpoints[led])
		(&loader{t: t, client: leader, size: 100 << 10}).fill(0, 30, "state")
		again := func() {
			before := c.status(at)
			c.killMember(late)
			time.Sleep(time.Second) // as long as the leader takes it for running, it keeps what that lacks
			for began := time.Now(); time.Since(began) < 10*time.Second; time.Sleep(100 * time.Millisecond) {
				_, err := leader.Put(context.Background(), []byte("k"), []byte("v"))
				if _, late := leader.Compact(context.Background(), 0); err != nil || late != nil {
					t.Error(err, late)
				}
				if s := c.status(led); before != nil && s != nil && s.LogFirstIndex > before.LastIndex+1 {
					break
				}
			}
			c.control("start", late)
			for began := time.Now(); time.Since(began) < 10*time.Second; time.Sleep(100 * time.Millisecond) {
				if answer, err := http.Get("http://" + c.page(at) + "/metrics"); err == nil { // else it is not there yet
					text, _ := io.ReadAll(answer.Body)
					answer.Body.Close()
					if strings.Contains(string(text), "\nkeyval_snapshots_installed_total 1\n") {
						break
					}
				}
			}
			time.Sleep(scrapeEvery)
		}
		c.see("a follower is killed until the log lacks what it needs, again and again", "KeyValSnapshotAgain", func() {
			for began := time.Now(); time.Since(began) < time.Minute && w.state("KeyValSnapshotAgain", c.name) != "firing"; {
				again()
			}
		}, nothing)
		w.scrape(t, c.name)
	})
}

// lastingFaults take a while.
func lastingFaults(t *testing.T, w *watch) {
	c := w.dev(t, "keyval-lasting", filepath.Join(t.TempDir(), "cluster"))
	other := built(t)
	end := nothing
	c.control("stop", "node3")
	begun := time.Now()
	end = c.beside(exec.Command(other, "serve", "--data", filepath.Join(c.data, "node3"), "--metrics-listen", c.page(2)))

	backups := filepath.Join(t.TempDir(), "backups")
	if err := os.Mkdir(backups, 0o755); err != nil {
		t.Fatal(err)
	}
	job := func() func() { return c.beside(c.command("backup", "--every", "1s", "--keep", "3", backups)) }
	stop := job()
	time.Sleep(3 * time.Second)
	c.see("kvctl backup --every was ended", "KeyValBackupOld", func() { stop() }, func() { stop = job() })
	c.see("the place of backups is gone", "KeyValBackupFails", func() {
		if err := os.Rename(backups, backups+".gone"); err != nil {
			t.Fatal(err)
		}
	}, func() {
		if err := os.Rename(backups+".gone", backups); err != nil {
			t.Fatal(err)
		}
	})
	stop()

	const mixed = "KeyValVersionsMixed"
	fired := w.await(t, c.name, "firing", begun, 15*time.Minute, mixed)
	begun = time.Now()
	end()
	c.control("start", "node3")
	cleared := w.await(t, c.name, "", begun, 2*time.Minute, mixed)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rows = append(w.rows, alertRow{mixed, "one node of three is of another version", fired[mixed], cleared[mixed]})
}

// fillTo fills a file system until so many bytes are left.
func fillTo(t *testing.T, dir, ballast string, left int64) {
	t.Helper()
	var room unix.Statfs_t
	file, err := os.Create(ballast)
	if err == nil {
		err = unix.Statfs(dir, &room)
	}
	if err == nil {
		err = unix.Fallocate(int(file.Fd()), 0, 0, int64(room.Bavail)*room.Bsize-left)
	}
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
}
