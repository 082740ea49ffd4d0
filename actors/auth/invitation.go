package auth

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
	"keyval/mutant"
)

// An invitation lets a new machine have the keys of one node, which lie sealed in the replicated
// state. Taking it is an entry of the log that names the taker: so there is one, whoever leads
// meanwhile, and he may ask again when an answer was lost. What he has got he says, and then the
// sealed keys go. The record stays until the invitation has expired, and says who had it.

// Bounds of invitations, part of what the log means.
const (
	// InvitationsMax bounds their number, used ones included.
	InvitationsMax = 64
	// SealedSizeMax bounds what one holds, in bytes.
	SealedSizeMax = 16 << 10
	// invitationTextMax bounds each text of one, in bytes.
	invitationTextMax = 64
)

// Bounds of asking for one, in milliseconds.
const (
	// InvitationTTLMaxMS bounds for how long one is good: 7 days.
	InvitationTTLMaxMS = 7 * 24 * 3600 * 1000
	// repeatMS is for how long after the taking its taker is at least answered again.
	repeatMS = 60 * 1000
)

// FindInvitation finds one by its id, or returns nil.
func FindInvitation(is *messages.Invitations, id []byte) *messages.Invitation {
	for _, i := range is.GetAll() {
		if bytes.Equal(i.Id, id) {
			return i
		}
	}
	return nil
}

// InvitationsUntil is the wall time in ms until which somebody may come with a token; 0: nobody may.
func InvitationsUntil(is *messages.Invitations) (ms int64) {
	for _, i := range is.GetAll() {
		if len(i.Sealed) > 0 {
			ms = max(ms, answeredUntil(i))
		}
	}
	return ms
}

// answeredUntil is how long an invitation's sealed keys are given away, in ms of wall time.
func answeredUntil(i *messages.Invitation) int64 {
	if len(i.Taker) > 0 {
		return max(i.ExpiresMs, i.TakenAtMs+repeatMS)
	}
	return i.ExpiresMs
}

// CheckInvitation says whether a record is one: INVALID if it is not.
func CheckInvitation(i *messages.Invitation) *messages.Error {
	switch {
	case len(i.GetId()) != messages.InvitationIDSize:
		return messages.Errorf(messages.Code_INVALID, "the id of an invitation has %d bytes, this one %d", messages.InvitationIDSize, len(i.GetId()))
	case messages.CheckNodeName(i.Node) != nil:
		return messages.CheckNodeName(i.Node)
	case len(i.By) > 0 && messages.CheckNodeName(i.By) != nil, len(i.Request) > invitationTextMax, len(i.TakenFrom) > invitationTextMax:
		return messages.Errorf(messages.Code_INVALID, "invitation %x says of itself what is too long", i.Id)
	case len(i.Proof) != sha256.Size, len(i.Taker) != 0 && len(i.Taker) != sha256.Size:
		return messages.Errorf(messages.Code_INVALID, "invitation %x has no proof, or a taker who is none", i.Id)
	case len(i.Sealed) > SealedSizeMax, len(i.Sealed) == 0 && len(i.Taker) == 0:
		return messages.Errorf(messages.Code_INVALID, "the sealed keys of %s have %d bytes, 1 to %d are allowed", i.Node, len(i.Sealed), SealedSizeMax).
			WithHint("shorten the file of what is trusted, ca.crt")
	case i.ExpiresMs <= 0 || i.TakenAtMs < 0:
		return messages.Errorf(messages.Code_INVALID, "invitation %x tells times that are none", i.Id)
	}
	return nil
}

// WriteInvitations are the invitations after an entry of the log. Refusals: CONFLICT if it is of
// another version than the next; INVALID; BUSY if there are as many as there may be.
func WriteInvitations(was *messages.Invitations, w *messages.WriteInvitations) (*messages.Invitations, *messages.Error) {
	if w.GetVersion() != was.GetVersion()+1 && !mutant.InvitationRevived {
		return nil, messages.Errorf(messages.Code_CONFLICT, "the invitations have version %d, and version %d cannot follow", was.GetVersion(), w.GetVersion())
	}
	next := &messages.Invitations{Version: w.Version}
	for _, i := range was.GetAll() {
		if !slices.ContainsFunc(w.Remove, func(id []byte) bool { return bytes.Equal(id, i.Id) }) {
			next.All = append(next.All, i)
		}
	}
	if w.Put == nil {
		return next, nil
	}
	if err := CheckInvitation(w.Put); err != nil {
		return nil, err
	}
	for at, i := range next.All {
		if bytes.Equal(i.Id, w.Put.Id) {
			next.All[at] = w.Put
			return next, nil
		}
	}
	if len(next.All) >= InvitationsMax {
		return nil, messages.Errorf(messages.Code_BUSY, "%d invitations are there already, and no more are kept", len(next.All)).
			WithHint("remove one that is not needed: kvctl cluster token remove ID")
	}
	next.All = append(next.All, w.Put)
	return next, nil
}

// Invite is what follows when somebody asks by a request to make an invitation, at a wall time in
// ms. nil: it is there already. Those that have expired are swept.
func Invite(is *messages.Invitations, asked *messages.NewInvitation, by, request string, nowMS int64) (*messages.WriteInvitations, *messages.Error) {
	if asked.GetTtlMs() < 1000 || asked.GetTtlMs() > InvitationTTLMaxMS {
		return nil, messages.Errorf(messages.Code_INVALID, "an invitation is good for 1 s to %s, and not for %s", duration(InvitationTTLMaxMS), duration(asked.GetTtlMs()))
	}
	if i := FindInvitation(is, asked.Id); i != nil {
		if !bytes.Equal(i.Proof, asked.Proof) {
			return nil, messages.Errorf(messages.Code_CONFLICT, "invitation %x is another one, of %s", i.Id, i.Node).WithHint("choose another id")
		}
		return nil, nil
	}
	w := &messages.WriteInvitations{Version: is.GetVersion() + 1, Put: &messages.Invitation{
		Id: asked.Id, Node: asked.Node, By: by, Request: request, ExpiresMs: nowMS + int64(asked.TtlMs), Proof: asked.Proof, Sealed: asked.Sealed,
	}}
	for _, i := range is.GetAll() {
		if answeredUntil(i) <= nowMS {
			w.Remove = append(w.Remove, i.Id)
		}
	}
	_, err := WriteInvitations(is, w)
	return w, err
}

// Uninvite is what follows when an invitation is to be removed; nil: it is not there.
func Uninvite(is *messages.Invitations, id []byte) *messages.WriteInvitations {
	if FindInvitation(is, id) == nil {
		return nil
	}
	return &messages.WriteInvitations{Version: is.GetVersion() + 1, Remove: [][]byte{id}}
}

// Redeem says what becomes of an ask at a wall time in ms: the sealed keys, or what has to be in the
// log before he may ask for them. Neither, and no error: he has said that he has them, and it is
// known. Who has not the token is told the same, whatever there is.
func Redeem(is *messages.Invitations, ask *messages.InvitationAsk, nowMS int64) (sealed []byte, write *messages.WriteInvitations, err *messages.Error) {
	const anew = "where the authority is, make another: kvctl cluster token create NAME HOST"
	i, proof, taker := FindInvitation(is, ask.GetId()), sha256.Sum256(ask.GetProof()), sha256.Sum256(ask.GetTaker())
	switch {
	case i == nil || subtle.ConstantTimeCompare(proof[:], i.Proof) != 1:
		return nil, nil, messages.Errorf(messages.Code_NOT_FOUND, "this cluster knows no such token: it was removed, expired some time ago, or is of another cluster").WithHint(anew)
	case len(ask.Taker) != messages.InvitationIDSize:
		return nil, nil, messages.Errorf(messages.Code_INVALID, "a taker has %d bytes, this one %d", messages.InvitationIDSize, len(ask.Taker))
	case ask.Node != i.Node:
		return nil, nil, messages.Errorf(messages.Code_INVALID, "the token is for node %s, and not for %.80q", i.Node, ask.Node).WithHint("start it with --name %s, or make a token of its own", i.Node)
	case len(i.Taker) > 0 && subtle.ConstantTimeCompare(taker[:], i.Taker) != 1 && !mutant.InvitationShared:
		return nil, nil, messages.Errorf(messages.Code_CONFLICT, "the token was used already, at %s from %s", timeText(i.TakenAtMs), i.TakenFrom).
			WithHint("if that was not you, somebody else has the keys of %s: replace the authority (kvctl cert rotate-ca); else %s", i.Node, anew)
	case len(i.Taker) > 0 && len(i.Sealed) == 0 && ask.Done:
		return nil, nil, nil
	case len(i.Taker) > 0 && len(i.Sealed) == 0:
		return nil, nil, messages.Errorf(messages.Code_CONFLICT, "the token was used already, at %s by this machine, which has said that it has the keys", timeText(i.TakenAtMs)).WithHint(anew)
	case nowMS >= answeredUntil(i):
		return nil, nil, messages.Errorf(messages.Code_NOT_ALLOWED, "the token expired at %s", timeText(i.ExpiresMs)).WithHint(anew)
	case len(i.Taker) > 0 && !ask.Done:
		return i.Sealed, nil, nil
	case len(i.Taker) == 0 && ask.Done:
		return nil, nil, messages.Errorf(messages.Code_INVALID, "nobody has taken the keys of %s yet", i.Node)
	}
	next := proto.Clone(i).(*messages.Invitation)
	if ask.Done {
		next.Sealed = nil
	} else {
		next.Taker, next.TakenAtMs, next.TakenFrom = taker[:], nowMS, HostText(ask.Host)
	}
	return nil, &messages.WriteInvitations{Version: is.GetVersion() + 1, Put: next}, nil
}

// HostText is a host as links write it, for people: of IPv6 its network.
func HostText(host []byte) string {
	switch len(host) {
	case 4:
		return fmt.Sprintf("%d.%d.%d.%d", host[0], host[1], host[2], host[3])
	case 8:
		return fmt.Sprintf("%x:%x:%x:%x::/64", host[:2], host[2:4], host[4:6], host[6:])
	}
	return "an unknown host"
}

func duration(ms uint64) time.Duration { return time.Duration(ms) * time.Millisecond }

func timeText(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }

// InvitationsTold are invitations as people are told of them: what could be of use to a thief is
// left out. Of sealed keys a byte says that they are there still.
func InvitationsTold(all ...*messages.Invitation) (told []*messages.Invitation) {
	for _, i := range all {
		t := &messages.Invitation{Id: i.Id, Node: i.Node, By: i.By, Request: i.Request, ExpiresMs: i.ExpiresMs, TakenAtMs: i.TakenAtMs, TakenFrom: i.TakenFrom}
		if len(i.Sealed) > 0 {
			t.Sealed = []byte{1}
		}
		told = append(told, t)
	}
	return told
}
