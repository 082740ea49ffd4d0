package sim

import (
	"testing"

	"keyval/storeactor"
	"keyval/storeactor/disktest"
	"math/rand/v2"
)

func TestDiskKeepsTheContract(t *testing.T) {
	for seed := range uint64(20) {
		disktest.Run(t, func(*testing.T) disktest.Opener {
			return opener{NewDisk(rand.New(rand.NewPCG(seed, 0)))}
		})
	}
}

type opener struct{ *Disk }

func (o opener) Open() (storeactor.Disk, error) { return o.Disk, nil }
