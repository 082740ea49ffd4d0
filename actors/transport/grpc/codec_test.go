package grpc

import (
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"keyval/actors/transport"
	"keyval/messages"
)

func mustSeal(t testing.TB, target, sender string, m proto.Message) []byte {
	t.Helper()
	b, err := transport.Seal(messages.KindOf(m).Number, target, sender, m, proto.Size(m))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// parcel is what the general decoder makes of the same bytes.
func parcel(envelopes []*messages.Envelope) *messages.Frame {
	return &messages.Frame{Kind: &messages.Frame_Parcel{Parcel: &messages.Parcel{Envelopes: envelopes}}}
}

func mustMarshal(t testing.TB, out *outgoing) []byte {
	t.Helper()
	b, err := codec{}.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Free()
	return b.Materialize()
}

func TestControlFramesPass(t *testing.T) {
	for _, f := range []*messages.Frame{
		{Kind: &messages.Frame_Hello{Hello: transport.HelloTo(nodeLocal(1), 2, messages.Lane_BULK)}},
		{Kind: &messages.Frame_Refusal{Refusal: &messages.Refusal{Code: messages.Code_BUSY, Message: "m"}}},
		{},
	} {
		in := &incoming{}
		data := mem.BufferSlice{mem.SliceBuffer(mustMarshal(t, &outgoing{control: f}))}
		if err := (codec{}).Unmarshal(data, in); err != nil {
			t.Fatal(err)
		}
		same(t, in.Control, f)
		in.free()
	}
}

func TestIncomingIsReused(t *testing.T) {
	in := &incoming{}
	for i := range uint64(3) {
		m := &messages.StatusRequest{Request: i}
		var sealed []item
		for range i + 1 {
			sealed = append(sealed, item{sealed: mustSeal(t, "a", "b", m)})
		}
		if err := (codec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer(mustMarshal(t, &outgoing{sealed: sealed}))}, in); err != nil {
			t.Fatal(err)
		}
		if len(in.Envelopes) != int(i)+1 {
			t.Fatalf("%d envelopes, want %d", len(in.Envelopes), i+1)
		}
		general := &messages.Frame{}
		if err := proto.Unmarshal(mustMarshal(t, &outgoing{sealed: sealed}), general); err != nil || len(general.GetParcel().GetEnvelopes()) != len(sealed) {
			t.Fatalf("to protobuf it is %v: %v", general, err)
		}
		for _, e := range in.Envelopes {
			got, err := messages.Open(e)
			if err != nil {
				t.Fatal(err)
			}
			same(t, got, m)
		}
	}
	in.free()
	if len(in.Envelopes) != 0 || in.buffer != nil {
		t.Error("it holds on to what it was given")
	}
}
