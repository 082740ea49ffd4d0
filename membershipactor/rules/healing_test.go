package rules

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"keyval/messages"
)

func TestHealingSettings(t *testing.T) {
	members := []*messages.Member{{RaftId: 1, Name: "node1"}}
	was := &messages.Healing{Version: 3, Mode: messages.HealingMode_HEALING_ON, AfterMs: 2000, Spares: []string{"node4", "node6"}}
	for name, row := range map[string]struct {
		was    *messages.Healing
		asked  *messages.ChangeHealing
		spares string
		mode   messages.HealingMode
		after  uint64
		code   messages.Code
	}{
		"the first spare":  {nil, &messages.ChangeHealing{AddSpare: "node4"}, "node4", messages.HealingMode_HEALING_DRY, HealAfterMS, messages.Code_OK},
		"off at first":     {nil, &messages.ChangeHealing{Mode: messages.HealingMode_HEALING_OFF.Enum()}, "", messages.HealingMode_HEALING_OFF, HealAfterMS, messages.Code_OK},
		"one between":      {was, &messages.ChangeHealing{AddSpare: "node5"}, "node4,node5,node6", messages.HealingMode_HEALING_ON, 2000, messages.Code_OK},
		"one again":        {was, &messages.ChangeHealing{AddSpare: "node6"}, "node4,node6", messages.HealingMode_HEALING_ON, 2000, messages.Code_OK},
		"one less":         {was, &messages.ChangeHealing{RemoveSpare: "node4"}, "node6", messages.HealingMode_HEALING_ON, 2000, messages.Code_OK},
		"dry, later":       {was, &messages.ChangeHealing{Mode: messages.HealingMode_HEALING_DRY.Enum(), AfterMs: 9000}, "node4,node6", messages.HealingMode_HEALING_DRY, 9000, messages.Code_OK},
		"a member":         {was, &messages.ChangeHealing{AddSpare: "node1"}, "", 0, 0, messages.Code_CONFLICT},
		"at once":          {was, &messages.ChangeHealing{AfterMs: 10}, "", 0, 0, messages.Code_INVALID},
		"a mode of others": {was, &messages.ChangeHealing{Mode: messages.HealingMode(9).Enum()}, "", 0, 0, messages.Code_INVALID},
	} {
		t.Run(name, func(t *testing.T) {
			before := proto.Clone(row.was)
			next := NextHealing(row.was, row.asked)
			err := CheckHealing(row.was, next, members)
			if messages.CodeOf(wrapped(err)) != row.code {
				t.Fatalf("%v", err)
			}
			if err == nil && (strings.Join(next.Spares, ",") != row.spares || next.Mode != row.mode || next.AfterMs != row.after || next.Version != row.was.GetVersion()+1) {
				t.Errorf("%v", next)
			}
			if !proto.Equal(before, row.was) {
				t.Error("what was is modified")
			}
			if err == nil && CheckHealing(next, next, members) == nil {
				t.Error("the same version follows itself")
			}
		})
	}
	left := SparesOutside(was, []*messages.Member{{Name: "node6"}})
	if strings.Join(left.Spares, ",") != "node4" || left.Version != 4 || SparesOutside(left, members) != left || SparesOutside(nil, members) != nil {
		t.Errorf("with node6 a member: %v", left)
	}
}

func wrapped(err *messages.Error) error {
	if err == nil {
		return nil
	}
	return err
}
