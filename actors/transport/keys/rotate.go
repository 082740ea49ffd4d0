package keys

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"keyval/actors/transport"
	"keyval/messages"
)

// An authority is replaced in three steps, and between two of them everybody must have
// what the step made: both are trusted; then the new one signs, and has signed all
// certificates anew; then the old one is not trusted any more. How far it is the files
// show, so a step that was broken off is done again.

// Stage is how far the replacement of an authority is.
type Stage int

const (
	Settled Stage = iota // there is one authority
	Both                 // a new one is trusted, and the old one signs
	Signing              // the new one signs, and not all certificates are its own
	Leaves               // all certificates are the new one's, and both are trusted
)

// Stage looks at the files.
func (a Authority) Stage() (Stage, error) {
	signer, _, err := a.signer()
	if err != nil {
		return 0, err
	}
	trusted, err := readCertificates(a.path(fileCA))
	if err != nil {
		return 0, failed(err)
	}
	_, begun := os.Stat(a.path(fileNext))
	_, err = os.Stat(a.path(fileNextKey))
	switch {
	case begun == nil: // and not trusted by all
		return Settled, nil
	case err == nil:
		return Both, nil
	case len(trusted) == 1:
		return Settled, nil
	}
	old, err := a.others(signer)
	if err != nil || len(old) > 0 {
		return Signing, err
	}
	return Leaves, nil
}

// others are the directories whose certificates are not signed by an authority.
func (a Authority) others(signer *x509.Certificate) (old []string, err error) {
	dirs, err := a.dirs()
	if err != nil {
		return nil, err
	}
	for dir, kind := range dirs {
		leaf, err := readCertificates(FilesIn(dir, kind).Cert)
		if err != nil || leaf[0].CheckSignatureFrom(signer) != nil {
			old = append(old, dir)
		}
	}
	return old, nil
}

// dirs are the directories of nodes and users.
func (a Authority) dirs() (map[string]transport.PrincipalKind, error) {
	all := map[string]transport.PrincipalKind{}
	for name, kind := range map[string]transport.PrincipalKind{dirNodes: transport.NodeKey, dirUsers: transport.UserKey} {
		entries, err := os.ReadDir(a.path(name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, failed(err)
		}
		for _, e := range entries {
			if e.IsDir() {
				all[a.path(name, e.Name())] = kind
			}
		}
	}
	return all, nil
}

// TrustBoth is the first step: it makes a new authority, which is trusted from then on and
// signs nothing yet.
func (a Authority) TrustBoth() error {
	if err := a.at(Settled); err != nil {
		return err
	}
	trusted, err := readCertificates(a.path(fileCA))
	if err != nil {
		return failed(err)
	}
	next, err := readCertificates(a.path(fileNext)) // of a step that was broken off
	if errors.Is(err, fs.ErrNotExist) {
		next, err = a.makeNext()
	}
	if err != nil {
		return err
	}
	if err := a.trust([]*x509.Certificate{trusted[0], next[0]}); err != nil {
		return err
	}
	if err := os.Remove(a.path(fileNext)); err != nil {
		return failed(err)
	}
	return nil
}

func (a Authority) makeNext() ([]*x509.Certificate, error) {
	next, key, err := a.newAuthority()
	if err != nil {
		return nil, err
	}
	return []*x509.Certificate{next}, writePair(a.path(fileNext), [][]byte{next.Raw}, a.path(fileNextKey), key)
}

// SignAnew is the second step: the new authority signs, and every certificate is made anew,
// with its names and hosts. What it replaces is kept beside it, as FILE.old.
func (a Authority) SignAnew() error {
	if err := a.at(Both, Signing); err != nil {
		return err
	}
	if _, err := os.Stat(a.path(fileNextKey)); err == nil {
		if err := errors.Join(os.Rename(a.path(fileCAKey), a.path(fileCAKey+".old")), os.Rename(a.path(fileNextKey), a.path(fileCAKey))); err != nil {
			return failed(err)
		}
	}
	signer, key, err := a.signer()
	if err != nil {
		return err
	}
	old, err := a.others(signer)
	if err != nil {
		return err
	}
	kinds, err := a.dirs()
	if err != nil {
		return err
	}
	for _, dir := range old {
		f := FilesIn(dir, kinds[dir])
		leaf, err := readCertificates(f.Cert)
		if err != nil {
			leaf, err = readCertificates(f.Cert + ".old") // broken off between the two
		}
		if err != nil {
			return failed(err)
		}
		for _, file := range []string{f.Cert, f.Key} {
			if err := os.Rename(file, file+".old"); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return failed(err)
			}
		}
		if _, err := a.issue(PrincipalOf(leaf[:1]), Hosts(leaf[0]), signer, key, f); err != nil {
			return err
		}
	}
	return nil
}

// TrustNew is the last step: the old authority is trusted no more.
func (a Authority) TrustNew() error {
	if err := a.at(Leaves); err != nil {
		return err
	}
	signer, _, err := a.signer()
	if err != nil {
		return err
	}
	return a.trust([]*x509.Certificate{signer})
}

// at refuses a step whose turn it is not.
func (a Authority) at(wanted ...Stage) error {
	is, err := a.Stage()
	if err != nil {
		return err
	}
	for _, w := range wanted {
		if is == w {
			return nil
		}
	}
	return messages.Errorf(messages.Code_CONFLICT, "it is not the turn of this step in %s", a.Dir).
		WithHint("kvctl cert rotate-ca --dir %s says which is next", a.Dir)
}

// trust writes what is trusted, here and into every directory.
func (a Authority) trust(authorities []*x509.Certificate) error {
	var raw [][]byte
	for _, c := range authorities {
		raw = append(raw, c.Raw)
	}
	dirs, err := a.dirs()
	if err != nil {
		return err
	}
	files := []string{}
	for dir := range dirs {
		files = append(files, filepath.Join(dir, fileCA))
	}
	for _, file := range append(files, a.path(fileCA)) { // the authority's own last: it shows how far this is
		if err := os.WriteFile(file+".new", encoded(raw), 0o644); err != nil {
			return failed(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			return failed(err)
		}
	}
	return nil
}
