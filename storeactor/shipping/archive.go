package shipping

import (
	"cmp"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/actors/telemetry"
	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/snapshot"
)

const (
	// FilesMax bounds the snapshot files that a node keeps, in number.
	FilesMax = 1000
	// listBytesMax bounds the members in one reply, in bytes: the files beyond are
	// listed without them.
	listBytesMax = 2 << 20
	memberBytes  = 16 // what a member takes beside its texts, in bytes
)

// archiveActor writes, lists, checks and deletes snapshot files. It waits for the
// disk so that nobody else has to, and what takes long it does in steps, with the
// messages that came meanwhile between them. A child of snapshots, which bounds what
// is in hand here.
type archiveActor struct {
	config Config

	id     string // of the file that is being written
	file   disk.ArchiveWriter
	writer *snapshot.Writer
	looked uint64 // bytes of it when the room was looked at last

	// Two queues, whose first tasks do a step each by turns. So a list does not wait for
	// a file that is read whole, and at most one such file is open.
	lists, checks []archiveTask
	stepping      bool // a Flush is in the mailbox

	fetched fetched // the file that parts were last asked of
}

// archiveTask does one step of its work and reports whether that was the last.
type archiveTask interface {
	step() (*messages.SnapshotReply, bool)
	// end lets go of what a step left open.
	end()
	// whom is who is to be answered.
	whom() (*actor.PID, uint64)
}

func (a *archiveActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *messages.SnapshotRequest:
		a.onRequest(ctx, m)
	case *messages.WriteChunk:
		a.onWriteChunk(ctx, m)
	case *messages.DropFile:
		a.drop(m.Id)
	case *messages.Flush:
		a.onFlush(ctx)
	case *actor.Stopping, *actor.Restarting:
		a.abort()
		a.fetched.close()
		for _, t := range a.checks {
			t.end()
		}
		a.lists, a.checks = nil, nil
	default:
		telemetry.Unexpected(ctx, a.config.Logger, a.config.Meter)
	}
}

func (a *archiveActor) onRequest(ctx actor.Context, m *messages.SnapshotRequest) {
	asker := asked{pid: ctx.Sender(), request: m.Request}
	var err error
	switch kind := m.Kind.(type) {
	case *messages.SnapshotRequest_Create:
		err = a.create(kind.Create.GetId())
	case *messages.SnapshotRequest_Fetch:
		reply := &messages.SnapshotReply{Request: m.Request}
		if reply.Part, err = a.fetched.part(a.config.Disk.Archive(), kind.Fetch); err == nil {
			ctx.Send(asker.pid, reply)
			return
		}
	case *messages.SnapshotRequest_Delete:
		a.fetched.close()
		err = a.config.Disk.Archive().Delete(kind.Delete.GetId())
	case *messages.SnapshotRequest_List:
		if err = a.list(ctx, asker, kind.List.GetId()); err == nil {
			return
		}
	}
	ctx.Send(asker.pid, refused(m.Request, err))
}

// refused answers a request with an error, or without one.
func refused(request uint64, err error) *messages.SnapshotReply {
	reply := &messages.SnapshotReply{Request: request, Code: messages.CodeOf(err)}
	if err != nil {
		reply.Message = err.Error()
	}
	return reply
}

// create begins a file. One that was begun before came to nothing.
func (a *archiveActor) create(id string) error {
	a.abort()
	files, err := a.config.Disk.Archive().List()
	if err != nil {
		return err
	}
	if len(files) >= FilesMax {
		return messages.Errorf(messages.Code_NOT_ALLOWED, "this node keeps %d snapshots already", len(files)).
			WithHint("delete some first: kvctl snapshot delete")
	}
	if err := a.room(); err != nil {
		return err
	}
	file, err := a.config.Disk.Archive().Create(id)
	if err != nil {
		return err
	}
	a.id, a.file, a.writer, a.looked = id, file, snapshot.NewWriter(file), 0
	return nil
}

// roomEvery is after how many bytes of a file the room is looked at again.
const roomEvery = 8 << 20

// room is why no more of a file may be written: the room that the node's state and log are to
// have. So a file ends before the alarm is given, and all files have as many bytes as leave
// that. A look that fails says nothing: whoever writes next will find out.
func (a *archiveActor) room() error {
	now, err := a.config.Disk.Room()
	if err != nil || a.config.RoomBytes < 0 || now.BytesAll == 0 {
		return nil
	}
	needed := now.BytesNeeded(a.config.RoomBytes)
	if needed += needed / 4; now.Bytes >= needed {
		return nil
	}
	return messages.Errorf(messages.Code_NOT_ALLOWED, "%d MB are free on the disk of this node, and a snapshot must leave %d MB: make room, delete old ones (kvctl snapshot delete), or ask another node (--node)",
		now.Bytes>>20, needed>>20)
}

func (a *archiveActor) abort() {
	if a.file != nil {
		if err := a.file.Abort(); err != nil {
			a.config.Logger.Warn("a snapshot that came to nothing was not removed cleanly", "snapshot", a.id, "reason", err)
		}
	}
	a.id, a.file, a.writer = "", nil, nil
}

// drop gives up the file that is being written, or a transient one that nobody fetches.
func (a *archiveActor) drop(id string) {
	switch {
	case id == a.id:
		a.abort()
	case messages.IsTransient(id):
		a.fetched.close()
		if err := a.config.Disk.Archive().Delete(id); err != nil && messages.CodeOf(err) != messages.Code_NOT_FOUND {
			a.config.Logger.Warn("a transient snapshot was not removed", "snapshot", id, "reason", err)
		}
	}
}

func (a *archiveActor) onWriteChunk(ctx actor.Context, m *messages.WriteChunk) {
	answer := &messages.ChunkWritten{Id: m.Id, Sequence: m.Chunk.GetSequence()}
	if err := a.write(m); err != nil {
		answer.Code, answer.Message = messages.CodeOf(err), err.Error()
		if m.Id == a.id {
			a.abort()
		}
	}
	if a.writer != nil {
		answer.Bytes = a.writer.Bytes()
	}
	ctx.Send(ctx.Parent(), answer)
	if answer.Code == messages.Code_OK && m.Chunk.Kind == messages.ChunkKind_TRAILER {
		a.retire(a.id)
		a.id, a.file, a.writer = "", nil, nil
	}
}

// retire deletes the oldest files beyond those that are to be kept, now that one more is there.
// What cannot be read says nothing of its age: it stays.
func (a *archiveActor) retire(written string) {
	if a.config.Keep == 0 || messages.IsTransient(written) {
		return
	}
	archive := a.config.Disk.Archive()
	files, err := archive.List()
	if err != nil {
		a.config.Logger.Warn("old snapshots were not deleted", "reason", err)
		return
	}
	l := &listing{archive: archive, supports: a.config.Level, files: slices.DeleteFunc(files, func(f disk.ArchiveFile) bool { return messages.IsTransient(f.ID) })}
	for done := false; !done; {
		_, done = l.step()
	}
	known := slices.DeleteFunc(l.infos, func(i *messages.SnapshotInfo) bool { return i.Error != "" })
	newestFirst(known)
	for _, old := range known[min(a.config.Keep, len(known)):] {
		a.fetched.close()
		if err := archive.Delete(old.Id); err != nil {
			a.config.Logger.Warn("an old snapshot was not deleted", "snapshot", old.Id, "reason", err)
			continue
		}
		a.config.Logger.Info("a snapshot was deleted", "snapshot", old.Id, "by", "retention")
	}
}

func (a *archiveActor) write(m *messages.WriteChunk) error {
	if a.file == nil || m.Id != a.id {
		return messages.Errorf(messages.Code_NOT_FOUND, "snapshot %s is not being written", m.Id)
	}
	if a.writer.Bytes() >= a.looked+roomEvery {
		a.looked = a.writer.Bytes()
		if err := a.room(); err != nil {
			return err
		}
	}
	if err := a.writer.Write(m.Chunk); err != nil {
		return err
	}
	if m.Chunk.Kind == messages.ChunkKind_TRAILER {
		return a.file.Commit()
	}
	return nil
}

// list begins to look at all files, or to read one whole.
func (a *archiveActor) list(ctx actor.Context, who asked, id string) error {
	archive := a.config.Disk.Archive()
	files, err := archive.List()
	if err != nil {
		return err
	}
	if id != "" {
		i := slices.IndexFunc(files, func(f disk.ArchiveFile) bool { return f.ID == id })
		if i < 0 {
			return messages.Errorf(messages.Code_NOT_FOUND, "there is no snapshot %s on this node", id)
		}
		a.checks = append(a.checks, &wholeCheck{asked: who, archive: archive, supports: a.config.Level, file: files[i]})
		a.flush(ctx)
		return nil
	}
	slices.SortFunc(files, func(x, y disk.ArchiveFile) int { return strings.Compare(y.ID, x.ID) })
	a.lists = append(a.lists, &listing{asked: who, archive: archive, supports: a.config.Level, files: files[:min(len(files), FilesMax)]})
	a.flush(ctx)
	return nil
}

func (a *archiveActor) flush(ctx actor.Context) {
	if !a.stepping && len(a.lists)+len(a.checks) > 0 {
		a.stepping = true
		ctx.Send(ctx.Self(), &messages.Flush{})
	}
}

func (a *archiveActor) onFlush(ctx actor.Context) {
	a.stepping = false
	a.lists = proceed(ctx, a.lists)
	a.checks = proceed(ctx, a.checks)
	a.flush(ctx)
}

// proceed does a step of the first task, and answers if that was the last.
func proceed(ctx actor.Context, tasks []archiveTask) []archiveTask {
	if len(tasks) == 0 {
		return tasks
	}
	reply, done := tasks[0].step()
	if !done {
		return tasks
	}
	pid, request := tasks[0].whom()
	tasks[0].end()
	reply.Request = request
	ctx.Send(pid, reply)
	return slices.Delete(tasks, 0, 1)
}

// asked is who waits for an answer.
type asked struct {
	pid     *actor.PID
	request uint64
	beside  *creation // what a list tells beside the files; nil: nothing
	deletes string    // the snapshot that is to go; empty: none
}

// id is the RequestID of what a client has asked for.
func (a asked) id() string { return messages.RequestIDOfNode(a.pid.Address, a.request) }

func (a asked) whom() (*actor.PID, uint64) { return a.pid, a.request }

// listing looks at one file a step.
type listing struct {
	asked
	archive  disk.Archive
	supports uint32             // as of wholeCheck
	files    []disk.ArchiveFile // that are left
	infos    []*messages.SnapshotInfo
}

func (l *listing) end() {}

func (l *listing) step() (*messages.SnapshotReply, bool) {
	if len(l.files) == 0 {
		return &messages.SnapshotReply{Snapshots: l.infos}, true
	}
	f := l.files[0]
	l.files = l.files[1:]
	file, err := l.archive.Open(f.ID)
	if messages.CodeOf(err) == messages.Code_NOT_FOUND {
		return nil, false // deleted meanwhile
	}
	info := &messages.SnapshotInfo{Id: f.ID, Bytes: uint64(f.Bytes)}
	if err == nil {
		var header *messages.SnapshotHeader
		var trailer *messages.SnapshotTrailer
		header, trailer, err = snapshot.Glance(file, f.Bytes, l.supports)
		describe(info, header, trailer)
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		info.Error = err.Error()
	}
	l.infos = append(l.infos, info)
	return nil, false
}

// describe fills in what header and trailer tell; either may be nil.
func describe(i *messages.SnapshotInfo, h *messages.SnapshotHeader, t *messages.SnapshotTrailer) {
	i.Index, i.Term, i.Revision, i.CompactedRevision = h.GetIndex(), h.GetTerm(), h.GetRevision(), h.GetCompactedRevision()
	i.CreatedAtMs, i.Version, i.Members = h.GetCreatedAtMs(), h.GetVersion(), h.GetMembers()
	i.Rows, i.Hash = t.GetRows(), t.GetHash()
}

// wholeCheck reads a file to its end, a chunk a step. It finds any byte that is not as it
// was written.
type wholeCheck struct {
	asked
	archive  disk.Archive
	supports uint32 // the highest cluster level that is understood
	file     disk.ArchiveFile
	open     io.ReadCloser    // nil before the first step
	reader   *snapshot.Reader // nil before header and state were read
}

func (w *wholeCheck) end() {
	if w.open != nil {
		_ = w.open.Close() // it was only read
		w.open = nil
	}
}

func (w *wholeCheck) step() (*messages.SnapshotReply, bool) {
	err := w.proceed()
	if err == nil {
		return nil, false
	}
	info := &messages.SnapshotInfo{Id: w.file.ID, Bytes: uint64(w.file.Bytes)}
	if w.reader != nil {
		describe(info, w.reader.Header(), w.reader.Trailer())
	}
	switch {
	case messages.CodeOf(err) == messages.Code_NOT_FOUND:
		return refused(0, err), true
	case err != io.EOF:
		info.Error = err.Error()
	}
	return &messages.SnapshotReply{Snapshots: []*messages.SnapshotInfo{info}}, true
}

func (w *wholeCheck) proceed() (err error) {
	switch {
	case w.open == nil:
		w.open, err = w.archive.Open(w.file.ID)
	case w.reader == nil:
		w.reader, err = snapshot.NewReader(w.open, w.supports)
	default:
		_, err = w.reader.Next()
	}
	return err
}

// newestFirst orders snapshots as people see them: by the time they were made, those
// without one last. It leaves out members where they would take too much.
func newestFirst(infos []*messages.SnapshotInfo) {
	slices.SortFunc(infos, func(a, b *messages.SnapshotInfo) int {
		return cmp.Or(cmp.Compare(b.CreatedAtMs, a.CreatedAtMs), strings.Compare(b.Id, a.Id))
	})
	size := 0
	for _, i := range infos {
		for _, m := range i.Members {
			size += len(m.Name) + len(m.Address) + len(m.Incarnation) + memberBytes
		}
		if size > listBytesMax {
			i.Members = nil
		}
	}
}
