package files

import (
	"bytes"
	"os"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/files/durable"
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
	id := &messages.Identity{}
	if err := decodeText(path, "identity", text, id); err != nil {
		return nil, err
	}
	if id.Format > disk.IdentityFormat {
		return nil, durable.FormatError(path, id.Format, disk.IdentityFormat)
	}
	return id, nil
}

func (f *directory) WriteIdentity(id *messages.Identity) error {
	_, err := f.Identity()
	initialised, unfit := f.Initialised()
	if err == nil && (initialised || unfit != nil) || err != nil && messages.CodeOf(err) != messages.Code_NOT_FOUND {
		return messages.Errorf(messages.Code_CONFLICT, "%s has an identity already", f.dir).
			WithHint("name an empty directory for a new node")
	}
	return f.replaceIdentity(id)
}

// Found writes the identity anew. It is the proof that there was a generation, so it
// must not stand in one.
func (f *directory) Found(clusterID []byte, raftID messages.RaftID) error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if _, err := f.current(); err != nil {
		return err
	}
	id, err := f.Identity()
	if err != nil || bytes.Equal(id.ClusterId, clusterID) && id.RaftId == raftID {
		return err
	}
	id.ClusterId, id.RaftId = clusterID, raftID
	return f.replaceIdentity(id)
}

func (f *directory) Move(listen, advertise string) error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	id, err := f.Identity()
	if err != nil || id.Listen == listen && id.Advertise == advertise {
		return err
	}
	id.Listen, id.Advertise = listen, advertise
	return f.replaceIdentity(id)
}

func (f *directory) replaceIdentity(id *messages.Identity) error {
	return replaceText(f.path(identityName), "identity", id)
}
