package transport

import (
	"encoding/binary"
	"fmt"

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

// Seal marshals a message, once, to what stands for it in a parcel: one element
// of Parcel.envelopes with its tag and length. size is proto.Size of m, called
// just now.
func Seal(number uint32, target, sender string, m proto.Message, size int) ([]byte, error) {
	inner := 1 + protowire.SizeVarint(uint64(number)) + sizeField(len(target)) + sizeField(len(sender)) + sizeField(size)
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

// sizeField is the size of a field of n bytes with a number below 16. An empty
// one is left out.
func sizeField(n int) int {
	if n == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(uint64(n)) + n
}

// ParcelHeadMax bounds what AppendParcelHead appends, in bytes.
const ParcelHeadMax = 1 + binary.MaxVarintLen64

// AppendParcelHead appends what stands before size bytes of sealed messages to make
// a frame of them: one parcel.
func AppendParcelHead(b []byte, size int) []byte {
	b = protowire.AppendTag(b, frameParcel, protowire.BytesType)
	return protowire.AppendVarint(b, uint64(size))
}

// Incoming is a frame that came in: a control frame or the envelopes of a parcel.
// It is used again for one frame after another of the same stream.
type Incoming struct {
	Control   *messages.Frame
	Envelopes []*messages.Envelope // void at the next Decode or Clear
	spare     []*messages.Envelope
	names     map[string]string // actor names seen on this stream, at most namesMax
}

const namesMax = 1024

// Clear forgets the frame.
func (in *Incoming) Clear() {
	in.Control = nil
	in.Envelopes = in.Envelopes[:0]
}

// Decode takes a frame apart. One that is exactly one parcel stays in place: the
// bodies of its envelopes lie in b. All others are rare and left to the general
// decoder.
func (in *Incoming) Decode(b []byte) error {
	in.Clear()
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
		in.Envelopes = append(in.Envelopes[:0], p.Envelopes...)
		return nil
	}
	in.Control = frame
	return nil
}

func (in *Incoming) decodeParcel(b []byte) error {
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
		if len(in.Envelopes) == EnvelopesMax {
			return fmt.Errorf("a parcel of more than %d envelopes", EnvelopesMax)
		}
		if err := in.decodeEnvelope(inner); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func (in *Incoming) decodeEnvelope(b []byte) error {
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
func (in *Incoming) next() *messages.Envelope {
	n := len(in.Envelopes)
	if n == len(in.spare) {
		in.spare = append(in.spare, &messages.Envelope{})
	}
	e := in.spare[n]
	e.Type, e.Target, e.Sender, e.Body = 0, "", "", nil
	in.Envelopes = append(in.Envelopes, e)
	return e
}

// name is the string of b, one copy for all envelopes of the stream.
func (in *Incoming) name(b []byte) string {
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
