package reading

import (
	"bytes"
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"keyval/messages"
	"keyval/storeactor/disk"
)

// digest reads what is live in a range and answers with its hash: what replicas
// compare. Equal limits over equal rows give equal digests, and the asker of many
// replicas narrows the range to what the first of them covered.
func digest(reply *messages.ReadReply, view disk.View, d *messages.Digest) error {
	hash, scratch := xxhash.New(), [5 * 8]byte{}
	sum := &messages.RangeDigest{}
	limit := uint64(rowsWanted(d.GetLimit(), DigestRowsMax))
	if len(d.GetTo()) == 0 || bytes.Compare(d.GetFrom(), d.GetTo()) < 0 {
		err := view.Scan(d.GetFrom(), d.GetTo(), reply.Revision, false, func(row disk.Row) bool {
			size := uint64(len(row.Key) + len(row.Value))
			if sum.Rows == limit || sum.Rows > 0 && sum.Bytes+size > DigestBytesMax {
				sum.More = true
				return false
			}
			sum.Rows++
			sum.Bytes += size
			sum.Last = append(sum.Last[:0], row.Key...)
			binary.LittleEndian.PutUint64(scratch[0:], uint64(len(row.Key)))
			binary.LittleEndian.PutUint64(scratch[8:], uint64(len(row.Value)))
			binary.LittleEndian.PutUint64(scratch[16:], row.Revision)
			binary.LittleEndian.PutUint64(scratch[24:], row.Created)
			binary.LittleEndian.PutUint64(scratch[32:], row.Version)
			hash.Write(scratch[:])
			hash.Write(row.Key)
			hash.Write(row.Value)
			return true
		})
		if err != nil {
			return err
		}
	}
	sum.Hash = hash.Sum(nil)
	reply.Digest = sum
	return nil
}
