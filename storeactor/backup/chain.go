package backup

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"keyval/messages"
	"keyval/storeactor/snapshot"
)

const readAhead = 256 << 10 // bytes

// Chain is a backup that is read: a file, or an increment with all that it builds on, as the
// file that they make together. Read proves each link: the hash of each base, and that of what
// comes of it.
type Chain struct {
	io.Reader
	Base  *messages.SnapshotBase // nil: the backup is one file
	Bytes int64                  // of its own file; 0: not known
	About int64                  // bytes that are read of it in all, about; 0: not known
	files []io.Closer
}

// Close closes all files of it.
func (c *Chain) Close() error {
	var failed error
	for _, f := range c.files {
		failed = errors.Join(failed, f.Close())
	}
	return failed
}

// Open opens a backup. Errors: NOT_FOUND, also for one on which it builds; CONFLICT: what has
// that one's name is something else. The message names the broken link.
func Open(ctx context.Context, l Location, name string) (*Chain, error) {
	file, size, err := l.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	c := &Chain{Bytes: size, About: size, files: []io.Closer{file}}
	if err := c.open(ctx, l, name, file); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Chain) open(ctx context.Context, l Location, name string, file io.Reader) error {
	about, whole, err := snapshot.Open(bufio.NewReaderSize(file, readAhead))
	if err != nil {
		return err
	}
	c.Base, c.Reader = about, whole
	if about == nil {
		return nil
	}
	found, err := baseOf(ctx, l, name, about)
	if err != nil {
		return err
	}
	base, err := Open(ctx, l, found)
	if err != nil {
		return err
	}
	c.files = append(c.files, base)
	if c.About += base.About; base.links()+1 != about.Links {
		return messages.Errorf(messages.Code_DAMAGED, "it says that it is link %d of its chain, and is link %d", about.Links, base.links()+1)
	}
	c.Reader, err = snapshot.Assemble(whole, base, messages.Level)
	return err
}

func (c *Chain) links() uint32 { return c.Base.GetLinks() }

// baseOf is the name of the backup on which an increment builds: what it says, or any beside
// it with that hash.
func baseOf(ctx context.Context, l Location, name string, about *messages.SnapshotBase) (string, error) {
	wanted := fmt.Sprintf("%s builds on %s (revision %d, hash %x)", name, about.Name, about.Revision, about.Hash)
	g, err := GlanceAt(ctx, l, about.Name)
	switch {
	case err == nil && bytes.Equal(g.Trailer.Hash, about.Hash):
		return about.Name, nil
	case err != nil && messages.CodeOf(err) != messages.Code_NOT_FOUND:
		return "", messages.Errorf(messages.Code_DAMAGED, "the chain is broken: %s, and that cannot be used: %s", wanted, messageOf(err)).
			WithHint("use another backup: without %s this one is of no use", about.Name)
	}
	names, failed := l.Names(ctx)
	if failed != nil {
		return "", failed
	}
	for _, other := range names {
		if other == name || other == about.Name {
			continue
		}
		if g, err := GlanceAt(ctx, l, other); err == nil && bytes.Equal(g.Trailer.Hash, about.Hash) {
			return other, nil
		}
	}
	if err != nil {
		return "", messages.Errorf(messages.Code_NOT_FOUND, "the chain is broken: %s, and that is not in %s", wanted, l.Path("")).WithHint("put it beside this one, under any name that backup gives, or its own")
	}
	return "", messages.Errorf(messages.Code_CONFLICT, "the chain is broken: %s, and what is there under that name has revision %d and hash %x", wanted, g.Header.Revision, g.Trailer.Hash).
		WithHint("put the right one beside this one")
}

// GlanceAt is Glance of a backup of a location.
func GlanceAt(ctx context.Context, l Location, name string) (snapshot.Glimpse, error) {
	file, size, err := l.Open(ctx, name)
	if err != nil {
		return snapshot.Glimpse{}, err
	}
	defer file.Close()
	g, _, err := Glance(file, size)
	return g, err
}

// Since is the backup on which an increment is made.
type Since struct {
	Location Location
	Name     string
	snapshot.Glimpse
}

// LookSince says whether an increment can be made upon a backup. INVALID: it cannot.
func LookSince(ctx context.Context, l Location, name string) (*Since, error) {
	g, err := GlanceAt(ctx, l, name)
	if err != nil {
		return nil, err
	}
	if g.Base.GetLinks() >= snapshot.LinksMax {
		return nil, messages.Errorf(messages.Code_INVALID, "%s is an increment of %d links, and no more are allowed", l.Path(name), snapshot.LinksMax).WithHint("make a whole one")
	}
	return &Since{l, name, g}, nil
}

// WriteIncrement reads a whole backup and writes the increment that leads to it from an older
// one. Errors are as of Read; CONFLICT: they are not of the same past.
func (s *Since) WriteIncrement(ctx context.Context, from io.Reader, to io.Writer) (c *Contents, written uint64, err error) {
	chain, err := Open(ctx, s.Location, s.Name)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, chain.Close()) }()
	base, err := snapshot.NewReader(chain, messages.Level)
	if err != nil {
		return nil, 0, err
	}
	w := snapshot.NewIncrementWriter(to, base, &messages.SnapshotBase{
		Name: s.Name, Revision: s.Header.Revision, Hash: s.Trailer.Hash, Links: s.Base.GetLinks() + 1,
	})
	c, err = walk(from, nil, func(h *messages.SnapshotHeader, _ *messages.Checkpoint) error {
		switch {
		case !bytes.Equal(h.ClusterId, s.Header.ClusterId):
			return messages.Errorf(messages.Code_CONFLICT, "%s is of cluster %x, and this is cluster %x", s.Location.Path(s.Name), s.Header.ClusterId, h.ClusterId).
				WithHint("make a whole backup of this cluster")
		case h.Revision < s.Header.Revision:
			return messages.Errorf(messages.Code_CONFLICT, "%s has revision %d, and %s is at %d only", s.Location.Path(s.Name), s.Header.Revision, h.CreatedBy, h.Revision).
				WithHint("name another node with --node, or an older backup with --since")
		}
		return nil
	}, w.Take)
	return c, w.Bytes(), err
}
