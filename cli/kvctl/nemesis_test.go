//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"time"
)

// nemesis does harm to a cluster and takes it back, one fault after the other,
// as a seed says.
type nemesis struct {
	*processes
	net    *network
	random *rand.Rand
	kinds  []string // of faults to draw from
	done   map[string]int
	lap    func() time.Duration // the longest write gap since it was asked last
}

// fault is harm, and its end.
type fault struct {
	name       string
	begin, end func()
}

// draw makes a fault of a kind that hits a node, and perhaps another.
func (n *nemesis) draw(kind string, target int) fault {
	other := (target + 1 + n.random.IntN(len(n.listens)-1)) % len(n.listens)
	switch kind {
	case "kill":
		return fault{"kill -9", func() { n.kill(target) }, func() { n.start(target) }}
	case "massacre":
		return fault{"kill -9 of all", func() {
			for i := range n.listens {
				n.kill(i)
			}
		}, func() {
			for _, i := range n.random.Perm(len(n.listens)) {
				n.start(i)
			}
		}}
	case "freeze":
		return fault{"freeze", func() { n.signal(target, syscall.SIGSTOP) }, func() { n.signal(target, syscall.SIGCONT) }}
	case "isolate":
		return n.weather("node away", n.either(held, cut), n.net.between(target)...)
	case "oneway":
		return n.weather("one way away", held, way{target, other})
	case "deaf":
		return n.weather("node hears nobody", held, slices.DeleteFunc(n.net.between(target), func(w way) bool { return w.from == target })...)
	case "mute":
		return n.weather("nobody hears node", held, slices.DeleteFunc(n.net.between(target), func(w way) bool { return w.to == target })...)
	case "split":
		return n.weather("two apart", n.either(held, cut), way{target, other}, way{other, target})
	case "slow":
		return n.weather("slow links", slow, n.net.between(target)...)
	case "clients":
		clients := n.net.clients()
		return n.weather("clients away from node", n.either(held, cut), way{clients, target}, way{target, clients})
	case "both":
		return n.both(target, other)
	}
	panic("no kind of fault: " + kind)
}

// faultKinds are what is drawn from; what stands there twice comes more often.
var faultKinds = []string{"kill", "kill", "massacre", "freeze", "freeze", "isolate", "oneway", "deaf", "mute", "split", "slow", "clients", "both", "both"}

// both does two things at once, to two nodes.
func (n *nemesis) both(target, other int) fault {
	single := []string{"kill", "freeze", "isolate", "slow", "clients"}
	a, b := n.draw(single[n.random.IntN(len(single))], target), n.draw(single[n.random.IntN(len(single))], other)
	return fault{a.name + " and " + b.name, func() { a.begin(); b.begin() }, func() { a.end(); b.end() }}
}

func (n *nemesis) either(a, b condition) condition {
	if n.random.IntN(2) == 0 {
		return a
	}
	return b
}

// weather puts ways into a condition. Afterwards the connections go on, with what
// waited, or are made anew.
func (n *nemesis) weather(name string, c condition, ways ...way) fault {
	anew := n.random.IntN(2) == 0
	return fault{name + map[condition]string{slow: "", held: " (held)", cut: " (cut)"}[c], func() { n.net.set(c, ways...) }, func() {
		if anew {
			n.net.drop(ways...)
		}
		n.net.set(fair, ways...)
	}}
}

// rage does harm until a time is over. Each fault lasts up to hold, and is followed
// by a calm of up to as long.
func (n *nemesis) rage(until time.Time, hold time.Duration) {
	for time.Now().Before(until) {
		target, leader := n.random.IntN(len(n.listens)), n.leader()
		if n.random.IntN(2) == 0 {
			target = leader
		}
		n.lap()
		f := n.draw(n.kinds[n.random.IntN(len(n.kinds))], target)
		n.done[f.name]++
		began := time.Now()
		f.begin()
		time.Sleep(hold/5 + time.Duration(n.random.Int64N(int64(hold-hold/5))))
		f.end()
		lasted := time.Since(began)
		time.Sleep(hold/5 + time.Duration(n.random.Int64N(int64(hold-hold/5))))
		n.t.Logf("n%d (leader n%d): %s for %v: no write for %v", target+1, leader+1, f.name, lasted.Round(time.Millisecond), n.lap().Round(time.Millisecond))
	}
}

// killEvery kills a random node in a fixed rhythm and starts it again a second later.
func (n *nemesis) killEvery(period time.Duration, until time.Time) {
	for time.Now().Add(period).Before(until) {
		target, leader := n.random.IntN(len(n.listens)), n.leader()
		n.lap()
		began := time.Now()
		n.kill(target)
		n.done["kill -9"]++
		time.Sleep(time.Second)
		n.start(target)
		time.Sleep(period - time.Since(began))
		n.t.Logf("n%d (leader n%d): kill -9 for 1s: no write for %v", target+1, leader+1, n.lap().Round(time.Millisecond))
	}
}

// deeds is what was done, by kind.
func (n *nemesis) deeds() string {
	var list []string
	total := 0
	for name, times := range n.done {
		list = append(list, fmt.Sprintf("%d %s", times, name))
		total += times
	}
	slices.Sort(list)
	return fmt.Sprintf("%d (%s)", total, strings.Join(list, ", "))
}
