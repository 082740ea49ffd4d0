package actors

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"keyval/actors/seam"
	"keyval/actors/seam/production"
	"keyval/actors/transport"
	"keyval/actors/transport/grpc"
	"keyval/actors/transport/keys"
	"keyval/messages"
	"keyval/raftactor"
	"keyval/storeactor/disk"
	"keyval/storeactor/files"
	"keyval/storeactor/shipping"
)

// ServeOptions say which node to run. A first start needs all that is recorded but
// Advertise (default: Listen) and Token, and either InitialCluster or Join. Later DataDir
// is enough; the others may be left out, but not contradict the record.
type ServeOptions struct {
	DataDir        string
	Name           string
	Listen         string // host:port
	Advertise      string // host:port that others dial
	InitialCluster []*messages.Founder
	Join           []string // host:port of members of the cluster that the node is to be added to
	Token          string
	Version        string
	Logger         *slog.Logger
	Meter          *prometheus.Registry                   // where the node counts; nil: nobody else looks there
	Traces         func(node string) trace.TracerProvider // of the node of this name; nil: nobody traces
	Events         func() []*messages.Event               // what Logger said lately, the newest last; nil: nobody keeps it
	Announce       func(line string)                      // lines for people; nil: none
	Running        func(Inspector)                        // hears of the node that runs now, once it has joined of the next; nil: nobody does

	Keys     *keys.Ring // of the node that Name names; nil: links carry none
	Insecure bool       // it may listen beyond its machine without keys

	// Not recorded: each start says them anew.
	HistoryRevisions uint64        // 0: no bound
	HistoryTime      time.Duration // 0: no bound
	SnapshotRate     uint64        // bytes a second; 0: the default
	SnapshotsKeep    int           // of the files that operators ask for; 0: all
	RoomBytes        int64         // below so many free bytes there is too little room; 0: the default; below 0: never
}

// SnapshotsMax bounds the snapshot files that a node keeps, in number.
const SnapshotsMax = shipping.FilesMax

// FollowersKeep is what the log of a follower keeps behind its checkpoint when somebody asks
// for space, in entries and bytes, whichever are fewer.
func FollowersKeep() (entries, bytes uint64) { return raftactor.Options{}.Spare() }

// Serve runs a node with real disks, sockets and clocks until ctx ends or the node was
// removed from its cluster, which are no errors, or until it cannot go on.
func Serve(ctx context.Context, o ServeOptions) error {
	places, err := placesOf(o)
	if err != nil {
		return err
	}
	if o.Meter == nil {
		o.Meter = prometheus.NewRegistry()
	}
	vitals := newVitals(o.Meter, o)
	go vitals.sample(ctx)
	disk, err := files.Open(o.DataDir, o.Logger, o.Meter)
	if err != nil {
		return err
	}
	defer disk.Close()
	failed := make(chan error, 1)
	world := production.World(o.Logger, func(reason error) {
		select {
		case failed <- reason:
		default:
		}
		select {} // the actor that failed does nothing more; the process ends
	})
	world.Meter, world.Vitals, world.Events = o.Meter, vitals.now, o.Events
	for {
		again, err := serveOnce(ctx, o, disk, places, world, vitals, failed)
		if err != nil || !again {
			return err
		}
	}
}

// startMB is about what a start may take of a disk before the node looks at its room: the rows that
// are in memory only become a table, and the log a new segment.
const startMB = 64

// roomToStart is why a node does not even start: it would end amid that, again and again.
func roomToStart(d disk.Disk, dir string) error {
	switch room, err := d.Room(); {
	case err != nil:
		return err
	case room.Bytes < startMB<<20:
		return messages.Errorf(messages.Code_INTERNAL, "the disk of %s has %d MB free, and a start takes %d MB", dir, room.Bytes>>20, startMB).
			WithHint("make room there (df) and start again; log and state were not changed")
	}
	return nil
}

// serveOnce runs a node until it ends. again: it has joined, and runs on as what it is now.
func serveOnce(ctx context.Context, o ServeOptions, disk disk.Disk, places transport.Places, world seam.World, vitals *vitals, failed <-chan error) (again bool, err error) {
	if err := o.guard(o.Name, o.Listen); err != nil {
		return false, err
	}
	if err := tryListening(disk, o.Listen, places); err != nil {
		return false, err
	}
	if err := roomToStart(disk, o.DataDir); err != nil {
		return false, err
	}
	identity, err := Prepare(disk, world.Rand, &messages.Identity{
		Name: o.Name, Listen: o.Listen, Advertise: o.Advertise, Founders: o.InitialCluster, Join: o.Join, Token: o.Token,
	})
	if err != nil {
		return false, err
	}
	if err := o.guard(identity.Name, identity.Listen); err != nil {
		return false, err
	}
	open := o.Keys == nil && !grpc.Loopback(identity.Listen)
	world.Keys = func() *messages.Keys { return o.Keys.Told(open) }
	if o.Keys != nil {
		world.Sign = o.Keys.Sign
	}
	if o.Traces != nil {
		world.Traces = o.Traces(identity.Name)
	}
	logger := o.Logger.With("node", identity.Name)
	network := grpc.New(grpc.Options{Logger: logger, Places: places, Keys: o.Keys})
	vitals.network.Store(network)
	if err := network.Bind(identity.Listen); err != nil {
		return false, err
	}
	ended := make(chan *messages.Removed, 1)
	node, err := Start(Config{
		Disk: disk, Network: network, World: world,
		Version: o.Version, ProcessID: int64(os.Getpid()),
		Options: Options{HistoryRevisions: o.HistoryRevisions, HistoryTime: o.HistoryTime, SnapshotRate: o.SnapshotRate, SnapshotsKeep: o.SnapshotsKeep, RoomBytes: o.RoomBytes},
		Ended:   func(removed *messages.Removed) { ended <- removed },
	}, identity)
	if err != nil {
		return false, err
	}
	if o.Running != nil {
		o.Running(node.Inspect())
	}
	announce := func(format string, args ...any) {
		if o.Announce != nil {
			o.Announce(fmt.Sprintf(format, args...))
		}
	}
	announce("%s listens on %s", identity.Name, identity.Listen)
	if messages.RaftIDOf(identity) == 0 {
		announce("%s waits to be added: %s", identity.Name, addCommand(identity.Name, identity.Advertise))
	}
	select {
	case err := <-failed:
		return false, err
	case removed := <-ended:
		if removed == nil {
			announce("%s was added, and gets its data", identity.Name)
			return true, nil
		}
		announce("%s; its directory is of no more use: remove %s; to come back start with --join on an empty directory", removed.Why, o.DataDir)
		return false, nil
	case <-ctx.Done():
	}
	logger.Info("the node stops")
	node.Stop()
	select {
	case err := <-failed:
		return false, err
	case <-node.Done():
		return false, nil
	}
}

// KeysHint is what to do where a node may not listen without keys.
const KeysHint = "give the node keys with --certs-dir DIR, which kvctl cert create-ca and create-node make; or say --insecure where every machine of the network is trusted"

// guard refuses keys that are not the node's, and an address beyond this machine without
// any. What is empty is not known yet.
func (o ServeOptions) guard(name, listen string) error {
	own := transport.Principal{Kind: transport.NodeKey, Name: name}
	switch is := o.Keys.Principal(); {
	case o.Keys != nil && name != "" && is != own:
		return messages.Errorf(messages.Code_INVALID, "the certificate names %s, and this is %s", is, own).
			WithHint("give this node its own: kvctl cert create-node %s HOST", name)
	case o.Keys == nil && !o.Insecure && listen != "" && !grpc.Loopback(listen):
		return messages.Errorf(messages.Code_INVALID, "%s is open to the network, and there are no keys: whoever reaches it could read and delete everything", listen).
			WithHint(KeysHint)
	}
	return nil
}

// tryListening is for the first start: nothing is recorded before the address is known to
// be good, since what is recorded counts.
func tryListening(d disk.Disk, listen string, places transport.Places) error {
	if _, err := d.Identity(); messages.CodeOf(err) != messages.Code_NOT_FOUND || grpc.CheckAddress(listen) != nil {
		return nil
	}
	network := grpc.New(grpc.Options{Places: places})
	if err := network.Bind(listen); err != nil {
		return err
	}
	return network.Unbind()
}

// placesOf are the places for connections that the limit of open files leaves. Go has
// raised the soft limit of the process to the hard one.
func placesOf(o ServeOptions) (transport.Places, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return transport.AllPlaces, nil
	}
	held, err := files.Count(o.DataDir)
	if err != nil {
		return transport.Places{}, err
	}
	descriptors := int(min(limit.Cur, 1<<30))
	places, why := transport.PlacesWithin(descriptors, held)
	if why != nil {
		return places, why
	}
	if places.Fewer() {
		o.Logger.Warn("the limit of open files leaves few connections", "limit", descriptors, "files", held,
			"clients", places.Clients, "all_clients", transport.AllPlaces.Clients, "hint", "raise it: ulimit -n, or LimitNOFILE= of the unit")
	}
	return places, nil
}
