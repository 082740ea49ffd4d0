package cli

import (
	"errors"
	"net"
	"syscall"

	"keyval/actors/transport/grpc"
	"keyval/cli/inside"
	"keyval/messages"
)

// openInside listens at --metrics-listen, before the node starts. It is nil if that was not
// asked for.
func (c *Call) openInside() (*inside.Page, error) {
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
	return inside.Open(listener, inside.Options{Version: version(), Profile: c.flags.Bool("profile")}), nil
}
