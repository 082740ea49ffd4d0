package wal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
)

// Small segments keep the tests fast, and let them cross from one to the next.
func init() { wal.SegmentSizeBytes = 16 << 10 }

// testLog is a log's files at one moment.
type testLog struct {
	segments map[string][]byte
	witness  []byte
}

func makeLog(t *testing.T) (generation string, l *Log) {
	t.Helper()
	generation = t.TempDir()
	l = createAt(t, generation)
	t.Cleanup(func() { l.Close() })
	return generation, l
}

func createAt(t *testing.T, generation string) *Log {
	t.Helper()
	if err := Create(generation, disktest.First, disktest.HardState(disktest.First.Term, 0, disktest.First.Index), nil, disktest.Identity, 0, quiet); err != nil {
		t.Fatal(err)
	}
	l, _, err := reopenLog(generation)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func reopenLog(generation string) (*Log, *disk.LogImage, error) {
	return Open(generation, Metadata(disktest.First.ClusterId, disktest.Identity.Incarnation), func(string) {}, prometheus.ObserverFunc(func(float64) {}), quiet)
}

// readFiles reads a log's files as a killed process would leave them.
func readFiles(t *testing.T, generation string) testLog {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(generation, dirName, "*.wal"))
	if err != nil {
		t.Fatal(err)
	}
	l := testLog{segments: map[string][]byte{}}
	for _, name := range names {
		if l.segments[filepath.Base(name)], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	if l.witness, err = os.ReadFile(filepath.Join(generation, WitnessName)); err != nil {
		t.Fatal(err)
	}
	return l
}

// last is the name of the newest segment.
func (l testLog) last() string {
	var names []string
	for name := range l.segments {
		names = append(names, name)
	}
	return slices.Max(names)
}

// with is the log with the last segment replaced.
func (l testLog) with(last []byte) testLog {
	changed := testLog{segments: map[string][]byte{}, witness: l.witness}
	for name, segment := range l.segments {
		changed.segments[name] = segment
	}
	changed.segments[l.last()] = last
	return changed
}

// write makes the files of a generation these.
func (l testLog) write(t *testing.T, generation string) {
	t.Helper()
	dir := filepath.Join(generation, dirName)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, segment := range l.segments {
		if err := os.WriteFile(filepath.Join(dir, name), segment, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(generation, WitnessName), l.witness, 0o600); err != nil {
		t.Fatal(err)
	}
}

// open opens a copy of the log. The image is nil if it is damaged.
func (l testLog) open(t *testing.T, generation string) *disk.LogImage {
	t.Helper()
	l.write(t, generation)
	log, image, err := reopenLog(generation)
	if err == nil {
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
		return image
	}
	if messages.CodeOf(err) != messages.Code_DAMAGED {
		t.Fatalf("unexpected error: %v", err)
	}
	for name, segment := range l.segments {
		if left, err := os.ReadFile(filepath.Join(generation, dirName, name)); err != nil || !bytes.Equal(left, segment) {
			t.Fatalf("the damaged log was changed: %v", err)
		}
	}
	return nil
}

// records are the offsets at which the records of the last segment begin, and
// that of its end.
func (l testLog) records(t *testing.T) []int64 {
	t.Helper()
	path := filepath.Join(t.TempDir(), l.last())
	if err := os.WriteFile(path, l.segments[l.last()], 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	decoder, record := wal.NewDecoder(fileutil.NewFileReader(f)), &walpb.Record{}
	offsets := []int64{0}
	for decoder.Decode(record) == nil {
		if record.GetType() == wal.CrcType {
			decoder.UpdateCRC(record.GetCrc())
		}
		offsets = append(offsets, decoder.LastOffset())
	}
	return offsets
}

func mustSave(t *testing.T, l *Log, hs *raftpb.HardState, entries []*raftpb.Entry) {
	t.Helper()
	if err := l.Save(hs, entries); err != nil {
		t.Fatal(err)
	}
}

func sameImage(a, b *disk.LogImage) bool {
	return a != nil && b != nil && proto.Equal(a.HardState, b.HardState) &&
		slices.EqualFunc(a.Entries, b.Entries, func(a, b *raftpb.Entry) bool { return proto.Equal(a, b) })
}

// fillLog saves entries until the log has three segments and some more.
func fillLog(t *testing.T, generation string, l *Log) {
	t.Helper()
	for term := uint64(2); ; term++ {
		mustSave(t, l, disktest.HardState(term, 1, l.index), nil)
		for range 4 {
			es := disktest.Entries(l.index, term, term)
			es[0].Data, es[1].Data = bytes.Repeat([]byte{1}, 700), bytes.Repeat([]byte{2}, 41)
			mustSave(t, l, disktest.HardState(term, 1, l.index), es)
		}
		if names, _ := filepath.Glob(filepath.Join(generation, dirName, "*.wal")); len(names) == 3 {
			mustSave(t, l, disktest.HardState(term+1, 2, l.index), disktest.Entries(l.index, term+1, term+1))
			return
		}
	}
}

func TestLogDamageIsRefused(t *testing.T) {
	generation, l := makeLog(t)
	fillLog(t, generation, l)
	whole := readFiles(t, generation)
	copied := t.TempDir()
	expected := whole.open(t, copied)
	if index, _ := expected.Last(); index != l.index {
		t.Fatalf("the whole log ends at %d, expected %d", index, l.index)
	}
	segment, records := whole.segments[whole.last()], whole.records(t)
	end := int(records[len(records)-1])

	refused := func(name string, change func(b []byte) []byte, harmless bool) {
		t.Helper()
		got := whole.with(change(bytes.Clone(segment))).open(t, copied)
		if got != nil && (!harmless || !sameImage(got, expected)) {
			t.Errorf("%s: opened with %d of %d entries", name, len(got.Entries), len(expected.Entries))
		}
	}
	// A flipped bit may stand where nothing is (padding), but never changes what is read.
	for at := 0; at < end; at += 1 + at%3 {
		refused(fmt.Sprintf("byte %d flipped", at), func(b []byte) []byte { b[at] ^= 1 << (at % 8); return b }, true)
	}
	for _, at := range records[:len(records)-1] {
		refused(fmt.Sprintf("length at %d zeroed", at), func(b []byte) []byte { clear(b[at : at+8]); return b }, false)
		refused(fmt.Sprintf("length at %d huge", at), func(b []byte) []byte { b[at+2] = 0xff; return b }, false)
		refused(fmt.Sprintf("cut at %d", at), func(b []byte) []byte { return b[:at] }, false)
		refused(fmt.Sprintf("cut within %d", at), func(b []byte) []byte { return b[:at+12] }, false)
	}
	for at := 0; at < end; at += 512 {
		refused(fmt.Sprintf("sector at %d zeroed", at), func(b []byte) []byte { clear(b[at : at+512]); return b }, false)
	}
}

func TestLogWithMissingPartsIsRefused(t *testing.T) {
	generation, l := makeLog(t)
	fillLog(t, generation, l)
	whole := readFiles(t, generation)
	copied := t.TempDir()
	for name, segment := range whole.segments {
		rest := testLog{segments: map[string][]byte{}, witness: whole.witness}
		for other, segment := range whole.segments {
			if other != name {
				rest.segments[other] = segment
			}
		}
		if rest.open(t, copied) != nil {
			t.Errorf("opened without %s", name)
		}
		rest.segments[name] = bytes.Clone(segment)
		clear(rest.segments[name][512:])
		if rest.open(t, copied) != nil {
			t.Errorf("opened with %s zeroed behind its first sector", name)
		}
	}
	if (testLog{segments: whole.segments, witness: make([]byte, 2*witnessBlock)}).open(t, copied) != nil {
		t.Error("opened without a witness")
	}
	_, _, err := Open(copied, Metadata(disktest.First.ClusterId, []byte("another")), func(string) {}, prometheus.ObserverFunc(func(float64) {}), quiet)
	if messages.CodeOf(err) != messages.Code_DAMAGED {
		t.Errorf("another node's log: %v", err)
	}
}

func TestTornEndBeyondTheWitnessIsRepaired(t *testing.T) {
	generation, l := makeLog(t)
	fillLog(t, generation, l)
	synced := readFiles(t, generation)
	syncedIndex, at := l.index, synced.records(t)
	from := at[len(at)-1]
	for range 3 {
		es := disktest.Entries(l.index, l.term, l.term)
		es[0].Data = bytes.Repeat([]byte{3}, 1500)
		mustSave(t, l, disktest.HardState(l.hardState.GetTerm(), 2, l.index), es)
	}
	torn := readFiles(t, generation)
	torn.witness = synced.witness // as a power cut leaves it
	segment, at := torn.segments[torn.last()], torn.records(t)
	end := at[len(at)-1]
	if synced.last() != torn.last() {
		t.Fatal("the torn saves are in another segment")
	}

	copied, rng := t.TempDir(), rand.New(rand.NewPCG(1, 1))
	shorter := 0
	for range 150 {
		b := bytes.Clone(segment)
		cut := from + rng.Int64N(end-from)
		switch rng.IntN(3) {
		case 0: // the file ends there
			b = b[:cut]
		case 1: // what follows was never written
			clear(b[(cut+511)/512*512:])
		case 2: // one sector was not written, later ones were
			if sector := cut / 512 * 512; sector >= from {
				clear(b[sector : sector+512])
			}
		}
		image := torn.with(b).open(t, copied)
		if image == nil {
			t.Fatalf("a tear at %d of [%d, %d) is taken for damage", cut, from, end)
		}
		index, _ := image.Last()
		if index < syncedIndex || index > l.index {
			t.Fatalf("a tear at %d: the log ends at %d, expected [%d, %d]", cut, index, syncedIndex, l.index)
		}
		if index < l.index {
			shorter++
		}
		appendAfterRepair(t, copied, index)
	}
	if shorter == 0 {
		t.Fatal("no tear took anything")
	}
}

// TestRepairTakesRoom: a repair keeps a copy of what was there. Without room for it the
// log is left as it is, and opens once there is room.
func TestRepairTakesRoom(t *testing.T) {
	generation, l := makeLog(t)
	fillLog(t, generation, l)
	torn := readFiles(t, generation)
	at, synced := torn.records(t), l.index
	es := disktest.Entries(l.index, l.term, l.term)
	es[0].Data = bytes.Repeat([]byte{3}, 1500)
	mustSave(t, l, disktest.HardState(l.hardState.GetTerm(), 2, l.index), es)
	after := readFiles(t, generation)
	segment := after.segments[after.last()][:at[len(at)-1]+700]
	after.witness = torn.witness // as a power cut leaves it

	volume := filepath.Join(t.TempDir(), "volume")
	held := int64(0)
	for _, s := range after.segments {
		held += int64(len(s))
	}
	resize := disktest.NewMemoryVolume(t, volume, 2*held+1<<20)
	full := after.with(segment)
	full.write(t, volume)
	filler := filepath.Join(volume, "filler")
	fill(t, filler)
	for range 2 {
		_, _, err := reopenLog(volume)
		said := (*messages.Error)(nil)
		if !errors.As(err, &said) || said.Code != messages.Code_INTERNAL || !strings.Contains(said.Message, "no space left") || !strings.Contains(said.Hint, "make room") {
			t.Errorf("without room: %v", err)
		}
	}
	resize(4*held + 64<<20)
	if _, image, err := reopenLog(volume); err != nil {
		t.Errorf("with room: %v", err)
	} else if index, _ := image.Last(); index != synced {
		t.Errorf("the log ends at %d, expected %d", index, synced)
	}
}

// fill takes all the room there is.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4096} {
		for err = error(nil); err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
}

// appendAfterRepair: a repaired log takes entries and reads them back.
func appendAfterRepair(t *testing.T, generation string, index uint64) {
	t.Helper()
	l, image, err := reopenLog(generation)
	if err != nil {
		t.Fatal(err)
	}
	if i, _ := image.Last(); i != index {
		t.Fatalf("the repaired log ends at %d, then at %d", index, i)
	}
	mustSave(t, l, nil, disktest.Entries(index, l.term))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, image, err = reopenLog(generation)
	if err != nil {
		t.Fatal(err)
	}
	if i, _ := image.Last(); i != index+1 {
		t.Fatalf("the log ends at %d, expected %d", i, index+1)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestNewSegmentsBeginWithTheHardState(t *testing.T) {
	generation, l := makeLog(t)
	mustSave(t, l, disktest.HardState(7, 3, 1), nil)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, _, err := reopenLog(generation)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for len(readFiles(t, generation).segments) == 1 {
		es := disktest.Entries(l.index, 7)
		es[0].Data = make([]byte, 3000)
		mustSave(t, l, nil, es) // no HardState since the log was opened
	}
	files := readFiles(t, generation)
	path := filepath.Join(t.TempDir(), "segment")
	if err := os.WriteFile(path, files.segments[files.last()], 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	decoder, record := wal.NewDecoder(fileutil.NewFileReader(f)), &walpb.Record{}
	for decoder.Decode(record) == nil {
		if record.GetType() == wal.CrcType {
			decoder.UpdateCRC(record.GetCrc())
		}
		if record.GetType() == wal.StateType {
			if got := wal.MustUnmarshalState(record.Data); !proto.Equal(got, disktest.HardState(7, 3, 1)) {
				t.Fatalf("the second segment begins with %v", got)
			}
			return
		}
	}
	t.Fatal("the second segment has no HardState")
}

func TestLogThatMakesNoSenseIsRefused(t *testing.T) {
	generation, l := makeLog(t)
	mustSave(t, l, disktest.HardState(2, 1, 1), disktest.Entries(1, 2, 2))
	if err := l.wal.Save(disktest.HardState(3, 1, 9), nil); err != nil { // behind the log's back
		t.Fatal(err)
	}
	if readFiles(t, generation).open(t, t.TempDir()) != nil {
		t.Error("a log whose commit index is beyond its end was opened")
	}
}
