package files

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"os"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/files/durable"
)

// Small files are text: a line with their kind and format, a message as JSON, and a
// line with the CRC32C of all before.
const (
	textHead = "keyval %s %d\n"
	textTail = "crc32c %08x\n"
	textMax  = 64 << 10 // bytes that are read
)

// readText reads a small file. It reports false if there is none.
func readText(path, kind string, into proto.Message) (found bool, err error) {
	text, err := durable.ReadBounded(path, textMax)
	switch {
	case os.IsNotExist(err):
		return false, nil
	case err != nil:
		return false, durable.Error("read the "+kind, err)
	}
	return true, decodeText(path, kind, text, into)
}

func decodeText(path, kind string, text []byte, into proto.Message) error {
	var format, sum uint32
	if n, _ := fmt.Sscanf(string(text), "keyval "+kind+" %d\n", &format); n != 1 {
		return disk.Damaged("%s is not the %s of a node", path, kind)
	}
	if format > disk.IdentityFormat {
		return durable.FormatError(path, format, disk.IdentityFormat)
	}
	body, tail := text, []byte(nil)
	if at := bytes.LastIndexByte(bytes.TrimRight(text, "\n"), '\n') + 1; at > 0 {
		body, tail = text[:at], text[at:]
	}
	if n, _ := fmt.Sscanf(string(tail), textTail, &sum); n != 1 || sum != crc32.Checksum(body, disk.Castagnoli) {
		return disk.Damaged("%s was altered: its checksum does not fit", path)
	}
	_, document, _ := bytes.Cut(body, []byte("\n"))
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(document, into); err != nil {
		return disk.Damaged("%s cannot be read: %v", path, err)
	}
	return nil
}

// replaceText makes a message the content of a file, durably and all at once.
func replaceText(path, kind string, m proto.Message) error {
	document, err := protojson.MarshalOptions{Multiline: true, UseProtoNames: true}.Marshal(m)
	if err != nil {
		return messages.Errorf(messages.Code_INVALID, "the %s cannot be written: %v", kind, err)
	}
	text := fmt.Appendf(nil, textHead+"%s\n", kind, disk.IdentityFormat, document)
	text = fmt.Appendf(text, textTail, crc32.Checksum(text, disk.Castagnoli))
	if err := durable.Replace(path, text); err != nil {
		return durable.Error("write the "+kind, err)
	}
	return nil
}
