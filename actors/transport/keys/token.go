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
	"time"

	"github.com/golang-jwt/jwt/v5"

	"keyval/actors/transport"
	"keyval/messages"
)

// A token is a JWT that a node signs with its own key. It brings the certificates of that node
// along, so whoever trusts the authority can verify it, and no secret is shared among nodes.

// claims are what a token holds.
type claims struct {
	jwt.RegisteredClaims
	Password uint64 `json:"pwv"` // the version of the password that it was given for
}

// chainMax bounds the certificates that a token brings along, in number.
const chainMax = 4

// Sign gives a user of a cluster a token that is good for ttl, or until the certificate of this
// node expires, if that is sooner. password is the version of his.
func (r *Ring) Sign(user string, cluster []byte, password uint64, ttl time.Duration) (token string, expires time.Time, err error) {
	if r == nil {
		return "", time.Time{}, messages.Errorf(messages.Code_NOT_ALLOWED, "a node without keys gives no tokens")
	}
	l, now := r.current.Load().peers, r.now()
	key, fits := l.own.PrivateKey.(*ecdsa.PrivateKey)
	if !fits || key.Curve != elliptic.P256() {
		return "", time.Time{}, messages.Errorf(messages.Code_UNSUPPORTED, "the key of this node is none of ECDSA P-256, and signs no tokens").
			WithHint("ask another node; keys that do are made by kvctl cert create-node")
	}
	expires = now.Add(ttl)
	if l.leaf.NotAfter.Before(expires) {
		expires = l.leaf.NotAfter
	}
	t := jwt.NewWithClaims(jwt.SigningMethodES256, &claims{Password: password, RegisteredClaims: jwt.RegisteredClaims{
		Issuer: hex.EncodeToString(cluster), Subject: user, ID: rand.Text(),
		IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(expires),
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
	l, now := r.current.Load().peers, r.now()
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

// Now is the time that certificates and tokens are held against.
func (r *Ring) Now() time.Time {
	if r == nil {
		return time.Now()
	}
	return r.now()
}
