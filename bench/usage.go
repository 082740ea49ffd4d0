package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// usage is CPU that was used: by this process, by each node, by busy loops, by the
// whole machine.
type usage struct {
	self    time.Duration
	nodes   []time.Duration
	busy    time.Duration // of busy loops
	machine time.Duration
}

func (u usage) since(before usage) usage {
	d := usage{self: u.self - before.self, busy: u.busy - before.busy, machine: u.machine - before.machine}
	for i := range u.nodes {
		d.nodes = append(d.nodes, u.nodes[i]-before.nodes[i])
	}
	return d
}

func readUsage(pids, busy []int) (usage, error) {
	var u usage
	var own unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &own); err != nil {
		return u, err
	}
	u.self = time.Duration(own.Utime.Nano() + own.Stime.Nano())
	for _, pid := range pids {
		d, err := cpuOf(pid)
		if err != nil {
			return u, fmt.Errorf("the CPU of process %d: %w", pid, err)
		}
		u.nodes = append(u.nodes, d)
	}
	for _, pid := range busy {
		d, err := cpuOf(pid)
		if err != nil {
			return u, fmt.Errorf("the CPU of process %d: %w", pid, err)
		}
		u.busy += d
	}
	var err error
	u.machine, err = cpuOfMachine()
	return u, err
}

// cpuOf reads a process's CPU clock, which counts all of its threads, ended ones
// too, in nanoseconds. Its number is made of the pid as clock_getcpuclockid does.
func cpuOf(pid int) (time.Duration, error) {
	const scheduled = 2 // CPUCLOCK_SCHED
	var t unix.Timespec
	err := unix.ClockGettime(int32(^pid<<3|scheduled), &t)
	return time.Duration(t.Nano()), err
}

// cpuOfMachine is the time that the cores were busy, from the first line of
// /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal in 1/100 s.
func cpuOfMachine() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	var busy time.Duration
	for i, field := range strings.Fields(line) {
		if !slices.Contains([]int{1, 2, 3, 6, 7}, i) {
			continue
		}
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		busy += time.Duration(n) * time.Second / 100
	}
	return busy, nil
}

func loadAverage() float64 {
	text, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(text), " ")
	n, _ := strconv.ParseFloat(first, 64)
	return n
}

// machine is where it was measured.
type machine struct {
	CPU         string  `json:"cpu"`
	Cores       int     `json:"cores"`
	Kernel      string  `json:"kernel"`
	Go          string  `json:"go"`
	LoadAverage float64 `json:"load_average"` // when the run began
	SyncP50     float64 `json:"fdatasync_p50_us"`
	SyncP99     float64 `json:"fdatasync_p99_us"`
	MemoryDisk  bool    `json:"memory_disk"` // an fsync costs nothing there
}

func (m machine) String() string {
	disk := fmt.Sprintf("append of 512 bytes and fdatasync %.0f us (p50), %.0f us (p99)", m.SyncP50, m.SyncP99)
	if m.MemoryDisk {
		disk = "WARNING: the data directories are in memory, where an fsync costs nothing"
	}
	return fmt.Sprintf("%d cores of %s, Linux %s, %s, load average %.2f; %s", m.Cores, m.CPU, m.Kernel, m.Go, m.LoadAverage, disk)
}

func lookAtMachine(dir string) (machine, error) {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version(), LoadAverage: loadAverage(), CPU: "unknown CPU"}
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if name, value, _ := strings.Cut(lines.Text(), ":"); strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	m.Kernel = strings.TrimSpace(string(release))
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		return m, err
	}
	m.MemoryDisk = disk.Type == unix.TMPFS_MAGIC
	return m, m.probeDisk(filepath.Join(dir, "probe"))
}

// probeDisk says what durability costs on this disk at the least.
func (m *machine) probeDisk(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	defer f.Close()
	var took []float64
	for range 200 {
		started := time.Now()
		if _, err := f.Write(make([]byte, 512)); err != nil {
			return err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return err
		}
		took = append(took, float64(time.Since(started).Microseconds()))
	}
	slices.Sort(took)
	m.SyncP50, m.SyncP99 = took[len(took)/2], took[len(took)*99/100]
	return nil
}
