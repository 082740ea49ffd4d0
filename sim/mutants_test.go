//go:build mutant

package sim

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"keyval/mutant"
)

// Bounds of a hunt, in seeds.
const (
	mutantSeedsMax = 600 // within which every mutant dies
	soundSeeds     = 100 // which accuse nobody without a mutant
)

// huntEnv makes this test binary hunt: "all", or "blind" without the checks that
// look at a replica while it does wrong, so that only what comes of it counts.
const huntEnv = "KEYVAL_SIM_HUNT"

// catch is what a hunt ends with.
type catch struct {
	Seed    uint64 // the one that killed; 0: none did
	Seeds   uint64 // played
	Steps   uint64
	Wall    time.Duration
	Failure string
}

// TestHunt is the process in which one mutant lives.
func TestHunt(t *testing.T) {
	how := os.Getenv(huntEnv)
	if how == "" {
		t.Skip("TestMutants starts it")
	}
	limit, began := uint64(soundSeeds), time.Now()
	if os.Getenv("KEYVAL_MUTANT") != "" {
		limit = mutantSeedsMax
	}
	number(t, "KEYVAL_SEEDS", &limit)
	c := catch{}
	for c.Seed == 0 && c.Seeds < limit {
		c.Seeds++
		r := Run(Options{Seed: c.Seeds, Faults: true, blind: how == "blind"})
		c.Steps += r.Steps
		if r.Violation != nil {
			c.Seed, c.Failure = r.Seed, r.Violation.Invariant
		}
	}
	c.Wall = time.Since(began)
	if err := json.NewEncoder(os.Stderr).Encode(c); err != nil {
		t.Fatal(err)
	}
}

// TestMutants: the swarm as everybody runs it kills every mutant, and nobody else.
func TestMutants(t *testing.T) {
	how := os.Getenv(huntEnv)
	if how == "" {
		how = "all"
	}
	for _, name := range append([]string{""}, mutant.Names...) {
		if slices.Contains(mutant.Unseen, name) {
			continue
		}
		t.Run(strings.TrimSpace("mutant "+name), func(t *testing.T) {
			c := hunt(t, name, how)
			switch {
			case name == "" && c.Seed != 0:
				t.Errorf("seed %d accuses sound software: %s", c.Seed, c.Failure)
			case name != "" && c.Seed == 0:
				t.Errorf("it survived %d seeds", c.Seeds)
			case name != "":
				t.Logf("killed by seed %d after %v, %d steps: %s", c.Seed, c.Wall.Round(time.Millisecond), c.Steps, c.Failure)
			default:
				t.Logf("%d seeds in %v: nobody is accused", c.Seeds, c.Wall.Round(time.Millisecond))
			}
		})
	}
}

func hunt(t *testing.T, name, how string) catch {
	t.Helper()
	var said strings.Builder
	child := exec.Command(os.Args[0], "-test.run=^TestHunt$", "-test.timeout=20m")
	child.Env = append(os.Environ(), "KEYVAL_MUTANT="+name, huntEnv+"="+how)
	child.Stderr = &said
	if out, err := child.Output(); err != nil {
		t.Fatalf("%v:\n%s%s", err, out, said.String())
	}
	var c catch
	if err := json.Unmarshal([]byte(said.String()), &c); err != nil {
		t.Fatalf("%v: %s", err, said.String())
	}
	return c
}
