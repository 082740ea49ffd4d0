package messages

import "testing"

// The numbers are on the wire: none is ever given to another message.
func TestNumbersAreFrozen(t *testing.T) {
	frozen := map[uint32]string{
		1: "Attach", 2: "Attached", 3: "Detach", 4: "Write", 5: "WriteReply", 6: "Read", 7: "ReadReply", 8: "StatusRequest", 9: "StatusReply",
		10: "SnapshotRequest", 11: "SnapshotReply", 12: "ClusterRequest", 13: "ClusterReply", 14: "JoinAsk", 15: "JoinAnswer", 16: "LoginRequest", 17: "LoginReply", 18: "InvitationAsk", 19: "InvitationAnswer", 32: "RaftMessage", 33: "Propose", 34: "ProposalRefused", 35: "FounderState",
		36: "SnapshotOffer", 37: "SnapshotPull", 38: "SnapshotPiece", 39: "SnapshotEnd", 40: "AuditAsk", 41: "AuditAnswer", 42: "AuditVerdict",
		43: "NodePulse", 44: "ClusterPulse",
		45: "LossAsk", 46: "LossAnswer",
		47: "LevelAsk", 48: "LevelAnswer", 49: "AuditConfirmed",
	}
	for number := range uint32(1000) {
		switch k := KindNumbered(number); {
		case k == nil && frozen[number] != "":
			t.Errorf("%s has lost its number, %d", frozen[number], number)
		case k != nil && frozen[number] == "":
			t.Errorf("%s has a new number: write it down here, %d for ever", k.Name, number)
		case k != nil && k.Name != frozen[number]:
			t.Errorf("%d is the number of %s, not of %s", number, frozen[number], k.Name)
		}
	}
	if KindOf(&Tick{}) != nil || KindOf(nil) != nil {
		t.Error("what crosses no link has a number")
	}
}
