package keys

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"keyval/actors/transport"
	"keyval/messages"
)

// The taker of an invitation has a directory for its keys, where he notes who he is before he asks: so
// what was broken off goes on.
const fileTaker = "invitation"

// Vacant says whether a directory lacks the keys of a node whole, so that they can be put there: CONFLICT
// if it holds some of them, and nobody has begun to take an invitation there.
func Vacant(dir string) (bool, error) {
	f := FilesIn(dir, transport.NodeKey)
	if _, err := os.Lstat(f.Cert); err == nil {
		return false, nil
	}
	if _, err := os.Lstat(filepath.Join(dir, fileTaker)); err == nil {
		return true, nil
	}
	for _, file := range []string{f.CA, f.Key} {
		if _, err := os.Lstat(file); err == nil {
			return false, failed(&fs.PathError{Op: "create", Path: file, Err: fs.ErrExist})
		}
	}
	return true, nil
}

// Taker is who takes an invitation for a directory: 16 random bytes, the same when it goes on.
func Taker(dir string, id []byte) ([]byte, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, failed(err)
	}
	file, of := filepath.Join(dir, fileTaker), hex.EncodeToString(id)
	text, err := os.ReadFile(file)
	if was, taker, ok := strings.Cut(strings.TrimSpace(string(text)), " "); err == nil && ok && was == of {
		if raw, broken := hex.DecodeString(taker); broken == nil && len(raw) == messages.InvitationIDSize {
			return raw, nil
		}
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) { // of another token
		return nil, failed(err)
	}
	taker := make([]byte, messages.InvitationIDSize)
	if _, err := rand.Read(taker); err != nil {
		return nil, err
	}
	if err := writeNew(file, fmt.Appendf(nil, "%s %x\n", of, taker), 0o600); err != nil {
		return nil, err
	}
	return taker, errors.Join(syncDir(dir), syncDir(filepath.Dir(dir)))
}

// Taken says that the invitation of a directory is over: there is nothing to go on with.
func Taken(dir string) { _ = os.Remove(filepath.Join(dir, fileTaker)) }

// Install puts keys into a directory, the certificate last, and has them on the disk when it
// returns. What is there already stays as it is: CONFLICT if it is anything else.
func Install(dir string, k *messages.InvitedKeys) error {
	f := FilesIn(dir, transport.NodeKey)
	for _, one := range []struct {
		file string
		text []byte
		mode os.FileMode
	}{{f.CA, k.Ca, 0o644}, {f.Key, k.Key, 0o600}, {f.Cert, k.Certificate, 0o644}} {
		if err := place(one.file, one.text, one.mode); err != nil {
			return err
		}
	}
	return nil
}

// place makes a file that is there whole or not at all.
func place(file string, text []byte, mode os.FileMode) error {
	dir, draft := filepath.Dir(file), file+".new"
	if err := os.Remove(draft); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a start that was broken off
		return failed(err)
	}
	if is, err := os.ReadFile(file); err == nil && bytes.Equal(is, text) {
		return syncDir(dir)
	}
	if err := writeNew(draft, text, mode); err != nil {
		return err
	}
	defer os.Remove(draft)
	if err := os.Link(draft, file); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return failed(&fs.PathError{Op: "create", Path: file, Err: fs.ErrExist})
		}
		return failed(err)
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return failed(err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return failed(err)
	}
	return nil
}
