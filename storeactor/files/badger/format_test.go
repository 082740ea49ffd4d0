package badger

import (
	"os"
	"regexp"
	"testing"
)

// formatsOf is the version of Badger whose private formats and log lines this
// package reads. Before it moves, read what format.go names in Badger's source:
// table/builder.go (the end of a table), memtable.go (the head, the entries and
// their checksums), value.go (the size of the head), db.go (how Flatten announces a step).
const formatsOf = "v4.9.6"

func TestFormatsAreOfThisBadger(t *testing.T) {
	text, err := os.ReadFile("../../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`github.com/dgraph-io/badger/v4 (\S+)`).FindSubmatch(text)
	if found == nil || string(found[1]) != formatsOf {
		t.Fatalf("go.mod asks for Badger %s, and format.go reads what %s writes: compare the two, then say so here", found[1], formatsOf)
	}
}
