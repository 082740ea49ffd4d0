package messages

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// RaftID is the identity of a replica in its consensus group: from 1, given by
// the cluster, never reused. People see NodeNames.
type RaftID = uint64

// Sizes of identities in bytes.
const (
	ClientIDSize     = 16
	HolderSizeMax    = 64 // of whose sessions are counted together
	IncarnationSize  = 16
	ClusterIDSize    = 16
	OperationIDSize  = 16
	InvitationIDSize = 16
)

// MembersMax bounds the members of a cluster, in number, learners included.
const MembersMax = 32

// ProtocolVersion is spoken on links; a node refuses others by name.
const ProtocolVersion = 1

// Limits of what a client may ask for, in bytes.
const (
	KeySizeMax     = 16 << 10
	ValueSizeMax   = 512 << 10
	CommandSizeMax = KeySizeMax + ValueSizeMax + 1024
)

// SessionOpenMaxMS bounds the time for which the opening of a session is valid, in log
// time from now, whatever the session's lifetime. Nothing evicts the session meanwhile,
// since a late copy of the opening must find it.
const SessionOpenMaxMS = 60 * 1000

// NodeAddress is the logical address of a replica's actors. Network addresses
// stand in links and member records only.
func NodeAddress(id RaftID) string { return "node/" + strconv.FormatUint(id, 10) }

// ParseNodeAddress is the inverse of NodeAddress.
func ParseNodeAddress(address string) (RaftID, bool) {
	digits, ok := strings.CutPrefix(address, "node/")
	if !ok {
		return 0, false
	}
	id, err := strconv.ParseUint(digits, 10, 64)
	return id, err == nil && id != 0 && NodeAddress(id) == address
}

// FounderAddress is the logical address under which a node that belongs to a cluster hears
// one that says it belongs to none: it may be a late founder, or one of another list that
// claims the RaftID of a member, whose connections it must not touch.
func FounderAddress(id RaftID) string { return "founder/" + strconv.FormatUint(id, 10) }

// PeerAt is the other node that has this address; 0: the address is self's, or no
// node's. The link has proved the address of whoever sent a message.
func PeerAt(address string, self RaftID) RaftID {
	if id, ok := ParseNodeAddress(address); ok && id != self {
		return id
	}
	return 0
}

// ClientAddress is the logical address of a client's actor system.
// random has 16 bytes.
func ClientAddress(random []byte) string { return "client/" + hex.EncodeToString(random) }

// IsClientAddress reports whether address is one that ClientAddress makes.
func IsClientAddress(address string) bool {
	digits, ok := strings.CutPrefix(address, "client/")
	if !ok || len(digits) != 32 || strings.ToLower(digits) != digits {
		return false
	}
	_, err := hex.DecodeString(digits)
	return err == nil
}

// RequestKind says which of a client's counters has numbered a request.
type RequestKind byte

const (
	RequestWrite  RequestKind = 'w' // a command: the number is its seq
	RequestRead   RequestKind = 'r'
	RequestOfNode RequestKind = 'n' // a status, of snapshots, of the cluster
)

// RequestID is what people see and quote, and what nodes log: the first 8 hex digits of the
// ClientID, what has numbered the request, and the number.
func RequestID(client []byte, kind RequestKind, number uint64) string {
	id := hex.AppendEncode(make([]byte, 0, 32), client[:min(4, len(client))])
	return string(strconv.AppendUint(append(id, '-', byte(kind)), number, 10))
}

// RequestIDOfNode is the RequestID of what the client of an address asks of a node.
func RequestIDOfNode(address string, number uint64) string {
	return RequestID(ClientIDOf(address), RequestOfNode, number)
}

// ClientIDOf is what ClientAddress has made an address of; nil: it is no client's.
func ClientIDOf(address string) []byte {
	if !IsClientAddress(address) {
		return nil
	}
	id, _ := hex.DecodeString(strings.TrimPrefix(address, "client/"))
	return id
}

// ClusterID is the identity of the cluster that these founders make together:
// the first 16 bytes of the SHA-256 of their RaftIDs, names, incarnations and levels
// and of the token. What all begin with follows from these alone.
func ClusterID(token string, founders []*Founder) []byte {
	sorted := slices.SortedFunc(slices.Values(founders), func(a, b *Founder) int { return int(a.RaftId) - int(b.RaftId) })
	h := sha256.New()
	fmt.Fprintf(h, "keyval cluster\x00%q\n", token)
	for _, f := range sorted {
		fmt.Fprintf(h, "%d %q %x %d\n", f.RaftId, f.Name, f.Incarnation, f.Level)
	}
	return h.Sum(nil)[:ClusterIDSize]
}

// FoundingLevel is the level at which these founders begin: the highest that all of
// them understand. 0: of one it is unknown.
func FoundingLevel(founders []*Founder) uint32 {
	var level uint32
	for i, f := range founders {
		if i == 0 || f.Level < level {
			level = f.Level
		}
	}
	return level
}

// RaftIDs are those of the members, rising.
func RaftIDs(members []*Member) []RaftID {
	var ids []RaftID
	for _, m := range members {
		ids = append(ids, m.RaftId)
	}
	slices.Sort(ids)
	return ids
}

// MemberName is the name of a node, for people.
func MemberName(members []*Member, id RaftID) string {
	for _, m := range members {
		if m.RaftId == id && m.Name != "" {
			return m.Name
		}
	}
	return fmt.Sprintf("the node with raft id %d", id)
}

// RaftIDOf is the RaftID that an identity was given, or has among its founders; 0: none
// yet.
func RaftIDOf(identity *Identity) RaftID {
	if identity.RaftId != 0 {
		return identity.RaftId
	}
	for _, f := range identity.Founders {
		if f.Name == identity.Name {
			return f.RaftId
		}
	}
	return 0
}

// holderOfUser is what a holder begins with that is a user's: hosts have no address that does.
const holderOfUser = 0xff

// HolderOf is what the sessions of a user are counted by (OpenSession.holder).
func HolderOf(user string) []byte { return append([]byte{holderOfUser}, user...) }

// UserOf is the user of a holder; nil: it is a host's, or nobody's.
func UserOf(holder []byte) []byte {
	if len(holder) < 2 || holder[0] != holderOfUser {
		return nil
	}
	return holder[1:]
}
