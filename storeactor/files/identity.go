package files

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"os"

	"google.golang.org/protobuf/encoding/protojson"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/files/durable"
)

// The identity is text: a line with the format, the identity as JSON, a line
// with the CRC32C of all before.
const (
	identityHead = "keyval identity %d\n"
	identityTail = "crc32c %08x\n"
)

func (f *directory) Identity() (*messages.Identity, error) {
	text, err := os.ReadFile(f.path(identityName))
	if os.IsNotExist(err) {
		return nil, messages.Errorf(messages.Code_NOT_FOUND, "%s has no identity yet", f.dir)
	}
	if err != nil {
		return nil, durable.Error("read the identity", err)
	}
	return decodeIdentity(f.path(identityName), text)
}

func decodeIdentity(path string, text []byte) (*messages.Identity, error) {
	var format, sum uint32
	if n, _ := fmt.Sscanf(string(text), identityHead, &format); n != 1 {
		return nil, disk.Damaged("%s is not the identity of a node", path)
	}
	if format > disk.IdentityFormat {
		return nil, durable.FormatError(path, format, disk.IdentityFormat)
	}
	body, tail := text, []byte(nil)
	if at := bytes.LastIndexByte(bytes.TrimRight(text, "\n"), '\n') + 1; at > 0 {
		body, tail = text[:at], text[at:]
	}
	if n, _ := fmt.Sscanf(string(tail), identityTail, &sum); n != 1 || sum != crc32.Checksum(body, disk.Castagnoli) {
		return nil, disk.Damaged("%s was altered: its checksum does not fit", path)
	}
	_, document, _ := bytes.Cut(body, []byte("\n"))
	id := &messages.Identity{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(document, id); err != nil {
		return nil, disk.Damaged("%s cannot be read: %v", path, err)
	}
	if id.Format > disk.IdentityFormat {
		return nil, durable.FormatError(path, id.Format, disk.IdentityFormat)
	}
	return id, nil
}

func (f *directory) WriteIdentity(id *messages.Identity) error {
	if _, err := f.Identity(); messages.CodeOf(err) != messages.Code_NOT_FOUND {
		return messages.Errorf(messages.Code_CONFLICT, "%s has an identity already", f.dir).
			WithHint("name an empty directory for a new node")
	}
	return f.replaceIdentity(id)
}

// Found writes the identity anew. It is the proof that there was a generation, so it
// must not stand in one.
func (f *directory) Found(clusterID []byte) error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if _, err := f.current(); err != nil {
		return err
	}
	id, err := f.Identity()
	if err != nil || bytes.Equal(id.ClusterId, clusterID) {
		return err
	}
	id.ClusterId = clusterID
	return f.replaceIdentity(id)
}

func (f *directory) replaceIdentity(id *messages.Identity) error {
	document, err := protojson.MarshalOptions{Multiline: true, UseProtoNames: true}.Marshal(id)
	if err != nil {
		return messages.Errorf(messages.Code_INVALID, "the identity cannot be written: %v", err)
	}
	text := fmt.Appendf(nil, identityHead+"%s\n", disk.IdentityFormat, document)
	text = fmt.Appendf(text, identityTail, crc32.Checksum(text, disk.Castagnoli))
	if err := durable.Replace(f.path(identityName), text); err != nil {
		return durable.Error("write the identity", err)
	}
	return nil
}
