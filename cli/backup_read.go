package cli

import (
	"bufio"
	"encoding/hex"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"keyval/messages"
	"keyval/storeactor/backup"
)

func newBackupVerify(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "verify",
		Usage:     "read all of a backup, and find any byte that was altered",
		ArgsUsage: "PATH",
		Description: `PATH is a file; a directory, whose newest backup is meant; or - for stdin. No node is
asked. Exits 0 if the backup is whole, and 1 if it is not: the error names the chunk and
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
bytes, hash.`,
		UsageText: `kvctl backup show ./backups
kvctl backup show nightly.kvb --json`,
		Action: sh.action(backupShow),
	}
}

// source is a backup that is read.
type source struct {
	io.ReadCloser
	path string
	size uint64 // in bytes; 0: not known
}

// openBackup opens a file, the newest of a directory, or stdin for -.
func (c *Call) openBackup(path string) (*source, error) {
	if path == "-" {
		if c.InTTY {
			return nil, c.usage("send a backup into it", "stdin is a terminal")
		}
		return &source{ReadCloser: io.NopCloser(c.Stdin), path: path}, nil
	}
	path, err := backup.Find(path)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, messages.Errorf(messages.Code_NOT_ALLOWED, "the backup cannot be read: %v", err).WithHint("name a file that this user may read")
	}
	s := &source{ReadCloser: file, path: path}
	if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
		s.size = uint64(info.Size())
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
	return c.printBackup(backupRow(s.path, r, time.Since(began)), "verified")
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
}

// glance reads what a backup says of itself.
func (c *Call) glance(path string) (shownBackupJSON, error) {
	s, err := c.openBackup(path)
	if err != nil {
		return shownBackupJSON{}, err
	}
	defer s.Close()
	h, t, size, err := backup.Glance(s.ReadCloser, int64(s.size))
	if err != nil {
		return shownBackupJSON{}, broken(err, s.path+": ")
	}
	row := shownBackupJSON{
		Path: s.path, ClusterID: hex.EncodeToString(h.ClusterId), Revision: h.Revision, CompactedRevision: h.CompactedRevision,
		Index: h.Index, Term: h.Term, Level: h.Level, CreatedAt: createdAt(h), CreatedBy: h.CreatedBy, Version: h.Version,
		Members: []memberJSON{}, Rows: t.Rows, Bytes: uint64(size), Hash: hex.EncodeToString(t.Hash),
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
	c.showPairs(rows)
	if c.Format == Table {
		c.banner("Whether all of it is whole, says: %s backup verify %s", c.self(), quoteWord(b.Path))
	}
	return nil
}
