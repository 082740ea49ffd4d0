package files

import (
	"encoding/binary"
	"hash/crc32"
	"os"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/files/badger"
	"keyval/storeactor/files/durable"
)

// The checkpoint file, little endian:
//
//	magic [8] | format uint32 | checkpoint size uint32 | seal size uint32
//	| checkpoint | seal | CRC32C of all before uint32
//
// The seal says what the engine had synced when the checkpoint was written; one
// file holds both, so that they cannot come apart.
const (
	checkpointMagic   = "KVCHKPNT"
	checkpointFormat  = 1
	checkpointHead    = 8 + 3*4
	checkpointSizeMax = 1 << 30 // bytes of a file; the sessions in it are bounded far below
)

func writeCheckpoint(path string, c *messages.Checkpoint, seal badger.Seal) error {
	body, err := proto.Marshal(c)
	if err != nil {
		return messages.Errorf(messages.Code_INTERNAL, "the checkpoint cannot be written: %v", err)
	}
	sealed := seal.Encode()
	size := checkpointHead + len(body) + len(sealed) + 4
	if size > checkpointSizeMax {
		return messages.Errorf(messages.Code_INTERNAL, "the checkpoint of %d bytes is above the bound of %d", size, checkpointSizeMax)
	}
	b := make([]byte, 0, size)
	b = append(b, checkpointMagic...)
	b = binary.LittleEndian.AppendUint32(b, checkpointFormat)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(sealed)))
	b = append(append(b, body...), sealed...)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, disk.Castagnoli))
	return durable.Replace(path, b)
}

func readCheckpoint(path string) (*messages.Checkpoint, badger.Seal, error) {
	var seal badger.Seal
	b, err := durable.ReadBounded(path, checkpointSizeMax)
	if os.IsNotExist(err) {
		return nil, seal, disk.Damaged("the checkpoint %s is missing", path)
	}
	if err != nil {
		return nil, seal, durable.Error("read the checkpoint", err)
	}
	if len(b) < checkpointHead+4 || string(b[:8]) != checkpointMagic {
		return nil, seal, disk.Damaged("%s is not a checkpoint", path)
	}
	end := len(b) - 4
	if crc32.Checksum(b[:end], disk.Castagnoli) != binary.LittleEndian.Uint32(b[end:]) {
		return nil, seal, disk.Damaged("the checkpoint %s was altered: its checksum does not fit", path)
	}
	if format := binary.LittleEndian.Uint32(b[8:]); format > checkpointFormat {
		return nil, seal, durable.FormatError(path, format, checkpointFormat)
	}
	body, sealed := uint64(binary.LittleEndian.Uint32(b[12:])), uint64(binary.LittleEndian.Uint32(b[16:]))
	if checkpointHead+body+sealed != uint64(end) {
		return nil, seal, disk.Damaged("the checkpoint %s is not whole", path)
	}
	c := &messages.Checkpoint{}
	if err := proto.Unmarshal(b[checkpointHead:checkpointHead+body], c); err != nil {
		return nil, seal, disk.Damaged("the checkpoint %s cannot be read: %v", path, err)
	}
	if seal, err = badger.DecodeSeal(b[checkpointHead+body : end]); err != nil {
		return nil, seal, disk.Damaged("the checkpoint %s cannot be read: %v", path, err)
	}
	return c, seal, nil
}
