package transport

import (
	"fmt"
	"math/bits"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

// Field numbers of Frame, Parcel and Envelope in peer.proto, a frozen wire.
const (
	frameParcel     protowire.Number = 4
	parcelEnvelopes protowire.Number = 1
	envelopeType    protowire.Number = 1
	envelopeTarget  protowire.Number = 2
	envelopeSender  protowire.Number = 3
	envelopeBody    protowire.Number = 4
)

// seal marshals a message, once, to what stands for it in a parcel: one element
// of Parcel.envelopes with its tag and length. size is proto.Size of m, called
// just now.
func seal(number uint32, target, sender string, m proto.Message, size int) ([]byte, error) {
	inner := 1 + sizeVarint(uint64(number)) + sizeField(len(target)) + sizeField(len(sender)) + sizeField(size)
	whole := sizeField(inner)
	b := make([]byte, 0, whole)
	b = protowire.AppendTag(b, parcelEnvelopes, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(inner))
	b = protowire.AppendTag(b, envelopeType, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(number))
	b = protowire.AppendTag(b, envelopeTarget, protowire.BytesType)
	b = protowire.AppendString(b, target)
	if sender != "" {
		b = protowire.AppendTag(b, envelopeSender, protowire.BytesType)
		b = protowire.AppendString(b, sender)
	}
	if size > 0 {
		b = protowire.AppendTag(b, envelopeBody, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(size))
	}
	b, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, m)
	if err != nil {
		return nil, fmt.Errorf("marshal %T: %w", m, err)
	}
	if len(b) != whole {
		panic(fmt.Sprintf("transport: %T was modified while it was sent", m))
	}
	return b, nil
}

func sizeVarint(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// sizeField is the size of a field of n bytes with a number below 16. An empty
// one is left out.
func sizeField(n int) int {
	if n == 0 {
		return 0
	}
	return 1 + sizeVarint(uint64(n)) + n
}

// outgoing is a frame on its way out: a control frame or a parcel of sealed
// messages.
type outgoing struct {
	control *messages.Frame
	sealed  []item
}

// incoming is a frame that came in: a control frame or the envelopes of a
// parcel, which are good until the next frame is read into the same incoming.
type incoming struct {
	control   *messages.Frame
	envelopes []*messages.Envelope // their bodies lie in buffer
	buffer    mem.Buffer           // nil: none is held
	spare     []*messages.Envelope
	names     map[string]string // actor names seen on this stream, at most namesMax
}

const namesMax = 1024

// free gives the buffer back. The envelopes are void then.
func (in *incoming) free() {
	in.control = nil
	in.envelopes = in.envelopes[:0]
	if in.buffer != nil {
		in.buffer.Free()
		in.buffer = nil
	}
}

// codec marshals frames for gRPC. On the wire they are what proto.Marshal makes
// of a messages.Frame; a parcel is put together from messages that were marshalled
// when they were sent, and taken apart in place.
type codec struct{}

// Name keeps the content type that any gRPC peer knows.
func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	out, ok := v.(*outgoing)
	if !ok {
		return nil, fmt.Errorf("transport: %T is no frame", v)
	}
	if out.control != nil {
		b, err := proto.Marshal(out.control)
		return mem.BufferSlice{mem.SliceBuffer(b)}, err
	}
	size := 0
	for i := range out.sealed {
		size += len(out.sealed[i].sealed)
	}
	head := protowire.AppendTag(make([]byte, 0, 11), frameParcel, protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(size))
	buf := parcels.Get(len(head) + size)
	n := copy(*buf, head)
	for i := range out.sealed {
		n += copy((*buf)[n:], out.sealed[i].sealed)
	}
	return mem.BufferSlice{mem.NewBuffer(buf, parcels)}, nil
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	in, ok := v.(*incoming)
	if !ok {
		return fmt.Errorf("transport: %T is no frame", v)
	}
	in.free()
	in.buffer = data.MaterializeToBuffer(parcels)
	return in.decode(in.buffer.ReadOnlyData())
}

// decode takes a frame apart. A frame that is exactly one parcel stays in place;
// all others are rare and left to the general decoder.
func (in *incoming) decode(b []byte) error {
	number, kind, n := protowire.ConsumeTag(b)
	if n > 0 && number == frameParcel && kind == protowire.BytesType {
		parcel, m := protowire.ConsumeBytes(b[n:])
		if m > 0 && n+m == len(b) {
			return in.decodeParcel(parcel)
		}
	}
	frame := &messages.Frame{}
	if err := proto.Unmarshal(b, frame); err != nil {
		return fmt.Errorf("no frame: %w", err)
	}
	if p := frame.GetParcel(); p != nil {
		if len(p.Envelopes) > EnvelopesMax {
			return fmt.Errorf("a parcel of more than %d envelopes", EnvelopesMax)
		}
		in.envelopes = append(in.envelopes[:0], p.Envelopes...)
		return nil
	}
	in.control = frame
	return nil
}

func (in *incoming) decodeParcel(b []byte) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("no parcel: %w", protowire.ParseError(n))
		}
		b = b[n:]
		if number != parcelEnvelopes || kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
				return fmt.Errorf("no parcel: %w", protowire.ParseError(n))
			}
			b = b[n:]
			continue
		}
		inner, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return fmt.Errorf("no parcel: %w", protowire.ParseError(n))
		}
		if len(in.envelopes) == EnvelopesMax {
			return fmt.Errorf("a parcel of more than %d envelopes", EnvelopesMax)
		}
		if err := in.decodeEnvelope(inner); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func (in *incoming) decodeEnvelope(b []byte) error {
	e := in.next()
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("no envelope: %w", protowire.ParseError(n))
		}
		b = b[n:]
		switch {
		case number == envelopeType && kind == protowire.VarintType:
			var v uint64
			v, n = protowire.ConsumeVarint(b)
			e.Type = uint32(v)
		case number == envelopeTarget && kind == protowire.BytesType:
			var v []byte
			v, n = protowire.ConsumeBytes(b)
			e.Target = in.name(v)
		case number == envelopeSender && kind == protowire.BytesType:
			var v []byte
			v, n = protowire.ConsumeBytes(b)
			e.Sender = in.name(v)
		case number == envelopeBody && kind == protowire.BytesType:
			e.Body, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return fmt.Errorf("no envelope: %w", protowire.ParseError(n))
		}
		b = b[n:]
	}
	return nil
}

// next is an empty envelope, appended to the frame's.
func (in *incoming) next() *messages.Envelope {
	n := len(in.envelopes)
	if n == len(in.spare) {
		in.spare = append(in.spare, &messages.Envelope{})
	}
	e := in.spare[n]
	e.Type, e.Target, e.Sender, e.Body = 0, "", "", nil
	in.envelopes = append(in.envelopes, e)
	return e
}

// name is the string of b, one copy for all envelopes of the stream.
func (in *incoming) name(b []byte) string {
	if len(b) > nameSizeMax {
		return string(b[:nameSizeMax+1]) // the guard refuses it
	}
	if s, ok := in.names[string(b)]; ok {
		return s
	}
	if in.names == nil || len(in.names) == namesMax {
		in.names = map[string]string{}
	}
	s := string(b)
	in.names[s] = s
	return s
}
