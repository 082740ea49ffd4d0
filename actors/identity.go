package actors

import (
	"cmp"
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
// what was recorded; want may leave fields out, but not contradict them once the directory
// is initialised. Until then it corrects what was recorded.
func Prepare(disk disk.Disk, random io.Reader, want *messages.Identity) (*messages.Identity, error) {
	recorded, err := disk.Identity()
	if err == nil {
		identity, err := again(disk, recorded, want)
		if messages.CodeOf(err) != messages.Code_INVALID {
			return identity, err
		}
		if initialised, unfit := disk.Initialised(); initialised || unfit != nil {
			return nil, err
		}
		if err := disk.Hear(&messages.StartsHeard{}); err != nil { // by RaftIDs of another list
			return nil, err
		}
		return first(disk, random, corrected(recorded, want))
	}
	if messages.CodeOf(err) != messages.Code_NOT_FOUND {
		return nil, err
	}
	return first(disk, random, want)
}

// corrected is what was recorded, but for what want says. Nobody takes part yet: so far a
// directory with another incarnation is one that was emptied, and nothing is lost with it.
func corrected(recorded, want *messages.Identity) *messages.Identity {
	c := proto.Clone(want).(*messages.Identity)
	c.Name, c.Token = cmp.Or(c.Name, recorded.Name), cmp.Or(c.Token, recorded.Token)
	if c.Listen = cmp.Or(c.Listen, recorded.Listen); c.Advertise == "" && recorded.Advertise != recorded.Listen {
		c.Advertise = recorded.Advertise
	}
	if len(c.Founders)+len(c.Join) == 0 {
		c.Founders, c.Join = recorded.Founders, recorded.Join
	}
	return c
}

// first checks and records what a first start says.
func first(disk disk.Disk, random io.Reader, want *messages.Identity) (*messages.Identity, error) {
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

// again is the identity at a later start. A node may have moved: where the others look
// for it the members say, and not this record.
func again(disk disk.Disk, recorded, want *messages.Identity) (*messages.Identity, error) {
	if _, err := disk.Initialised(); messages.CodeOf(err) == messages.Code_REMOVED {
		return nil, err
	}
	if err := contradicts(recorded, want); err != nil {
		return nil, err
	}
	if len(want.Join) > 0 && len(recorded.Join) > 0 {
		recorded.Join = want.Join
	}
	listen, advertise := cmp.Or(want.Listen, recorded.Listen), cmp.Or(want.Advertise, recorded.Advertise)
	if want.Advertise == "" && recorded.Advertise == recorded.Listen {
		advertise = listen
	}
	if listen == recorded.Listen && advertise == recorded.Advertise {
		return recorded, nil
	}
	if err := grpc.CheckAddress(listen); err != nil {
		return nil, atFlag("--listen", err)
	}
	if err := grpc.CheckReachable(advertise); err != nil {
		return nil, atFlag("--advertise", err)
	}
	recorded.Listen, recorded.Advertise = listen, advertise
	return recorded, disk.Move(listen, advertise)
}

// contradicts returns an error if a field of want is set and differs from the record.
// Addresses are part of the record while the founders look for each other.
func contradicts(recorded, want *messages.Identity) error {
	founding := len(recorded.Founders) > 0 && len(recorded.ClusterId) == 0
	refuse := func(flag, was, is string) error {
		return messages.Errorf(messages.Code_INVALID, "%s says %q, this data directory was made with %q", flag, is, was).
			WithHint("leave %s out, or start with another --data directory", flag)
	}
	switch {
	case want.Name != "" && want.Name != recorded.Name:
		return refuse("--name", recorded.Name, want.Name)
	case len(want.Join) > 0 && len(recorded.Founders) > 0:
		return messages.Errorf(messages.Code_INVALID, "--join, and this data directory is that of a founder").
			WithHint("leave --join out, or start with another --data directory")
	case founding && want.Listen != "" && want.Listen != recorded.Listen:
		return refuse("--listen", recorded.Listen, want.Listen)
	case founding && want.Advertise != "" && want.Advertise != recorded.Advertise:
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
			WithHint("a first start needs --name, --listen, --data, and --initial-cluster name=host:port,... to found a cluster or --join host:port,... to be added to one")
	}
	identity := proto.Clone(want).(*messages.Identity)
	identity.Format = disk.IdentityFormat
	if identity.Advertise == "" {
		identity.Advertise = identity.Listen
	}
	identity.Founders = numbered(identity.Founders)
	switch {
	case identity.Name == "" || identity.Listen == "" || len(identity.Founders)+len(identity.Join) == 0:
		return nil, invalid("the data directory is empty, and the flags do not say what to start")
	case len(identity.Founders) > 0 && len(identity.Join) > 0:
		return nil, invalid("--initial-cluster founds a cluster, --join waits to be added to one: both are given")
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
	if len(identity.Join) > 0 {
		return identity, checkJoin(identity.Join)
	}
	return identity, checkFounders(identity)
}

func checkJoin(endpoints []string) *messages.Error {
	if len(endpoints) > joinEndpointsMax {
		return messages.Errorf(messages.Code_INVALID, "--join names %d endpoints, %d are allowed", len(endpoints), joinEndpointsMax)
	}
	for _, e := range endpoints {
		if err := grpc.CheckReachable(e); err != nil {
			return atFlag("--join", err)
		}
	}
	return nil
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
