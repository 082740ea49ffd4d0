package grpc

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// roundTrip is how long the system takes a round trip over a connection to last, smoothed. known:
// the connection is one of TCP that stands.
func roundTrip(conn net.Conn) (trip time.Duration, known bool) {
	of, ok := conn.(syscall.Conn)
	if !ok {
		return 0, false
	}
	raw, err := of.SyscallConn()
	if err != nil {
		return 0, false
	}
	err = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			trip, known = time.Duration(info.Rtt)*time.Microsecond, true
		}
	})
	return trip, known && err == nil
}
