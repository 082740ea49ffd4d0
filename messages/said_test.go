package messages

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

var rewrite = flag.Bool("rewrite", false, "write the table of messages into docs/ARCHITECTURE.md (make docs)")

const architecture = "../docs/ARCHITECTURE.md"

// chapter is one file of the vocabulary.
type chapter struct {
	title    string
	messages []protoreflect.MessageDescriptor
}

func chapters() []chapter {
	inside := append(declared(File_node_proto), (&Outcome{}).ProtoReflect().Descriptor()) // the log's, and actors send it too
	return []chapter{
		{"Between clients and nodes (`client.proto`)", declared(File_client_proto)},
		{"Between nodes (`peer.proto`)", declared(File_peer_proto)},
		{"Inside a node, and inside a client (`node.proto`)", inside},
	}
}

func declared(file protoreflect.FileDescriptor) []protoreflect.MessageDescriptor {
	var all []protoreflect.MessageDescriptor
	for i := range file.Messages().Len() {
		all = append(all, file.Messages().Get(i))
	}
	return all
}

func vocabulary() []protoreflect.MessageDescriptor {
	var all []protoreflect.MessageDescriptor
	for _, c := range chapters() {
		all = append(all, c.messages...)
	}
	return all
}

func saidOf(d protoreflect.MessageDescriptor) *Saying {
	return proto.GetExtension(d.Options(), E_Said).(*Saying)
}

func crossingOf(d protoreflect.MessageDescriptor) *Crossing {
	return proto.GetExtension(d.Options(), E_Crosses).(*Crossing)
}

// replies is the last column: the messages that answer one of this name, and what
// there is to say beside them.
func replies(name string) string {
	var all []string
	for _, d := range vocabulary() {
		s := saidOf(d)
		if !slices.Contains(s.GetAnswers(), name) {
			continue
		}
		reply := string(d.Name())
		if s.From == "" && s.When != "" {
			reply += ", " + s.When
		}
		all = append(all, reply)
	}
	text := strings.Join(all, " or ")
	if own := saidOf(find(name)).Reply; own != "" {
		text = strings.TrimPrefix(text+", "+own, ", ")
	}
	if text == "" {
		return "–"
	}
	return text
}

func find(name string) protoreflect.MessageDescriptor {
	all := vocabulary()
	i := slices.IndexFunc(all, func(d protoreflect.MessageDescriptor) bool { return string(d.Name()) == name })
	if i < 0 {
		return nil
	}
	return all[i]
}

func table() string {
	var b strings.Builder
	for _, c := range chapters() {
		fmt.Fprintf(&b, "\n%s:\n\n| message | from → to | when | reply |\n|---|---|---|---|\n", c.title)
		for _, d := range c.messages {
			if s := saidOf(d); s.GetFrom() != "" {
				way := strings.ReplaceAll(s.From+" -> "+s.To, "->", "→")
				fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", d.Name(), way, s.When, replies(string(d.Name())))
			}
		}
	}
	return b.String()
}

// TestArchitectureHasTheMessages holds the table in docs/ARCHITECTURE.md to what the
// .proto files say.
func TestArchitectureHasTheMessages(t *testing.T) {
	const begin, end = "<!-- messages: made by make docs -->\n", "\n<!-- end of messages -->"
	text, err := os.ReadFile(architecture)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	written, after, ended := strings.Cut(rest, end)
	if !ok || !ended {
		t.Fatalf("%s has no place for the table of messages", architecture)
	}
	if written == table() {
		return
	}
	if !*rewrite {
		t.Fatalf("%s: the table of messages is not what the .proto files say: make docs", architecture)
	}
	if err := os.WriteFile(architecture, []byte(before+begin+table()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestEveryMessageIsSaidOnce: whatever is declared for actors and is no part of
// another message has a row in the table or is a reply in one.
func TestEveryMessageIsSaidOnce(t *testing.T) {
	parts := map[protoreflect.FullName]bool{}
	for _, d := range vocabulary() {
		for i := range d.Fields().Len() {
			if part := d.Fields().Get(i).Message(); part != nil {
				parts[part.FullName()] = true
			}
		}
	}
	for _, d := range vocabulary() {
		s := saidOf(d)
		switch {
		case s == nil && crossingOf(d) != nil:
			t.Errorf("%s crosses links, and nothing is said of who sends it", d.Name())
		case s == nil && !parts[d.FullName()] && d.Name() != "Frame":
			t.Errorf("%s is no part of another message, and nothing is said of who sends it", d.Name())
		case s == nil:
		case (s.From == "") != (s.To == ""), s.From != "" && s.When == "", s.From == "" && len(s.Answers) == 0, s.From == "" && s.Reply != "":
			t.Errorf("%s: a row says from, to and when; what has none is an answer", d.Name())
		}
		for _, name := range s.GetAnswers() {
			if asked := find(name); asked == nil || saidOf(asked).GetFrom() == "" {
				t.Errorf("%s answers %s, which has no row", d.Name(), name)
			}
		}
	}
}

// TestRowsAgreeWithTheLinks: what a row says of a message that crosses links is what
// the guard lets pass.
func TestRowsAgreeWithTheLinks(t *testing.T) {
	for _, d := range vocabulary() {
		c, s := crossingOf(d), saidOf(d)
		if c == nil {
			continue
		}
		if c.Type == 0 || c.From == Role_ROLE_UNKNOWN || c.To == Role_ROLE_UNKNOWN || (c.Actor == "") != (c.To == Role_CLIENT) {
			t.Errorf("%s: %v does not say who sends it to whom", d.Name(), c)
		}
		if c.Actor != "" && !slices.ContainsFunc(Actors, func(a *Actor) bool { return a.Name == c.Actor }) {
			t.Errorf("%s goes to %q, and a node has no such actor", d.Name(), c.Actor)
		}
		if c.Lane != Lane_CONTROL && (c.From == Role_CLIENT || c.To == Role_CLIENT) {
			t.Errorf("%s: a client has no lane %v", d.Name(), c.Lane)
		}
		actor := strings.TrimSuffix(c.Actor[strings.LastIndexByte(c.Actor, '/')+1:], "-")
		if s.From != "" && (!strings.HasPrefix(s.To, actor) || (s.From == "client") != (c.From == Role_CLIENT)) {
			t.Errorf("%s goes from a %v to %q, and its row says %q to %q", d.Name(), c.From, c.Actor, s.From, s.To)
		}
		for _, name := range s.Answers {
			if asked := crossingOf(find(name)); asked != nil && (asked.From != c.To || asked.To != c.From) {
				t.Errorf("%s answers %s, and does not go the way back", d.Name(), name)
			}
		}
		if c.From == Role_CLIENT && replies(string(d.Name())) == "–" && d.Name() != "Detach" {
			t.Errorf("%s has no answer: a client's connection would count it as unanswered for ever", d.Name())
		}
	}
}
