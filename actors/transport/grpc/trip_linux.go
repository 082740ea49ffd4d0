package grpc

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// roundTrip is the shortest that the system saw over a connection in the last 5 minutes
// (net.ipv4.tcp_min_rtt_wlen). Its smoothed one is of no use: a stream between nodes carries
// messages one way, and the far side may put off its acknowledgements for 40 ms. known: the
// connection is one of TCP that stands.
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
			trip, known = time.Duration(info.Min_rtt)*time.Microsecond, true
		}
	})
	return trip, known && err == nil
}
