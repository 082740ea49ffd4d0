package auth

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// Bounds of Auth, part of what the log means.
const (
	// GrantsMax bounds the roles of one user, in number, and PrefixSizeMax the prefix of each,
	// in bytes.
	GrantsMax     = 32
	PrefixSizeMax = 1024
	// BytesMax bounds the whole, in bytes of names, prefixes and passwords' hashes with grantBytes for
	// each user and each role. It is written anew with each change: some 3,000 users, or fewer with
	// more roles, and some 1,200 with passwords.
	BytesMax   = 128 << 10
	grantBytes = 16

	requestSizeMax = 64 // of Auth.request, in bytes
)

// Check says whether next may follow was. Refusals: CONFLICT if it is of another version; BUSY
// if there is more than may be; UNSAFE if nobody would be left who may give roles; INVALID for
// what is no Auth.
func Check(was, next *messages.Auth) *messages.Error {
	size := 0
	switch {
	case next.GetVersion() != was.GetVersion()+1:
		return messages.Errorf(messages.Code_CONFLICT, "the users have version %d, and version %d cannot follow", was.GetVersion(), next.GetVersion())
	case len(next.By) > 0 && messages.CheckNodeName(next.By) != nil, len(next.Request) > requestSizeMax:
		return messages.Errorf(messages.Code_INVALID, "nobody is called %.80q who could have asked for this, or not by request %.80q", next.By, next.Request)
	}
	for i, u := range next.Users {
		if err := checkUser(u); err != nil {
			return err
		}
		if p := u.Password; p != nil && (p.Version == 0 || p.Version > next.Version) {
			return messages.Errorf(messages.Code_INVALID, "the password of user %s is of version %d, and the users are of version %d", u.Name, p.Version, next.Version)
		}
		if i > 0 && next.Users[i-1].Name >= u.Name {
			return messages.Errorf(messages.Code_INVALID, "the users are not sorted, or one stands there twice: %s", u.Name)
		}
		size += len(u.Name) + len(u.Password.GetHash()) + grantBytes
		for _, g := range u.Grants {
			size += len(g.Prefix) + grantBytes
		}
	}
	switch {
	case size > BytesMax:
		return messages.Errorf(messages.Code_BUSY, "the users and their roles take %d bytes, %d are allowed", size, BytesMax).
			WithHint("remove users that are not needed: kvctl user remove NAME")
	case next.Enabled && len(Admins(next)) == 0:
		return messages.Errorf(messages.Code_UNSAFE, "no admin would be left, and nobody could ever give roles again").
			WithHint("make somebody else admin first: kvctl user grant NAME admin")
	}
	return nil
}

func checkUser(u *messages.User) *messages.Error {
	if err := messages.CheckNodeName(u.GetName()); err != nil {
		return messages.Errorf(messages.Code_INVALID, "%.80q cannot be a user: %s", u.GetName(), err.Message).WithHint("%s", err.Hint)
	}
	if err := checkPassword(u); err != nil {
		return err
	}
	if len(u.Grants) > GrantsMax {
		return messages.Errorf(messages.Code_BUSY, "user %s has %d roles, %d are allowed", u.Name, len(u.Grants), GrantsMax).
			WithHint("choose a prefix that stands for several")
	}
	for i, g := range u.Grants {
		if err := checkGrant(g); err != nil {
			return err
		}
		if i > 0 && byRole(u.Grants[i-1], g) >= 0 {
			return messages.Errorf(messages.Code_INVALID, "the roles of user %s are not sorted, or one stands there twice", u.Name)
		}
	}
	return nil
}

func checkGrant(g *messages.Grant) *messages.Error {
	_, known := messages.UserRole_name[int32(g.GetRole())]
	switch {
	case !known || g.GetRole() == messages.UserRole_NO_ROLE:
		return messages.Errorf(messages.Code_INVALID, "%d is no role", g.GetRole())
	case len(g.Prefix) > PrefixSizeMax:
		return messages.Errorf(messages.Code_INVALID, "the prefix has %d bytes, %d are allowed", len(g.Prefix), PrefixSizeMax)
	case g.Role >= messages.UserRole_OPERATOR && len(g.Prefix) > 0:
		return messages.Errorf(messages.Code_INVALID, "the role %s is for the whole cluster, and takes no prefix", RoleName(g.Role)).
			WithHint("viewer and writer are for the keys of a prefix")
	}
	return nil
}

func byRole(a, b *messages.Grant) int {
	return cmp.Or(cmp.Compare(a.Role, b.Role), bytes.Compare(a.Prefix, b.Prefix))
}

// Next is the Auth that follows a as its principal asks, by a request of this id; nil: what is
// asked for is so already. Refusals: NOT_ALLOWED if he may not ask for that; NOT_FOUND if
// there is no such user; those of Check; UNSAFE if he would shut himself out with the switch.
func Next(a *messages.Auth, asked *messages.ChangeAuth, principal, request string) (*messages.Auth, *messages.Error) {
	own := asked.GetPassword().GetUser() == principal && principal != "" // a password may be changed by whose it is
	if err := Missing(a, principal, Whole(messages.UserRole_ADMIN)); err != nil && !own {
		return nil, err
	}
	next := &messages.Auth{}
	if a != nil {
		next = proto.Clone(a).(*messages.Auth)
	}
	switch k := asked.GetKind().(type) {
	case *messages.ChangeAuth_Add:
		if Find(next, k.Add) == nil {
			next.Users = append(next.Users, &messages.User{Name: k.Add})
			slices.SortFunc(next.Users, func(a, b *messages.User) int { return strings.Compare(a.Name, b.Name) })
		}
	case *messages.ChangeAuth_Remove:
		next.Users = slices.DeleteFunc(next.Users, func(u *messages.User) bool { return u.Name == k.Remove })
	case *messages.ChangeAuth_Grant:
		if err := alter(next, k.Grant, func(u *messages.User, i int, has bool) {
			if !has {
				u.Grants = slices.Insert(u.Grants, i, k.Grant.GetGrant())
			}
		}); err != nil {
			return nil, err
		}
	case *messages.ChangeAuth_Revoke:
		if err := alter(next, k.Revoke, func(u *messages.User, i int, has bool) {
			if has {
				u.Grants = slices.Delete(u.Grants, i, i+1)
			}
		}); err != nil {
			return nil, err
		}
	case *messages.ChangeAuth_Password:
		if err := setPassword(next, k.Password); err != nil {
			return nil, err
		}
	case *messages.ChangeAuth_Enable:
		if next.Enabled = k.Enable; k.Enable && !slices.Contains(Admins(next), principal) {
			return nil, shutOut(principal)
		}
	default:
		return nil, messages.Errorf(messages.Code_UNSUPPORTED, "this node does not know what of the users is to change").WithHint("upgrade the nodes first")
	}
	if proto.Equal(next, cmp.Or(a, &messages.Auth{})) {
		return nil, nil
	}
	next.Version, next.By, next.Request = a.GetVersion()+1, principal, request
	return next, Check(a, next)
}

// alter changes a user at the place where a role of his stands, or would stand.
func alter(a *messages.Auth, of *messages.UserGrant, change func(u *messages.User, place int, has bool)) *messages.Error {
	u := Find(a, of.GetUser())
	if u == nil {
		return noUser(of.GetUser())
	}
	if err := checkGrant(of.GetGrant()); err != nil {
		return err
	}
	place, has := slices.BinarySearchFunc(u.Grants, of.Grant, byRole)
	change(u, place, has)
	return nil
}

func noUser(name string) *messages.Error {
	return messages.Errorf(messages.Code_NOT_FOUND, "there is no user %.80q", name).WithHint("kvctl user list shows all; add him: kvctl user add NAME")
}

func shutOut(principal string) *messages.Error {
	if principal == "" {
		return messages.Errorf(messages.Code_UNSAFE, "there are no keys here, so nobody could prove who he is, and all would be shut out").
			WithHint("start the nodes with keys first: kvctl cert --help, kvctl serve --certs-dir DIR")
	}
	return messages.Errorf(messages.Code_UNSAFE, "user %s is no admin, and would be shut out", principal).
		WithHint("become one first: kvctl user add %s --role admin", principal)
}

// Title is what a change asks for, for people.
func Title(asked *messages.ChangeAuth) string {
	switch k := asked.GetKind().(type) {
	case *messages.ChangeAuth_Add:
		return fmt.Sprintf("add user %.80q", k.Add)
	case *messages.ChangeAuth_Remove:
		return fmt.Sprintf("remove user %.80q", k.Remove)
	case *messages.ChangeAuth_Grant:
		return fmt.Sprintf("give user %.80q the role %s", k.Grant.GetUser(), Words(k.Grant.GetGrant()))
	case *messages.ChangeAuth_Revoke:
		return fmt.Sprintf("take the role %s from user %.80q", Words(k.Revoke.GetGrant()), k.Revoke.GetUser())
	case *messages.ChangeAuth_Password:
		if len(k.Password.GetHash()) == 0 {
			return fmt.Sprintf("take the password of user %.80q away", k.Password.GetUser())
		}
		return fmt.Sprintf("give user %.80q another password", k.Password.GetUser())
	case *messages.ChangeAuth_Enable:
		if !k.Enable {
			return "disable auth"
		}
		return "enable auth"
	}
	return "change the users"
}

// Words is a role for people: writer, or writer on orders/.
func Words(g *messages.Grant) string {
	if len(g.GetPrefix()) == 0 {
		return RoleName(g.GetRole())
	}
	return fmt.Sprintf("%s on %.80q", RoleName(g.GetRole()), g.Prefix)
}

// ForAsker is what a principal is told of a: all if he is an admin, or while everybody is as
// good as one; else himself. Of passwords nobody is told more than that there are some.
func ForAsker(a *messages.Auth, principal string) *messages.Auth {
	if a == nil {
		return nil
	}
	told := &messages.Auth{Version: a.Version, Enabled: a.Enabled}
	if Of(a, principal).Allow(Whole(messages.UserRole_ADMIN)) {
		told.Users, told.By, told.Request = a.Users, a.By, a.Request
	} else if u := Find(a, principal); u != nil {
		told.Users = []*messages.User{u}
	}
	told.Users = slices.Clone(told.Users)
	for i, u := range told.Users {
		if u.Password != nil {
			told.Users[i] = &messages.User{Name: u.Name, Grants: u.Grants, Password: &messages.Password{Version: u.Password.Version}}
		}
	}
	return told
}
