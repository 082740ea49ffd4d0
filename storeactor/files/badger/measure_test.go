package badger

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
)

// What is measured here takes minutes and says figures rather than yes or no; it
// runs when it is asked for: KEYVAL_MEASURE=1 go test ./storeactor/files/badger -run Measure -v
func measured(t *testing.T) *measure {
	if os.Getenv("KEYVAL_MEASURE") == "" {
		t.Skip("KEYVAL_MEASURE is not set")
	}
	dir := t.TempDir()
	if root := os.Getenv("KEYVAL_MEASURE_DIR"); root != "" {
		var err error
		if dir, err = os.MkdirTemp(root, "measure-"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
	}
	return &measure{T: t, dir: filepath.Join(dir, "state"), began: time.Now(), cpu: processorTime()}
}

type measure struct {
	*testing.T
	dir      string
	engine   *Engine
	began    time.Time
	cpu      time.Duration
	revision uint64
}

func (m *measure) ok(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

func (m *measure) open() {
	m.Helper()
	m.ok(create(m.dir))
	var err error
	m.engine, err = Open(m.dir, Seal{}, quiet)
	m.ok(err)
}

// lap logs the time since the last one, and starts the next.
func (m *measure) lap(format string, args ...any) time.Duration {
	m.Helper()
	took, cpu := time.Since(m.began), processorTime()-m.cpu
	m.Logf("%-40s %6.2f s, processor %6.2f s  %s", fmt.Sprintf(format, args...), took.Seconds(), cpu.Seconds(), m.state())
	m.began, m.cpu = time.Now(), processorTime()
	return took
}

func processorTime() time.Duration {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// state is what the process and the directory hold, in MiB.
func (m *measure) state() string {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	status, _ := os.ReadFile("/proc/self/status")
	rss := map[string]int{}
	for line := range strings.Lines(string(status)) {
		var name string
		var kib int
		if n, _ := fmt.Sscanf(line, "%s %d kB", &name, &kib); n == 2 && strings.HasPrefix(name, "Rss") {
			rss[strings.TrimSuffix(name, ":")] = kib >> 10
		}
	}
	return fmt.Sprintf("anonymous %d, mapped %d, heap %d of %d; disk %d, said %d",
		rss["RssAnon"], rss["RssFile"], mem.HeapInuse>>20, mem.HeapSys>>20, used(m.dir)>>20, m.engine.Size()>>20)
}

// used is what the files of a directory take of the disk, in bytes.
func used(dir string) (bytes int64) {
	filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			bytes += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	return bytes
}

// profile writes a heap profile to KEYVAL_MEASURE_DIR, if that is set.
func (m *measure) profile(name string) {
	root := os.Getenv("KEYVAL_MEASURE_DIR")
	if root == "" {
		return
	}
	f, err := os.Create(filepath.Join(root, name+".prof"))
	m.ok(err)
	defer f.Close()
	m.ok(pprof.WriteHeapProfile(f))
}

// write writes n rows in batches of 64, syncing every 256 Ki rows.
func (m *measure) write(n int, row func(i int) disk.Row) {
	m.Helper()
	batch := make([]disk.Row, 0, 64)
	for i := range n {
		m.revision++
		r := row(i)
		r.Revision = m.revision
		if batch = append(batch, r); len(batch) == cap(batch) || i == n-1 {
			m.ok(m.engine.Write(disktest.Whole(batch...)))
			batch = batch[:0]
		}
		if i%(256<<10) == 0 {
			m.ok(m.engine.Sync())
		}
	}
}

func randomValue(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(rand.Int())
	}
	return b
}

func (m *measure) scan() (rows, bytes int) {
	m.Helper()
	m.ok(m.engine.Scan(nil, nil, m.revision, false, func(r disk.Row) bool {
		rows++
		bytes += len(r.Key) + len(r.Value)
		return true
	}))
	return rows, bytes
}

func (m *measure) export(floor uint64) (rows, bytes int) {
	m.Helper()
	m.ok(m.engine.Export(disk.Cursor{}, floor, m.revision, func(r disk.Row) bool {
		rows++
		bytes += len(r.Key) + len(r.Value)
		return true
	}))
	return rows, bytes
}

// A million rows of 256 bytes in random order, then reads of all of them.
func TestMeasureLoad(t *testing.T) {
	m := measured(t)
	m.open()
	m.lap("opened")
	order := rand.New(rand.NewPCG(1, 2)).Perm(1_000_000)
	value := randomValue(256)
	m.began = time.Now()
	m.write(len(order), func(i int) disk.Row { return disk.Row{Key: fmt.Appendf(nil, "key%012d", order[i]), Value: value} })
	took := m.lap("1,000,000 rows of 256 bytes")
	t.Logf("%.0f rows/s", float64(len(order))/took.Seconds())
	m.write(len(order), func(i int) disk.Row { return disk.Row{Key: fmt.Appendf(nil, "key%012d", order[i]), Value: value} })
	took = m.lap("overwritten once")
	t.Logf("%.0f rows/s", float64(len(order))/took.Seconds())
	runtime.GC()
	m.lap("collected")
	m.profile("heap-loaded")
	for range 3 {
		_, bytes := m.scan()
		took = m.lap("scan")
		t.Logf("scan %.0f MB/s", float64(bytes)/1e6/took.Seconds())
		_, bytes = m.export(0)
		took = m.lap("export of all versions")
		t.Logf("export %.0f MB/s", float64(bytes)/1e6/took.Seconds())
		_, bytes = m.export(m.revision)
		took = m.lap("export of the newest")
		t.Logf("export %.0f MB/s", float64(bytes)/1e6/took.Seconds())
	}
	debug.FreeOSMemory()
	m.lap("memory given back")
	m.ok(m.engine.Close())
	m.lap("closed")
}

// Space that comes back: 300 MB are written, then deleted or overwritten, and
// nobody wants what was before.
func TestMeasureReclaim(t *testing.T) {
	for _, c := range []struct {
		name string
		row  func(i int) disk.Row
	}{
		{"deleted", func(i int) disk.Row { return disk.Row{Key: fmt.Appendf(nil, "key%012d", i), Deleted: true} }},
		{"overwritten", func(i int) disk.Row { return disk.Row{Key: fmt.Appendf(nil, "key%012d", i), Value: []byte("short")} }},
		{"half deleted", func(i int) disk.Row {
			return disk.Row{Key: fmt.Appendf(nil, "key%012d", i*7919%500_000), Deleted: true}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := measured(t)
			m.open()
			value := randomValue(300)
			m.write(1_000_000, func(i int) disk.Row {
				return disk.Row{Key: fmt.Appendf(nil, "key%012d", i*7919%1_000_000), Value: value}
			})
			m.lap("1,000,000 rows of 300 bytes")
			m.write(1_000_000, c.row)
			m.lap("%s", c.name)
			expected, _ := m.scan()
			m.ok(m.engine.Sync())
			m.engine.Discard(m.revision)
			m.began = time.Now()
			m.ok(m.engine.Reclaim())
			m.lap("reclaimed")
			if rows, _ := m.scan(); rows != expected {
				t.Errorf("%d rows were there, and %d are", expected, rows)
			}
			m.ok(m.engine.Reclaim())
			m.lap("reclaimed again")
			for _, l := range m.engine.db.Levels() {
				t.Logf("level %d: %d tables, %d bytes", l.Level, l.NumTables, l.Size)
			}
			m.ok(m.engine.Sync())
			seal := m.engine.seal
			m.ok(m.engine.Close())
			var err error
			m.engine, err = Open(m.dir, seal, quiet)
			m.ok(err)
			m.lap("opened again")
			m.ok(m.engine.Close())
		})
	}
}

// Rows in use give their history back on their own: a million overwrites of a
// thousand keys, of which the last 100,000 count.
func TestMeasureSteadyState(t *testing.T) {
	m := measured(t)
	m.open()
	value := randomValue(1024)
	for range 20 {
		m.write(100_000, func(i int) disk.Row {
			return disk.Row{Key: fmt.Appendf(nil, "key%012d", rand.IntN(1000)), Value: value}
		})
		m.ok(m.engine.Sync())
		m.engine.Discard(m.revision - min(m.revision, 100_000))
		m.lap("revision %d", m.revision)
	}
	m.ok(m.engine.Close())
}

// A gigabyte that comes from elsewhere.
func TestMeasureStaging(t *testing.T) {
	m := measured(t)
	s, err := Stage(m.dir, quiet)
	m.ok(err)
	m.engine = &Engine{db: s.db, dir: s.dir}
	value := randomValue(1000)
	const n = 1_000_000
	rows := make([]disk.Row, 0, 1000)
	m.lap("begun")
	var peak uint64
	for i := range n {
		rows = append(rows, disk.Row{Key: fmt.Appendf(nil, "key%012d", i), Value: value, Revision: uint64(i + 1)})
		if len(rows) == cap(rows) {
			m.ok(s.Write(disktest.Whole(rows...)))
			rows = rows[:0]
			var mem runtime.MemStats
			runtime.ReadMemStats(&mem)
			peak = max(peak, mem.HeapInuse)
		}
	}
	m.lap("%d rows of 1,000 bytes", n)
	seal, err := s.Seal()
	m.ok(err)
	m.lap("sealed")
	t.Logf("at most %d MiB of heap", peak>>20)
	m.engine, err = Open(m.dir, seal, quiet)
	m.ok(err)
	m.lap("opened")
	m.ok(m.engine.Close())
}

// One key alone, with values of a megabyte, of which the last 256 count. Badger
// keeps all versions of a key in one table, which it builds in memory, and which
// cannot have 4 GiB: so the bytes of a key's history need a bound.
func TestMeasureHotKey(t *testing.T) {
	m := measured(t)
	m.open()
	value := randomValue(1_000_000)
	for range 10 {
		for range 4 {
			m.write(64, func(int) disk.Row { return disk.Row{Key: []byte("hot"), Value: value} })
			m.ok(m.engine.Sync())
			m.engine.Discard(m.revision - min(m.revision, 256))
		}
		m.lap("revision %d", m.revision)
	}
	m.ok(m.engine.Close())
}
