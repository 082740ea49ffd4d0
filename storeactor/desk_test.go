package storeactor

import (
	"fmt"
	"strings"
	"testing"

	"keyval/messages"
)

func deskRead(client, session string, scans bool) *messages.ReadIndex {
	r := &messages.Read{Kind: &messages.Read_Get{Get: &messages.Get{Key: []byte("k")}}}
	if scans {
		r = &messages.Read{Kind: &messages.Read_Scan{Scan: &messages.Scan{}}}
	}
	return &messages.ReadIndex{Client: client, Session: session, Read: r}
}

// given lists the sessions of the turns that are given out, by reader.
func given(d *desk) string {
	var out []string
	for {
		reader, reads := d.next()
		if len(reads) == 0 {
			return strings.Join(out, " ")
		}
		turn := fmt.Sprint(reader, ":")
		for _, r := range reads {
			turn += r.Session
		}
		out = append(out, turn)
	}
}

// Who asks for one row does not wait for whoever scans, and a reader never has more than
// it is at and the next.
func TestDeskSharesReadersAmongClients(t *testing.T) {
	d := newDesk()
	d.open(2)
	for range 20 {
		d.add(deskRead("flood", "F", true))
		d.add(deskRead("flood too", "G", true))
	}
	d.add(deskRead("one", "x", false))
	if got := given(&d); got != "0:xF 1:G 0:F 1:G" {
		t.Errorf("first %s", got)
	}
	d.done(1)
	d.add(deskRead("one", "y", false))
	d.add(deskRead("another", "z", false))
	if got := given(&d); got != "1:F" {
		t.Errorf("one turn was done, and given was %s", got)
	}
	d.done(1)
	if got := given(&d); !strings.HasPrefix(got, "1:yz") {
		t.Errorf("then %s", got)
	}
	d.drop("flood", "F")
	d.drop("flood too", "G")
	d.done(0)
	d.done(0)
	d.done(0) // lost, and heard of twice
	if got := given(&d); strings.ContainsAny(got, "FG") {
		t.Errorf("reads of sessions that are gone: %s", got)
	}
	if d.queue.Cost() != 0 {
		t.Errorf("left is a cost of %d", d.queue.Cost())
	}
}

func TestDeskIsBounded(t *testing.T) {
	d := newDesk()
	d.open(1)
	n := 0
	for d.add(deskRead("flood", "F", false)) {
		n++
	}
	if n != deskCostMax/2 {
		t.Errorf("one client may have %d gets waiting", n)
	}
	if !d.add(deskRead("another", "x", true)) {
		t.Error("and leaves no room for others")
	}
}
