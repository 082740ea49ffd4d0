package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/messages"
	"keyval/storeactor/backup"
)

func newBackup(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "backup",
		Usage:     "write the whole state of the cluster into a file here",
		ArgsUsage: "PATH",
		Description: `PATH is a file that is not there yet, or s3://BUCKET/PREFIX/NAME.kvb; a directory or
s3://BUCKET/PREFIX, in which it is called backup-YYYY-MM-DD-HHMMSS.kvb; or - for stdout. It holds all keys with their history, as of
one revision: that of everything that was acknowledged before, or a later one. The cluster
serves on. Any node gives it: the first endpoint that answers, or --node. It needs room for
the same file until it is here.
The file has its name only once all of it is here, whole and on disk; what comes is checked
on its way. A file of snapshot save is a backup too. Encryption is for the tool behind the
pipe: kvctl backup - | age -r ... > FILE
With --since it is an increment: what has changed since an older backup beside it, and all that
is gone since, also what was compacted. Whoever reads it reads that one too, and those below it.
It saves room, not work: node and network carry the whole state, and the older one is read.
With --every it is a job of its own: each backup is read again from where it stands, the cluster
is told, and kvctl cluster health says how old the last good one is, or that it is overdue. It
ends by SIGINT or SIGTERM; when it is started anew it goes on from the newest that is there.
With --json an object: path, node, endpoint, cluster_id, revision, index, created_at, keys,
rows, bytes, hash, took_ms, and of an increment since and file_bytes; to stderr where PATH is -.`,
		UsageText: `kvctl backup ./backups
kvctl backup nightly.kvb --node node2 --json
kvctl backup ./backups --since ./backups
kvctl backup s3://bucket/keyval --every 1h --keep 24
kvctl backup - | gzip > nightly.kvb.gz`,
		Flags: []urfave.Flag{
			nodeFlag("have the node called `NAME` give it"),
			&urfave.StringFlag{Name: "consistency", Usage: "with stale, take what the node has, also without a quorum: linearizable or stale", Value: "linearizable"},
			&urfave.StringFlag{Name: "since", Usage: "write what has changed since the backup at `PATH`, or since the newest there", TakesFile: true},
			&urfave.DurationFlag{Name: "every", Usage: "go on for ever: make one, read it again, and the next after `TIME`"},
			&urfave.UintFlag{Name: "keep", Usage: "with --every, remove all but the newest `N`", DefaultText: "all are kept"},
			progressFlag(),
		},
		Action:      sh.action(backUp),
		Subcommands: []*urfave.Command{newBackupVerify(sh), newBackupShow(sh), newBackupDrill(sh), newBackupForget(sh)},
	}
}

func newSnapshotSave(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "save",
		Usage:     "bring a snapshot of a node here",
		ArgsUsage: "ID PATH",
		Description: `Looks for it on every endpoint, or on --node alone. PATH is as for backup, and what
stands there is a backup. With --json the object of backup.`,
		UsageText: `kvctl snapshot save snapshot-2026-01-31-235959 ./backups
kvctl snapshot save snapshot-2026-01-31-235959 - --node node1 > here.kvb`,
		Flags:  []urfave.Flag{nodeFlag("look on the node called `NAME` alone"), progressFlag()},
		Action: sh.action(snapshotSave),
	}
}

// backupJSON is one backup.
type backupJSON struct {
	Path      string `json:"path"`
	Node      string `json:"node,omitempty"`
	Endpoint  string `json:"endpoint,omitempty"`
	ClusterID string `json:"cluster_id"`
	Revision  uint64 `json:"revision,string"`
	Index     uint64 `json:"index,string"`
	CreatedAt string `json:"created_at"`
	Keys      uint64 `json:"keys,string"`
	Rows      uint64 `json:"rows,string"`
	Bytes     uint64 `json:"bytes"`
	Hash      string `json:"hash"`
	TookMs    int64  `json:"took_ms"`
	Since     string `json:"since,omitempty"`      // of an increment: the backup on which it builds
	FileBytes uint64 `json:"file_bytes,omitempty"` // of an increment: its own; bytes are those of what it leads to
}

func backupRow(path string, r *backup.Contents, took time.Duration) backupJSON {
	return backupJSON{
		Path: path, ClusterID: hex.EncodeToString(r.Header.ClusterId), Revision: r.Header.Revision, Index: r.Header.Index,
		CreatedAt: createdAt(r.Header), Keys: r.Keys, Rows: r.Rows.Count, Bytes: r.Bytes, Hash: hex.EncodeToString(r.Trailer.Hash),
		TookMs: took.Milliseconds(),
	}
}

func createdAt(h *messages.SnapshotHeader) string {
	if h.CreatedAtMs == 0 {
		return ""
	}
	return time.UnixMilli(h.CreatedAtMs).UTC().Format(time.RFC3339)
}

// backupEvent is one line of --progress json.
type backupEvent struct {
	Phase      string `json:"phase"` // preparing, copying, reading, done
	BytesDone  uint64 `json:"bytes_done"`
	BytesTotal uint64 `json:"bytes_total"` // 0: not known
	Rate       uint64 `json:"rate_bytes_per_s"`
	ETAMs      int64  `json:"eta_ms"`
	StalledMs  int64  `json:"stalled_ms"`
}

// byteProgress tells how many bytes of all are done.
type byteProgress struct {
	*progress
	phase string
	total uint64 // 0: not known
	rate  rate
}

func (p *byteProgress) tell(done uint64) {
	now := time.Now()
	if !p.due(now) {
		return
	}
	p.rate.note(now, done)
	left, stalled := p.rate.left(p.total), p.rate.stalled(now)
	text := p.phase + ": " + bytesText(done)
	if p.total > 0 {
		text += " of " + bytesText(max(done, p.total))
	}
	text += p.rate.text(now, p.total, "")
	p.progress.tell(now, backupEvent{p.phase, done, p.total, uint64(p.rate.perSecond), left.Milliseconds(), stalled.Milliseconds()}, "%s", text)
}

func backUp(c *Call) error {
	stale := c.flags.String("consistency") == "stale"
	if !stale && c.flags.String("consistency") != "linearizable" {
		return c.usage("", "--consistency %q is none of %s", c.flags.String("consistency"), strings.Join(choices["consistency"], ", "))
	}
	if c.flags.IsSet("every") {
		return c.backUpForEver(stale)
	}
	if c.flags.IsSet("keep") {
		return c.usage("", "--keep goes with --every")
	}
	copying, err := c.newCopying(c.Args[0])
	if err != nil {
		return err
	}
	if since := c.flags.String("since"); since != "" {
		if err := copying.upon(since); err != nil {
			return err
		}
	}
	row, err := copying.ofNow(stale)
	if err != nil {
		return err
	}
	return c.printBackup(row, "wrote")
}

// ofNow has a node write its state down, and brings that.
func (w *copying) ofNow(stale bool) (row backupJSON, err error) {
	c := w.call
	endpoint, err := c.giver()
	if err != nil {
		return row, err
	}
	store, err := c.storeAt(c, endpoint)
	if err != nil {
		return row, err
	}
	defer store.Close()
	if !stale {
		// A node that has read at the newest revision has applied all that was acknowledged. If it is
		// started anew right then it may write down less.
		if w.floor, err = store.Newest(c); err != nil {
			return row, hinted(err, "--consistency stale backs up what this node has, which may miss the latest writes")
		}
	}
	info, err := prepare(c, store, w.progress)
	if err != nil {
		return row, err
	}
	w.about = info.Bytes
	defer func() { // the node lets it go by itself if it is not asked
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c), time.Second)
		defer cancel()
		_, _ = store.SnapshotDelete(ctx, info.Id)
	}()
	return w.bring(store, info.Id, endpoint)
}

// hinted is an error with another next step.
func hinted(err error, hint string) error {
	problem, _ := explain(err)
	told := *problem
	told.Hint = hint
	return &told
}

// giver is the node that gives a backup: --node, or the first endpoint that answers.
func (c *Call) giver() (string, error) {
	if c.flags.IsSet("node") {
		m, err := c.chosenMember()
		if err != nil {
			return "", err
		}
		return m.Endpoint, nil
	}
	endpoints, err := c.endpoints()
	if err != nil {
		return "", err
	}
	patience, err := c.patience()
	if err != nil {
		return "", err
	}
	for _, e := range endpoints {
		if err = c.Probe(c, e, patience); err == nil {
			return e, nil
		}
	}
	return "", err
}

// prepare has the node write a transient snapshot of now, and waits until it is whole.
func prepare(c *Call, store Store, p *progress) (*messages.SnapshotInfo, error) {
	mark := make([]byte, 8)
	if _, err := rand.Read(mark); err != nil {
		return nil, err
	}
	id := messages.TransientPrefix + hex.EncodeToString(mark)
	if _, err := store.SnapshotCreate(c, id, time.Now().UnixMilli()); err != nil {
		return nil, err
	}
	told := &byteProgress{progress: p, phase: "preparing"}
	poll := time.NewTicker(followEvery)
	defer poll.Stop()
	for {
		r, err := store.Snapshots(c)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(r.Snapshots, func(s *messages.SnapshotInfo) bool { return s.Id == id })
		switch {
		case i < 0:
			return nil, messages.Errorf(messages.Code_INTERNAL, "%s does not prepare the backup any more: it was started anew", r.Node).At(r.Endpoint, "").WithHint("try again")
		case r.Snapshots[i].Error != "":
			return nil, messages.Errorf(messages.Code_INTERNAL, "%s could not prepare the backup: %s", r.Node, r.Snapshots[i].Error).At(r.Endpoint, "").
				WithHint("try again, or another node with --node")
		case !r.Snapshots[i].Writing:
			return r.Snapshots[i], nil
		}
		told.total = r.Snapshots[i].BytesTotal
		told.tell(r.Snapshots[i].Bytes)
		select {
		case <-poll.C:
		case <-c.Done():
			return nil, context.Cause(c)
		}
	}
}

func snapshotSave(c *Call) error {
	copying, err := c.newCopying(c.Args[1])
	if err != nil {
		return err
	}
	s, err := c.findSnapshot(c.Args[0])
	if err != nil {
		return err
	}
	store, err := c.storeAt(c, s.Endpoint)
	if err != nil {
		return err
	}
	defer store.Close()
	return copying.run(store, s.ID, s.Endpoint)
}

// copying brings a snapshot file from a node to a path.
type copying struct {
	call     *Call
	progress *progress
	location backup.Location // nil: stdout
	name     string          // the file there
	since    *backup.Since   // nil: all of it is brought
	about    uint64          // bytes, about
	floor    uint64          // an older revision is not what was asked for
	began    time.Time
}

func (c *Call) newCopying(path string) (*copying, error) {
	switch {
	case path == "":
		return nil, c.usage("", "PATH is empty")
	case path == "-" && c.OutTTY:
		return nil, c.usage("send it into a file or a pipe", "a backup is no text for a terminal")
	case path == "-":
		return c.copyingTo(nil, "")
	}
	l, name, err := backup.Locate(path)
	if err != nil {
		return nil, err
	}
	return c.copyingTo(l, name)
}

// copyingTo is one to a location, under a name that tells the time if none is given.
func (c *Call) copyingTo(l backup.Location, name string) (*copying, error) {
	p, err := c.progress(true, true)
	if err != nil {
		return nil, err
	}
	w := &copying{call: c, progress: p, location: l, began: time.Now()}
	p.told = w.began
	if l == nil {
		return w, nil
	}
	w.name = cmp.Or(name, backup.Name(w.began))
	file, _, err := w.location.Open(c, w.name) // before anything is done
	switch {
	case err == nil:
		_ = file.Close() // it was read only
		return nil, messages.Errorf(messages.Code_CONFLICT, "%s is there already", w.path()).WithHint("name another file, or a directory")
	case messages.CodeOf(err) != messages.Code_NOT_FOUND || strings.Contains(err.Error(), "no bucket"):
		return nil, err
	}
	return w, nil
}

// upon makes it an increment.
func (w *copying) upon(path string) error {
	l, name, err := backup.Find(w.call, path)
	if err != nil {
		return err
	}
	if w.location != nil && w.location.Path("") != l.Path("") {
		return w.call.usage("name a PATH in "+l.Path(""), "an increment stands beside the backup on which it builds, and %s is not in %s", w.path(), l.Path(""))
	}
	if w.since, err = backup.LookSince(w.call, l, name); err != nil {
		return broken(err, l.Path(name)+": ")
	}
	return nil
}

func (w *copying) path() string {
	if w.location == nil {
		return "-"
	}
	return w.location.Path(w.name)
}

func (w *copying) run(store Store, id, endpoint string) error {
	row, err := w.bring(store, id, endpoint)
	if err != nil {
		return err
	}
	return w.call.printBackup(row, "wrote")
}

// bring brings it, and says what it has brought.
func (w *copying) bring(store Store, id, endpoint string) (backupJSON, error) {
	ctx, cancel := context.WithCancel(w.call)
	defer cancel()
	told := &byteProgress{progress: w.progress, phase: "copying"}
	from := &partsReader{ctx: ctx, store: store, id: id, told: told}
	var to io.Writer = w.call.Stdout
	var file backup.Upload
	if w.location != nil {
		var err error
		if file, err = w.location.Create(ctx, w.name, w.about); err != nil {
			return backupJSON{}, err
		}
		defer file.Abort()
		to = file
	}
	contents, written, err := w.copy(ctx, from, to)
	w.progress.end()
	if err == nil && contents.Header.Revision < w.floor {
		err = messages.Errorf(messages.Code_INTERNAL, "%s wrote down revision %d, and had read at revision %d: it was started anew meanwhile", contents.Header.CreatedBy, contents.Header.Revision, w.floor).
			At(endpoint, "").WithHint("try again")
	}
	if err == nil && file != nil {
		err = file.Commit()
	}
	switch {
	case err == nil:
	case w.location == nil:
		return backupJSON{}, broken(err, "the backup broke off: what is on stdout is not whole: ")
	default:
		return backupJSON{}, broken(err, fmt.Sprintf("nothing was left at %s: ", w.path()))
	}
	row := backupRow(w.path(), contents, time.Since(w.began))
	row.Node, row.Endpoint = contents.Header.CreatedBy, endpoint
	if w.since != nil {
		row.Since, row.FileBytes = w.since.Name, written
	}
	return row, nil
}

func (w *copying) copy(ctx context.Context, from io.Reader, to io.Writer) (*backup.Contents, uint64, error) {
	if w.since != nil {
		return w.since.WriteIncrement(ctx, from, to)
	}
	contents, err := backup.Read(io.TeeReader(from, to), nil)
	return contents, 0, err
}

// printBackup says what a backup holds. Where stdout has the backup itself, stderr has this.
func (c *Call) printBackup(row backupJSON, verb string) error {
	out := *c
	if row.Path == "-" && verb == "wrote" {
		sh := *c.Shell
		sh.Stdout = c.Stderr
		out.Shell = &sh
	}
	switch c.Format {
	case Simple:
		out.printSimple([][]string{{row.Path, fmt.Sprint(row.Revision), row.Hash}})
		return nil
	case Table:
		path, size := row.Path, bytesText(row.Bytes)
		if row.Since != "" {
			path, size = path+" upon "+row.Since, fmt.Sprintf("%s for %s", bytesText(row.FileBytes), size)
		}
		what := fmt.Sprintf("%s %s: revision %d, %s, %s, %s in %s", verb, path, row.Revision, plural(row.Keys, "key"), plural(row.Rows, "row"),
			size, timeText(time.Duration(row.TookMs)*time.Millisecond))
		if row.TookMs > 0 {
			what += fmt.Sprintf(" (%s/s)", bytesText(row.Bytes*1000/uint64(row.TookMs)))
		}
		_, err := fmt.Fprintf(out.Stdout, "%s\nhash %s\n", what, row.Hash)
		return err
	}
	return out.printJSON(row)
}

// partsReader reads a snapshot file of a node. While one part is used, the next is on its way.
type partsReader struct {
	ctx   context.Context
	store Store
	id    string
	told  *byteProgress

	next chan fetchedPart // nil: none is on its way
	rest []byte
	at   uint64
	err  error
}

type fetchedPart struct {
	body  []byte
	total uint64
	err   error
}

func (r *partsReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		if r.next == nil {
			r.ask()
		}
		part := <-r.next
		switch r.next = nil; {
		case part.err != nil:
			r.err = part.err
		case len(part.body) == 0:
			r.err = io.EOF
		default:
			r.rest = part.body
			r.at += uint64(len(part.body))
			r.told.total = part.total
			r.told.tell(r.at)
			r.ask()
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *partsReader) ask() {
	next, at := make(chan fetchedPart, 1), r.at
	r.next = next
	go func() {
		part, err := r.store.SnapshotFetch(r.ctx, r.id, at)
		next <- fetchedPart{part.Body, part.Total, err}
	}()
}
