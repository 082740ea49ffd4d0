package cli

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// bindToParent makes a child end when the thread that starts it ends, and keeps
// the terminal's Ctrl-C from it: its parent ends it in order.
func bindToParent(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// portOwner names the process that listens at a TCP port; empty: nobody, or
// nobody that may be looked at.
func portOwner(port int) string {
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		if inode := listeningInode(table, port); inode != "" {
			if owner := socketOwner(inode); owner != "" {
				return owner
			}
			return "a process of another user"
		}
	}
	return ""
}

// listeningInode looks a listening socket up: the fields of a row are number,
// local address (hex), remote address, state (0A: listening), ..., inode.
func listeningInode(table string, port int) string {
	const listening = "0A"
	f, err := os.Open(table)
	if err != nil {
		return ""
	}
	defer f.Close()
	suffix := fmt.Sprintf(":%04X", port)
	for rows := bufio.NewScanner(f); rows.Scan(); {
		fields := strings.Fields(rows.Text())
		if len(fields) > 9 && strings.HasSuffix(fields[1], suffix) && fields[3] == listening {
			return fields[9]
		}
	}
	return ""
}

func socketOwner(inode string) string {
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return ""
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != "socket:["+inode+"]" {
			continue
		}
		pid := strings.Split(link, "/")[2]
		line, err := os.ReadFile("/proc/" + pid + "/cmdline")
		if err != nil {
			return "pid " + pid
		}
		command := strings.ReplaceAll(strings.TrimRight(string(line), "\x00"), "\x00", " ")
		return "pid " + pid + ": " + strconv.Quote(command[:min(len(command), 120)])
	}
	return ""
}

// listens reports whether a process of this machine listens at a TCP port: a
// cluster's node may have its number on another machine.
func listens(pid, port int) bool {
	links, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/fd/*")
	if err != nil {
		return false
	}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		inode := listeningInode(table, port)
		for _, link := range links {
			if target, err := os.Readlink(link); err == nil && inode != "" && target == "socket:["+inode+"]" {
				return true
			}
		}
	}
	return false
}

// ownCPU is the CPU time that this process has taken.
func ownCPU() (time.Duration, bool) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, false
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), true
}

// processCPU is the CPU time that a process has taken, to a hundredth of a second.
func processCPU(pid int) (time.Duration, bool) {
	line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	return statCPU(string(line))
}

// statCPU adds user and system time, fields 14 and 15 of a stat line. The name in
// field 2 may hold anything.
func statCPU(line string) (time.Duration, bool) {
	const tick = time.Second / 100 // USER_HZ is 100 on every port of Linux that Go has
	fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
	if len(fields) < 13 {
		return 0, false
	}
	user, errUser := strconv.ParseInt(fields[11], 10, 64)
	system, errSystem := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * tick, errUser == nil && errSystem == nil
}
