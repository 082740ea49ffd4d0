package grpc

import (
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"keyval/actors/transport"
	"keyval/messages"
)

// outgoing is a frame on its way out: a control frame or a parcel of sealed
// messages.
type outgoing struct {
	control *messages.Frame
	sealed  []item
}

// refusalFrame tells the far side why its connection ends.
func refusalFrame(why *messages.Error) *outgoing {
	r := &messages.Refusal{Code: why.Code, Message: why.Message, Hint: why.Hint}
	return &outgoing{control: &messages.Frame{Kind: &messages.Frame_Refusal{Refusal: r}}}
}

// incoming is a frame that came in, with the buffer in which its envelopes' bodies lie.
type incoming struct {
	transport.Incoming
	buffer mem.Buffer // nil: none is held
}

// free gives the buffer back. The envelopes are void then.
func (in *incoming) free() {
	in.Clear()
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
	head := transport.AppendParcelHead(make([]byte, 0, transport.ParcelHeadMax), size)
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
	return in.Decode(in.buffer.ReadOnlyData())
}
