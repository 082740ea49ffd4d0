package storeactor

import (
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
)

// testEntries have these terms, from the index behind base on.
func testEntries(base uint64, terms ...uint64) []*raftpb.Entry {
	var es []*raftpb.Entry
	for i, term := range terms {
		es = append(es, &raftpb.Entry{Term: new(term), Index: new(base + 1 + uint64(i)), Type: raftpb.EntryNormal.Enum(), Data: []byte("data")})
	}
	return es
}

func testHardState(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: new(term), Vote: new(vote), Commit: new(commit)}
}

func TestWitnessMeetsALog(t *testing.T) {
	// Base 10 of term 2; entry 13 of term 3 was synced, with a vote for 1 in term
	// 4 and commit 12.
	w := Witness{BaseIndex: 10, BaseTerm: 2, Index: 13, Term: 3, HardTerm: 4, Vote: 1, Commit: 12}
	atBase := Witness{BaseIndex: 10, BaseTerm: 2, Index: 10, Term: 2, HardTerm: 2, Commit: 10}
	noVote := w
	noVote.Vote = 0
	for _, c := range []struct {
		name      string
		witness   Witness
		hardState *raftpb.HardState
		terms     []uint64
		expected  messages.Code
	}{
		{"the same", w, testHardState(4, 1, 12), []uint64{2, 3, 3}, messages.Code_OK},
		{"more entries", w, testHardState(4, 1, 14), []uint64{2, 3, 3, 4}, messages.Code_OK},
		{"a newer term", w, testHardState(5, 2, 12), []uint64{2, 3, 3}, messages.Code_OK},
		{"a newer term without a vote", w, testHardState(5, 0, 12), []uint64{2, 3, 3}, messages.Code_OK},
		{"a vote where none was", noVote, testHardState(4, 2, 12), []uint64{2, 3, 3}, messages.Code_OK},
		{"replaced by a newer leader, shorter", w, testHardState(4, 1, 12), []uint64{2, 4}, messages.Code_OK},
		{"replaced by a newer leader, longer", w, testHardState(4, 1, 12), []uint64{2, 3, 4, 4}, messages.Code_OK},
		{"only the base", atBase, testHardState(2, 0, 10), nil, messages.Code_OK},
		{"term lost", w, testHardState(3, 1, 12), []uint64{2, 3, 3}, messages.Code_DAMAGED},
		{"all of the hard state lost", w, &raftpb.HardState{}, []uint64{2, 3, 3}, messages.Code_DAMAGED},
		{"vote lost", w, testHardState(4, 0, 12), []uint64{2, 3, 3}, messages.Code_DAMAGED},
		{"another vote", w, testHardState(4, 2, 12), []uint64{2, 3, 3}, messages.Code_DAMAGED},
		{"commit lost", w, testHardState(4, 1, 11), []uint64{2, 3, 3}, messages.Code_DAMAGED},
		{"commit lost, newer term", w, testHardState(5, 1, 11), []uint64{2, 3, 3}, messages.Code_DAMAGED},
		{"an entry lost", w, testHardState(4, 1, 12), []uint64{2, 3}, messages.Code_DAMAGED},
		{"all entries lost", w, testHardState(4, 1, 12), nil, messages.Code_DAMAGED},
		{"an older entry there", w, testHardState(4, 1, 12), []uint64{2, 2, 2}, messages.Code_DAMAGED},
	} {
		image := &LogImage{BaseIndex: 10, BaseTerm: 2, HardState: c.hardState, Entries: testEntries(10, c.terms...)}
		if err := c.witness.Meet(image); messages.CodeOf(err) != c.expected {
			t.Errorf("%s: got %v, expected %v", c.name, err, c.expected)
		}
	}
}

func TestLogImageIsChecked(t *testing.T) {
	gap := append(testEntries(10, 2), testEntries(12, 2)...)
	strange := testEntries(10, 2)
	strange[0].Type = raftpb.EntryType(7).Enum()
	for _, c := range []struct {
		name     string
		commit   uint64
		entries  []*raftpb.Entry
		expected messages.Code
	}{
		{"empty", 10, nil, messages.Code_OK},
		{"whole", 12, testEntries(10, 2, 3), messages.Code_OK},
		{"a gap", 10, gap, messages.Code_DAMAGED},
		{"a gap behind the base", 10, testEntries(11, 2), messages.Code_DAMAGED},
		{"a term that goes back", 10, testEntries(10, 3, 2), messages.Code_DAMAGED},
		{"a term below the base's", 10, testEntries(10, 1), messages.Code_DAMAGED},
		{"a commit beyond the end", 13, testEntries(10, 2, 3), messages.Code_DAMAGED},
		{"a commit below the base", 9, testEntries(10, 2, 3), messages.Code_DAMAGED},
		{"an unknown type", 10, strange, messages.Code_DAMAGED},
	} {
		image := &LogImage{BaseIndex: 10, BaseTerm: 2, HardState: testHardState(3, 0, c.commit), Entries: c.entries}
		if err := image.Check(); messages.CodeOf(err) != c.expected {
			t.Errorf("%s: got %v, expected %v", c.name, err, c.expected)
		}
	}
}

func TestWitnessFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), witnessName)
	if err := createWitness(path, Witness{Index: 1, Term: 1}); err != nil {
		t.Fatal(err)
	}
	f, err := openWitness(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.file.Close()
	for i := uint64(2); i < 9; i++ {
		if err := f.write(Witness{Index: i, Term: 1, Commit: i - 1}); err != nil {
			t.Fatal(err)
		}
		if got, err := readWitness(f.file); err != nil || got != (Witness{Sequence: i, Index: i, Term: 1, Commit: i - 1}) {
			t.Fatalf("after writing %d: %+v, %v", i, got, err)
		}
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Any flipped bit of the newer slot leaves the older one, of both slots nothing.
	for at := range witnessSlot {
		if got := damagedWitness(t, whole, at); got.Sequence != 7 {
			t.Fatalf("byte %d of the newer slot flipped: %+v", at, got)
		}
		if got := damagedWitness(t, whole, witnessBlock+at); got.Sequence != 8 {
			t.Fatalf("byte %d of the older slot flipped: %+v", at, got)
		}
		if got := damagedWitness(t, whole, at, witnessBlock+at); got.Sequence != 0 {
			t.Fatalf("byte %d of both slots flipped: %+v", at, got)
		}
	}
}

// damagedWitness is what is read with these bytes flipped; sequence 0 for DAMAGED.
func damagedWitness(t *testing.T, whole []byte, flips ...int) Witness {
	t.Helper()
	damaged := append([]byte(nil), whole...)
	for _, at := range flips {
		damaged[at] ^= 0x10
	}
	path := filepath.Join(t.TempDir(), witnessName)
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := openWitness(path)
	if err != nil {
		if messages.CodeOf(err) != messages.Code_DAMAGED {
			t.Fatalf("unexpected error: %v", err)
		}
		return Witness{}
	}
	defer f.file.Close()
	return f.last
}
