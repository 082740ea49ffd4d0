package keys

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"keyval/actors/transport"
	"keyval/messages"
)

// A token is a JWT that a node signs with its own key. It brings the certificates of that node
// along, so whoever trusts the authority can verify it, and no secret is shared among nodes. Where
// users have an authority of their own, it is a node's certificate of that which counts: who is a
// user it alone says.

// claims are what a token holds.
type claims struct {
	jwt.RegisteredClaims
	Password uint64 `json:"pwv"` // the version of the password that it was given for
}

// chainMax bounds the certificates that a token brings along, in number.
const chainMax = 4

// Sign gives a user of a cluster a token that is good for ttl and less than a second more, or until the
// certificate of this node expires, if that is sooner. password is the version of his.
func (r *Ring) Sign(user string, cluster []byte, password uint64, ttl time.Duration) (token string, expires time.Time, err error) {
	if r == nil {
		return "", time.Time{}, messages.Errorf(messages.Code_NOT_ALLOWED, "a node without keys gives no tokens")
	}
	l, now := r.current.Load(), r.now()
	issued := now.Truncate(time.Second) // as a token tells its times
	key, fits := l.own.PrivateKey.(*ecdsa.PrivateKey)
	if !fits || key.Curve != elliptic.P256() {
		return "", time.Time{}, messages.Errorf(messages.Code_UNSUPPORTED, "the key of this node is none of ECDSA P-256, and signs no tokens").
			WithHint("ask another node; keys that do are made by kvctl cert create-node")
	}
	expires = now.Add(ttl + time.Second - 1).Truncate(time.Second)
	for _, bound := range []time.Time{issued.Add(transport.TokenLifeMax), l.leaf.NotAfter} {
		if bound.Before(expires) {
			expires = bound
		}
	}
	t := jwt.NewWithClaims(jwt.SigningMethodES256, &claims{Password: password, RegisteredClaims: jwt.RegisteredClaims{
		Issuer: hex.EncodeToString(cluster), Subject: user, ID: rand.Text(),
		IssuedAt: jwt.NewNumericDate(issued), ExpiresAt: jwt.NewNumericDate(expires),
	}})
	var chain []string
	for _, raw := range l.own.Certificate {
		chain = append(chain, base64.StdEncoding.EncodeToString(raw))
	}
	t.Header["x5c"] = chain
	token, err = t.SignedString(key)
	return token, expires, err
}

// Prove reads a token: what it says, and the certificates of the node whose key signed it, which
// lead to an authority that is trusted now. Who may come with it transport.Claims says.
func (r *Ring) Prove(token string) (*transport.Claims, []*x509.Certificate, error) {
	if len(token) > transport.TokenSizeMax {
		return nil, nil, fmt.Errorf("it has %d bytes, and a token no more than %d", len(token), transport.TokenSizeMax)
	}
	l, now := r.current.Load(), r.now()
	var chain []*x509.Certificate
	said := &claims{}
	_, err := jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodES256.Alg()}), jwt.WithStrictDecoding(), jwt.WithoutClaimsValidation()).
		ParseWithClaims(token, said, func(t *jwt.Token) (any, error) {
			var err error
			if chain, err = chainIn(t.Header["x5c"]); err != nil {
				return nil, err
			}
			if _, err := l.verify(chain, x509.ExtKeyUsageClientAuth, now); err != nil {
				return nil, err
			}
			key, fits := chain[0].PublicKey.(*ecdsa.PublicKey)
			switch {
			case PrincipalOf(chain).Kind != transport.NodeKey:
				return nil, errors.New("the certificate in it is not that of a node")
			case !fits || key.Curve != elliptic.P256():
				return nil, errors.New("the key in it is none of ECDSA P-256")
			}
			return key, nil
		})
	if err != nil {
		return nil, nil, err
	}
	cluster, err := hex.DecodeString(said.Issuer)
	switch {
	case err != nil || len(cluster) != messages.ClusterIDSize:
		return nil, nil, errors.New("it names no cluster")
	case messages.CheckNodeName(said.Subject) != nil:
		return nil, nil, errors.New("it names no user")
	case said.IssuedAt == nil || said.ExpiresAt == nil:
		return nil, nil, errors.New("it does not say for which time it is good")
	}
	return &transport.Claims{
		User: said.Subject, Cluster: cluster, Node: PrincipalOf(chain).Name,
		Issued: said.IssuedAt.Time, Expires: said.ExpiresAt.Time, Password: said.Password,
	}, chain, nil
}

// chainIn reads the certificates in the header of a token, the signer's own first.
func chainIn(header any) (chain []*x509.Certificate, err error) {
	list, _ := header.([]any)
	if len(list) == 0 || len(list) > chainMax {
		return nil, fmt.Errorf("it brings %d certificates along", len(list))
	}
	for _, each := range list {
		text, _ := each.(string)
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, err
		}
		c, err := x509.ParseCertificate(raw)
		if err != nil {
			return nil, err
		}
		chain = append(chain, c)
	}
	return chain, nil
}

// Token is what a client without a certificate shows: what its file held when it was looked at
// last; empty: it has none.
func (r *Ring) Token() string {
	if r == nil || r.files.Token == "" {
		return ""
	}
	_, _ = r.Reload(false) // one that cannot be taken leaves the old one, which the node will judge
	return r.current.Load().token
}

// ReadToken reads a file that holds nothing but a token. One without a name is not there.
func ReadToken(file string) (string, error) {
	if file == "" {
		return "", fs.ErrNotExist
	}
	if err := checkSecret(file); err != nil {
		return "", err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if _, err := Glance(token); err != nil {
		return "", fmt.Errorf("it holds no token: %w", err)
	}
	return token, nil
}

// WriteToken replaces a file that holds a token, and makes its directory.
func WriteToken(file, token string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return failed(err)
	}
	next, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*") // of mode 0600
	if err != nil {
		return failed(err)
	}
	_, err = next.WriteString(token + "\n")
	if err = errors.Join(err, next.Sync(), next.Close()); err == nil {
		err = os.Rename(next.Name(), file)
	}
	if err != nil {
		_ = os.Remove(next.Name())
		return failed(err)
	}
	return nil
}

// Glance is what a token says, for people: nothing of it is verified.
func Glance(token string) (transport.Claims, error) {
	if len(token) > transport.TokenSizeMax {
		return transport.Claims{}, fmt.Errorf("it has %d bytes, and a token no more than %d", len(token), transport.TokenSizeMax)
	}
	said := &claims{}
	if _, _, err := jwt.NewParser().ParseUnverified(token, said); err != nil {
		return transport.Claims{}, err
	}
	if said.ExpiresAt == nil || messages.CheckNodeName(said.Subject) != nil {
		return transport.Claims{}, errors.New("it names no user, or does not say until when it is good")
	}
	return transport.Claims{User: said.Subject, Expires: said.ExpiresAt.Time, Password: said.Password}, nil
}

// Now is the time that certificates and tokens are held against.
func (r *Ring) Now() time.Time {
	if r == nil {
		return time.Now()
	}
	return r.now()
}
