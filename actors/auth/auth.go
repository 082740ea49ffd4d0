// Package auth says who may do what: which role each thing that is asked for needs, and
// whether a user has it. It knows no certificates: the links have proved who asks.
package auth

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"keyval/messages"
)

// Need is what somebody has to have for one thing that he asks for.
//
// What a role allows is part of what the log means, for commands: replicas of different
// versions apply the same entries and must agree, so changing it needs a new cluster level.
type Need struct {
	Role messages.UserRole // VIEWER, WRITER, OPERATOR or ADMIN
	On   extent
	// From is the key, or the first key of the range; To is the end of the range, which it
	// does not hold; empty: there is none.
	From, To []byte
}

// extent is what a Need is about.
type extent int

const (
	cluster extent = iota // all of it, or no key; of VIEWER: any role will do
	oneKey
	keys
)

// Key is a need of a role for one key.
func Key(role messages.UserRole, key []byte) Need { return Need{role, oneKey, key, nil} }

// Range is a need of a role for all keys of [from, to); an empty to has no end. One without a
// key in it tells of none: the role will do, whatever keys it is for.
func Range(role messages.UserRole, from, to []byte) Need {
	if len(to) > 0 && bytes.Compare(from, to) >= 0 {
		return Need{Role: role}
	}
	return Need{role, keys, from, to}
}

// Whole is a need of a role for the cluster.
func Whole(role messages.UserRole) Need { return Need{Role: role} }

// Rights are what one user may do. The zero Rights allow nothing.
type Rights struct {
	all    bool
	grants []*messages.Grant
}

// Of are the rights of a principal. While a is not enabled, everybody has all.
func Of(a *messages.Auth, principal string) Rights {
	if !a.GetEnabled() {
		return Rights{all: true}
	}
	return Rights{grants: Find(a, principal).GetGrants()}
}

// Find finds a user by his name, or returns nil.
func Find(a *messages.Auth, name string) *messages.User {
	i, found := slices.BinarySearchFunc(a.GetUsers(), name, func(u *messages.User, name string) int { return strings.Compare(u.Name, name) })
	if !found {
		return nil
	}
	return a.Users[i]
}

// Allow reports whether the rights are enough. Nothing is allocated: it is asked for each
// operation of each command.
func (r Rights) Allow(n Need) bool {
	if r.all {
		return true
	}
	for _, g := range r.grants {
		if gives(g.Role, n.Role) && (n.On == cluster || covers(g.Prefix, n)) {
			return true
		}
	}
	return false
}

// gives reports whether who has one role has what another one allows.
func gives(has, needs messages.UserRole) bool {
	switch needs {
	case messages.UserRole_VIEWER:
		return has >= messages.UserRole_VIEWER
	case messages.UserRole_WRITER, messages.UserRole_OPERATOR:
		return has == needs || has == messages.UserRole_ADMIN
	case messages.UserRole_ADMIN:
		return has == needs
	}
	return false
}

// covers reports whether all keys that a need is about begin with a prefix. A range has to lie
// within one prefix: it is not put together of several.
func covers(prefix []byte, n Need) bool {
	return bytes.HasPrefix(n.From, prefix) && (n.On == oneKey || endsWithin(prefix, n.To))
}

// endsWithin reports whether all keys below to, from one with the prefix on, begin with it.
// An empty to stands for no end.
func endsWithin(prefix, to []byte) bool {
	for len(prefix) > 0 && prefix[len(prefix)-1] == 0xff { // nothing with the rest as its prefix is behind it
		prefix = prefix[:len(prefix)-1]
	}
	last := len(prefix) - 1
	switch {
	case last < 0:
		return true
	case len(to) == 0:
		return false
	}
	behind := len(to) == last+1 && bytes.HasPrefix(to, prefix[:last]) && to[last] == prefix[last]+1 // the first key that has not the prefix
	return behind || bytes.HasPrefix(to, prefix)
}

// Missing is what a principal lacks, or nil: the first of these needs that his rights do not meet.
func Missing(a *messages.Auth, principal string, needs ...Need) *messages.Error {
	rights := Of(a, principal)
	for _, n := range needs {
		if !rights.Allow(n) {
			return Lacks(a, principal, n)
		}
	}
	return nil
}

// Lacks says that a principal lacks something, and who can give it to him.
func Lacks(a *messages.Auth, principal string, n Need) *messages.Error {
	if principal == "" {
		return messages.Errorf(messages.Code_NOT_ALLOWED, "whoever comes without a certificate has no role here").
			WithHint("give the certificate of a user: --certs-dir DIR; nodes need keys too: kvctl serve --certs-dir DIR")
	}
	flag := ""
	if len(n.From) > 0 && n.On != cluster {
		flag = fmt.Sprintf(" --prefix %q", n.From)
	}
	return messages.Errorf(messages.Code_NOT_ALLOWED, "user %s lacks the role %s %s", principal, RoleName(n.Role), n.about()).
		WithHint("ask who can give it, %s: kvctl user grant %s %s%s", people(Admins(a)), principal, RoleName(n.Role), flag)
}

func (n Need) about() string {
	switch {
	case n.On == cluster && n.Role == messages.UserRole_VIEWER:
		return "or any other"
	case n.On == cluster:
		return "for the cluster"
	case n.On == oneKey:
		return fmt.Sprintf("for key %.80q", n.From)
	case len(n.From) == 0 && len(n.To) == 0:
		return "for all keys"
	case len(n.To) == 0:
		return fmt.Sprintf("for the keys from %.80q on", n.From)
	}
	return fmt.Sprintf("for the keys from %.80q to %.80q", n.From, n.To)
}

// adminsTold is how many admins are named to who lacks a role.
const adminsTold = 3

func people(names []string) string {
	switch n := len(names); {
	case n == 0:
		return "of whom there is nobody"
	case n > adminsTold:
		return fmt.Sprintf("such as %s", strings.Join(names[:adminsTold], ", "))
	}
	return strings.Join(names, " or ")
}

// Admins are the names of those who may say who may do what, sorted.
func Admins(a *messages.Auth) (names []string) {
	for _, u := range a.GetUsers() {
		if (Rights{grants: u.Grants}).Allow(Whole(messages.UserRole_ADMIN)) {
			names = append(names, u.Name)
		}
	}
	return names
}

// RoleName is a role in the words of people: viewer, writer, operator, admin.
func RoleName(role messages.UserRole) string { return strings.ToLower(role.String()) }

// ParseRole is the inverse of RoleName.
func ParseRole(name string) (messages.UserRole, *messages.Error) {
	role := messages.UserRole(messages.UserRole_value[strings.ToUpper(name)])
	if role == messages.UserRole_NO_ROLE || name != RoleName(role) {
		return 0, messages.Errorf(messages.Code_INVALID, "%.40q is no role", name).WithHint("roles are viewer, writer, operator and admin")
	}
	return role, nil
}
