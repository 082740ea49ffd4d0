package inside

import (
	"crypto/tls"
	"net"
	"slices"
	"sync"
)

// visitorsMax bounds the connections of those who look, in number.
const visitorsMax = 32

// door is a listener that bounds the connections of those who look. One more than there may be
// has the place of whoever waits longest, of the host that waits with most of them: what never
// gets its handshake or its request done shuts nobody out. Who is being answered keeps his.
type door struct {
	net.Listener

	mu       sync.Mutex
	visitors []*visitor // that are open; in the order in which they came
}

// visitor is a connection. Its door's lock guards its fields.
type visitor struct {
	net.Conn
	door     *door
	host     string
	answered int // of its requests, those that are being answered
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	for {
		conn, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
		v := &visitor{Conn: conn, door: d, host: host}
		leaves := d.enter(v)
		if leaves != nil {
			_ = leaves.Close()
		}
		if leaves != v {
			return v, nil
		}
	}
}

// enter counts a visitor in, and says who has to leave for it; it may be itself.
func (d *door) enter(v *visitor) (leaves *visitor) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.visitors) >= visitorsMax {
		if leaves = d.crowding(); leaves == nil {
			return v
		}
		d.leave(leaves)
	}
	d.visitors = append(d.visitors, v)
	return leaves
}

// crowding is who has waited longest of the host that waits with most; nil: all are being
// answered. d.mu is held.
func (d *door) crowding() (crowds *visitor) {
	of, most := map[string]int{}, 0
	for _, v := range d.visitors {
		if v.answered == 0 {
			of[v.host]++
			most = max(most, of[v.host])
		}
	}
	for _, v := range d.visitors {
		if v.answered == 0 && of[v.host] == most {
			return v
		}
	}
	return nil
}

// leave takes a visitor from the list. d.mu is held.
func (d *door) leave(v *visitor) {
	d.visitors = slices.DeleteFunc(d.visitors, func(other *visitor) bool { return other == v })
}

// Close implements net.Conn.
func (v *visitor) Close() error {
	v.door.mu.Lock()
	v.door.leave(v)
	v.door.mu.Unlock()
	return v.Conn.Close()
}

// answers says that one request more is being answered, or one less. A visitor whose request was
// answered waits anew, behind all others.
func (v *visitor) answers(change int) {
	d := v.door
	d.mu.Lock()
	defer d.mu.Unlock()
	v.answered += change
	if v.answered == 0 && slices.Contains(d.visitors, v) {
		d.leave(v)
		d.visitors = append(d.visitors, v)
	}
}

// visitorOf is the visitor below a connection of the server.
func visitorOf(c net.Conn) *visitor {
	if secured, is := c.(*tls.Conn); is {
		c = secured.NetConn()
	}
	return c.(*visitor)
}
