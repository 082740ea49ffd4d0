package reading

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"keyval/messages"
	"keyval/storeactor/disk"
	"keyval/storeactor/disk/disktest"
	"keyval/storeactor/state/statetest"
)

func scanAt(revision uint64, s *messages.Scan) *messages.Read {
	return &messages.Read{Request: 7, Revision: revision, Kind: &messages.Read_Scan{Scan: s}}
}

func TestRead(t *testing.T) {
	store := disktest.NewMemory()
	for _, row := range []disk.Row{
		{Key: []byte("a"), Value: []byte("1"), Revision: 1},
		{Key: []byte("b"), Value: []byte("2"), Revision: 2},
		{Key: []byte("c"), Value: []byte("3"), Revision: 3},
		{Key: []byte("a"), Value: []byte("4"), Revision: 4, Created: 1, Version: 2},
		{Key: []byte("b"), Revision: 5, Deleted: true},
		{Key: []byte("a"), Value: []byte("6"), Revision: 6},
	} {
		if err := store.Write([]disk.Row{row}); err != nil {
			t.Fatal(err)
		}
	}
	const newest, compacted = 5, 2
	for _, test := range []struct {
		name  string
		read  *messages.Read
		reply string
	}{
		{"the latest", statetest.GetAt(0, "a"), `revision=5 items=[Item{key="a" value="4" revision=4 create_revision=1 version=2}]`},
		{"an older one", statetest.GetAt(3, "a"), `revision=3 items=[Item{key="a" value="1" revision=1}]`},
		{"the oldest that is kept", statetest.GetAt(2, "b"), `revision=2 items=[Item{key="b" value="2" revision=2}]`},
		{"what is not there", statetest.GetAt(0, "x"), `code=NOT_FOUND revision=5`},
		{"what is there no more", statetest.GetAt(0, "b"), `code=NOT_FOUND revision=5`},
		{"what is not there yet", statetest.GetAt(2, "c"), `code=NOT_FOUND revision=2`},
		{"a future revision", statetest.GetAt(6, "a"), `code=INVALID revision=6 message="revision 6 is in the future, the newest is 5"`},
		{"a compacted revision", statetest.GetAt(1, "a"), `code=COMPACTED revision=1 message="revision 1 is no longer kept: history is readable from revision 2 on"`},
		{"no key", statetest.GetAt(0, ""), `code=INVALID revision=5 message="a key has 1 to 16384 bytes, this one 0"`},
		{"nothing", &messages.Read{Request: 7}, `code=INVALID revision=5 message="the read asks for nothing that this node knows"`},
		{"all", scanAt(0, &messages.Scan{}), `revision=5 items=[Item{key="a" value="4" revision=4 create_revision=1 version=2} Item{key="c" value="3" revision=3}]`},
		{"all of an older revision", scanAt(3, &messages.Scan{KeysOnly: true}),
			`revision=3 items=[Item{key="a" revision=1} Item{key="b" revision=2} Item{key="c" revision=3}]`},
		{"backwards", scanAt(3, &messages.Scan{KeysOnly: true, Reverse: true, Limit: 2}),
			`revision=3 items=[Item{key="c" revision=3} Item{key="b" revision=2}] more=true`},
		{"a limit that suffices", scanAt(3, &messages.Scan{KeysOnly: true, Limit: 3}),
			`revision=3 items=[Item{key="a" revision=1} Item{key="b" revision=2} Item{key="c" revision=3}]`},
		{"a part", scanAt(3, &messages.Scan{From: []byte("b"), To: []byte("c"), KeysOnly: true}), `revision=3 items=[Item{key="b" revision=2}]`},
		{"an empty part", scanAt(3, &messages.Scan{From: []byte("c"), To: []byte("a")}), `revision=3`},
	} {
		reply, err := Answer(store, test.read, newest, compacted)
		if err != nil {
			t.Fatal(err)
		}
		if got := messages.Line(reply); got != "ReadReply{request=7 "+test.reply+"}" {
			t.Errorf("%s gives\n\t%s\nand not\n\tReadReply{request=7 %s}", test.name, got, test.reply)
		}
	}
	store.Err = messages.Errorf(messages.Code_DAMAGED, "a block is damaged")
	for _, r := range []*messages.Read{statetest.GetAt(0, "a"), scanAt(0, &messages.Scan{})} {
		reply, err := Answer(store, r, newest, compacted)
		want := `ReadReply{request=7 code=DAMAGED revision=5 message="a block is damaged"}`
		if got := messages.Line(reply); got != want || !errors.Is(err, store.Err) {
			t.Errorf("a failed view gives %s, %v", got, err)
		}
	}
}

func TestScansAreBounded(t *testing.T) {
	store := disktest.NewMemory()
	var rows []disk.Row
	for i := range ScanRowsMax + 1 {
		rows = append(rows, disk.Row{Key: fmt.Appendf(nil, "k%05d", i), Revision: 1})
	}
	for i := range 4 {
		rows = append(rows, disk.Row{Key: fmt.Appendf(nil, "v%d", i), Value: []byte(strings.Repeat("v", messages.ValueSizeMax)), Revision: 1})
	}
	if err := store.Write(rows); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		scan  *messages.Scan
		items int
		more  bool
	}{
		{"rows", &messages.Scan{From: []byte("k"), To: []byte("l")}, ScanRowsMax, true},
		{"more rows than may be asked for", &messages.Scan{From: []byte("k"), To: []byte("l"), Limit: 1 << 31}, ScanRowsMax, true},
		{"as many rows as there are", &messages.Scan{From: []byte("k00001"), To: []byte("l")}, ScanRowsMax, false},
		{"bytes", &messages.Scan{From: []byte("v")}, 1, true},
		{"no values, no bytes", &messages.Scan{From: []byte("v"), KeysOnly: true}, 4, false},
	} {
		reply, err := Answer(store, scanAt(0, test.scan), 1, 0)
		if err != nil || len(reply.Items) != test.items || reply.More != test.more {
			t.Errorf("%s: %d items, more: %v, error: %v", test.name, len(reply.Items), reply.More, err)
		}
	}
}
