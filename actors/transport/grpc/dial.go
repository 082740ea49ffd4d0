package grpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"keyval/actors/transport"
	"keyval/actors/transport/keys"
	"keyval/messages"
)

// dialled is a stream that this side opened and the far side has welcomed.
type dialled struct {
	grpc.ClientStream
	client  *grpc.ClientConn
	socket  net.Conn // below TLS
	cancel  context.CancelFunc
	conn    transport.Conn
	chain   []*x509.Certificate // of the far side; none without keys
	welcome *messages.Welcome
	refused bool // in place of a welcome
}

func (d *dialled) close() {
	d.cancel()
	_ = d.client.Close()
}

// failure is why an endpoint was not reached.
type failure struct {
	*messages.Error
	near bool // its machine answered at once that nothing listens there
	told bool // the far side itself refused
}

// dial connects to an endpoint and says hello. ctx ends the stream, not only the
// dialling. to is the RaftID it means to reach, 0: whoever answers.
func (g *Network) dial(ctx context.Context, endpoint string, local transport.Local, known transport.Known, to messages.RaftID, lane messages.Lane) (*dialled, *failure) {
	until, done := context.WithTimeout(ctx, g.options.DialTimeout)
	defer done()
	socket, err := (&net.Dialer{}).DialContext(until, "tcp", endpoint)
	if err != nil {
		return nil, unreachable(ctx, endpoint, err)
	}
	raw, chain, refused := g.secure(until, endpoint, socket)
	if refused != nil {
		return nil, &failure{Error: refused}
	}
	client, err := grpc.NewClient("passthrough:///"+endpoint, g.dialOptions(raw)...)
	if err != nil {
		_ = raw.Close()
		return nil, &failure{Error: messages.Errorf(messages.Code_INVALID, "%q is no endpoint: %v", endpoint, err).WithHint("give HOST:PORT")}
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(until, cancel)
	d := &dialled{client: client, socket: socket, cancel: cancel, chain: chain}
	local.Principal = g.options.Keys.Principal()
	local.Token = g.token()
	failed := d.greet(ctx, endpoint, local, known, to, lane)
	if !stop() && failed == nil {
		failed = silent(endpoint)
	}
	if failed != nil {
		if until.Err() == context.DeadlineExceeded && failed.Code == messages.Code_UNREACHABLE {
			failed = silent(endpoint)
		}
		d.close()
		_ = raw.Close()
		return nil, &failure{Error: failed, told: d.refused}
	}
	return d, nil
}

// token is what this side shows in place of a certificate; empty: it has one, or nothing.
func (g *Network) token() string {
	switch {
	case g.options.Keys.Principal().Kind != transport.Nobody:
		return ""
	case g.options.Token != nil:
		return g.options.Token()
	}
	return g.options.Keys.Token()
}

// secure makes a connection one under TLS, if there are keys, and returns the far side's
// certificate and those that lead to its authority. One that fails is closed.
func (g *Network) secure(until context.Context, endpoint string, raw net.Conn) (net.Conn, []*x509.Certificate, *messages.Error) {
	if g.options.Keys == nil {
		return raw, nil, nil
	}
	host, _, _ := net.SplitHostPort(endpoint)
	conn := tls.Client(raw, g.options.Keys.Client(host))
	err := conn.HandshakeContext(until)
	secured := net.Conn(conn)
	if err == nil && g.options.Keys.Principal().Kind == transport.Nobody {
		secured, err = welcomed(until, conn)
	}
	if err == nil {
		return secured, conn.ConnectionState().PeerCertificates, nil
	}
	_ = raw.Close()
	var plain tls.RecordHeaderError
	switch {
	case until.Err() != nil:
		return nil, nil, silent(endpoint)
	case errors.As(err, &plain), errors.Is(err, io.EOF):
		return nil, nil, messages.Errorf(messages.Code_UNREACHABLE, "%s does not speak TLS", endpoint).
			WithHint("a node that was started without keys is reached without: leave --certs-dir out; or start it with keys")
	case keys.IsPin(err):
		return nil, nil, messages.Errorf(messages.Code_UNSAFE, "%s is no node of the cluster that the token is for, or somebody is in between: %s", endpoint, err).
			WithHint("nothing was told to it; see what runs at that address, and that the token is of this cluster, made since its authority was replaced last")
	case strings.Contains(err.Error(), "remote error: "):
		return nil, nil, unwanted(endpoint, err.Error(), g.token())
	}
	return nil, nil, messages.Errorf(messages.Code_UNREACHABLE, "the certificate of %s is not good: %s", endpoint, transport.Legible(cause(err).Error())).
		WithHint("see what is loaded and when it expires: kvctl cert check; the CA must be that of the cluster")
}

// welcomed waits for the first byte of the far side, which comes before this one says anything: one
// that takes nobody without a certificate says so in its place. Once this side has written, that
// could be lost.
func welcomed(until context.Context, conn net.Conn) (net.Conn, error) {
	deadline, _ := until.Deadline()
	first := make([]byte, 1)
	if err := conn.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(conn, first); err != nil {
		return nil, err
	}
	return &begun{Conn: conn, first: first}, conn.SetReadDeadline(time.Time{})
}

// begun is a connection of which the first bytes were read already.
type begun struct {
	net.Conn
	first []byte
}

// Read implements net.Conn.
func (b *begun) Read(p []byte) (int, error) {
	if len(b.first) > 0 {
		n := copy(p, b.first)
		b.first = b.first[n:]
		return n, nil
	}
	return b.Conn.Read(p)
}

// unwanted is the error of an endpoint that took no certificate, or not this one, as TLS
// says it: with version 1.3 that comes after the dialling side has shaken hands. token is what it
// would have shown.
func unwanted(endpoint, said, token string) *messages.Error {
	_, alert, _ := strings.Cut(said, "remote error: tls: ")
	alert = strings.Trim(alert, `"`)
	if strings.HasPrefix(alert, "certificate required") {
		why := messages.Errorf(messages.Code_NOT_ALLOWED, "%s takes nobody without a certificate now", endpoint).
			WithHint("give one: --certs-dir DIR, or --cert and --key; one can log in once auth is enabled and a user has a password: kvctl auth enable, kvctl user passwd USER")
		if token != "" {
			why.Code = messages.Code_STARTING // a node that starts does not know yet that it takes tokens
		}
		return why
	}
	return messages.Errorf(messages.Code_NOT_ALLOWED, "%s refused the certificate of this side: %s", endpoint, transport.Legible(alert)).
		WithHint("it must be signed by the cluster's CA, and not have expired: kvctl cert check")
}

// greet opens the stream and exchanges hello and welcome.
func (d *dialled) greet(ctx context.Context, endpoint string, local transport.Local, known transport.Known, to messages.RaftID, lane messages.Lane) *messages.Error {
	var err error
	d.ClientStream, err = d.client.NewStream(ctx, &messages.Link_ServiceDesc.Streams[0], messages.Link_Connect_FullMethodName)
	if err != nil {
		return stranger(endpoint, local.Token, err)
	}
	hello := &messages.Frame{Kind: &messages.Frame_Hello{Hello: transport.HelloTo(local, to, lane)}}
	if err = d.SendMsg(&outgoing{control: hello}); err != nil && err != io.EOF {
		return stranger(endpoint, local.Token, err)
	}
	in := &incoming{}
	defer in.free()
	if err = d.RecvMsg(in); err != nil {
		return stranger(endpoint, local.Token, err)
	}
	if r := in.Control.GetRefusal(); r != nil {
		d.refused = true
		return transport.Refused(endpoint, r)
	}
	d.welcome = in.Control.GetWelcome()
	from := keys.PrincipalOf(d.chain)
	if why := transport.Welcomed(local, known, from, to, d.welcome); why != nil {
		return why.At(endpoint, "")
	}
	d.conn = transport.Reached(local, from, lane, d.welcome)
	return nil
}

// dialOptions hand one connection that stands already to gRPC. It makes no other:
// when to connect again is the link's decision.
func (g *Network) dialOptions(raw net.Conn) []grpc.DialOption {
	var once sync.Once
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), // secure has secured it,
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			conn, err := net.Conn(nil), errors.New("the connection broke")
			once.Do(func() { conn, err = raw, nil })
			return conn, err
		}),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{}), grpc.MaxCallRecvMsgSize(messageSizeMax)),
		grpc.WithInitialWindowSize(windowSize), grpc.WithInitialConnWindowSize(windowSize),
		grpc.WithReadBufferSize(bufferSize), grpc.WithWriteBufferSize(bufferSize),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(), grpc.WithDisableHealthCheck(),
		grpc.WithIdleTimeout(0), grpc.WithMaxHeaderListSize(8 << 10),
	}
}

func unreachable(ctx context.Context, endpoint string, err error) *failure {
	return &failure{Error: explain(ctx, endpoint, err), near: errors.Is(err, syscall.ECONNREFUSED)}
}

func explain(ctx context.Context, endpoint string, err error) *messages.Error {
	var lookup *net.DNSError
	var wrong *net.AddrError
	var timeout net.Error
	switch {
	case ctx.Err() != nil:
		return messages.Errorf(messages.Code_UNREACHABLE, "dialling %s was given up", endpoint)
	case errors.Is(err, syscall.ECONNREFUSED):
		return messages.Errorf(messages.Code_UNREACHABLE, "nothing listens at %s", endpoint).
			WithHint("start the node there with kvctl serve, or name other endpoints")
	case errors.As(err, &wrong):
		return messages.Errorf(messages.Code_INVALID, "%q is no endpoint: %s", endpoint, wrong.Err).WithHint("give HOST:PORT")
	case errors.As(err, &lookup) && lookup.IsNotFound:
		return messages.Errorf(messages.Code_UNREACHABLE, "the host of %s has no address", endpoint).WithHint("check the spelling of the endpoint")
	case errors.As(err, &timeout) && timeout.Timeout():
		return silent(endpoint)
	}
	return messages.Errorf(messages.Code_UNREACHABLE, "cannot reach %s: %v", endpoint, cause(err)).WithHint("check the endpoint and the network")
}

func silent(endpoint string) *messages.Error {
	return messages.Errorf(messages.Code_UNREACHABLE, "%s does not answer", endpoint).
		WithHint("the machine may be down, the node frozen, or a firewall in between")
}

// stranger is the error of an endpoint that listens but does not complete a hello.
func stranger(endpoint, token string, err error) *messages.Error {
	if said := status.Convert(err).Message(); strings.Contains(said, "remote error: tls: ") {
		return unwanted(endpoint, said, token)
	}
	return messages.Errorf(messages.Code_UNREACHABLE, "%s does not answer as a KeyVal node: %s", endpoint, transport.Legible(status.Convert(err).Message())).
		WithHint("check that this is the port of a KeyVal node; one that was started with keys is reached with keys: --certs-dir DIR")
}

// broken is the error of a stream that stood and ended.
func broken(endpoint string, err error) *messages.Error {
	reason := "it was closed"
	if err != nil && err != io.EOF && status.Code(err) != codes.Canceled {
		reason = status.Convert(err).Message()
	}
	return messages.Errorf(messages.Code_UNREACHABLE, "the connection to %s broke: %s", endpoint, reason).
		WithHint("the node may have stopped; what was under way may or may not have happened")
}

// cause is the innermost reason of a network error, without addresses that the
// sentence around it names already.
func cause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
