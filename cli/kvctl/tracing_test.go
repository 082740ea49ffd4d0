//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"keyval/actors/client"
	"keyval/actors/transport"
	"keyval/actors/transport/keys"
	"keyval/messages"
)

// collector takes spans as an OTLP collector does.
type collector struct {
	collectorpb.UnimplementedTraceServiceServer
	address string
	mutex   sync.Mutex
	spans   map[string][]collected // by trace
}

type collected struct {
	*tracepb.Span
	instance string
}

func startCollector(t *testing.T, options ...grpc.ServerOption) *collector {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{address: listener.Addr().String(), spans: map[string][]collected{}}
	server := grpc.NewServer(options...)
	collectorpb.RegisterTraceServiceServer(server, c)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return c
}

func (c *collector) Export(_ context.Context, r *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for _, of := range r.ResourceSpans {
		instance := ""
		for _, a := range of.Resource.Attributes {
			if a.Key == "service.instance.id" {
				instance = a.Value.GetStringValue()
			}
		}
		for _, scope := range of.ScopeSpans {
			for _, s := range scope.Spans {
				id := hex.EncodeToString(s.TraceId)
				c.spans[id] = append(c.spans[id], collected{s, instance})
			}
		}
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

// tree writes a trace down, a span a line below its parent: name, node, and what is not OK.
func (c *collector) tree(trace string) string { return c.text(trace, false) }

// text is tree, with times for docs/TRACING.md: when a span began, and how long it took.
func (c *collector) text(trace string, times bool) string {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	all := slices.Clone(c.spans[trace])
	slices.SortStableFunc(all, func(a, b collected) int { return int(a.StartTimeUnixNano) - int(b.StartTimeUnixNano) })
	known := map[string]bool{}
	for _, s := range all {
		known[string(s.SpanId)] = true
	}
	var b strings.Builder
	var write func(parent, indent string)
	write = func(parent, indent string) {
		for _, s := range all {
			below := string(s.ParentSpanId)
			if !known[below] {
				below = ""
			}
			if below != parent {
				continue
			}
			line := fmt.Sprintf("%s%s [%s]%s", indent, s.Name, s.instance, codeIn(s))
			if times {
				since := func(from, to uint64) time.Duration { return time.Duration(to - from).Round(10 * time.Microsecond) }
				line = fmt.Sprintf("%-32s %10v  %10v", line, since(all[0].StartTimeUnixNano, s.StartTimeUnixNano), since(s.StartTimeUnixNano, s.EndTimeUnixNano))
			}
			fmt.Fprintln(&b, line)
			write(string(s.SpanId), indent+"  ")
		}
	}
	write("", "")
	return b.String()
}

func codeIn(s collected) string {
	for _, a := range s.Attributes {
		if a.Key == "error.type" {
			return " " + a.Value.GetStringValue()
		}
	}
	return ""
}

// await waits until the tree of a trace is as it should be.
func (c *collector) await(t *testing.T, trace string, good func(tree string) bool) string {
	t.Helper()
	tree := ""
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if tree = c.tree(trace); good(tree) {
			return tree
		}
	}
	t.Errorf("the spans of trace %s after 20 s:\n%s", trace, tree)
	return tree
}

// tracedCluster is three nodes, and a client, that send their spans to a collector.
func tracedCluster(t *testing.T, tuning ...string) (*processes, *collector, *client.Client, *sdk.TracerProvider) {
	t.Helper()
	spans := startCollector(t)
	p := newCluster(t, freeAddresses(t, 3))
	p.endpoints = p.listens
	p.tuning = append(slices.Concat(p.tuning, tuning), "--tracing-endpoint", "http://"+spans.address)
	p.found()
	exporter, err := otlptracegrpc.New(t.Context(), otlptracegrpc.WithEndpoint(spans.address), otlptracegrpc.WithInsecure())
	if err != nil {
		t.Fatal(err)
	}
	provider := sdk.NewTracerProvider(sdk.WithSyncer(exporter), sdk.WithResource(resource.NewSchemaless(attribute.String("service.instance.id", "client"))))
	t.Cleanup(func() { provider.Shutdown(context.Background()) })
	c, err := client.Connect(t.Context(), client.Options{Endpoints: p.endpoints, Timeout: 20 * time.Second, TracerProvider: provider})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return p, spans, c, provider
}

// TestTracedRequests: the spans of a put and of a get on real nodes stand below that of their
// caller, each on the node where it was done; and those of a put that outlives its leader.
func TestTracedRequests(t *testing.T) {
	p, spans, c, provider := tracedCluster(t, "--tracing-ratio", "0")
	p.leader()
	call := func(do func(ctx context.Context) error) (trace string) {
		ctx, span := provider.Tracer("test").Start(t.Context(), "caller")
		defer span.End()
		if err := do(ctx); err != nil {
			t.Fatal(err)
		}
		return span.SpanContext().TraceID().String()
	}
	put := func(ctx context.Context) error {
		_, err := c.Put(ctx, []byte("secret key"), []byte("secret value"))
		return err
	}
	// A client moves to the leader with its writes, and the lead may move: so it is tried again.
	stands := func(do func(ctx context.Context) error, want string) (trace string) {
		tree := ""
		for range 20 {
			for range 20 {
				call(put)
			}
			leader := name(p.leader())
			trace = call(do)
			for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
				if tree = spans.tree(trace); tree == strings.ReplaceAll(want, "L", leader) {
					return trace
				}
			}
		}
		t.Errorf("the spans stand as\n%snot as\n%s", tree, want)
		return trace
	}
	trace := stands(put, `caller [client]
  put [client]
    session [L]
      propose [L]
      fsync [L]
      quorum [L]
      apply [L]
      answer [L]
`)
	t.Logf("a put:\n%s", spans.text(trace, true))
	stands(func(ctx context.Context) error {
		_, err := c.Get(ctx, []byte("secret key"))
		return err
	}, "caller [client]\n  get [client]\n    session [L]\n      read_index [L]\n      read [L]\n      answer [L]\n")

	spans.mutex.Lock()
	for _, all := range spans.spans {
		for _, s := range all {
			if strings.Contains(s.String(), "secret") {
				t.Errorf("a span says what a client has stored: %s", s)
			}
		}
	}
	spans.mutex.Unlock()

	// The leader stands still, and is killed once the put was sent: another one carries it out.
	victim := p.leader()
	p.signal(victim, syscall.SIGSTOP)
	go func() {
		time.Sleep(300 * time.Millisecond)
		p.kill(victim)
	}()
	trace = call(put)
	next := fmt.Sprintf("n%d", p.leader()+1)
	spans.await(t, trace, func(tree string) bool {
		stages := strings.ReplaceAll("      propose [L]\n      fsync [L]\n      quorum [L]\n      apply [L]\n", "L", next)
		return strings.HasPrefix(tree, "caller [client]\n  put [client]\n    session [") && strings.Contains(tree, stages)
	})
	t.Logf("a put whose leader stood still and was killed:\n%s", spans.text(trace, true))
}

// TestTracedReplace: the spans of all phases of a replace are one trace, whose number is that of
// the operation, though nobody has asked for a trace.
func TestTracedReplace(t *testing.T) {
	t.Parallel()
	spans := startCollector(t)
	p := newCluster(t, freeAddresses(t, 4))
	p.endpoints, p.tuning = p.listens, append(slices.Clone(p.tuning), "--tracing-endpoint", "http://"+spans.address, "--tracing-ratio", "0")
	var initial []string
	for i, e := range p.listens[:3] {
		initial = append(initial, name(i)+"="+e)
	}
	p.initial = strings.Join(initial, ",")
	for i := range 3 {
		p.start(i, p.first(i)...)
	}
	leader := p.leader()
	p.start(3, p.joins(3, p.listens[leader])...)
	id := []byte("the operation 16")
	p.operate(&messages.ClusterOperation{Id: id, Kind: messages.OperationKind_REPLACE, OldNode: name((leader + 1) % 3), NewNode: "n4", NewAddress: p.listens[3]})
	p.ends((leader + 1) % 3)
	want := strings.ReplaceAll("replace [L]\n  add_learner [L]\n  catch_up [L]\n  promotion [L]\n  remove_old [L]\n", "L", name(leader))
	spans.await(t, hex.EncodeToString(id), func(tree string) bool { return tree == want })
	t.Logf("a replace:\n%s", spans.text(hex.EncodeToString(id), true))
}

// TestTracingUnderTLS: a node sends what it traces by itself to a collector that proves who it
// is, and nothing to one that does not. To one that wants to know who sends it proves that.
func TestTracingUnderTLS(t *testing.T) {
	own := httptest.NewTLSServer(nil) // for its certificate
	defer own.Close()
	authority := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	users := keys.Authority{Dir: filepath.Join(t.TempDir(), "certs")}
	if _, err := users.Create(); err != nil {
		t.Fatal(err)
	}
	dir, _, err := users.Issue(transport.Principal{Kind: transport.UserKey, Name: "n1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	sender, known := keys.FilesIn(dir, transport.UserKey), x509.NewCertPool()
	trusted, err := os.ReadFile(sender.CA)
	if err != nil || !known.AppendCertsFromPEM(trusted) {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name  string
		asks  bool // the collector wants a certificate
		flags []string
		env   map[string]string
		comes bool
	}{
		{"trusted", false, []string{"--tracing-cacert", authority}, nil, true},
		{"not trusted", false, nil, nil, false},
		{"trusted, who sends is not known", true, []string{"--tracing-cacert", authority}, nil, false},
		{"both prove who they are", true, []string{"--tracing-cacert", authority, "--tracing-cert", sender.Cert, "--tracing-key", sender.Key}, nil, true},
		{"by OpenTelemetry's variables", true, nil, map[string]string{"OTEL_EXPORTER_OTLP_CERTIFICATE": authority,
			"OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE": sender.Cert, "OTEL_EXPORTER_OTLP_CLIENT_KEY": sender.Key}, true},
	} {
		for name, value := range row.env { // they come last
			t.Setenv(name, value)
		}
		config := &tls.Config{Certificates: own.TLS.Certificates[:1]}
		if row.asks {
			config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, known
		}
		spans := startCollector(t, grpc.Creds(credentials.NewTLS(config)))
		p := newCluster(t, freeAddresses(t, 1))
		p.endpoints = p.listens
		p.tuning = append(slices.Concat(p.tuning, row.flags), "--tracing-endpoint", "https://"+spans.address, "--tracing-ratio", "1")
		p.found()
		c := p.connect(p.endpoints...)
		if _, err := c.Put(t.Context(), []byte("k"), []byte("v")); err != nil {
			t.Fatal(err)
		}
		come := func() bool {
			spans.mutex.Lock()
			defer spans.mutex.Unlock()
			return len(spans.spans) > 0
		}
		patience := 15 * time.Second
		if !row.comes {
			patience = 3 * time.Second // what comes takes one
		}
		for deadline := time.Now().Add(patience); time.Now().Before(deadline) && !come(); time.Sleep(50 * time.Millisecond) {
		}
		if come() != row.comes {
			t.Errorf("%s: spans came: %v", row.name, come())
		}
		if _, err := c.Put(t.Context(), []byte("k"), []byte("w")); err != nil {
			t.Errorf("%s: a put waits for the collector: %v", row.name, err)
		}
	}
}
