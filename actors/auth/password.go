package auth

import (
	"golang.org/x/crypto/bcrypt"

	"keyval/messages"
)

// Bounds of passwords, in bytes, and of what their hashes cost, in powers of two. Whoever sets one
// hashes it himself, so that no change carries a password. A hash that costs more would keep a node
// busy for seconds, and one that costs less would be guessed.
const (
	PasswordSizeMin = 8
	PasswordSizeMax = 72 // more bcrypt does not look at
	HashCost        = 12 // a third of a second
	hashCostMin     = 10
	hashCostMax     = 13
	hashSize        = 60 // in bytes, of bcrypt's text
)

// CheckHash says whether bytes are the hash of a password: bcrypt's text, of a cost within bounds.
func CheckHash(hash []byte) *messages.Error {
	cost, err := bcrypt.Cost(hash)
	switch {
	case err != nil || len(hash) != hashSize || hash[2] != 'a' && hash[2] != 'b':
		return messages.Errorf(messages.Code_INVALID, "this is no hash of a password: bcrypt's have %d bytes", hashSize).WithHint("kvctl user passwd NAME makes one")
	case cost < hashCostMin || cost > hashCostMax:
		return messages.Errorf(messages.Code_INVALID, "the hash of the password has the cost %d, and %d to %d are allowed", cost, hashCostMin, hashCostMax).
			WithHint("kvctl user passwd NAME makes one of %d", HashCost)
	}
	return nil
}

// CheckPassword says whether a password may be one.
func CheckPassword(password []byte) *messages.Error {
	switch n := len(password); {
	case n < PasswordSizeMin:
		return messages.Errorf(messages.Code_INVALID, "the password has %d bytes, and needs %d at least", n, PasswordSizeMin).WithHint("take a longer one: some words that do not belong together")
	case n > PasswordSizeMax:
		return messages.Errorf(messages.Code_INVALID, "the password has %d bytes, and no more than %d count", n, PasswordSizeMax).WithHint("take a shorter one")
	}
	return nil
}

// noHash is what the password of a user is compared with that is not there, or has none. What
// it is the hash of nobody knows.
var noHash = []byte("$2a$12$Se7TzsBvZHExgMPjvbE68OPW2EdLMwiSUZELsacxJ00fDzNgkaIiO")

// Hash is what a password of u is to be compared with; u may be nil. It takes as long for who
// cannot log in at all as for who can.
func Hash(u *messages.User) (hash []byte, fits bool) {
	if u.GetPassword() == nil {
		return noHash, false
	}
	return u.Password.Hash, true
}

// Fits reports whether a password has a hash. It takes a third of a second.
func Fits(hash []byte, password string) bool {
	return bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil && len(password) <= PasswordSizeMax
}

func checkPassword(u *messages.User) *messages.Error {
	if u.Password == nil {
		return nil
	}
	return CheckHash(u.Password.Hash)
}

// setPassword gives a user another password in a, which is to become the next version.
func setPassword(a *messages.Auth, k *messages.ChangePassword) *messages.Error {
	u := Find(a, k.GetUser())
	if u == nil {
		return noUser(k.GetUser())
	}
	if len(k.GetHash()) == 0 {
		u.Password = nil
		return nil
	}
	if string(u.Password.GetHash()) != string(k.Hash) {
		u.Password = &messages.Password{Hash: k.Hash, Version: a.Version + 1}
	}
	return nil
}
