package wal

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"keyval/storeactor/disk"
	"keyval/storeactor/files/durable"
)

// The witness file is two slots, each alone in its block, written in turn: a
// torn write harms one at most. A slot fits one sector. Little endian:
//
//	magic [8] | format uint32 | 9 fields uint64 | CRC32C of all before uint32
const (
	WitnessName   = "witness"
	witnessMagic  = "KVWITNES"
	witnessFormat = 1
	witnessBlock  = 4096 // bytes
	witnessSlot   = 8 + 4 + 9*8 + 4
)

func encodeWitness(w disk.Witness) []byte {
	b := make([]byte, 0, witnessSlot)
	b = append(b, witnessMagic...)
	b = binary.LittleEndian.AppendUint32(b, witnessFormat)
	for _, v := range []uint64{w.Sequence, w.BaseIndex, w.BaseTerm, w.Index, w.Term, w.HardTerm, w.Vote, w.Commit, w.Starts} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, disk.Castagnoli))
}

// decodeWitness reads one slot. It reports false for one that was never written,
// torn or damaged.
func decodeWitness(b []byte) (w disk.Witness, format uint32, ok bool) {
	if len(b) < witnessSlot || string(b[:8]) != witnessMagic {
		return w, 0, false
	}
	b = b[:witnessSlot]
	if crc32.Checksum(b[:witnessSlot-4], disk.Castagnoli) != binary.LittleEndian.Uint32(b[witnessSlot-4:]) {
		return w, 0, false
	}
	for i, field := range []*uint64{&w.Sequence, &w.BaseIndex, &w.BaseTerm, &w.Index, &w.Term, &w.HardTerm, &w.Vote, &w.Commit, &w.Starts} {
		*field = binary.LittleEndian.Uint64(b[12+8*i:])
	}
	return w, binary.LittleEndian.Uint32(b[8:]), true
}

// witnessFile is a Witness on disk, open for overwriting.
type witnessFile struct {
	file *os.File
	last disk.Witness
}

// createWitness writes the first witness of a new log, durably.
func createWitness(generation string, first disk.Witness) error {
	first.Sequence = 1
	blocks := make([]byte, 2*witnessBlock)
	copy(blocks[witnessBlock:], encodeWitness(first))
	return durable.Replace(filepath.Join(generation, WitnessName), blocks)
}

// openWitness reads the newer of the two slots that are whole.
func openWitness(generation string) (*witnessFile, error) {
	path := filepath.Join(generation, WitnessName)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if os.IsNotExist(err) {
		return nil, disk.Damaged("the log's witness %s is missing", path)
	}
	if err != nil {
		return nil, durable.Error("open the log's witness", err)
	}
	last, err := readWitness(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &witnessFile{file: f, last: last}, nil
}

// ReadWitness reads the witness of a log that nobody has open. It reports false if
// there is none.
func ReadWitness(generation string) (w disk.Witness, found bool, err error) {
	f, err := os.Open(filepath.Join(generation, WitnessName))
	if os.IsNotExist(err) {
		return w, false, nil
	}
	if err != nil {
		return w, false, durable.Error("open the log's witness", err)
	}
	defer f.Close()
	w, err = readWitness(f)
	return w, true, err
}

// Count makes durable in the witness of a log that nobody has open how many processes were
// started on its generation.
func Count(generation string, starts uint64) error {
	w, err := openWitness(generation)
	if err != nil {
		return err
	}
	defer w.file.Close()
	last := w.last
	last.Starts = starts
	if err := errors.Join(w.write(last), w.file.Sync()); err != nil {
		return durable.Error("write the log's witness", err)
	}
	return nil
}

func readWitness(f *os.File) (disk.Witness, error) {
	var last disk.Witness
	for slot := range int64(2) {
		b := make([]byte, witnessSlot)
		if _, err := f.ReadAt(b, slot*witnessBlock); err != nil && err != io.EOF {
			return last, durable.Error("read the log's witness", err)
		}
		w, format, ok := decodeWitness(b)
		if !ok {
			continue
		}
		if format > witnessFormat {
			return last, durable.FormatError(f.Name(), format, witnessFormat)
		}
		if w.Sequence > last.Sequence {
			last = w
		}
	}
	if last.Sequence == 0 {
		return last, disk.Damaged("the log's witness %s is damaged", f.Name())
	}
	return last, nil
}

// write overwrites the older slot; it is durable after a sync.
func (f *witnessFile) write(w disk.Witness) error {
	w.Sequence = f.last.Sequence + 1
	if _, err := f.file.WriteAt(encodeWitness(w), int64(w.Sequence%2)*witnessBlock); err != nil {
		return err
	}
	f.last = w
	return nil
}
