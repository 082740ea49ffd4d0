package actors

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"keyval/messages"
	"keyval/storeactor/disk"
)

// recordDisk remembers an identity, and nothing else.
type recordDisk struct {
	disk.Disk
	identity    *messages.Identity
	initialised bool
	moved       []string
	given       error // why it is not to be served
}

func (d *recordDisk) Identity() (*messages.Identity, error) {
	if d.identity == nil {
		return nil, messages.Errorf(messages.Code_NOT_FOUND, "empty")
	}
	return d.identity, nil
}

func (d *recordDisk) WriteIdentity(i *messages.Identity) error { d.identity = i; return nil }

func (d *recordDisk) Initialised() (bool, error) {
	return d.initialised, d.given
}

func (d *recordDisk) Hear(*messages.StartsHeard) error { return nil }

func (d *recordDisk) Move(listen, advertise string) error {
	d.moved = []string{listen, advertise}
	return nil
}

func wanted(change func(*messages.Identity)) *messages.Identity {
	i := &messages.Identity{Name: "n2", Listen: "h:2", Founders: []*messages.Founder{{Name: "n2", Address: "h:2"}, {Name: "n1", Address: "h:1"}}}
	if change != nil {
		change(i)
	}
	return i
}

func TestPrepareRecordsAFirstStart(t *testing.T) {
	disk := &recordDisk{}
	identity, err := Prepare(disk, bytes.NewReader([]byte("0123456789abcdef")), wanted(nil))
	if err != nil {
		t.Fatal(err)
	}
	if disk.identity != identity || messages.RaftIDOf(identity) != 2 || identity.Advertise != "h:2" || string(identity.Incarnation) != "0123456789abcdef" {
		t.Fatalf("recorded %s", messages.Line(disk.identity))
	}
	again, err := Prepare(disk, nil, &messages.Identity{})
	if err != nil || again != identity {
		t.Fatalf("a later start without flags: %v %v", again, err)
	}
	if _, err = Prepare(disk, nil, wanted(nil)); err != nil {
		t.Fatalf("a later start with the same flags: %v", err)
	}
}

func TestPrepareRefuses(t *testing.T) {
	for name, row := range map[string]struct {
		want *messages.Identity
		says string
	}{
		"nothing said":      {&messages.Identity{}, "do not say what to start"},
		"not itself":        {wanted(func(i *messages.Identity) { i.Founders = i.Founders[1:] }), "does not hold n2 itself"},
		"another address":   {wanted(func(i *messages.Identity) { i.Listen = "h:9" }), "it advertises h:9"},
		"every interface":   {wanted(func(i *messages.Identity) { i.Listen = "0.0.0.0:2" }), "no address that others can reach"},
		"no port":           {wanted(func(i *messages.Identity) { i.Listen = "h" }), "is no HOST:PORT"},
		"name with a space": {wanted(func(i *messages.Identity) { i.Name = "n 2" }), "not made of letters"},
		"a name twice":      {wanted(func(i *messages.Identity) { i.Founders[1].Name = "n2" }), "stands there twice"},
		"founds and joins":  {wanted(func(i *messages.Identity) { i.Join = []string{"h:1"} }), "both are given"},
		"joins nowhere":     {&messages.Identity{Name: "n4", Listen: "h:4", Join: []string{"h:1", "h"}}, "is no HOST:PORT"},
		"joins everywhere":  {&messages.Identity{Name: "n4", Listen: "h:4", Join: make([]string, joinEndpointsMax+1)}, "65 endpoints, 64 are allowed"},
		"an address twice":  {wanted(func(i *messages.Identity) { i.Founders[1].Address = "h:2" }), "stands there twice"},
	} {
		disk := &recordDisk{}
		_, err := Prepare(disk, bytes.NewReader(make([]byte, 16)), row.want)
		if err == nil || !strings.Contains(err.Error(), row.says) || messages.CodeOf(err) != messages.Code_INVALID || disk.identity != nil {
			t.Errorf("%s: %v, want %q", name, err, row.says)
		}
	}
}

func TestPrepareRefusesContradictions(t *testing.T) {
	for flag, change := range map[string]func(*messages.Identity){
		"--name":            func(i *messages.Identity) { i.Name = "n1" },
		"--listen":          func(i *messages.Identity) { i.Listen = "h:3" },
		"--advertise":       func(i *messages.Identity) { i.Advertise = "h:3" },
		"--cluster-token":   func(i *messages.Identity) { i.Token = "x" },
		"--initial-cluster": func(i *messages.Identity) { i.Founders = i.Founders[:1] },
	} {
		disk := &recordDisk{}
		if _, err := Prepare(disk, bytes.NewReader(make([]byte, 16)), wanted(nil)); err != nil {
			t.Fatal(err)
		}
		disk.initialised = true
		_, err := Prepare(disk, nil, wanted(change))
		if err == nil || !strings.HasPrefix(err.Error(), flag+" says") {
			t.Errorf("%s: %v", flag, err)
		}
	}
}

// TestPrepareCorrects: as long as nothing is initialised, what a start says counts, and the
// incarnation is another.
func TestPrepareCorrects(t *testing.T) {
	for name, row := range map[string]struct {
		now  *messages.Identity
		want string // an error has it
	}{
		"the name":           {wanted(func(i *messages.Identity) { i.Name, i.Listen = "n1", "h:1" }), ""},
		"the list":           {&messages.Identity{Founders: []*messages.Founder{{Name: "n2", Address: "h:2"}, {Name: "n3", Address: "h:3"}}}, ""},
		"the address":        {wanted(func(i *messages.Identity) { i.Listen, i.Founders[0].Address = "h:9", "h:9" }), ""},
		"the token":          {&messages.Identity{Token: "x"}, ""},
		"it is to join":      {&messages.Identity{Join: []string{"h:1"}}, ""},
		"to another mistake": {&messages.Identity{Name: "n7"}, "does not hold n7 itself"},
	} {
		disk := &recordDisk{}
		before, err := Prepare(disk, bytes.NewReader(make([]byte, 16)), wanted(nil))
		if err != nil {
			t.Fatal(err)
		}
		identity, err := Prepare(disk, bytes.NewReader([]byte("0123456789abcdef")), row.now)
		switch {
		case row.want != "":
			if err == nil || !strings.Contains(err.Error(), row.want) || disk.identity != before {
				t.Errorf("%s: %v, %s", name, err, messages.Line(disk.identity))
			}
		case err != nil || disk.identity != identity || string(identity.Incarnation) != "0123456789abcdef":
			t.Errorf("%s: %v, recorded %s", name, err, messages.Line(disk.identity))
		case len(identity.Founders) > 0 == (len(identity.Join) > 0) || identity.Name == "" || identity.Advertise != identity.Listen:
			t.Errorf("%s: %s", name, messages.Line(identity))
		}
	}
}

// TestPrepareOfANodeThatJoins: it is told who it is later, and then listens where it likes.
func TestPrepareOfANodeThatJoins(t *testing.T) {
	want := &messages.Identity{Name: "n4", Listen: "h:4", Join: []string{"h:1", "h:2"}}
	disk := &recordDisk{}
	identity, err := Prepare(disk, bytes.NewReader(make([]byte, 16)), want)
	if err != nil || messages.RaftIDOf(identity) != 0 || identity.Advertise != "h:4" || len(disk.identity.Join) != 2 {
		t.Fatalf("%v, recorded %s", err, messages.Line(disk.identity))
	}
	if identity, err = Prepare(disk, nil, &messages.Identity{Join: []string{"h:3"}}); err != nil || identity.Join[0] != "h:3" {
		t.Fatalf("it asks others at a later start: %v, %v", err, identity)
	}
	disk.identity.RaftId, disk.identity.ClusterId = 4, make([]byte, messages.ClusterIDSize)
	if identity, err = Prepare(disk, nil, want); err != nil || messages.RaftIDOf(identity) != 4 || disk.moved != nil {
		t.Fatalf("a member that is started as it was before: %v", err)
	}
	if identity, err = Prepare(disk, nil, &messages.Identity{Listen: "h:5"}); err != nil || identity.Listen != "h:5" || !slices.Equal(disk.moved, []string{"h:5", "h:5"}) {
		t.Fatalf("a member that has moved: %v, %s, moved to %v", err, messages.Line(identity), disk.moved)
	}
	if _, err = Prepare(disk, nil, &messages.Identity{Listen: "h"}); err == nil {
		t.Error("a member that moves nowhere starts")
	}
	disk.given = messages.Errorf(messages.Code_REMOVED, "it was removed")
	if _, err = Prepare(disk, nil, &messages.Identity{}); messages.CodeOf(err) != messages.Code_REMOVED {
		t.Errorf("a directory of a removed member: %v", err)
	}
	founder := &recordDisk{}
	if _, err = Prepare(founder, bytes.NewReader(make([]byte, 16)), wanted(nil)); err != nil {
		t.Fatal(err)
	}
	founder.initialised = true
	if _, err = Prepare(founder, nil, &messages.Identity{Join: []string{"h:1"}}); messages.CodeOf(err) != messages.Code_INVALID {
		t.Errorf("a founder joins: %v", err)
	}
}
