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
