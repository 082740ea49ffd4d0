package grpc

import (
	"net"
	"strconv"
	"strings"

	"keyval/messages"
)

// CheckAddress refuses what is no HOST:PORT. The host may be left out of an address to
// listen at: Everywhere is true of it then.
func CheckAddress(address string) *messages.Error {
	host, port, err := net.SplitHostPort(address)
	number, notNumber := strconv.ParseUint(port, 10, 16)
	var refused *messages.Error
	switch {
	case err != nil || strings.ContainsAny(host, " /,"):
		refused = messages.Errorf(messages.Code_INVALID, "%q is no HOST:PORT", address)
	case notNumber != nil || number == 0:
		refused = messages.Errorf(messages.Code_INVALID, "%q has no port from 1 to 65535", address)
	default:
		return nil
	}
	return refused.WithHint("write HOST:PORT, such as 127.0.0.1:7001")
}

// CheckReachable refuses what is no address that others could dial.
func CheckReachable(address string) *messages.Error {
	if err := CheckAddress(address); err != nil {
		return err
	}
	if Everywhere(address) {
		return messages.Errorf(messages.Code_INVALID, "%q is no address that others can reach", address).
			WithHint("name the host, such as 127.0.0.1:7001")
	}
	return nil
}

// Loopback reports whether an address to listen at is reached from its own machine alone.
func Loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// Everywhere reports whether an address names all interfaces of a machine, and so none
// that others could dial.
func Everywhere(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return err == nil && (host == "" || ip != nil && ip.IsUnspecified())
}
