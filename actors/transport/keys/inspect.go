package keys

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"keyval/actors/transport"
	"keyval/messages"
)

// Entry is a certificate in a directory.
type Entry struct {
	File        string // of the certificate
	What        string // ca, node, user
	Name        string
	Hosts       []string
	Expires     time.Time
	Fingerprint string
	Problem     string // empty: it is good
}

// Inspect looks at all certificates of a directory: an authority's with what it has made, or
// that of one node or user. NOT_FOUND: it holds none.
func (a Authority) Inspect() ([]Entry, error) {
	dirs, err := a.dirs()
	if err != nil {
		return nil, err
	}
	for kind, name := range map[transport.PrincipalKind]string{transport.NodeKey: fileNode, transport.UserKey: fileClient} {
		if _, err := os.Stat(a.path(name + ".crt")); err == nil {
			dirs[a.Dir] = kind
		}
	}
	var all []Entry
	authorities, err := readCertificates(a.path(fileCA))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, failed(fmt.Errorf("%s: %w", a.path(fileCA), err))
	}
	for _, c := range authorities {
		e := a.entry(a.path(fileCA), "ca", c)
		if !c.IsCA {
			e.Problem = "it is no authority's"
		}
		all = append(all, e)
	}
	if _, err := os.Stat(a.path(fileCAKey)); err == nil && len(all) > 0 && checkSecret(a.path(fileCAKey)) != nil {
		all[0].Problem = checkSecret(a.path(fileCAKey)).Error()
	}
	var leaves []Entry
	for dir, kind := range dirs {
		leaves = append(leaves, a.inspect(dir, kind))
	}
	slices.SortFunc(leaves, func(x, y Entry) int { return strings.Compare(x.File, y.File) })
	if all = append(all, leaves...); len(all) == 0 {
		return nil, messages.Errorf(messages.Code_NOT_FOUND, "%s holds no certificate", a.Dir).
			WithHint("make an authority with kvctl cert create-ca --dir DIR, or name the directory that has one")
	}
	return all, nil
}

// inspect looks at the keys of a node or a user.
func (a Authority) inspect(dir string, kind transport.PrincipalKind) Entry {
	f := FilesIn(dir, kind)
	what := map[transport.PrincipalKind]string{transport.NodeKey: "node", transport.UserKey: "user"}[kind]
	chain, err := readCertificates(f.Cert)
	if err != nil {
		return Entry{File: f.Cert, What: what, Name: filepath.Base(dir), Problem: err.Error()}
	}
	e := a.entry(f.Cert, what, chain[0])
	p := PrincipalOf(chain)
	e.Name = p.Name
	trusted, err := readCertificates(f.CA)
	pool := &loaded{pool: x509.NewCertPool()}
	for _, c := range trusted {
		pool.pool.AddCert(c)
	}
	_, paired := tls.LoadX509KeyPair(f.Cert, f.Key)
	_, verified := pool.verify(chain, x509.ExtKeyUsageClientAuth, a.now())
	switch secret := checkSecret(f.Key); {
	case err != nil:
		e.Problem = fmt.Sprintf("%s: %v", f.CA, err)
	case secret != nil:
		e.Problem = secret.Error()
	case paired != nil:
		e.Problem = paired.Error()
	case verified != nil:
		e.Problem = verified.Error()
	case p.Kind != kind:
		e.Problem = "it names " + p.String()
	}
	return e
}

func (a Authority) entry(file, what string, c *x509.Certificate) Entry {
	e := Entry{File: file, What: what, Name: c.Subject.CommonName, Hosts: Hosts(c), Expires: c.NotAfter.UTC(), Fingerprint: Fingerprint(c)}
	switch left := c.NotAfter.Sub(a.now()); {
	case left <= 0:
		e.Problem = "it has expired"
	case left < transport.WarnBefore:
		e.Problem = fmt.Sprintf("it expires in %d days", int(left.Hours()/24))
	}
	return e
}
