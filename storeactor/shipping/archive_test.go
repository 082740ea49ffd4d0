package shipping

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/storeactor/actortest"
	"keyval/storeactor/snapshot"
	"keyval/storeactor/snapshot/snapshottest"
)

// written waits until no snapshot is being written any more, and lists all.
func (h *house) written() []*messages.SnapshotInfo {
	h.T.Helper()
	var infos []*messages.SnapshotInfo
	eventually(h.T, "it is written", func() bool {
		reply := h.ask(lists(""))
		if reply.Code == messages.Code_INTERNAL {
			return false // the archive failed meanwhile
		}
		if reply.Code != messages.Code_OK || reply.Request != 8 || reply.Node != "node1" {
			h.T.Fatalf("%s", messages.Line(reply))
		}
		infos = reply.Snapshots
		for _, i := range infos {
			if i.Writing {
				return false
			}
		}
		return true
	})
	return infos
}

func TestSnapshotFileIsWritten(t *testing.T) {
	_, houses := newStreet(t, 1, nil)
	h := houses[0]
	reply := h.ask(creates("first", 1234))
	if reply.Code != messages.Code_OK || reply.Request != 7 || len(reply.Snapshots) != 1 || !reply.Snapshots[0].Writing || reply.Snapshots[0].Id != "first" {
		t.Fatalf("%s", messages.Line(reply))
	}
	infos := h.written()
	file := h.disk.files["first"]
	reader, err := snapshot.NewReader(bytes.NewReader(file), messages.Level)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := snapshottest.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != len(snapshottest.SomeRows()) || !proto.Equal(reader.Checkpoint(), h.vault.checkpoint) || reader.Header().CreatedBy != "node1" {
		t.Errorf("%d rows, %v", len(rows), reader.Header())
	}
	want := &messages.SnapshotInfo{
		Id: "first", Index: 9, Term: 3, Revision: 9, CompactedRevision: 4, Bytes: uint64(len(file)), CreatedAtMs: 1234,
		Members: h.vault.checkpoint.Members, Version: "test", Rows: uint64(len(rows)), Hash: reader.Trailer().Hash,
	}
	if len(infos) != 1 || !proto.Equal(infos[0], want) {
		t.Errorf("it lists %v", infos)
	}
	if shown := h.ask(lists("first")); len(shown.Snapshots) != 1 || !proto.Equal(shown.Snapshots[0], want) {
		t.Errorf("it shows %s", messages.Line(shown))
	}
	eventually(t, "the state is not pinned any more", func() bool { return h.pinned() == 0 })

	// The newest comes first; one of the same id is refused.
	h.ask(creates("second", 2000))
	h.written()
	h.ask(creates("a-third", 1500))
	if got := ids(h.written()); got != "second a-third first" {
		t.Errorf("it lists %s", got)
	}
	if reply := h.ask(creates("first", 3000)); reply.Code != messages.Code_CONFLICT {
		t.Errorf("%s", messages.Line(reply))
	}
	if got := ids(h.written()); got != "second a-third first" || !bytes.Equal(h.disk.files["first"], file) {
		t.Errorf("it lists %s", got)
	}
	if reply := h.ask(deletes("a-third")); reply.Code != messages.Code_OK || reply.Request != 9 {
		t.Errorf("%s", messages.Line(reply))
	}
	for _, request := range []*messages.SnapshotRequest{deletes("a-third"), lists("a-third")} {
		if reply := h.ask(request); reply.Code != messages.Code_NOT_FOUND || reply.Message == "" {
			t.Errorf("%s", messages.Line(reply))
		}
	}
	if got := ids(h.written()); got != "second first" {
		t.Errorf("it lists %s", got)
	}
}

func ids(infos []*messages.SnapshotInfo) string {
	var all []string
	for _, i := range infos {
		all = append(all, i.Id)
	}
	return strings.Join(all, " ")
}

func TestRequestsThatAreRefused(t *testing.T) {
	_, houses := newStreet(t, 1, nil)
	h := houses[0]
	for _, test := range []struct {
		request *messages.SnapshotRequest
		code    messages.Code
	}{
		{&messages.SnapshotRequest{}, messages.Code_UNSUPPORTED},
		{&messages.SnapshotRequest{Kind: &messages.SnapshotRequest_Create{}}, messages.Code_INVALID},
		{creates("", 0), messages.Code_INVALID}, {creates("../x", 0), messages.Code_INVALID},
		{deletes(""), messages.Code_INVALID}, {deletes("UP"), messages.Code_INVALID}, {deletes("none"), messages.Code_NOT_FOUND},
		{lists("a/b"), messages.Code_INVALID}, {lists("none"), messages.Code_NOT_FOUND}, {lists(""), messages.Code_OK},
		{&messages.SnapshotRequest{Kind: &messages.SnapshotRequest_List{}}, messages.Code_OK},
	} {
		if got := h.ask(test.request); got.Code != test.code || got.Request != test.request.Request {
			t.Errorf("%s: %s", messages.Line(test.request), messages.Line(got))
		}
	}
}

// While one is written it is listed with its progress, and no other is begun.
func TestSnapshotFileThatIsBeingWritten(t *testing.T) {
	_, houses := newStreet(t, 1, nil)
	h := houses[0]
	h.vault.mute = true
	h.ask(creates("slow", 5))
	eventually(t, "it waits for rows", func() bool {
		reply := h.ask(lists("slow"))
		return reply.Snapshots[0].Bytes > 100
	})
	for _, request := range []*messages.SnapshotRequest{lists(""), lists("slow")} {
		got := h.ask(request).Snapshots
		if len(got) != 1 || !got[0].Writing || got[0].Index != 9 || got[0].BytesTotal < got[0].Bytes || got[0].Error != "" {
			t.Errorf("it lists %v", got)
		}
	}
	for _, request := range []*messages.SnapshotRequest{creates("slow", 6), creates("other", 6), deletes("slow")} {
		if got := h.ask(request); got.Code != messages.Code_CONFLICT {
			t.Errorf("%s", messages.Line(got))
		}
	}
	h.tick(shipReadTicks * shipReadsMax)
	got := h.ask(lists("")).Snapshots
	if len(got) != 1 || got[0].Writing || !strings.Contains(got[0].Error, "not read") {
		t.Fatalf("it lists %v", got)
	}
	if len(h.disk.files) != 0 {
		t.Error("something is left of it")
	}
	eventually(t, "the state is not pinned any more", func() bool { return h.pinned() == 0 })
	if reply := h.ask(deletes("slow")); reply.Code != messages.Code_OK || len(h.ask(lists("")).Snapshots) != 0 {
		t.Errorf("its reason cannot be deleted: %s", messages.Line(reply))
	}
}

func TestSnapshotFilesThatFail(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*house)
		reason string
	}{
		"the rows cannot be read":   {func(h *house) { h.vault.unread = messages.Code_INTERNAL }, "the disk is gone"},
		"it cannot be written":      {func(h *house) { h.disk.writeErr = io.ErrShortWrite }, "short write"},
		"it cannot be committed":    {func(h *house) { h.disk.commitErr = io.ErrShortWrite }, "short write"},
		"the state is not pinned":   {func(h *house) { h.vault.refuse = true }, "not pinned"},
		"the archive panics":        {func(h *house) { h.disk.panics = "WriteFile" }, "a defect in WriteFile"},
		"another state is now":      {func(h *house) { h.vault.mute = true; h.send(&messages.Flush{}) }, "installed"},
		"the snapshots actor fails": {func(h *house) { h.vault.mute = true; h.send(&messages.Flush{}) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, houses := newStreet(t, 1, nil)
			h := houses[0]
			test.change(h)
			h.ask(creates("bad", 5))
			switch name {
			case "another state is now":
				h.send(&messages.Installed{Index: 12})
			case "the snapshots actor fails":
				eventually(t, "it is pinned", func() bool { return h.pinned() == 1 })
				h.fail()
				h.raft.Expect("SnapshotShipped{failed=true}")
			}
			infos := h.written()
			switch {
			case test.reason == "" && len(infos) == 0:
			case len(infos) != 1 || infos[0].Id != "bad" || !strings.Contains(infos[0].Error, test.reason):
				t.Errorf("it lists %v", infos)
			}
			if len(h.disk.files) != 0 {
				t.Error("something is left of it")
			}
			eventually(t, "the state is not pinned any more", func() bool { return h.pinned() == 0 })
			h.disk.mutex.Lock()
			h.disk.writeErr, h.disk.commitErr = nil, nil
			h.disk.mutex.Unlock()
		})
	}
}

// A snapshot is written after one that failed, and the reason of that is told no more.
func TestSnapshotFileAfterAFailure(t *testing.T) {
	meter := prometheus.NewRegistry()
	_, houses := newStreet(t, 1, func(c *Config) { c.Meter = meter })
	h := houses[0]
	h.disk.panics = "WriteFile"
	h.ask(creates("bad", 5))
	if infos := h.written(); len(infos) != 1 || infos[0].Error == "" {
		t.Fatalf("it lists %v", infos)
	}
	if n := actortest.Counted(t, meter, "keyval_actor_failures_total"); n != 1 {
		t.Errorf("%d failures of 1 are counted", n)
	}
	h.ask(creates("good", 6))
	if infos := h.written(); len(infos) != 1 || infos[0].Id != "good" || infos[0].Error != "" {
		t.Fatalf("it lists %v", infos)
	}
}

// Damaged files are listed and shown with what is wrong; a flipped byte in the midst
// is found by showing one, which reads it whole.
func TestDamagedFilesAreListed(t *testing.T) {
	_, houses := newStreet(t, 1, nil)
	h := houses[0]
	h.ask(creates("good", 5))
	h.written()
	good := h.disk.files["good"]
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	h.disk.mutex.Lock()
	h.disk.files["cut"], h.disk.files["flipped"], h.disk.files["none"], h.disk.files["other"] = good[:len(good)-9], flipped, nil, []byte("something else altogether")
	h.disk.mutex.Unlock()
	errors := map[string]string{}
	for _, i := range h.written() {
		errors[i.Id] = i.Error
	}
	if errors["good"] != "" || errors["flipped"] != "" || !strings.Contains(errors["cut"], "no end") ||
		!strings.Contains(errors["none"], "does not begin") || !strings.Contains(errors["other"], "does not begin") {
		t.Errorf("it lists %v", errors)
	}
	for id, whole := range map[string]bool{"good": true, "flipped": false, "cut": false, "none": false, "other": false} {
		reply := h.ask(lists(id))
		if reply.Code != messages.Code_OK || (reply.Snapshots[0].Error == "") != whole {
			t.Errorf("it shows %s", messages.Line(reply))
		}
	}
}

// Who wants a list does not wait for a file that is read whole.
func TestListsDoNotWaitForChecks(t *testing.T) {
	_, houses := newStreet(t, 1, func(c *Config) { c.ChunkBytes = 1 })
	h := houses[0]
	h.ask(creates("long", 5))
	h.written()
	h.disk.opens = make(chan struct{})
	for i, request := range []*messages.SnapshotRequest{lists("long"), lists("long"), lists("")} {
		request.Request = uint64(i)
		h.System.Root.RequestWithCustomSender(h.snapshots, request, h.client.PID)
	}
	h.transfers() // all of them are with the archive
	close(h.disk.opens)
	for _, want := range []uint64{2, 0, 1} {
		reply := actortest.Take[*messages.SnapshotReply](h.client)
		if reply.Request != want || len(reply.Snapshots) != 1 || reply.Snapshots[0].Error != "" || len(reply.Snapshots[0].Hash) != 32 {
			t.Errorf("%s, and not the answer to %d", messages.Line(reply), want)
		}
	}
}

// What clients ask for is bounded, and each request is answered once, also when the
// archive fails.
func TestRequestsInHandAreBounded(t *testing.T) {
	_, houses := newStreet(t, 1, nil)
	h := houses[0]
	for i := range 20 {
		h.disk.files[fmt.Sprint("file-", i)] = []byte("x")
	}
	h.disk.panics = "List"
	const asks = 500
	for i := range uint64(asks) {
		h.System.Root.RequestWithCustomSender(h.snapshots, &messages.SnapshotRequest{
			Request: i, Kind: &messages.SnapshotRequest_List{List: &messages.SnapshotList{}},
		}, h.client.PID)
	}
	seen, codes := map[uint64]bool{}, map[messages.Code]int{}
	for range asks {
		reply := actortest.Take[*messages.SnapshotReply](h.client)
		if seen[reply.Request] {
			t.Fatalf("request %d is answered twice", reply.Request)
		}
		seen[reply.Request] = true
		codes[reply.Code]++
		if reply.Code == messages.Code_OK && len(reply.Snapshots) != 20 {
			t.Fatalf("%d files are listed", len(reply.Snapshots))
		}
	}
	if codes[messages.Code_INTERNAL] == 0 || codes[messages.Code_OK]+codes[messages.Code_INTERNAL]+codes[messages.Code_BUSY] != asks {
		t.Errorf("%v", codes)
	}
	if reply := h.ask(lists("")); reply.Code != messages.Code_OK {
		t.Errorf("%s", messages.Line(reply))
	}
}

// A snapshot leaves the room that the node needs, and a quarter more: it is not begun with less, and
// is given up when it comes to that.
func TestSnapshotsLeaveRoom(t *testing.T) {
	_, houses := newStreet(t, 1, func(c *Config) { c.RoomBytes, c.ChunkBytes = 80<<20, 0 })
	h := houses[0]
	h.vault.rows = nil
	for i := range uint64(40) {
		h.vault.rows = append(h.vault.rows, snapshottest.Row(fmt.Sprintf("key-%02d", i), i+1, strings.Repeat("v", 1<<19)))
	}
	h.vault.checkpoint = snapshottest.StateAt(40, 0)
	room := func(mb uint64) {
		h.disk.mutex.Lock()
		defer h.disk.mutex.Unlock()
		h.disk.room, h.disk.taken = mb<<20, 0
	}
	room(99)
	if reply := h.ask(creates("none", 1)); reply.Code != messages.Code_NOT_ALLOWED || !strings.Contains(reply.Message, "99 MB are free on the disk of this node, and a snapshot must leave 100 MB") {
		t.Errorf("%s", messages.Line(reply))
	}
	room(112)
	h.ask(creates("half", 1))
	if infos := h.written(); len(infos) != 1 || !strings.Contains(infos[0].Error, "and a snapshot must leave 100 MB") {
		t.Errorf("%v", infos)
	}
	h.disk.mutex.Lock()
	if len(h.disk.files) > 0 || h.disk.taken > 20<<20 {
		t.Errorf("%d files, %d bytes were written", len(h.disk.files), h.disk.taken)
	}
	h.disk.mutex.Unlock()
	room(140)
	h.ask(creates("whole", 1))
	if infos := h.written(); len(infos) != 1 || infos[0].Error != "" {
		t.Errorf("%v", infos)
	}
}

// A list of many files with many members stays below what a reply may have.
func TestListsAreBounded(t *testing.T) {
	var infos []*messages.SnapshotInfo
	for i := range FilesMax {
		info := &messages.SnapshotInfo{Id: fmt.Sprint("file-", i), CreatedAtMs: int64(i), Hash: make([]byte, 32)}
		for id := range uint64(9) {
			info.Members = append(info.Members, &messages.Member{RaftId: id, Name: strings.Repeat("n", 128), Address: strings.Repeat("a", 255), Incarnation: make([]byte, 16)})
		}
		infos = append(infos, info)
	}
	newestFirst(infos)
	if size := proto.Size(&messages.SnapshotReply{Snapshots: infos}); size > 4<<20 {
		t.Errorf("%d bytes", size)
	}
	if infos[0].CreatedAtMs != FilesMax-1 || infos[0].Members == nil {
		t.Errorf("the first is %s", messages.Line(infos[0]))
	}
}

func TestStatusTellsTransfers(t *testing.T) {
	_, h := newStreet(t, 3, nil)
	for _, id := range []messages.RaftID{3, 2} {
		h[0].send(&messages.ShipSnapshot{Message: msgSnap(1, id)})
		actortest.Take[*messages.StagedSnapshot](h[id-1].raft)
	}
	eventually(t, "both are told", func() bool {
		got := h[0].transfers()
		return len(got) == 2 && got[0].Peer == 2 && got[1].Peer == 3 && got[0].WaitingFor == "node2 is to install it" && got[1].WaitingFor == "node3 is to install it"
	})
	if got := h[1].transfers(); len(got) != 1 || !got[0].Incoming || got[0].Peer != 1 || got[0].WaitingFor != "this node is to install it" {
		t.Errorf("it tells %v", got)
	}
}

// TestOldFilesRetire: when one more is written, the newest stay, by the time that they are of. What
// cannot be read, and what is transient, is nobody's oldest.
func TestOldFilesRetire(t *testing.T) {
	_, all := newStreet(t, 1, func(c *Config) { c.Keep = 2 })
	h := all[0]
	for i, id := range []string{"first", "second", "a-third"} {
		h.ask(creates(id, []int64{1234, 2000, 1500}[i]))
		h.written()
	}
	if got := ids(h.written()); got != "second a-third" {
		t.Errorf("there are %s", got)
	}
	h.diary.says(t, `level=INFO msg="a snapshot was deleted" snapshot=first by=retention`)
}
