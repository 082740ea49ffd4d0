package badger

import (
	"encoding/binary"

	"keyval/storeactor/disk"
)

// A row's value in Badger begins with a head:
//
//	flags [1] | revision - created uvarint | version uvarint | Row.Sum uint32, little endian | value
//
// No flag is in use; one will say that a lease follows. A deletion is Badger's own mark,
// which has no value and so no checksum: one of our own would stay for ever, since
// Badger gives up only what it knows to be deleted. A mark that has a value is a row
// whose mark is rotten.

// encodeValue is what Badger keeps of a row that is no deletion.
func encodeValue(r *disk.Row) []byte {
	b := append(make([]byte, 0, disk.HeadBytesMax+len(r.Value)), 0)
	b = binary.AppendUvarint(b, r.Revision-r.Created)
	b = binary.AppendUvarint(b, r.Version)
	b = binary.LittleEndian.AppendUint32(b, r.Sum)
	return append(b, r.Value...)
}

// decodeValue completes a row whose key, revision and deletion are known by what
// Badger keeps of it. The row holds a part of stored. The error is a *disk.Rot.
func decodeValue(r *disk.Row, stored []byte) error {
	if r.Deleted {
		if len(stored) > 0 {
			return disk.NewRot(r.Key, r.Revision, "a deletion has a value")
		}
		r.Sum = r.Checksum()
		return nil
	}
	damaged := func() error { return disk.NewRot(r.Key, r.Revision, "its head makes no sense") }
	if len(stored) == 0 || stored[0] != 0 {
		return damaged()
	}
	age, n := binary.Uvarint(stored[1:])
	if n <= 0 {
		return damaged()
	}
	stored = stored[1+n:]
	version, n := binary.Uvarint(stored)
	if n <= 0 || len(stored) < n+4 {
		return damaged()
	}
	r.Created, r.Version = r.Revision-age, version
	r.Sum, r.Value = binary.LittleEndian.Uint32(stored[n:]), stored[n+4:]
	return r.Check()
}
