package transport

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"keyval/messages"
)

func mustSeal(t testing.TB, target, sender string, m proto.Message) []byte {
	t.Helper()
	b, err := Seal(messages.KindOf(m).Number, target, sender, m, proto.Size(m))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// frameOf puts sealed messages together.
func frameOf(sealed ...[]byte) []byte {
	all := bytes.Join(sealed, nil)
	return append(AppendParcelHead(nil, len(all)), all...)
}

// parcel is what the general decoder makes of the same bytes.
func parcel(envelopes []*messages.Envelope) *messages.Frame {
	return &messages.Frame{Kind: &messages.Frame_Parcel{Parcel: &messages.Parcel{Envelopes: envelopes}}}
}

// TestSealedParcelIsAFrame: what is put together by hand is byte for byte what
// protobuf makes of it, and comes apart again.
func TestSealedParcelIsAFrame(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		var sealed [][]byte
		var want []*messages.Envelope
		for range rapid.IntRange(1, 5).Draw(r, "envelopes") {
			var m proto.Message = &messages.Write{
				Request: rapid.Uint64().Draw(r, "request"),
				Command: rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(r, "command"),
			}
			if rapid.Bool().Draw(r, "raft") {
				m = &messages.RaftMessage{Message: &raftpb.Message{
					Type: raftpb.MsgApp.Enum(), Term: proto.Uint64(rapid.Uint64().Draw(r, "term")),
					Entries: []*raftpb.Entry{{Data: rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(r, "data")}},
				}}
			}
			target := rapid.StringMatching(`[a-z/-]{1,128}`).Draw(r, "target")
			sender := rapid.StringMatching(`[a-z/-]{0,128}`).Draw(r, "sender")
			e, err := messages.Seal(target, sender, m)
			if err != nil {
				r.Fatal(err)
			}
			want = append(want, e)
			sealed = append(sealed, mustSeal(t, target, sender, m))
		}
		got := frameOf(sealed...)
		straight, err := proto.MarshalOptions{Deterministic: true}.Marshal(parcel(want))
		if err != nil {
			r.Fatal(err)
		}
		if !bytes.Equal(got, straight) {
			r.Fatalf("%x\n%x", got, straight)
		}
		in := &Incoming{}
		if err := in.Decode(got); err != nil {
			r.Fatal(err)
		}
		if diff := cmp.Diff(want, in.Envelopes, protocmp.Transform()); diff != "" {
			r.Fatal(diff)
		}
	})
}

func TestParcelsAreBounded(t *testing.T) {
	one := mustSeal(t, "a", "", &messages.Detach{})
	for count, ok := range map[int]bool{EnvelopesMax: true, EnvelopesMax + 1: false} {
		many := bytes.Repeat(one, count)
		b := protowire.AppendTag(nil, frameParcel, protowire.BytesType)
		b = protowire.AppendBytes(b, many)
		for name, frame := range map[string][]byte{"in place": b, "general": append(b, 0x78, 1)} { // 0x78: an unknown field
			if err := (&Incoming{}).Decode(frame); (err == nil) != ok {
				t.Errorf("%s: %d envelopes: %v", name, count, err)
			}
		}
	}
}

// FuzzFrame: the decoder in place takes what protobuf takes and makes the same of
// it; nothing brings it down.
func FuzzFrame(f *testing.F) {
	for _, m := range everyMessage {
		f.Add(frameOf(mustSeal(f, "t", "s", m), mustSeal(f, "u", "", m)))
	}
	hello, err := proto.Marshal(&messages.Frame{Kind: &messages.Frame_Hello{Hello: HelloTo(nodeLocal(1), 2, 1)}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(hello)
	f.Add([]byte{0x22, 0x02, 0x0b, 0x0c})
	f.Add([]byte{0x22, 0x04, 0x0a, 0x02, 0x08, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		in, want := &Incoming{}, &messages.Frame{}
		err, general := in.Decode(b), proto.Unmarshal(b, want)
		if general != nil {
			return // of what protobuf refuses, names that are no UTF-8 get as far as the guard
		}
		if err != nil {
			t.Fatalf("protobuf takes %x and the decoder does not: %v", b, err)
		}
		if in.Control != nil {
			if !proto.Equal(in.Control, want) {
				t.Fatalf("%v, want %v", in.Control, want)
			}
			return
		}
		envelopes := want.GetParcel().GetEnvelopes()
		if len(envelopes) != len(in.Envelopes) {
			t.Fatalf("%d envelopes, want %d", len(in.Envelopes), len(envelopes))
		}
		for i, e := range in.Envelopes {
			w := envelopes[i]
			if e.Type != w.Type || !bytes.Equal(e.Body, w.Body) || e.Target != cutName(w.Target) || e.Sender != cutName(w.Sender) {
				t.Fatalf("%v, want %v", e, w)
			}
		}
	})
}

func cutName(s string) string { return s[:min(len(s), nameSizeMax+1)] }
