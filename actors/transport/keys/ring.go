// Package keys holds the certificates and keys of links: it loads them, again when their
// files change, has TLS verified with what is loaded, and makes new ones. Whom a certificate
// names package transport says, and what he may do.
package keys

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"keyval/actors/transport"
	"keyval/messages"
)

// Files are where a node or a client has its keys: PEM files.
type Files struct {
	CA   string // certificates of the authorities that are trusted, one or several
	Cert string // the own one, and those that lead to its authority; empty, with Key: of a client that has none
	Key  string // of Cert; nobody else may read it
	// Token is where a client without a certificate has its token; nobody else may read it. One
	// that is not there is shown to nobody. Empty: there is none.
	Token string
	// Peers are those of a node's links with other nodes, where these are not the same: then
	// no authority of users can make a node, and none of nodes a user. nil: one set for all.
	Peers *Files
}

// serverOfNodes is what a node asks for, in the place of a host's name, where it connects: to be
// answered with the keys that are for nodes.
const serverOfNodes = "nodes.keyval"

// Ring is the keys of one node or client. A nil Ring is that of links without keys. Its
// methods may be called from anywhere.
type Ring struct {
	files Files
	now   func() time.Time

	current atomic.Pointer[loaded]
	problem atomic.Pointer[string] // why what was looked at last could not be taken; nil: it was

	mu   sync.Mutex // of who loads
	seen string     // the state of the files that was looked at last
}

// loaded is what the files held. It is never modified.
type loaded struct {
	own         tls.Certificate   // without certificates: there is none
	leaf        *x509.Certificate // nil: the same
	authorities []*x509.Certificate
	pool        *x509.CertPool
	server      *tls.Config
	pin         *[sha256.Size]byte // of who has a token, and nothing of the above; nil: there are keys
	token       string
	page        *tls.Config
	peers       *loaded // what is for links between nodes: itself, if nothing else is
}

// of is what counts for somebody's certificates.
func (l *loaded) of(chain []*x509.Certificate) *loaded {
	if PrincipalOf(chain).Kind == transport.NodeKey {
		return l.peers
	}
	return l
}

// all are the sets that there are: one, or two.
func (l *loaded) all() []*loaded {
	if l.peers == l {
		return []*loaded{l}
	}
	return []*loaded{l, l.peers}
}

// Load reads keys. The error names the file, and what is wrong with it.
func Load(f Files) (*Ring, error) {
	r := &Ring{files: f, now: time.Now, seen: f.state()}
	l, err := r.load()
	if err != nil {
		return nil, err
	}
	r.current.Store(l)
	return r, nil
}

func (r *Ring) load() (*loaded, error) {
	l, err := r.read(r.files)
	if err != nil {
		return nil, err
	}
	l.peers = l
	if r.files.Peers == nil {
		return l, nil
	}
	if l.peers, err = r.read(*r.files.Peers); err != nil {
		return nil, err
	}
	l.peers.peers = l.peers
	own, peers := l.principal(), l.peers.principal()
	if own != peers || own.Kind != transport.NodeKey {
		return nil, messages.Errorf(messages.Code_INVALID, "keys: %s is that of %s, and %s that of %s", r.files.Cert, own, r.files.Peers.Cert, peers).
			WithHint("a node has two certificates of its one name, if it has two: kvctl cert create-node NAME HOST of each authority")
	}
	l.server.VerifyConnection, l.page.VerifyConnection = only(transport.UserKey), only(transport.UserKey)
	l.peers.server.VerifyConnection = only(transport.NodeKey)
	return l, nil
}

// only refuses whoever comes to keys that are for the others.
func only(kind transport.PrincipalKind) func(tls.ConnectionState) error {
	return func(s tls.ConnectionState) error {
		if p := PrincipalOf(s.PeerCertificates); len(s.PeerCertificates) > 0 && p.Kind != kind {
			return fmt.Errorf("the keys of nodes and of users have authorities of their own here, and this one made a certificate of %s", p)
		}
		return nil
	}
}

// read reads one set of files.
func (r *Ring) read(f Files) (*loaded, error) {
	refuse := func(file string, err error) error {
		return messages.Errorf(messages.Code_INVALID, "keys: %s: %v", file, err).
			WithHint("kvctl cert check shows what a directory holds; kvctl cert create-node and create-client make what it lacks")
	}
	authorities, err := readCertificates(f.CA)
	if err != nil {
		return nil, refuse(f.CA, err)
	}
	l := &loaded{authorities: authorities, pool: x509.NewCertPool()}
	for _, a := range authorities {
		if !a.IsCA {
			return nil, refuse(f.CA, fmt.Errorf("%s is no authority's certificate", a.Subject.CommonName))
		}
		l.pool.AddCert(a)
	}
	if f.Cert == "" {
		if l.token, err = ReadToken(f.Token); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, refuse(f.Token, err)
		}
		return l, nil
	}
	if err := checkSecret(f.Key); err != nil {
		return nil, refuse(f.Key, err)
	}
	if l.own, err = tls.LoadX509KeyPair(f.Cert, f.Key); err != nil {
		return nil, refuse(f.Cert, err)
	}
	l.leaf = l.own.Leaf
	chain, err := readCertificates(f.Cert)
	if err != nil {
		return nil, refuse(f.Cert, err)
	}
	ways, err := l.verify(chain, x509.ExtKeyUsageClientAuth, r.now())
	if err != nil {
		return nil, refuse(f.Cert, err)
	}
	if PrincipalOf([]*x509.Certificate{l.leaf}).Kind == transport.Unnamed {
		return nil, refuse(f.Cert, errors.New("it names neither a node nor a user"))
	}
	l.server = &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{withRoot(l.own, ways[0])}, NextProtos: []string{"h2"},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: l.pool, SessionTicketsDisabled: true, Time: r.now,
	}
	l.page = l.server.Clone()
	l.page.ClientAuth, l.page.NextProtos = tls.VerifyClientCertIfGiven, []string{"http/1.1"}
	return l, nil
}

// withRoot is a certificate that shows its authority's too: who has a join token knows that by its hash alone.
func withRoot(own tls.Certificate, way []*x509.Certificate) tls.Certificate {
	if root := way[len(way)-1].Raw; !bytes.Equal(own.Certificate[len(own.Certificate)-1], root) {
		own.Certificate = append(slices.Clone(own.Certificate), root)
	}
	return own
}

// checkSecret refuses a key, or a token, that others than its owner and his group may read, or
// anybody but he may write.
func checkSecret(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o037 != 0 {
		return fmt.Errorf("others may read or write this secret (mode %04o): chmod 600 it", mode)
	}
	return nil
}

// verify says whether certificates, of which the first is somebody's own, lead to an
// authority that is trusted, for a use, at a time.
func (l *loaded) verify(chain []*x509.Certificate, use x509.ExtKeyUsage, now time.Time) ([][]*x509.Certificate, error) {
	if len(chain) == 0 {
		return nil, errors.New("there is no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	return chain[0].Verify(x509.VerifyOptions{Roots: l.pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{use}, CurrentTime: now})
}

// PrincipalOf is who certificates name, of which the first is somebody's own.
func PrincipalOf(chain []*x509.Certificate) transport.Principal {
	if len(chain) == 0 {
		return transport.Principal{}
	}
	var uris []string
	for _, u := range chain[0].URIs {
		uris = append(uris, u.String())
	}
	return transport.PrincipalOf(uris, chain[0].Subject.CommonName)
}

// Principal is who the own certificate names. Reloading does not change it.
func (r *Ring) Principal() transport.Principal {
	if r == nil {
		return transport.Principal{}
	}
	return r.current.Load().principal()
}

// Shows is what this side shows of itself, certificate or token, and until when that is good;
// empty: nothing.
func (r *Ring) Shows() (by string, expires time.Time) {
	if r == nil {
		return "", time.Time{}
	}
	l := r.current.Load()
	if l.leaf != nil {
		return "certificate", l.leaf.NotAfter
	}
	if is, err := Glance(l.token); err == nil {
		return "token", is.Expires
	}
	return "", time.Time{}
}

func (l *loaded) principal() transport.Principal {
	if l.leaf == nil {
		return transport.Principal{Kind: transport.Nobody}
	}
	return PrincipalOf([]*x509.Certificate{l.leaf})
}

// Server is how connections that come in are secured: with what is loaded when they come. Those
// without a certificate are taken while open says so, and those with one that is not good never.
func (r *Ring) Server(open func() bool) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
		GetConfigForClient: func(asked *tls.ClientHelloInfo) (*tls.Config, error) {
			l := r.current.Load()
			if asked.ServerName == serverOfNodes {
				return l.peers.server, nil
			}
			config := l.server
			if open() {
				config = config.Clone()
				config.ClientAuth = tls.VerifyClientCertIfGiven
			}
			return config, nil
		},
	}
}

// Page is how connections to a node's page are secured, with what is loaded when they come:
// whoever has a certificate proves it, and who has none may come all the same.
func (r *Ring) Page() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return r.current.Load().page, nil },
	}
}

// Client is how a connection to a host is secured. Whoever answers has a node's
// certificate of an authority that is trusted; if it names hosts, this one is among them.
// Which node it names is for the welcome to be held against.
func (r *Ring) Client(host string) *tls.Config {
	l, server := r.current.Load().peers, host
	var own []tls.Certificate
	if l.leaf != nil {
		own = append(own, l.own)
	}
	if l.principal().Kind == transport.NodeKey {
		server = serverOfNodes
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: own, NextProtos: []string{"h2"}, ServerName: server,
		InsecureSkipVerify: true, // VerifyConnection verifies: a name of a host is not all that counts
		VerifyConnection: func(s tls.ConnectionState) error {
			if l.pin != nil {
				if err := l.verifyPinned(s.PeerCertificates, r); err != nil {
					return err
				}
			} else if _, err := l.verify(s.PeerCertificates, x509.ExtKeyUsageServerAuth, r.now()); err != nil {
				return err
			}
			if is := PrincipalOf(s.PeerCertificates); own == nil && is.Kind != transport.NodeKey { // before a password or a token goes there
				return fmt.Errorf("it is that of %s, not of a node", is)
			}
			if leaf := s.PeerCertificates[0]; len(leaf.DNSNames)+len(leaf.IPAddresses) > 0 {
				return leaf.VerifyHostname(host)
			}
			return nil
		},
	}
}
