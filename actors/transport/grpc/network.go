// Package grpc is the production side of seam.Network: connections over gRPC streams,
// dialled, accepted, bounded and ended here. What they carry is judged by package transport.
package grpc

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"keyval/actors/seam"
	"keyval/actors/transport"
	"keyval/actors/transport/keys"
	"keyval/messages"
)

// Bounds of connections. Every stream has a connection of its own, so that no
// lane waits for another in the network either.
const (
	messageSizeMax = 8 << 20  // of one frame that is received, in bytes
	parcelSizeMax  = 1 << 20  // of a parcel that is sent, in bytes, unless one message alone is larger
	windowSize     = 4 << 20  // what one stream may have under way unread, in bytes
	bufferSize     = 64 << 10 // of a connection, for reading and for writing, in bytes

	keepaliveTime    = 10 * time.Second // silence before the far side is probed
	keepaliveTimeout = 3 * time.Second  // no answer to that: the connection is dead
)

// Options tune a Network. The zero Options are good for production.
type Options struct {
	Logger           *slog.Logger  // nil: the actor system's
	HandshakeTimeout time.Duration // from accepting a connection to its admitted hello; 0: 5 s
	DialTimeout      time.Duration // from dialling to the welcome; 0: 2 s

	Keys *keys.Ring // nil: links carry no keys
	// Token is what a client without a certificate shows; it is asked for each time that it
	// dials. nil: what Keys hold.
	Token func() string

	Places transport.Places // of connections that come in; none: transport.AllPlaces
}

// Network is the seam.Network of production: one bidirectional gRPC stream a link.
type Network struct {
	options Options
	bound   net.Listener // by Bind, for the next Serve; nil: there is none
	hub     atomic.Pointer[hub]
}

var _ seam.Network = (*Network)(nil)

// New makes a network.
func New(options Options) *Network {
	if options.HandshakeTimeout == 0 {
		options.HandshakeTimeout = 5 * time.Second
	}
	if options.DialTimeout == 0 {
		options.DialTimeout = 2 * time.Second
	}
	if options.Places == (transport.Places{}) {
		options.Places = transport.AllPlaces
	}
	return &Network{options: options}
}

// Bind takes the listening address of the next Serve. A process that does it before it
// touches its data leaves them alone if another one runs there.
func (g *Network) Bind(address string) (err error) {
	g.bound, err = listen(address)
	return err
}

// Queued is what waits for other systems, in bytes: for peers by the lane, and for clients.
func (g *Network) Queued() map[string]int64 {
	waits := map[string]int64{}
	h := g.hub.Load()
	if h == nil {
		return waits
	}
	waits["clients"] = repliesMax - h.replies.left.Load()
	for kind := range laneLimits {
		waits[strings.ToLower(messages.Lane(kind).String())] = 0
	}
	for _, p := range *h.peers.Load() {
		for _, l := range p.lanes {
			bytes, _ := l.queue.sizes()
			waits[strings.ToLower(l.kind.String())] += int64(bytes)
		}
	}
	return waits
}

// RoundTrips is the shortest round trip to each member of the last 5 minutes, by name, where this
// node has a stream to it: the network alone, whatever the process at its end does. To itself it is
// 0. None is known elsewhere than on Linux.
func (g *Network) RoundTrips() map[string]time.Duration {
	trips := map[string]time.Duration{}
	h := g.hub.Load()
	if h == nil {
		return trips
	}
	if self := h.local.Load(); self != nil {
		trips[self.Name] = 0
	}
	for _, p := range *h.peers.Load() {
		l := p.lanes[messages.Lane_CONTROL]
		l.mu.Lock()
		if l.standing != nil {
			if trip, known := roundTrip(l.standing.socket); known {
				trips[p.member.Name] = trip
			}
		}
		l.mu.Unlock()
	}
	return trips
}

// Unbind gives the address of Bind back.
func (g *Network) Unbind() error {
	bound := g.bound
	g.bound = nil
	return bound.Close()
}

// credentials are those of connections that come in, with a certificate unless open says that
// they may have none.
func (g *Network) credentials(log *Limited, open func() bool) credentials.TransportCredentials {
	if g.options.Keys == nil {
		return insecure.NewCredentials()
	}
	return handshakes{credentials.NewTLS(g.options.Keys.Server(open)), log}
}

// handshakes are credentials that say why a connection was refused. The deadline of a
// handshake is gRPC's, and the gate's for the hello after it; how many there are at a time
// is bounded by the places of strangers.
type handshakes struct {
	credentials.TransportCredentials
	log *Limited
}

// ServerHandshake implements credentials.TransportCredentials.
func (h handshakes) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := h.TransportCredentials.ServerHandshake(raw)
	if err != nil && err != io.EOF {
		h.log.Warn("a connection was refused", "address", raw.RemoteAddr().String(), "reason", "TLS: "+cause(err).Error())
	}
	return conn, info, err
}

func (g *Network) logger(system *actor.ActorSystem) *slog.Logger {
	if g.options.Logger != nil {
		return g.options.Logger
	}
	return system.Logger()
}

func (g *Network) server(log *Limited, open func() bool) *grpc.Server {
	return grpc.NewServer(
		grpc.Creds(g.credentials(log, open)),
		grpc.ForceServerCodecV2(codec{}),
		grpc.MaxRecvMsgSize(messageSizeMax),
		grpc.MaxConcurrentStreams(1),
		grpc.MaxHeaderListSize(8<<10),
		grpc.ConnectionTimeout(g.options.HandshakeTimeout),
		grpc.InitialWindowSize(windowSize), grpc.InitialConnWindowSize(windowSize),
		grpc.ReadBufferSize(bufferSize), grpc.WriteBufferSize(bufferSize),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveTime / 2, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
	)
}

// listen opens a listening address. The error names it and what is wrong with it.
func listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		_, port, _ := net.SplitHostPort(address)
		return nil, messages.Errorf(messages.Code_CONFLICT, "address %s is in use", address).
			WithHint("another process listens there; see which: ss -ltnp 'sport = :%s'", port)
	}
	return nil, messages.Errorf(messages.Code_INVALID, "cannot listen at %s: %v", address, cause(err)).
		WithHint("give an address of this machine as HOST:PORT")
}
