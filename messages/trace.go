package messages

import (
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const traceBytesMax = 24

// Line renders a message on one line, the same in every process and build:
// Name{field=value ...} with fields by number, unset ones left out, bytes quoted
// and cut. A protobuf's own String is unstable on purpose and never used.
func Line(m proto.Message) string {
	var b strings.Builder
	lineMessage(&b, m.ProtoReflect())
	return b.String()
}

func lineMessage(b *strings.Builder, m protoreflect.Message) {
	b.WriteString(string(m.Descriptor().Name()))
	b.WriteByte('{')
	fields := m.Descriptor().Fields()
	separator := ""
	for i := range fields.Len() {
		f := fields.Get(i)
		if !m.Has(f) {
			continue
		}
		b.WriteString(separator)
		separator = " "
		b.WriteString(string(f.Name()))
		b.WriteByte('=')
		if f.IsList() {
			lineList(b, f, m.Get(f).List())
		} else {
			lineValue(b, f, m.Get(f))
		}
	}
	b.WriteByte('}')
}

func lineList(b *strings.Builder, f protoreflect.FieldDescriptor, l protoreflect.List) {
	b.WriteByte('[')
	for i := range l.Len() {
		if i > 0 {
			b.WriteByte(' ')
		}
		lineValue(b, f, l.Get(i))
	}
	b.WriteByte(']')
}

func lineValue(b *strings.Builder, f protoreflect.FieldDescriptor, v protoreflect.Value) {
	switch f.Kind() {
	case protoreflect.MessageKind:
		lineMessage(b, v.Message())
	case protoreflect.EnumKind:
		if d := f.Enum().Values().ByNumber(v.Enum()); d != nil {
			b.WriteString(string(d.Name()))
		} else {
			b.WriteString(strconv.Itoa(int(v.Enum())))
		}
	case protoreflect.BytesKind:
		data := v.Bytes()
		b.WriteString(strconv.Quote(string(data[:min(len(data), traceBytesMax)])))
		if len(data) > traceBytesMax {
			fmt.Fprintf(b, "+%d", len(data)-traceBytesMax)
		}
	case protoreflect.StringKind:
		b.WriteString(strconv.Quote(v.String()))
	default:
		fmt.Fprint(b, v.Interface())
	}
}
