package auth

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"keyval/messages"
)

func invitationID(n byte) []byte { return bytes.Repeat([]byte{n}, messages.InvitationIDSize) }

func hashed(text []byte) []byte {
	sum := sha256.Sum256(text)
	return sum[:]
}

// invited is an open invitation of node n<n>, whose proof is "p<n>".
func invited(n byte, expiresMS int64) *messages.Invitation {
	return &messages.Invitation{Id: invitationID(n), Node: fmt.Sprintf("n%d", n), By: "root", ExpiresMs: expiresMS, Proof: hashed(fmt.Appendf(nil, "p%d", n)), Sealed: []byte("sealed")}
}

// taken is what becomes of one.
func taken(i *messages.Invitation, by byte, atMS int64, done bool) *messages.Invitation {
	i.Taker, i.TakenAtMs, i.TakenFrom = hashed(invitationID(by)), atMS, "10.0.0.9"
	if done {
		i.Sealed = nil
	}
	return i
}

func invitations(version uint64, all ...*messages.Invitation) *messages.Invitations {
	return &messages.Invitations{Version: version, All: all}
}

// stateOf is what there is, on one line.
func stateOf(is *messages.Invitations) string {
	var words []string
	for _, i := range is.GetAll() {
		word := i.Node
		if len(i.Taker) > 0 {
			word += " taken"
		}
		if len(i.Sealed) == 0 {
			word += " done"
		}
		words = append(words, word)
	}
	return fmt.Sprintf("%d: %s", is.GetVersion(), strings.Join(words, ", "))
}

func TestWriteInvitations(t *testing.T) {
	var many []*messages.Invitation
	for i := range InvitationsMax {
		many = append(many, invited(byte(i)+1, 10))
	}
	broken := func(alter func(*messages.Invitation)) *messages.Invitation {
		i := invited(1, 10)
		alter(i)
		return i
	}
	two := invitations(7, invited(1, 10), invited(2, 10))
	for name, c := range map[string]struct {
		was   *messages.Invitations
		write *messages.WriteInvitations
		code  messages.Code
		want  string
	}{
		"the first":           {nil, &messages.WriteInvitations{Version: 1, Put: invited(1, 10)}, messages.Code_OK, "1: n1"},
		"another":             {two, &messages.WriteInvitations{Version: 8, Put: invited(3, 10)}, messages.Code_OK, "8: n1, n2, n3"},
		"taken":               {two, &messages.WriteInvitations{Version: 8, Put: taken(invited(1, 10), 9, 5, false)}, messages.Code_OK, "8: n1 taken, n2"},
		"done":                {two, &messages.WriteInvitations{Version: 8, Put: taken(invited(2, 10), 9, 5, true)}, messages.Code_OK, "8: n1, n2 taken done"},
		"removed":             {two, &messages.WriteInvitations{Version: 8, Remove: [][]byte{invitationID(1), invitationID(9)}}, messages.Code_OK, "8: n2"},
		"the last removed":    {invitations(7, invited(1, 10)), &messages.WriteInvitations{Version: 8, Remove: [][]byte{invitationID(1)}}, messages.Code_OK, "8: "},
		"swept and made":      {invitations(7, many...), &messages.WriteInvitations{Version: 8, Remove: [][]byte{invitationID(1)}, Put: invited(99, 10)}, messages.Code_OK, ""},
		"too many":            {invitations(7, many...), &messages.WriteInvitations{Version: 8, Put: invited(99, 10)}, messages.Code_BUSY, ""},
		"nothing":             {two, nil, messages.Code_CONFLICT, ""},
		"a version again":     {two, &messages.WriteInvitations{Version: 7, Put: invited(3, 10)}, messages.Code_CONFLICT, ""},
		"a version skipped":   {two, &messages.WriteInvitations{Version: 9, Put: invited(3, 10)}, messages.Code_CONFLICT, ""},
		"a short id":          {two, &messages.WriteInvitations{Version: 8, Put: broken(func(i *messages.Invitation) { i.Id = i.Id[1:] })}, messages.Code_INVALID, ""},
		"no node":             {two, &messages.WriteInvitations{Version: 8, Put: broken(func(i *messages.Invitation) { i.Node = "a b" })}, messages.Code_INVALID, ""},
		"by nobody":           {two, &messages.WriteInvitations{Version: 8, Put: broken(func(i *messages.Invitation) { i.By = "a b" })}, messages.Code_INVALID, ""},
		"a long request":      {two, &messages.WriteInvitations{Version: 8, Put: broken(func(i *messages.Invitation) { i.Request = strings.Repeat("x", 65) })}, messages.Code_INVALID, ""},
		"no proof":            {two, &messages.WriteInvitations{Version: 8, Put: broken(func(i *messages.Invitation) { i.Proof = nil })}, messages.Code_INVALID, ""},
		"a taker who is none": {two, &messages.WriteInvitations{Version: 8, Put: broken(func(i *messages.Invitation) { i.Taker = []byte("x") })}, messages.Code_INVALID, ""},
		"too much":            {two, &messages.WriteInvitations{Version: 8, Put: broken(func(i *messages.Invitation) { i.Sealed = make([]byte, SealedSizeMax+1) })}, messages.Code_INVALID, ""},
		"no keys":             {two, &messages.WriteInvitations{Version: 8, Put: broken(func(i *messages.Invitation) { i.Sealed = nil })}, messages.Code_INVALID, ""},
		"for ever":            {two, &messages.WriteInvitations{Version: 8, Put: broken(func(i *messages.Invitation) { i.ExpiresMs = 0 })}, messages.Code_INVALID, ""},
	} {
		before := proto.Clone(c.was)
		next, err := WriteInvitations(c.was, c.write)
		if got := codeOf(err); got != c.code {
			t.Errorf("%s: %v", name, err)
		} else if err == nil && c.want != "" && stateOf(next) != c.want {
			t.Errorf("%s: %s, want %s", name, stateOf(next), c.want)
		}
		if c.was != nil && !proto.Equal(before, c.was) {
			t.Errorf("%s: what was there has changed", name)
		}
	}
}

func TestInvite(t *testing.T) {
	const now = 1_000_000
	asked := func(n byte, ttlMS uint64) *messages.NewInvitation {
		i := invited(n, 0)
		return &messages.NewInvitation{Id: i.Id, Node: i.Node, TtlMs: ttlMS, Proof: i.Proof, Sealed: i.Sealed}
	}
	other := asked(1, 5000)
	other.Proof = hashed([]byte("x"))
	old := invitations(3, invited(1, now-1), taken(invited(2, now-1), 9, now-repeatMS+1, false), taken(invited(3, now-1), 9, now-2, true), invited(4, now+1))
	var many []*messages.Invitation
	for i := range InvitationsMax {
		many = append(many, invited(byte(i)+1, now+1))
	}
	for name, c := range map[string]struct {
		is    *messages.Invitations
		asked *messages.NewInvitation
		code  messages.Code
		want  string // empty: nothing is written
	}{
		"the first":          {nil, asked(1, 5000), messages.Code_OK, "1: n1"},
		"the expired go":     {old, asked(5, 5000), messages.Code_OK, "4: n2 taken, n3 taken done, n4, n5"},
		"again":              {old, asked(4, 5000), messages.Code_OK, ""},
		"the id of another":  {old, other, messages.Code_CONFLICT, ""},
		"too short":          {nil, asked(1, 999), messages.Code_INVALID, ""},
		"too long":           {nil, asked(1, InvitationTTLMaxMS+1), messages.Code_INVALID, ""},
		"as long as it may":  {nil, asked(1, InvitationTTLMaxMS), messages.Code_OK, "1: n1"},
		"too many":           {invitations(3, many...), asked(99, 5000), messages.Code_BUSY, ""},
		"what may not stand": {nil, &messages.NewInvitation{TtlMs: 5000}, messages.Code_INVALID, ""},
	} {
		w, err := Invite(c.is, c.asked, "root", "12345678-9", now)
		if codeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err != nil || w == nil {
			if (w == nil) != (c.want == "") && err == nil {
				t.Errorf("%s: nothing is written", name)
			}
			continue
		}
		next, err := WriteInvitations(c.is, w)
		if err != nil || stateOf(next) != c.want || w.Put.By != "root" || w.Put.Request != "12345678-9" || w.Put.ExpiresMs != now+int64(c.asked.TtlMs) {
			t.Errorf("%s: %v, %v, want %s", name, err, stateOf(next), c.want)
		}
	}
	if w := Uninvite(old, invitationID(4)); w == nil || w.Version != 4 || len(w.Remove) != 1 {
		t.Errorf("%v", w)
	}
	if w := Uninvite(old, invitationID(9)); w != nil {
		t.Errorf("what is not there is removed: %v", w)
	}
}

func TestRedeem(t *testing.T) {
	const expires = 1_000_000
	ask := func(taker byte, alter ...func(*messages.InvitationAsk)) *messages.InvitationAsk {
		a := &messages.InvitationAsk{Id: invitationID(1), Proof: []byte("p1"), Taker: invitationID(taker), Node: "n1", Host: []byte{10, 0, 0, 9}}
		for _, f := range alter {
			f(a)
		}
		return a
	}
	done := func(a *messages.InvitationAsk) { a.Done = true }
	open := func() *messages.Invitations { return invitations(3, invited(2, expires), invited(1, expires)) }
	given := func(atMS int64) *messages.Invitations {
		return invitations(4, taken(invited(1, expires), 7, atMS, false))
	}
	used := func() *messages.Invitations { return invitations(5, taken(invited(1, expires), 7, 5, true)) }
	for name, c := range map[string]struct {
		is   *messages.Invitations
		ask  *messages.InvitationAsk
		now  int64
		want string // what is written, the sealed keys, or how the error begins
	}{
		"an open one":                       {open(), ask(7), 5, "4: n2, n1 taken"},
		"at the last moment":                {open(), ask(7), expires - 1, "4: n2, n1 taken"},
		"expired":                           {open(), ask(7), expires, "NOT_ALLOWED the token expired at 1970-01-01T00:16:40Z"},
		"taken, and asked for":              {given(5), ask(7), 6, "sealed"},
		"the answer was lost":               {given(5), ask(7), expires - 1, "sealed"},
		"taken at the last moment":          {given(expires - 1), ask(7), expires + repeatMS - 2, "sealed"},
		"asked for too late":                {given(expires - 1), ask(7), expires + repeatMS - 1, "NOT_ALLOWED the token expired"},
		"taken by another":                  {given(5), ask(8), 6, "CONFLICT the token was used already, at 1970-01-01T00:00:00Z from 10.0.0.9"},
		"taken by another, who has expired": {given(5), ask(8), expires, "CONFLICT the token was used already"},
		"taken, and the keys are there":     {given(5), ask(7, done), 6, "5: n1 taken done"},
		"that is said again":                {used(), ask(7, done), 6, ""},
		"used, by the same":                 {used(), ask(7), 6, "CONFLICT the token was used already, at 1970-01-01T00:00:00Z by this machine"},
		"used, by another":                  {used(), ask(8), 6, "CONFLICT the token was used already"},
		"used, another says he has them":    {used(), ask(8, done), 6, "CONFLICT the token was used already"},
		"another says he has them":          {given(5), ask(8, done), 6, "CONFLICT the token was used already"},
		"nobody has them":                   {open(), ask(7, done), 6, "INVALID nobody has taken the keys"},
		"no such id":                        {open(), ask(7, func(a *messages.InvitationAsk) { a.Id = invitationID(3) }), 5, "NOT_FOUND this cluster knows no such token"},
		"no id":                             {open(), ask(7, func(a *messages.InvitationAsk) { a.Id = nil }), 5, "NOT_FOUND this cluster knows no such token"},
		"another proof":                     {open(), ask(7, func(a *messages.InvitationAsk) { a.Proof = []byte("p2") }), 5, "NOT_FOUND this cluster knows no such token"},
		"its hash for a proof":              {open(), ask(7, func(a *messages.InvitationAsk) { a.Proof = hashed([]byte("p1")) }), 5, "NOT_FOUND this cluster knows no such token"},
		"no proof, of a used one":           {used(), ask(7, func(a *messages.InvitationAsk) { a.Proof = nil }), 5, "NOT_FOUND this cluster knows no such token"},
		"another node":                      {open(), ask(7, func(a *messages.InvitationAsk) { a.Node = "n2" }), 5, `INVALID the token is for node n1, and not for "n2"`},
		"a taker who is none":               {open(), ask(7, func(a *messages.InvitationAsk) { a.Taker = a.Taker[1:] }), 5, "INVALID a taker has 16 bytes"},
		"nothing was ever there":            {nil, ask(7), 5, "NOT_FOUND this cluster knows no such token"},
	} {
		sealed, w, err := Redeem(c.is, c.ask, c.now)
		got := string(sealed)
		switch {
		case err != nil:
			if got = err.Code.String() + " " + err.Message; err.Hint == "" && err.Code != messages.Code_INVALID {
				t.Errorf("%s: no next step", name)
			}
		case w != nil:
			next, err := WriteInvitations(c.is, w)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			got = stateOf(next)
		}
		if c.want == "" && got != "" || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestOneTakerAlone: whatever is asked, proposed late, twice or in another order, one taker is given
// the keys, and nobody once they are removed.
func TestOneTakerAlone(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		is, now := invitations(1, invited(1, 1000)), int64(0)
		var late []*messages.WriteInvitations
		given, removed := map[byte]bool{}, false
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			now += rapid.Int64Range(0, 100).Draw(rt, "passes")
			taker := rapid.ByteRange(1, 3).Draw(rt, "taker")
			ask := &messages.InvitationAsk{Id: invitationID(1), Proof: []byte("p1"), Taker: invitationID(taker), Node: "n1", Done: rapid.Bool().Draw(rt, "done")}
			switch rapid.IntRange(0, 5).Draw(rt, "what") {
			case 0:
				if w := Uninvite(is, invitationID(1)); w != nil {
					late = append(late, w)
				}
			case 1, 2:
				sealed, w, _ := Redeem(is, ask, now)
				if w != nil {
					late = append(late, w)
				}
				if sealed != nil {
					if given[taker] = true; removed {
						rt.Fatal("it was given away after it was removed")
					}
				}
			default:
				if len(late) == 0 {
					continue
				}
				w := late[rapid.IntRange(0, len(late)-1).Draw(rt, "which")]
				if next, err := WriteInvitations(is, w); err == nil {
					is, removed = next, removed || len(w.Remove) > 0
				}
			}
		}
		if len(given) > 1 {
			rt.Fatalf("%d takers were given the keys", len(given))
		}
	})
}

func TestInvitationsUntil(t *testing.T) {
	for want, is := range map[int64]*messages.Invitations{
		0: invitations(5, taken(invited(1, 1000), 7, 5, true)), 1000: invitations(5, invited(1, 1000), invited(2, 7)), 999 + repeatMS: invitations(5, taken(invited(1, 1000), 7, 999, false)),
	} {
		if got := InvitationsUntil(is); got != want {
			t.Errorf("%s: until %d, want %d", stateOf(is), got, want)
		}
	}
	if InvitationsUntil(nil) != 0 {
		t.Error("nobody is invited, and may come")
	}
}

// TestInvitationsTold: nothing is told that opens, proves or takes one.
func TestInvitationsTold(t *testing.T) {
	told := InvitationsTold(invited(1, 10), taken(invited(2, 10), 7, 5, true))
	if len(told) != 2 || !bytes.Equal(told[0].Sealed, []byte{1}) || told[0].Proof != nil || told[1].Taker != nil || told[1].Sealed != nil || told[1].TakenFrom == "" {
		t.Errorf("%v", told)
	}
}

func TestHostText(t *testing.T) {
	for want, host := range map[string][]byte{"10.0.0.9": {10, 0, 0, 9}, "2001:0db8:0000:0001::/64": {0x20, 1, 0xd, 0xb8, 0, 0, 0, 1}, "an unknown host": nil} {
		if got := HostText(host); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
