package disk

import (
	"encoding/binary"
	"hash/crc32"

	"keyval/messages"
)

// Row is one version of a key. Its revision is above 0.
type Row struct {
	Key, Value []byte
	Revision   uint64
	Created    uint64 // revision at which the key came to be there, at most Revision; 0 in a deletion
	Version    uint64 // writes since then with this one, 1 for the first; 0 in a deletion
	Deleted    bool
	// Sum is the Checksum, from where the row was made on: when its command was
	// applied. Whoever takes it from a disk or a link computes it anew and compares.
	Sum uint32
}

// Checksum is the CRC32C of all that the row says: size of the key, revision, created
// and version (8 bytes each, little endian), whether it is a deletion (1 byte), key, value.
func (r *Row) Checksum() uint32 {
	head := make([]byte, 0, 4*8+1)
	for _, n := range [...]uint64{uint64(len(r.Key)), r.Revision, r.Created, r.Version} {
		head = binary.LittleEndian.AppendUint64(head, n)
	}
	deleted := byte(0)
	if r.Deleted {
		deleted = 1
	}
	sum := crc32.Update(0, Castagnoli, append(head, deleted))
	return crc32.Update(crc32.Update(sum, Castagnoli, r.Key), Castagnoli, r.Value)
}

// Summed is the row with its checksum.
func (r Row) Summed() Row {
	r.Sum = r.Checksum()
	return r
}

// Check is a *Rot if the row is not what its checksum was made of.
func (r *Row) Check() error {
	if r.Checksum() != r.Sum {
		return NewRot(r.Key, r.Revision, "its checksum does not fit")
	}
	return nil
}

// Rot is the DAMAGED of a row that is not what was written. It needs no other
// replica to confirm it.
type Rot struct{ what *messages.Error }

// NewRot says how a row is not what was written.
func NewRot(key []byte, revision uint64, how string) *Rot {
	return &Rot{messages.Errorf(messages.Code_DAMAGED, "the state is damaged: the row of key %.60q at revision %d is not what was written: %s", key, revision, how).
		WithHint("the other nodes serve on; test the disk and the memory of this one, and then: %s", RebuildHint)}
}

func (r *Rot) Error() string { return r.what.Error() }

// Unwrap is the one error type.
func (r *Rot) Unwrap() error { return r.what }
