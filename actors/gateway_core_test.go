package actors

import (
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	"keyval/messages"
)

func clientID(n int) string { return fmt.Sprintf("%016d", n) }

func TestAttachmentsAreBounded(t *testing.T) {
	a := newAttachments()
	for n := range sessionsOfClientMax {
		a.add(clientID(n), attachment{fmt.Sprint("a", n), "client/a", "client", ""})
	}
	full := newAttachments()
	for n := range sessionsMax {
		full.add(clientID(n), attachment{fmt.Sprint("s", n), fmt.Sprint("client/", n), "client", ""})
	}
	alice, bob := string(messages.HolderOf("alice")), string(messages.HolderOf("bob"))
	half := newAttachments()
	for n := range sessionsOfHolderMax {
		half.add(clientKey([]byte(clientID(n)), []byte("alice")), attachment{fmt.Sprint("s", n), fmt.Sprint("client/", n), "client", alice})
	}
	half.add(clientKey([]byte(clientID(sessionsMax)), []byte("bob")), attachment{"b", "client/bob", "client", bob})
	for _, row := range []struct {
		name   string
		of     *attachments
		client string
		owner  string
		holder string
		code   messages.Code
		text   string
	}{
		{"the first", newAttachments(), clientID(0), "client/a", "", messages.Code_OK, ""},
		{"no ClientID", newAttachments(), "", "client/a", "", messages.Code_INVALID, "this one 0"},
		{"a short one", newAttachments(), clientID(0)[1:], "client/a", "", messages.Code_INVALID, "this one 15"},
		{"too many of one address", a, clientID(99), "client/a", "", messages.Code_BUSY, "over this connection"},
		{"one of them again", a, clientID(3), "client/a", "", messages.Code_OK, ""},
		{"another address", a, clientID(99), "client/b", "", messages.Code_OK, ""},
		{"one of them from another address", a, clientID(3), "client/b", "", messages.Code_OK, ""},
		{"too many in all", full, clientID(sessionsMax), "client/new", "", messages.Code_BUSY, "this node serves"},
		{"one of all again", full, clientID(5), "client/5", "", messages.Code_OK, ""},
		{"too many of one user, from another address", half, clientID(sessionsMax + 1), "client/new", alice, messages.Code_BUSY, "of the same user or host"},
		{"one of his again", half, clientID(3), "client/new", alice, messages.Code_OK, ""},
		{"another's, by who has no place left", half, clientID(sessionsMax), "client/new", alice, messages.Code_BUSY, "of the same user or host"},
		{"another's", half, clientID(3), "client/new", bob, messages.Code_OK, ""}, // beside him
		{"another user beside him", half, clientID(sessionsMax + 1), "client/new", bob, messages.Code_OK, ""},
		{"nobody's beside him", half, clientID(sessionsMax + 1), "client/new", "", messages.Code_OK, ""},
		{"one of all from another address", full, clientID(5), "client/new", "", messages.Code_OK, ""},
	} {
		err := row.of.check([]byte(row.client), row.owner, row.holder)
		if row.code == messages.Code_OK && err != nil || row.code != messages.Code_OK && (err == nil || err.Code != row.code || !strings.Contains(err.Message, row.text)) {
			t.Errorf("%s: %v, want %v with %q", row.name, err, row.code, row.text)
		}
	}
}

// The three sides of attachments always say the same.
func TestAttachmentsAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, next := newAttachments(), 0
		for range rapid.IntRange(0, 100).Draw(t, "steps") {
			client := clientID(rapid.IntRange(0, 9).Draw(t, "client"))
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0, 1:
				a.remove(a.of[client].actor)
				owner, holder := fmt.Sprint("client/", rapid.IntRange(0, 3).Draw(t, "owner")), fmt.Sprint("h", rapid.IntRange(0, 2).Draw(t, "holder"))
				a.add(client, attachment{fmt.Sprint("s", next), owner, "client", holder})
				next++
			default:
				a.remove(fmt.Sprint("s", rapid.IntRange(0, 99).Draw(t, "actor")))
			}
			owned, counted := 0, map[string]int{}
			for _, at := range a.of {
				counted[at.holder]++
			}
			for owner, list := range a.byOwner {
				for _, session := range list {
					at := a.of[a.clientOf[session]]
					if owned++; at.actor != session || at.owner != owner {
						t.Fatalf("%s of %s: %+v", session, owner, a)
					}
				}
				if len(list) == 0 {
					t.Fatalf("%s is remembered for nothing", owner)
				}
			}
			if owned != len(a.of) || owned != len(a.clientOf) || !maps.Equal(counted, a.ofHolder) {
				t.Fatalf("%+v", a)
			}
		}
	})
}

func TestStatusIsAskedForOnceForMany(t *testing.T) {
	var d statusDesk
	ask := func(request uint64, want bool) {
		t.Helper()
		if send, busy := d.ask(statusAsker{request: request}); send != want || busy {
			t.Fatalf("request %d: asked for %v, want %v; busy %v", request, send, want, busy)
		}
	}
	answers := func(next bool, want ...uint64) {
		t.Helper()
		whom, send := d.answered()
		var got []uint64
		for _, who := range whom {
			got = append(got, who.request)
		}
		if !reflect.DeepEqual(got, want) || send != next {
			t.Fatalf("answered %v, want %v; the next is asked for: %v", got, want, send)
		}
	}
	ask(1, true)
	ask(2, false) // what is under way may be older than this request
	ask(3, false)
	answers(true, 1)
	ask(4, false)
	if d.tick(statusAgainTicks - 1) {
		t.Fatal("asked again too early")
	}
	if !d.tick(1) || d.tick(1) {
		t.Fatal("a status that was lost is asked for again, once")
	}
	answers(false, 2, 3, 4)
	answers(false) // the lost one was late only
	if d.tick(1000) {
		t.Fatal("nobody waits")
	}
	ask(5, true)
	for range statusWaitingMax - 1 {
		ask(6, false)
	}
	if send, busy := d.ask(statusAsker{}); send || !busy {
		t.Errorf("one more than may wait: %v, %v", send, busy)
	}
}

func TestStatusIsPassedOnWhole(t *testing.T) {
	m := &messages.StatusReply{}
	fields := m.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsList():
			m.ProtoReflect().Mutable(f).List().AppendMutable()
		case f.Kind() == protoreflect.MessageKind:
			m.ProtoReflect().Mutable(f)
		case f.Kind() == protoreflect.StringKind:
			m.ProtoReflect().Set(f, protoreflect.ValueOfString("x"))
		case f.Kind() == protoreflect.BytesKind:
			m.ProtoReflect().Set(f, protoreflect.ValueOfBytes([]byte("x")))
		case f.Kind() == protoreflect.EnumKind:
			m.ProtoReflect().Set(f, protoreflect.ValueOfEnum(1))
		case f.Kind() == protoreflect.Int64Kind:
			m.ProtoReflect().Set(f, protoreflect.ValueOfInt64(1))
		default:
			m.ProtoReflect().Set(f, protoreflect.ValueOfUint64(1))
		}
	}
	if got := statusFor(m, 7); got.Request != 7 {
		t.Errorf("it answers request %d", got.Request)
	} else if got.Request = 1; messages.Line(got) != messages.Line(m) {
		t.Errorf("%s, want %s", messages.Line(got), messages.Line(m))
	}
}
