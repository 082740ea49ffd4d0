package shipping

import (
	"errors"
	"io"
	"slices"

	"keyval/messages"
	"keyval/storeactor/disk"
)

const (
	// fetchBytesMax bounds a part of a snapshot file, in bytes.
	fetchBytesMax = 1 << 20
	// transientMS is how long a transient snapshot is kept that nobody fetches of.
	transientMS = 120_000
)

// fetched is a file that a client fetches part by part. It stays open between two parts:
// whoever comes in order finds it where the last part ended. The zero value is none.
type fetched struct {
	id    string
	file  io.ReadCloser // nil: none is open
	at    uint64        // where the next read begins
	total uint64
}

func (f *fetched) close() {
	if f.file != nil {
		_ = f.file.Close() // it was only read
	}
	*f = fetched{}
}

// part reads what is asked for. Errors: NOT_FOUND, or the disk's; the file is closed then.
func (f *fetched) part(archive disk.Archive, m *messages.SnapshotFetch) (*messages.SnapshotPart, error) {
	part, err := f.read(archive, m)
	if err != nil || part.From+uint64(len(part.Body)) >= part.Total {
		f.close()
	}
	return part, err
}

func (f *fetched) read(archive disk.Archive, m *messages.SnapshotFetch) (*messages.SnapshotPart, error) {
	if f.file == nil || f.id != m.Id || f.at > m.From {
		if err := f.open(archive, m.Id); err != nil {
			return nil, err
		}
	}
	part := &messages.SnapshotPart{From: m.From, Total: f.total}
	if m.From < f.total {
		if err := f.seek(m.From); err != nil {
			return nil, err
		}
		window := uint64(m.Window)
		if window == 0 || window > fetchBytesMax {
			window = fetchBytesMax
		}
		part.Body = make([]byte, min(window, f.total-m.From))
		n, err := io.ReadFull(f.file, part.Body)
		if err != nil {
			return nil, messages.Errorf(messages.Code_INTERNAL, "snapshot %s cannot be read at byte %d: %v", m.Id, m.From+uint64(n), err)
		}
		f.at += uint64(n)
	}
	part.Checksum = messages.PartChecksum(part)
	return part, nil
}

func (f *fetched) open(archive disk.Archive, id string) error {
	f.close()
	files, err := archive.List()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(files, func(file disk.ArchiveFile) bool { return file.ID == id })
	if i < 0 {
		return messages.Errorf(messages.Code_NOT_FOUND, "there is no snapshot %s on this node", id)
	}
	file, err := archive.Open(id)
	if err != nil {
		return err
	}
	*f = fetched{id: id, file: file, total: uint64(files[i].Bytes)}
	return nil
}

// seek goes forward, by reading where the file cannot do better.
func (f *fetched) seek(to uint64) (err error) {
	switch s, seeks := f.file.(io.Seeker); {
	case to == f.at:
	case seeks:
		_, err = s.Seek(int64(to), io.SeekStart)
	default:
		_, err = io.CopyN(io.Discard, f.file, int64(to-f.at))
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return messages.Errorf(messages.Code_INTERNAL, "snapshot %s cannot be read at byte %d: %v", f.id, to, err)
	}
	f.at = to
	return nil
}

// transient are the ids of transient snapshots that are whole, and the ticks since each was
// fetched of.
type transient map[string]uint32

// made: it is whole.
func (t transient) made(id string) {
	if messages.IsTransient(id) {
		t[id] = 0
	}
}

// wanted: somebody asks for it. What is not here is not remembered.
func (t transient) wanted(id string) {
	if _, here := t[id]; here {
		t[id] = 0
	}
}

// tick returns, in order, those that nobody wants any more.
func (t transient) tick(elapsed uint32, tickMS uint64) (over []string) {
	for id := range t {
		if t[id] += elapsed; uint64(t[id])*tickMS >= transientMS {
			over = append(over, id)
			delete(t, id)
		}
	}
	slices.Sort(over)
	return over
}
