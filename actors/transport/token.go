package transport

import (
	"bytes"
	"time"

	"keyval/actors/auth"
	"keyval/messages"
	"keyval/mutant"
)

// Bounds of tokens.
const (
	TokenSizeMax = 16 << 10            // in bytes: the claims, and the certificates of the node that gave it
	TokenLifeMin = time.Second         // that somebody may ask for
	TokenLife    = 12 * time.Hour      // unless somebody asks for another
	TokenLifeMax = 30 * 24 * time.Hour // whatever he asks for
	// tokenSkew is how far the clocks of nodes may be apart for a token that was just given to
	// be good at once everywhere.
	tokenSkew = time.Minute
)

// Claims are what a token says, once its signature and the certificates of who signed it are
// verified. Whether that counts for anything, Refuse decides.
type Claims struct {
	User     string
	Cluster  []byte
	Node     string // whose key signed it
	Issued   time.Time
	Expires  time.Time
	Password uint64 // the version of the password that was given for it
}

// DoorOpen reports whether somebody may need to come without a certificate: a user could log
// in, or come with the token that his login was answered with.
func (r Rights) DoorOpen() bool { return r.door }

// Refuse says why a token counts for nothing, here and now; nil: it is as good as a certificate
// of its user. Who was removed, changed his password, or lost the member that signed it has
// nothing more of it.
func (c Claims) Refuse(local Local, known Known, rights Rights, now time.Time) *messages.Error {
	refuse := func(format string, arguments ...any) *messages.Error {
		return messages.Errorf(messages.Code_NOT_ALLOWED, format, arguments...).WithHint("log in again: kvctl login %s", c.User)
	}
	u := auth.Find(rights.auth, c.User)
	switch {
	case !rights.known || len(local.ClusterID) == 0:
		return messages.Errorf(messages.Code_BUSY, "the node is starting, and does not know yet who may come with a token")
	case !bytes.Equal(c.Cluster, local.ClusterID):
		return refuse("the token of user %s is of cluster %.16x, and this is cluster %x", c.User, c.Cluster, local.ClusterID)
	case !now.Before(c.Expires):
		return refuse("the token of user %s expired at %s", c.User, c.Expires.UTC().Format(time.RFC3339))
	case c.Issued.After(now.Add(tokenSkew)):
		return messages.Errorf(messages.Code_NOT_ALLOWED, "the token of user %s was given at %s, and here it is only %s: the clocks of nodes differ", c.User,
			c.Issued.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339)).WithHint("kvctl doctor says whose clock it is; ask another node until then")
	case c.Expires.Sub(c.Issued) > TokenLifeMax:
		return refuse("the token of user %s is good for a time that no node gives one for", c.User)
	case !known.named(c.Node) && !mutant.SignerUnknown:
		return refuse("the token of user %s was signed by node %s, which is no member", c.User, Legible(c.Node))
	case c.Password > rights.auth.GetVersion(): // users change by versions, and a password has that of its change
		return messages.Errorf(messages.Code_BUSY, "this node has not applied yet which password the token of user %s was given for", c.User).
			WithHint("ask again in a moment, or another node")
	case !rights.auth.GetEnabled():
		return messages.Errorf(messages.Code_NOT_ALLOWED, "tokens count only while auth is enabled").
			WithHint("use a certificate: --certs-dir DIR; or enable auth with one: kvctl auth enable")
	case u == nil:
		return messages.Errorf(messages.Code_NOT_ALLOWED, "there is no user %s any more", c.User).WithHint("an admin can add him: kvctl user add %s", c.User)
	case u.Password == nil || u.Password.Version != c.Password && !mutant.PasswordUnversioned:
		return refuse("the password of user %s was changed since he got his token", c.User)
	}
	return nil
}

// named reports whether a member is called that.
func (k Known) named(node string) bool {
	for _, name := range k.names {
		if name == node {
			return true
		}
	}
	return false
}

// Entry is what a node knows of those who come, as it has applied it. The zero Entry knows nothing yet.
type Entry struct {
	Local  Local // its ClusterID alone
	Known  Known
	Rights Rights
}

// EntryOf is what a state says of it.
func EntryOf(s *messages.MembersChanged) Entry {
	if s.NextRaftId == 0 {
		return Entry{}
	}
	return Entry{Local{ClusterID: s.ClusterId}, Known{}.With(s.Members, s.NextRaftId), KnownRights(s.Auth)}
}

// AtDoor is who comes without a certificate to a node with keys: whom his token names, or
// nobody. claims are those of the token; nil: he brings none.
func AtDoor(local Local, known Known, rights Rights, claims *Claims, now time.Time) (Principal, *messages.Error) {
	if claims == nil {
		return Principal{Kind: Nobody}, nil
	}
	if why := claims.Refuse(local, known, rights, now); why != nil {
		return Principal{}, why
	}
	return Principal{Kind: TokenUser, Name: claims.User}, nil
}
