package keys

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
	"google.golang.org/protobuf/proto"

	"keyval/actors/transport"
	"keyval/messages"
)

// A node's keys reach its machine by an invitation: they lie in the cluster, sealed, and a token
// opens them that goes to the machine by another way. The token says by which public key the cluster
// signs, too: so nothing is said to who cannot prove that he is of that cluster.

// JoinToken is such a token.
type JoinToken struct {
	ID     [messages.InvitationIDSize]byte // of the invitation
	Pin    [sha256.Size]byte               // SHA-256 of the authority's public key, as its certificate has it
	secret [32]byte                        // seals the keys, and proves that somebody has this token
}

// The text of a token is its version, and base64 of id, secret, pin and sum, the start of SHA-256
// of all before it.
const (
	joinTokenVersion = "keyval-join-1"
	joinTokenFamily  = "keyval-join-"
	joinTokenSum     = 4
)

// NewJoinToken makes one for the nodes of an authority.
func NewJoinToken(authority *x509.Certificate) (t JoinToken, err error) {
	t.Pin = pinOf(authority)
	if _, err = rand.Read(t.ID[:]); err == nil {
		_, err = rand.Read(t.secret[:])
	}
	return t, err
}

func pinOf(c *x509.Certificate) [sha256.Size]byte { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// Text is the token as people carry it: one word of ASCII. Whoever reads it has the keys.
func (t JoinToken) Text() string {
	body := slices.Concat(t.ID[:], t.secret[:], t.Pin[:])
	sum := sha256.Sum256(append([]byte(joinTokenVersion), body...))
	return joinTokenVersion + "." + base64.RawURLEncoding.EncodeToString(append(body, sum[:joinTokenSum]...))
}

// ParseJoinToken is the inverse of Text: UNSUPPORTED if it is of another version, INVALID if it is
// none or was altered. White space around it does not count.
func ParseJoinToken(text string) (t JoinToken, err *messages.Error) {
	const again = "copy it whole, as kvctl cluster token create has printed it"
	version, rest, _ := strings.Cut(strings.TrimSpace(text), ".")
	switch {
	case !strings.HasPrefix(version, joinTokenFamily):
		return t, messages.Errorf(messages.Code_INVALID, "this is no token to join with").WithHint(again)
	case version != joinTokenVersion:
		return t, messages.Errorf(messages.Code_UNSUPPORTED, "the token is of version %.20q, and this kvctl knows %s", version, joinTokenVersion).
			WithHint("use the version of kvctl that has made it")
	}
	raw, broken := base64.RawURLEncoding.Strict().DecodeString(rest)
	size := len(t.ID) + len(t.secret) + len(t.Pin)
	if broken != nil || len(raw) != size+joinTokenSum {
		return t, messages.Errorf(messages.Code_INVALID, "the token was cut off or altered").WithHint(again)
	}
	copy(t.ID[:], raw)
	copy(t.secret[:], raw[len(t.ID):])
	copy(t.Pin[:], raw[len(t.ID)+len(t.secret):])
	if t.Text() != joinTokenVersion+"."+rest {
		return t, messages.Errorf(messages.Code_INVALID, "the token was altered: its sum does not fit").WithHint(again)
	}
	return t, nil
}

// derive makes 32 bytes of the secret for one use.
func (t JoinToken) derive(use string) []byte {
	key, err := hkdf.Key(sha256.New, t.secret[:], t.ID[:], "keyval join: "+use, chacha20poly1305.KeySize)
	if err != nil {
		panic(err) // only of lengths that no hash has
	}
	return key
}

// Proof shows who has the token, and tells nothing of what seals.
func (t JoinToken) Proof() []byte { return t.derive("proof") }

// ProofHash is what the cluster holds a proof against.
func (t JoinToken) ProofHash() []byte {
	sum := sha256.Sum256(t.Proof())
	return sum[:]
}

// Seal makes of keys what only this token opens.
func (t JoinToken) Seal(k *messages.InvitedKeys) ([]byte, error) {
	data, err := proto.Marshal(k)
	if err != nil {
		return nil, err
	}
	box, err := chacha20poly1305.NewX(t.derive("seal"))
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, box.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return box.Seal(nonce, nonce, data, t.ID[:]), nil
}

// Open is the inverse of Seal: DAMAGED if anything is not as it was sealed.
func (t JoinToken) Open(sealed []byte) (*messages.InvitedKeys, error) {
	damaged := messages.Errorf(messages.Code_DAMAGED, "the sealed keys are not those that were sealed with this token").
		WithHint("make another token: kvctl cluster token create NAME HOST")
	box, err := chacha20poly1305.NewX(t.derive("seal"))
	if err != nil {
		return nil, err
	}
	if len(sealed) < box.NonceSize() {
		return nil, damaged
	}
	data, err := box.Open(nil, sealed[:box.NonceSize()], sealed[box.NonceSize():], t.ID[:])
	if err != nil {
		return nil, damaged
	}
	k := &messages.InvitedKeys{}
	if proto.Unmarshal(data, k) != nil {
		return nil, damaged
	}
	return k, nil
}

// Invite makes the keys of a node as Issue does, or takes those of the same hosts that are there
// already, and seals them with a new token.
func (a Authority) Invite(name string, hosts []string) (t JoinToken, sealed []byte, cert *x509.Certificate, err error) {
	p := transport.Principal{Kind: transport.NodeKey, Name: name}
	signer, _, err := a.signer()
	if err != nil {
		return t, nil, nil, err
	}
	files := FilesIn(a.Of(p), transport.NodeKey)
	if had, missing := readCertificates(files.Cert); missing == nil && a.reusable(had[0], signer, hosts) {
		cert = had[0]
	} else if _, cert, err = a.Issue(p, hosts); err != nil {
		return t, nil, nil, err
	}
	k := &messages.InvitedKeys{}
	for file, to := range map[string]*[]byte{files.CA: &k.Ca, files.Cert: &k.Certificate, files.Key: &k.Key} {
		if *to, err = os.ReadFile(file); err != nil {
			return t, nil, nil, failed(err)
		}
	}
	if t, err = NewJoinToken(signer); err == nil {
		sealed, err = t.Seal(k)
	}
	return t, sealed, cert, err
}

// reusable reports whether a node's certificate is what would be made now.
func (a Authority) reusable(c, signer *x509.Certificate, hosts []string) bool {
	want, is := slices.Sorted(slices.Values(hosts)), Hosts(c)
	slices.Sort(is)
	return slices.Equal(want, is) && c.CheckSignatureFrom(signer) == nil && a.now().Add(transport.WarnBefore).Before(c.NotAfter)
}

// Trusts reports whether the authority's signer is one that a ring trusts.
func (a Authority) Trusts(r *Ring) (bool, error) {
	signer, _, err := a.signer()
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(r.current.Load().authorities, signer.Equal), nil
}

// Pinned is the ring of who has a token and no keys: it shows no certificate, and takes the word of
// nobody but a node whose certificate the token's authority has signed.
func Pinned(t JoinToken) *Ring {
	r, l := &Ring{now: time.Now}, &loaded{pin: &t.Pin}
	l.peers = l
	r.current.Store(l)
	return r
}

// errPin is why a far side is not believed.
type errPin struct{ why string }

func (e errPin) Error() string { return e.why }

// IsPin reports whether a connection was not made since the far side is not of the token's authority.
func IsPin(err error) bool { return errors.As(err, new(errPin)) }

// verifyPinned says whether certificates, of which the first is somebody's own, lead to the
// authority of a token, and are those of a node. That authority's certificate has to be among them.
func (l *loaded) verifyPinned(chain []*x509.Certificate, r *Ring) error {
	at := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return pinOf(c) == *l.pin })
	if at <= 0 || !chain[at].IsCA {
		return errPin{"its authority is another than that of the token"}
	}
	own := &loaded{pool: x509.NewCertPool()}
	own.pool.AddCert(chain[at])
	if _, err := own.verify(chain, x509.ExtKeyUsageServerAuth, r.now()); err != nil {
		return errPin{"its certificate is not one that the authority of the token has signed: " + err.Error()}
	}
	if p := PrincipalOf(chain); p.Kind != transport.NodeKey {
		return errPin{"its certificate is that of " + p.String() + ", and no node's"}
	}
	return nil
}

// Accept opens sealed keys, and holds them against what they are to be: those of a node, signed by the
// token's authority.
func (t JoinToken) Accept(sealed []byte, name string) (*messages.InvitedKeys, error) {
	k, err := t.Open(sealed)
	if err != nil {
		return nil, err
	}
	wrong := func(why string) error {
		return messages.Errorf(messages.Code_DAMAGED, "the keys that the token opens cannot be those of node %s: %s", name, why).
			WithHint("make another token: kvctl cluster token create %s HOST", name)
	}
	pair, err := tls.X509KeyPair(k.Certificate, k.Key)
	if err != nil {
		return nil, wrong(err.Error())
	}
	trusted, err := parseCertificates(k.Ca)
	if err != nil {
		return nil, wrong(err.Error())
	}
	at := slices.IndexFunc(trusted, func(c *x509.Certificate) bool { return pinOf(c) == t.Pin })
	switch p := PrincipalOf([]*x509.Certificate{pair.Leaf}); {
	case at < 0 || pair.Leaf.CheckSignatureFrom(trusted[at]) != nil:
		return nil, wrong("another authority has signed them")
	case p.Kind != transport.NodeKey || p.Name != name:
		return nil, wrong("they are those of " + p.String())
	}
	return k, nil
}

// parseCertificates reads all certificates of a text, one at least.
func parseCertificates(text []byte) (all []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("it holds no certificate")
	}
	return all, nil
}
