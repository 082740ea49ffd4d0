//go:build mutant

package mutant

import (
	"fmt"
	"os"
	"slices"
)

// Names are what KEYVAL_MUTANT may say. Sagas and Replicas are those of them that the
// properties of packages membershipactor/saga and raftactor find. The simulator finds these
// too, but for Unseen.
var Names, Sagas, Replicas []string

// Unseen are the mutants that the simulator does not find.
var Unseen = []string{"snapshot-old"}

var chosen = os.Getenv("KEYVAL_MUTANT")

var (
	AckBeforeFsync   = named("ack-before-fsync")
	VoteNotPersisted = named("vote-not-persisted")
	AckBeforeQuorum  = named("ack-before-quorum")
	RetryRenumbered  = named("retry-renumbered")
	AskedEarly       = named("asked-early")
	ReadUnconfirmed  = named("read-unconfirmed")
	MergeKeepsAll    = named("merge-keeps-all")
	ReadBeforeOwn    = named("read-before-own")
	AppendedEarly    = named("appended-early")
	InstallForgets   = named("install-forgets")
	CutUncovered     = named("cut-uncovered")
	DiscardUncovered = named("discard-uncovered")
	DiscardOvertakes = named("discard-overtakes")
	PinsIgnored      = named("pins-ignored")
	PagesBelieved    = named("pages-believed")
	StateSyncRetried = named("state-sync-retried")
	CommitUnsynced   = named("commit-unsynced")
	WipedAdopted     = named("wiped-adopted")
	DeleteUnseen     = named("delete-unseen")
	RangeCountsLast  = named("range-counts-last")
	LastPutLost      = named("last-put-lost")
	LentKept         = named("lent-kept")
	RangeLentKept    = named("range-lent-kept")
	CommitByCount    = named("commit-by-count")
	TailKeepsOlder   = named("tail-keeps-older")
	ReadUnapplied    = named("read-unapplied")
	ReadGivenUp      = named("read-given-up")
	HardStateFirst   = named("hard-state-first")
	DeadlineDenies   = named("deadline-denies")
	OutcomeForgotten = named("outcome-forgotten")
	OpenedAnew       = named("opened-anew")
	LogNeverCut      = named("log-never-cut")
	HistoryNeverGoes = named("history-never-goes")
	NothingDiscarded = named("nothing-discarded")
	SnapshotNewest   = named("snapshot-newest")
	EffectFirst      = ofSagas("effect-first")
	RollbackLate     = ofSagas("rollback-late")
	TwoSagas         = ofSagas("two-sagas")
	PromotedEarly    = ofSagas("promoted-early")
	LeaderRemoved    = ofSagas("leader-removed")
	UnboundAdmitted  = named("unbound-admitted")
	OneRefusal       = named("one-refusal")
	JointStays       = named("joint-stays")
	OldUnfenced      = named("old-unfenced")
	RefusedEarly     = named("refused-early")
	ReadAhead        = named("read-ahead")
	StampedOwn       = named("stamped-own")
	RaisedUnasked    = named("raised-unasked")
	StateUnaudited   = named("state-unaudited")
	SessionShared    = named("session-shared")
	AllowedAtPropose = named("allowed-at-propose")
	ChangeAtPropose  = ofReplicas("change-at-propose")
	RemovedCounts    = ofReplicas("removed-counts")
	LearnerRefuses   = ofReplicas("learner-refuses")
	SnapshotOld      = ofReplicas("snapshot-old")

	InvitationShared      = named("invitation-shared")
	InvitationRevived     = named("invitation-revived")
	InvitationUnconfirmed = named("invitation-unconfirmed")
	PasswordUnversioned   = named("password-unversioned")
	SignerUnknown         = named("signer-unknown")

	LineageIgnored     = named("lineage-ignored")
	ShippedUnasked     = named("shipped-unasked")
	SuspectVotes       = named("suspect-votes")
	SuspicionForgotten = named("suspicion-forgotten")
	OneVoiceCondemns   = named("one-voice-condemns")
	AccuserBelieved    = named("accuser-believed")
)

// named adds a mutant, and reports whether it is the chosen one.
func named(name string) bool {
	Names = append(Names, name)
	return chosen == name
}

func ofSagas(name string) bool {
	Sagas = append(Sagas, name)
	return named(name)
}

func ofReplicas(name string) bool {
	Replicas = append(Replicas, name)
	return named(name)
}

func init() {
	if chosen != "" && !slices.Contains(Names, chosen) {
		panic(fmt.Sprintf("KEYVAL_MUTANT=%s is none of %v", chosen, Names))
	}
}
