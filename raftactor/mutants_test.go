//go:build mutant

package raftactor

import (
	"os"
	"os/exec"
	"testing"

	"keyval/mutant"
)

// TestMutants: the properties of members that come and go kill every mutant of theirs.
func TestMutants(t *testing.T) {
	for _, name := range mutant.Replicas {
		t.Run(name, func(t *testing.T) {
			child := exec.Command(os.Args[0], "-test.run=^TestMembers", "-test.timeout=60s", "-rapid.checks=2000", "-rapid.shrinktime=0s", "-rapid.nofailfile")
			child.Env = append(os.Environ(), "KEYVAL_MUTANT="+name)
			if out, err := child.CombinedOutput(); err == nil {
				t.Errorf("it survived: %s", out)
			}
		})
	}
}
