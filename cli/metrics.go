package cli

import (
	"errors"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"

	"keyval/actors/transport/grpc"
	"keyval/messages"
)

// Bounds of what those who read metrics may take from a node.
const (
	metricsConnsMax   = 16
	metricsRequestMax = 5 * time.Second
	metricsAnswerMax  = 10 * time.Second
	metricsIdleMax    = time.Minute
)

// metricsPage serves what a node counts at /metrics, in the text format of Prometheus.
type metricsPage struct {
	registry *prometheus.Registry
	listener net.Listener
	server   http.Server
}

// openMetrics listens at --metrics-listen, before the node starts. It is nil if that
// was not asked for.
func (c *Call) openMetrics() (*metricsPage, error) {
	address := c.flags.String("metrics-listen")
	if address == "" {
		return nil, nil
	}
	if host, port, err := net.SplitHostPort(address); err == nil && host == "" {
		address = net.JoinHostPort("127.0.0.1", port)
	}
	if err := grpc.CheckAddress(address); err != nil {
		return nil, c.usage(err.Hint, "--metrics-listen: %s", err.Message)
	}
	listener, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, messages.Errorf(messages.Code_CONFLICT, "--metrics-listen: address %s is in use", address).
			WithHint("choose another port; each node of a machine needs its own")
	case err != nil:
		return nil, messages.Errorf(messages.Code_INVALID, "--metrics-listen: cannot listen at %s: %v", address, err).
			WithHint("give an address of this machine as HOST:PORT")
	}
	if !grpc.Loopback(address) {
		c.note("warning: metrics at %s are open to the network", address)
	}
	p := &metricsPage{registry: prometheus.NewRegistry(), listener: netutil.LimitListener(listener, metricsConnsMax)}
	p.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	routes := http.NewServeMux()
	routes.Handle("GET /metrics", promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{}))
	p.server = http.Server{
		Handler: routes, ReadTimeout: metricsRequestMax, WriteTimeout: metricsAnswerMax, IdleTimeout: metricsIdleMax,
	}
	go p.server.Serve(p.listener) // until close
	return p, nil
}

func (p *metricsPage) close() { p.server.Close() }
