package cli

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/messages"
	"keyval/storeactor/backup"
	"keyval/storeactor/snapshot"
)

func newBackupVerify(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "verify",
		Usage:     "read all of a backup, and find any byte that was altered",
		ArgsUsage: "PATH",
		Description: `PATH is a file or s3://BUCKET/PREFIX/NAME.kvb; a directory or s3://BUCKET/PREFIX, whose newest
backup is meant; or - for stdin. Of an increment all is read that it builds on, and each link
is proved. No node is asked. Exits 0 if the backup is whole, and 1 if it is not: the error names the chunk and
the byte at which it begins. With --json the object of backup.`,
		UsageText: `kvctl backup verify ./backups
gunzip < nightly.kvb.gz | kvctl backup verify - --json`,
		Flags:  []urfave.Flag{progressFlag()},
		Action: sh.action(backupVerify),
	}
}

func newBackupShow(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "show",
		Usage:     "show what a backup is of",
		ArgsUsage: "PATH",
		Description: `Reads its begin and its end, and not what lies between: that is for backup verify.
PATH is as there. With --json an object: path, cluster_id, revision, compacted_revision,
index, term, level, created_at, created_by, version, members (id, raft_id, address), rows,
bytes, hash; of an increment also since and links, and rows and hash are those of what it leads to.`,
		UsageText: `kvctl backup show ./backups
kvctl backup show nightly.kvb --json`,
		Action: sh.action(backupShow),
	}
}

// source is a backup that is read. Of an increment that is the file which it makes with all
// that it builds on.
type source struct {
	io.ReadCloser
	path  string
	since string // the backup on which it builds; empty: none
	bytes uint64 // of its own file; 0: not known
	size  uint64 // that are read of it, about; 0: not known
}

// stdin is a backup that comes through it.
func (c *Call) stdin() (io.Reader, error) {
	if c.InTTY {
		return nil, c.usage("send a backup into it", "stdin is a terminal")
	}
	base, from, err := snapshot.Open(c.Stdin)
	if err == nil && base != nil {
		return nil, messages.Errorf(messages.Code_INVALID, "what comes through stdin is an increment, which builds on %s", base.Name).
			WithHint("read it where that is: name its file")
	}
	return from, err
}

// openBackup opens a file or an object, the newest of a directory or a prefix, or stdin for -.
func (c *Call) openBackup(path string) (*source, error) {
	if path == "" {
		return nil, c.usage("", "PATH is empty")
	}
	if path == "-" {
		from, err := c.stdin()
		return &source{ReadCloser: io.NopCloser(from), path: path}, err
	}
	l, name, err := backup.Find(c, path)
	if err != nil {
		return nil, err
	}
	chain, err := backup.Open(c, l, name)
	if err != nil {
		return nil, broken(err, l.Path(name)+": ")
	}
	s := &source{ReadCloser: chain, path: l.Path(name), bytes: uint64(chain.Bytes), size: uint64(chain.About)}
	if chain.Base != nil {
		s.since = chain.Base.Name
	}
	return s, nil
}

// told tells how much of it was read.
func (s *source) told(p *progress) func(uint64) {
	told := &byteProgress{progress: p, phase: "reading", total: s.size}
	return told.tell
}

func backupVerify(c *Call) error {
	p, err := c.progress(true, false)
	if err != nil {
		return err
	}
	s, err := c.openBackup(c.Args[0])
	if err != nil {
		return err
	}
	defer s.Close()
	began := time.Now()
	p.told = began
	r, err := backup.Read(bufio.NewReaderSize(s, 1<<20), s.told(p))
	p.end()
	if err != nil {
		return broken(err, s.path+": ")
	}
	row := backupRow(s.path, r, time.Since(began))
	if s.since != "" {
		row.Since, row.FileBytes = s.since, s.bytes
	}
	return c.printBackup(row, "verified")
}

// shownBackupJSON is what a backup says of itself.
type shownBackupJSON struct {
	Path              string       `json:"path"`
	ClusterID         string       `json:"cluster_id"`
	Revision          uint64       `json:"revision,string"`
	CompactedRevision uint64       `json:"compacted_revision,string"`
	Index             uint64       `json:"index,string"`
	Term              uint64       `json:"term,string"`
	Level             uint32       `json:"level"`
	CreatedAt         string       `json:"created_at"`
	CreatedBy         string       `json:"created_by"`
	Version           string       `json:"version"`
	Members           []memberJSON `json:"members"`
	Rows              uint64       `json:"rows,string"`
	Bytes             uint64       `json:"bytes"`
	Hash              string       `json:"hash"`
	Since             string       `json:"since,omitempty"` // of an increment: on which it builds
	Links             uint32       `json:"links,omitempty"` // of an increment: how many there are down to a whole one
}

// glance reads what a backup says of itself.
func (c *Call) glance(path string) (shownBackupJSON, error) {
	var g snapshot.Glimpse
	var size int64
	if path == "-" {
		from, err := c.stdin()
		if err == nil {
			g, size, err = backup.Glance(from, 0)
		}
		if err != nil {
			return shownBackupJSON{}, broken(err, path+": ")
		}
	} else {
		l, name, err := backup.Find(c, path)
		if err != nil {
			return shownBackupJSON{}, err
		}
		path = l.Path(name)
		file, bytes, err := l.Open(c, name)
		if err != nil {
			return shownBackupJSON{}, err
		}
		defer file.Close()
		if g, size, err = backup.Glance(file, bytes); err != nil {
			return shownBackupJSON{}, broken(err, path+": ")
		}
	}
	h, t := g.Header, g.Trailer
	row := shownBackupJSON{
		Path: path, ClusterID: hex.EncodeToString(h.ClusterId), Revision: h.Revision, CompactedRevision: h.CompactedRevision,
		Index: h.Index, Term: h.Term, Level: h.Level, CreatedAt: createdAt(h), CreatedBy: h.CreatedBy, Version: h.Version,
		Members: []memberJSON{}, Rows: t.Rows, Bytes: uint64(size), Hash: hex.EncodeToString(t.Hash),
		Since: g.Base.GetName(), Links: g.Base.GetLinks(),
	}
	for _, m := range h.Members {
		row.Members = append(row.Members, memberJSON{m.Name, m.RaftId, m.Address})
	}
	return row, nil
}

func backupShow(c *Call) error {
	b, err := c.glance(c.Args[0])
	if err != nil {
		return err
	}
	if c.Format.structured() {
		return c.printJSON(b)
	}
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	var members []string
	for _, m := range b.Members {
		members = append(members, m.ID+" at "+m.Address)
	}
	rows := [][2]string{
		{"path", b.Path}, {"size", bytesText(b.Bytes)}, {"created", b.CreatedAt}, {"by", b.CreatedBy}, {"cluster", b.ClusterID},
		{"revision", number(b.Revision)}, {"reads from", "revision " + number(max(1, b.CompactedRevision))}, {"index", number(b.Index)},
		{"term", number(b.Term)}, {"level", number(uint64(b.Level))}, {"rows", number(b.Rows)}, {"members", strings.Join(members, ", ")},
		{"version", b.Version}, {"hash", b.Hash},
	}
	if b.Since != "" {
		rows = append(rows, [2]string{"builds on", fmt.Sprintf("%s (%s)", b.Since, countText(uint64(b.Links), "link", "links"))})
	}
	c.showPairs(rows)
	if c.Format == Table {
		c.banner("Whether all of it is whole, says: %s backup verify %s", c.self(), quoteWord(b.Path))
	}
	return nil
}
