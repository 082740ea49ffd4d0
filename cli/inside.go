package cli

import (
	"errors"
	"net"
	"syscall"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors"
	"keyval/actors/transport/grpc"
	"keyval/cli/inside"
	"keyval/messages"
)

func plainFlag() urfave.Flag {
	return &urfave.BoolFlag{Name: "metrics-plain", Usage: "serve the page by http:// to whoever is on this machine, though the node has keys"}
}

// openInside listens at --metrics-listen, before the node starts. It is nil if that was not
// asked for.
func (c *Call) openInside(o actors.ServeOptions) (*inside.Page, error) {
	address, plain, profile := c.flags.String("metrics-listen"), c.flags.Bool("metrics-plain"), c.flags.Bool("profile")
	if address == "" {
		return nil, c.refuseWithout("--metrics-listen", "HOST:PORT", "metrics-plain", "profile")
	}
	if host, port, err := net.SplitHostPort(address); err == nil && host == "" {
		address = net.JoinHostPort("127.0.0.1", port)
	}
	if err := grpc.CheckAddress(address); err != nil {
		return nil, c.usage(err.Hint, "--metrics-listen: %s", err.Message)
	}
	switch open := !grpc.Loopback(address); {
	case open && o.Keys == nil && !o.Insecure:
		return nil, messages.Errorf(messages.Code_INVALID, "--metrics-listen: %s is open to the network, and there are no keys: whoever reaches it could look into the node", address).
			WithHint("%s", actors.KeysHint)
	case open && o.Keys != nil && plain:
		return nil, c.usage("leave one of both out, or listen on 127.0.0.1", "--metrics-plain is for this machine, and --metrics-listen %s is open to the network", address)
	case o.Keys != nil && plain && profile:
		return nil, c.usage("leave --metrics-plain out", "--profile shows what the node has in memory, to operators alone, and with --metrics-plain nobody can prove that he is one")
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
	if o.Keys == nil && !grpc.Loopback(address) {
		c.note("warning: metrics at %s are open to the network", address)
	}
	return inside.Open(listener, inside.Options{Version: version(), Profile: profile, Keys: o.Keys, Plain: plain, Logger: o.Logger}), nil
}
