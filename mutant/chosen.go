//go:build mutant

package mutant

import (
	"fmt"
	"os"
	"slices"
)

// Names are what KEYVAL_MUTANT may say.
var Names = []string{
	"ack-before-fsync", "vote-not-persisted", "ack-before-quorum", "retry-renumbered", "read-unconfirmed",
	"merge-keeps-all", "read-before-own", "appended-early", "install-forgets", "cut-uncovered", "discard-uncovered", "read-ahead",
}

var chosen = os.Getenv("KEYVAL_MUTANT")

var (
	AckBeforeFsync   = chosen == Names[0]
	VoteNotPersisted = chosen == Names[1]
	AckBeforeQuorum  = chosen == Names[2]
	RetryRenumbered  = chosen == Names[3]
	ReadUnconfirmed  = chosen == Names[4]
	MergeKeepsAll    = chosen == Names[5]
	ReadBeforeOwn    = chosen == Names[6]
	AppendedEarly    = chosen == Names[7]
	InstallForgets   = chosen == Names[8]
	CutUncovered     = chosen == Names[9]
	DiscardUncovered = chosen == Names[10]
	ReadAhead        = chosen == Names[11]
)

func init() {
	if chosen != "" && !slices.Contains(Names, chosen) {
		panic(fmt.Sprintf("KEYVAL_MUTANT=%s is none of %v", chosen, Names))
	}
}
