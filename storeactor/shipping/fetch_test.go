package shipping

import (
	"bytes"
	"testing"

	"keyval/messages"
)

func fetches(id string, from uint64, window uint32) *messages.SnapshotRequest {
	return &messages.SnapshotRequest{Request: 10, Kind: &messages.SnapshotRequest_Fetch{
		Fetch: &messages.SnapshotFetch{Id: id, From: from, Window: window},
	}}
}

// fetchAll reads a file in parts of so many bytes.
func (h *house) fetchAll(id string, window uint32) []byte {
	h.T.Helper()
	var got []byte
	for {
		reply := h.ask(fetches(id, uint64(len(got)), window))
		p := reply.Part
		if reply.Code != messages.Code_OK || p == nil || p.From != uint64(len(got)) || p.Checksum != messages.PartChecksum(p) || reply.Request != 10 {
			h.T.Fatalf("%s", messages.Line(reply))
		}
		if len(p.Body) == 0 {
			return got
		}
		if got = append(got, p.Body...); uint64(len(got)) > p.Total || len(p.Body) > int(window) {
			h.T.Fatalf("%d bytes of %d came, %d at once", len(got), p.Total, len(p.Body))
		}
	}
}

func TestFilesAreFetchedInParts(t *testing.T) {
	_, houses := newStreet(t, 1, nil)
	h := houses[0]
	h.ask(creates("first", 1))
	h.written()
	file := h.disk.files["first"]
	for _, window := range []uint32{7, 64, uint32(len(file)), 1 << 20} {
		if got := h.fetchAll("first", window); !bytes.Equal(got, file) {
			t.Errorf("in parts of %d bytes: %d bytes came of %d", window, len(got), len(file))
		}
	}
	// Anywhere, in any order, and two files by turns.
	h.ask(creates("second", 2))
	h.written()
	for _, from := range []uint64{90, 10, 10, 50, 0} {
		for _, id := range []string{"first", "second"} {
			p := h.ask(fetches(id, from, 9)).Part
			if !bytes.Equal(p.GetBody(), h.disk.files[id][from:from+9]) || p.GetTotal() != uint64(len(h.disk.files[id])) {
				t.Errorf("%s from %d: %v", id, from, p)
			}
		}
	}
	if p := h.ask(fetches("first", 1<<40, 9)).Part; p == nil || len(p.Body) != 0 {
		t.Errorf("behind the end: %v", p)
	}
	for id, code := range map[string]messages.Code{"none": messages.Code_NOT_FOUND, "../x": messages.Code_INVALID} {
		if reply := h.ask(fetches(id, 0, 0)); reply.Code != code || reply.Part != nil {
			t.Errorf("%s", messages.Line(reply))
		}
	}
	h.vault.mute = true
	h.ask(creates("slow", 3))
	if reply := h.ask(fetches("slow", 0, 0)); reply.Code != messages.Code_CONFLICT {
		t.Errorf("%s", messages.Line(reply))
	}
}

// Only files that are here are remembered: a client may name as many others as it likes.
func TestNobodyRemembersWhatIsNotHere(t *testing.T) {
	files := transient{}
	files.wanted(messages.TransientPrefix + "none")
	files.made("kept")
	files.made(messages.TransientPrefix + "1")
	if len(files) != 1 {
		t.Errorf("remembered are %v", files)
	}
	files.tick(5, 50)
	files.wanted(messages.TransientPrefix + "1")
	if n := files[messages.TransientPrefix+"1"]; n != 0 {
		t.Errorf("%d ticks since it was wanted", n)
	}
}

// A transient snapshot stays while somebody fetches of it, and goes some time after.
func TestTransientFilesGo(t *testing.T) {
	_, houses := newStreet(t, 1, nil)
	h := houses[0]
	const id = messages.TransientPrefix + "1"
	for _, id := range []string{id, "kept"} {
		h.ask(creates(id, 1))
		h.written()
	}
	const span = transientMS / 100 // ticks
	h.tick(span - 1)
	h.fetchAll(id, 100)
	h.tick(span - 1)
	if got := ids(h.written()); got != id+" kept" {
		t.Errorf("it lists %s", got)
	}
	h.tick(1)
	eventually(t, "it has gone", func() bool { return ids(h.written()) == "kept" })
	h.tick(span)
	if got := ids(h.written()); got != "kept" {
		t.Errorf("it lists %s", got)
	}
	if reply := h.ask(fetches(id, 0, 0)); reply.Code != messages.Code_NOT_FOUND {
		t.Errorf("%s", messages.Line(reply))
	}
}
