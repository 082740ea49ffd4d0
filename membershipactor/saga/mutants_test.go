//go:build mutant

package saga

import (
	"os"
	"os/exec"
	"testing"

	"keyval/mutant"
)

// TestMutants: the property accuses every mutant of sagas, and nobody else.
func TestMutants(t *testing.T) {
	for _, name := range append([]string{""}, mutant.Sagas...) {
		t.Run("mutant "+name, func(t *testing.T) {
			child := exec.Command(os.Args[0], "-test.run=^TestSagasEndAndLeaveNothingBehind$")
			child.Env = append(os.Environ(), "KEYVAL_MUTANT="+name)
			out, err := child.CombinedOutput()
			if found := err != nil; found != (name != "") {
				t.Errorf("found: %v\n%s", found, out)
			} else if found {
				t.Logf("%.400s", out)
			}
		})
	}
}
