package actors

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"keyval/actors/transport/grpc"
	"keyval/messages"
	"keyval/storeactor/disk"
)

// foundersMax bounds the founders of a cluster, in number.
const foundersMax = 9

// Prepare returns the identity of a node. On a first start it checks want, adds a random
// incarnation and makes both durable, before the node sends anything. Later it returns
// what was recorded; want may leave fields out, but not contradict them.
func Prepare(disk disk.Disk, random io.Reader, want *messages.Identity) (*messages.Identity, error) {
	recorded, err := disk.Identity()
	if err == nil {
		return recorded, contradicts(recorded, want)
	}
	if messages.CodeOf(err) != messages.Code_NOT_FOUND {
		return nil, err
	}
	identity, refusal := firstIdentity(want)
	if refusal != nil {
		return nil, refusal
	}
	identity.Incarnation = make([]byte, messages.IncarnationSize)
	if _, err := io.ReadFull(random, identity.Incarnation); err != nil {
		return nil, fmt.Errorf("read randomness: %w", err)
	}
	return identity, disk.WriteIdentity(identity)
}

// RaftIDOf is the RaftID that an identity has among its founders, or 0.
func RaftIDOf(identity *messages.Identity) messages.RaftID {
	for _, f := range identity.Founders {
		if f.Name == identity.Name {
			return f.RaftId
		}
	}
	return 0
}

// contradicts returns an error if a field of want is set and differs from the record.
func contradicts(recorded, want *messages.Identity) error {
	refuse := func(flag, was, is string) error {
		return messages.Errorf(messages.Code_INVALID, "%s says %q, this data directory was made with %q", flag, is, was).
			WithHint("leave %s out, or start with another --data directory", flag)
	}
	switch {
	case want.Name != "" && want.Name != recorded.Name:
		return refuse("--name", recorded.Name, want.Name)
	case want.Listen != "" && want.Listen != recorded.Listen:
		return refuse("--listen", recorded.Listen, want.Listen)
	case want.Advertise != "" && want.Advertise != recorded.Advertise:
		return refuse("--advertise", recorded.Advertise, want.Advertise)
	case want.Token != "" && want.Token != recorded.Token:
		return refuse("--cluster-token", recorded.Token, want.Token)
	case len(want.Founders) > 0 && foundersText(numbered(want.Founders)) != foundersText(recorded.Founders):
		return refuse("--initial-cluster", foundersText(recorded.Founders), foundersText(numbered(want.Founders)))
	}
	return nil
}

// firstIdentity checks what a first start needs.
func firstIdentity(want *messages.Identity) (*messages.Identity, *messages.Error) {
	invalid := func(format string, args ...any) *messages.Error {
		return messages.Errorf(messages.Code_INVALID, format, args...).
			WithHint("a first start needs --name, --listen, --data and --initial-cluster name=host:port,...")
	}
	identity := proto.Clone(want).(*messages.Identity)
	identity.Format = disk.IdentityFormat
	if identity.Advertise == "" {
		identity.Advertise = identity.Listen
	}
	identity.Founders = numbered(identity.Founders)
	switch {
	case identity.Name == "" || identity.Listen == "" || len(identity.Founders) == 0:
		return nil, invalid("the data directory is empty, and the flags do not say what to start")
	case messages.CheckNodeName(identity.Name) != nil:
		return nil, invalid("the name %q is not made of letters, digits, '.', '_' and '-'", identity.Name)
	case len(identity.Founders) > foundersMax:
		return nil, invalid("%d founders are named, %d are allowed", len(identity.Founders), foundersMax)
	}
	if err := grpc.CheckAddress(identity.Listen); err != nil {
		return nil, atFlag("--listen", err)
	}
	if err := grpc.CheckReachable(identity.Advertise); err != nil {
		return nil, atFlag("--advertise", err)
	}
	return identity, checkFounders(identity)
}

func checkFounders(identity *messages.Identity) *messages.Error {
	names, addresses := map[string]bool{}, map[string]bool{}
	for _, f := range identity.Founders {
		if messages.CheckNodeName(f.Name) != nil || names[f.Name] || addresses[f.Address] {
			return messages.Errorf(messages.Code_INVALID, "--initial-cluster names %q at %q, which is no name or stands there twice", f.Name, f.Address)
		}
		if err := grpc.CheckReachable(f.Address); err != nil {
			return atFlag("--initial-cluster", err)
		}
		names[f.Name], addresses[f.Address] = true, true
		if f.Name == identity.Name && f.Address != identity.Advertise {
			return messages.Errorf(messages.Code_INVALID, "--initial-cluster has %s at %s, but it advertises %s", f.Name, f.Address, identity.Advertise).
				WithHint("make --initial-cluster and --advertise (or --listen) agree")
		}
	}
	if !names[identity.Name] {
		return messages.Errorf(messages.Code_INVALID, "--initial-cluster does not hold %s itself", identity.Name).
			WithHint("add %s=%s to it, on every founder", identity.Name, identity.Advertise)
	}
	return nil
}

// atFlag says which flag an error is about.
func atFlag(flag string, err *messages.Error) *messages.Error {
	return messages.Errorf(err.Code, "%s: %s", flag, err.Message).WithHint("%s", err.Hint)
}

// numbered gives founders their RaftIDs: their places in the order of names.
func numbered(founders []*messages.Founder) []*messages.Founder {
	out := make([]*messages.Founder, 0, len(founders))
	for _, f := range founders {
		out = append(out, &messages.Founder{Name: f.Name, Address: f.Address})
	}
	slices.SortFunc(out, func(a, b *messages.Founder) int { return strings.Compare(a.Name, b.Name) })
	for i, f := range out {
		f.RaftId = uint64(i + 1)
	}
	return out
}
