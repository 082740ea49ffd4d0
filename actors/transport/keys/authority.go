package keys

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"keyval/actors/transport"
	"keyval/messages"
)

// The directory of an authority holds ca.crt, what is trusted, and ca.key, what signs; and
// a directory for each certificate that was made, which goes to its machine whole:
//
//	nodes/NAME/  ca.crt node.crt node.key
//	users/NAME/  ca.crt client.crt client.key
//
// Whoever has ca.key can be any node and any user. No node needs it.
const (
	fileCA      = "ca.crt"
	fileCAKey   = "ca.key"
	fileNextKey = "ca.next.key" // of an authority that signs once all trust it
	fileNext    = "ca.next.crt" // of the same, until it is trusted here
	fileNode    = "node"
	fileClient  = "client"
	dirNodes    = "nodes"
	dirUsers    = "users"
)

// How long certificates are good for. What begins was good an hour before, since clocks
// differ.
const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 365 * 24 * time.Hour
	skew          = time.Hour
)

// Authority is a directory that certificates are made in.
type Authority struct {
	Dir string
	Now func() time.Time // nil: the clock
}

func (a Authority) path(parts ...string) string {
	return filepath.Join(append([]string{a.Dir}, parts...)...)
}

func (a Authority) now() time.Time {
	if a.Now == nil {
		return time.Now()
	}
	return a.Now()
}

// Of is the directory of a node's or a user's keys.
func (a Authority) Of(p transport.Principal) string {
	if p.Kind == transport.NodeKey {
		return a.path(dirNodes, p.Name)
	}
	return a.path(dirUsers, p.Name)
}

// FilesIn are the files of a directory that --certs-dir names: a node's or a client's.
func FilesIn(dir string, kind transport.PrincipalKind) Files {
	name := fileClient
	if kind == transport.NodeKey {
		name = fileNode
	}
	return Files{CA: filepath.Join(dir, fileCA), Cert: filepath.Join(dir, name+".crt"), Key: filepath.Join(dir, name+".key")}
}

// Create makes the authority: CONFLICT if there is one.
func (a Authority) Create() (*x509.Certificate, error) {
	if err := os.MkdirAll(a.Dir, 0o700); err != nil {
		return nil, failed(err)
	}
	cert, key, err := a.newAuthority()
	if err != nil {
		return nil, err
	}
	if err := writePair(a.path(fileCA), [][]byte{cert.Raw}, a.path(fileCAKey), key); err != nil {
		return nil, err
	}
	return cert, nil
}

func (a Authority) newAuthority() (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, nil, err
	}
	now := a.now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "KeyVal CA " + hex.EncodeToString(serial.Bytes()[:4])},
		NotBefore: now.Add(-skew), NotAfter: now.Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(raw)
	return cert, key, err
}

// serialNumber is a random one of 16 bytes, of which the first is not 0.
func serialNumber() (*big.Int, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:]), nil
}

// Issue makes the certificate of a node or a user, and its directory: CONFLICT if there is
// one. hosts are those at which the node is reached; none: it is good at any.
func (a Authority) Issue(p transport.Principal, hosts []string) (dir string, cert *x509.Certificate, err error) {
	if why := messages.CheckNodeName(p.Name); why != nil {
		return "", nil, messages.Errorf(messages.Code_INVALID, "the name %q is not made of letters, digits, '.', '_' and '-'", p.Name)
	}
	signer, key, err := a.signer()
	if err != nil {
		return "", nil, err
	}
	trusted, err := os.ReadFile(a.path(fileCA))
	if err != nil {
		return "", nil, failed(err)
	}
	dir = a.Of(p)
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return "", nil, failed(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", nil, failed(err)
	}
	if err := writeNew(filepath.Join(dir, fileCA), trusted, 0o644); err != nil {
		return "", nil, err
	}
	f := FilesIn(dir, p.Kind)
	cert, err = a.issue(p, hosts, signer, key, f)
	return dir, cert, err
}

// issue signs a new key and writes both.
func (a Authority) issue(p transport.Principal, hosts []string, signer *x509.Certificate, by *ecdsa.PrivateKey, f Files) (*x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	name, err := url.Parse(p.URI())
	if err != nil {
		return nil, err
	}
	now := a.now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: p.Name}, URIs: []*url.URL{name},
		NotBefore: now.Add(-skew), NotAfter: now.Add(leafLife), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if template.NotAfter.After(signer.NotAfter) {
		template.NotAfter = signer.NotAfter
	}
	if p.Kind == transport.NodeKey {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		for _, h := range hosts {
			if ip := net.ParseIP(h); ip != nil {
				template.IPAddresses = append(template.IPAddresses, ip)
			} else {
				template.DNSNames = append(template.DNSNames, h)
			}
		}
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, signer, &key.PublicKey, by)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, err
	}
	return cert, writePair(f.Cert, [][]byte{raw}, f.Key, key)
}

// signer is the authority's certificate that belongs to its key, and the key.
func (a Authority) signer() (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := readKey(a.path(fileCAKey))
	if err != nil {
		return nil, nil, err
	}
	trusted, err := readCertificates(a.path(fileCA))
	if err != nil {
		return nil, nil, err
	}
	for _, c := range trusted {
		if key.PublicKey.Equal(c.PublicKey) {
			return c, key, nil
		}
	}
	return nil, nil, messages.Errorf(messages.Code_DAMAGED, "%s has no certificate of %s", a.path(fileCA), a.path(fileCAKey)).
		WithHint("bring both back from a copy, or make another authority in another directory")
}

func readKey(file string) (*ecdsa.PrivateKey, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, messages.Errorf(messages.Code_NOT_FOUND, "there is no %s", file).WithHint("make an authority first: kvctl cert create-ca --dir %s", filepath.Dir(file))
	}
	if err != nil {
		return nil, failed(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, messages.Errorf(messages.Code_DAMAGED, "%s holds no key", file)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if own, ok := key.(*ecdsa.PrivateKey); ok && err == nil {
		return own, nil
	}
	return nil, messages.Errorf(messages.Code_DAMAGED, "%s holds no ECDSA key: %v", file, err)
}

// readCertificates reads all certificates of a file, one at least.
func readCertificates(file string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseCertificates(text)
}

func encoded(certificates [][]byte) (text []byte) {
	for _, raw := range certificates {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})...)
	}
	return text
}

// writePair writes a key that nobody else may read, and its certificate; none of both
// replaces a file.
func writePair(cert string, raw [][]byte, keyFile string, key *ecdsa.PrivateKey) error {
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(cert); err == nil {
		return failed(&fs.PathError{Op: "create", Path: cert, Err: fs.ErrExist})
	}
	if err := writeNew(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600); err != nil {
		return err
	}
	return writeNew(cert, encoded(raw), 0o644)
}

func writeNew(file string, text []byte, mode os.FileMode) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return failed(err)
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return failed(err)
	}
	return nil
}

// failed is the error of a file.
func failed(err error) error {
	var at *fs.PathError
	if errors.Is(err, fs.ErrExist) && errors.As(err, &at) {
		return messages.Errorf(messages.Code_CONFLICT, "%s is there already, and nothing is overwritten", at.Path).
			WithHint("kvctl cert list shows what there is; to make it anew move it away first")
	}
	return messages.Errorf(messages.Code_INVALID, "%v", fmt.Errorf("keys: %w", err)).WithHint("name a directory that this user may read and write")
}
