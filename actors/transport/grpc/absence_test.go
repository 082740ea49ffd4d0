package grpc

import (
	"testing"
	"time"
)

func TestAbsence(t *testing.T) {
	var a absence
	began := time.Unix(100, 0)
	at := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	for _, step := range []struct {
		ms     int
		reason string
		tell   bool
	}{
		{0, "refused", false},
		{999, "refused", false},
		{1000, "refused", true},
		{1200, "refused", false},
		{1400, "no route", true},
		{1500, "no route", false},
		{1600, "refused", true},
	} {
		if got := a.goesOn(at(step.ms), step.reason); got != step.tell {
			t.Errorf("after %d ms: told %v", step.ms, got)
		}
	}
	if away, told := a.over(at(2000)); away != 2*time.Second || !told {
		t.Errorf("away for %v, told %v", away, told)
	}
	if away, told := a.over(at(3000)); away != 0 || told {
		t.Errorf("it was there: away for %v, told %v", away, told)
	}
	a.goesOn(at(4000), "refused")
	if away, told := a.over(at(4300)); away != 300*time.Millisecond || told {
		t.Errorf("a moment: away for %v, told %v", away, told)
	}
}
