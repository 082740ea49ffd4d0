package files

import (
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// sizes tells what a directory takes of its disk, by what it is for. It looks when somebody reads
// the metrics, one look at a time, and not again for sizesFor. A status reads them too, in an actor that a
// disk must not hold up: what is not found within sizesPatience is told the next time.
type sizes struct {
	dir     string
	measure func(dir string) map[string]uint64

	mutex sync.Mutex
	looks bool
	at    time.Time // of the end of the last look
	bytes map[string]uint64
}

const (
	sizesFor      = 5 * time.Second
	sizesPatience = 50 * time.Millisecond
)

var dataBytes = prometheus.NewDesc("keyval_data_bytes",
	"What the data directory takes of the disk: log, rows (history included, and what compaction has yet to give back), snapshots (files of kvctl snapshot), other.", []string{"part"}, nil)

func (s *sizes) Describe(to chan<- *prometheus.Desc) { to <- dataBytes }

func (s *sizes) Collect(to chan<- prometheus.Metric) {
	if found := s.look(); found != nil {
		select {
		case <-found:
		case <-time.After(sizesPatience):
		}
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for part, bytes := range s.bytes {
		to <- prometheus.MustNewConstMetric(dataBytes, prometheus.GaugeValue, float64(bytes), part)
	}
}

// look begins a look, if it is time for one. nil: it is not.
func (s *sizes) look() (found chan struct{}) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.looks || time.Since(s.at) <= sizesFor {
		return nil
	}
	s.looks, found = true, make(chan struct{})
	go func() {
		bytes := s.measure(s.dir)
		s.mutex.Lock()
		defer s.mutex.Unlock()
		s.bytes, s.at, s.looks = bytes, time.Now(), false
		close(found)
	}()
	return found
}

// sizesOf counts blocks: the log and the rows have files that are longer than what they hold. What
// goes away meanwhile is not counted.
func sizesOf(dir string) map[string]uint64 {
	bytes := map[string]uint64{"log": 0, "rows": 0, snapshotsName: 0, "other": 0}
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		var file unix.Stat_t
		if unix.Lstat(path, &file) == nil {
			bytes[partOf(dir, path)] += uint64(file.Blocks) * 512
		}
		return nil
	})
	return bytes
}

func partOf(dir, path string) string {
	path, err := filepath.Rel(dir, path)
	if err != nil {
		return "other"
	}
	first, rest, _ := strings.Cut(filepath.ToSlash(path), "/")
	second, _, _ := strings.Cut(rest, "/")
	switch {
	case first == snapshotsName:
		return snapshotsName
	case generationNumber(first) > 0 && second == "wal":
		return "log"
	case generationNumber(first) > 0 && second == stateName:
		return "rows"
	}
	return "other"
}
