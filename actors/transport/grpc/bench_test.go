package grpc

import (
	"syscall"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"google.golang.org/grpc/encoding"

	"keyval/messages"
)

// cpu is the processor time of this process so far.
func cpu() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// measure runs f b.N times' worth and reports the processor time each took, both
// ends of the link together.
func measure(b *testing.B, f func()) {
	b.Helper()
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu()
	f()
	b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
}

// BenchmarkRoundTrip: one request at a time, client to session and back.
func BenchmarkRoundTrip(b *testing.B) {
	n := serve(b, nodeLocal(1))
	session := func(ctx actor.Context) {
		if w, ok := ctx.Message().(*messages.Write); ok {
			ctx.Respond(&messages.WriteReply{Request: w.Request})
		}
	}
	if _, err := n.system.Root.SpawnNamed(actor.PropsFromFunc(session), aSession); err != nil {
		b.Fatal(err)
	}
	c := join(b, clientLocal(1))
	c.dialer.Dial(n.address())
	receive(b, c.events, "LinkUp")
	done, to, command := make(chan struct{}, 1), c.pid(1, aSession), make([]byte, 256)
	me := c.system.Root.Spawn(actor.PropsFromFunc(func(ctx actor.Context) {
		if _, ok := ctx.Message().(*messages.WriteReply); ok {
			done <- struct{}{}
		}
	}))
	measure(b, func() {
		for i := range b.N {
			c.system.Root.RequestWithCustomSender(to, &messages.Write{Request: uint64(i), Command: command}, me)
			<-done
		}
	})
}

// BenchmarkOneWay: proposals of 256 bytes from node to node, as fast as they go,
// with so many under way.
func BenchmarkOneWay(b *testing.B) {
	const window = 1 << 13
	n, m := serve(b, nodeLocal(1)), serve(b, nodeLocal(2))
	credits, command, linked := make(chan struct{}, window), make([]byte, 256), make(chan struct{}, 1)
	if _, err := m.system.Root.SpawnNamed(actor.PropsFromFunc(func(ctx actor.Context) {
		p, ok := ctx.Message().(*messages.Propose)
		switch {
		case ok && p.Seq > 0:
			<-credits
		case ok && len(linked) == 0:
			linked <- struct{}{}
		}
	}), messages.ActorRaft); err != nil {
		b.Fatal(err)
	}
	introduce(n, m)
	to := n.pid(2, messages.ActorRaft)
	eventually(b, "linked", func() bool {
		n.system.Root.Send(to, &messages.Propose{Origin: 1})
		return len(linked) > 0
	})
	b.SetBytes(256)
	measure(b, func() {
		for i := range b.N {
			credits <- struct{}{}
			n.system.Root.Send(to, &messages.Propose{Origin: 1, Seq: uint64(i + 1), Command: command})
		}
		for range window {
			credits <- struct{}{}
		}
	})
}

// BenchmarkCodec compares a parcel that was sealed when its messages were sent
// with what gRPC's own codec does, both from message to message.
func BenchmarkCodec(b *testing.B) {
	const count = 64
	m := &messages.Write{Request: 1 << 20, Command: make([]byte, 256)}
	b.Run("sealed", func(b *testing.B) {
		in := &incoming{}
		perParcel(b, count, func() {
			var out outgoing
			for range count {
				out.sealed = append(out.sealed, item{sealed: mustSeal(b, aSession, "client", m)})
			}
			wire, err := codec{}.Marshal(&out)
			if err != nil {
				b.Fatal(err)
			}
			if err := (codec{}).Unmarshal(wire, in); err != nil {
				b.Fatal(err)
			}
			open(b, in.Envelopes)
			in.free()
			wire.Free()
		})
	})
	b.Run("general", func(b *testing.B) {
		general := encoding.GetCodecV2("proto")
		perParcel(b, count, func() {
			var envelopes []*messages.Envelope
			for range count {
				e, err := messages.Seal(aSession, "client", m)
				if err != nil {
					b.Fatal(err)
				}
				envelopes = append(envelopes, e)
			}
			wire, err := general.Marshal(parcel(envelopes))
			if err != nil {
				b.Fatal(err)
			}
			in := &messages.Frame{}
			if err := general.Unmarshal(wire, in); err != nil {
				b.Fatal(err)
			}
			open(b, in.GetParcel().Envelopes)
			wire.Free()
		})
	})
}

func perParcel(b *testing.B, count int, f func()) {
	measure(b, func() {
		for range b.N / count {
			f()
		}
	})
}

func open(b *testing.B, envelopes []*messages.Envelope) {
	b.Helper()
	for _, e := range envelopes {
		if _, err := messages.Open(e); err != nil {
			b.Fatal(err)
		}
	}
}
