package sim

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"keyval/messages"
	"keyval/storeactor/backup"
	"keyval/storeactor/disk"
)

// Backups are made while everything goes wrong, as kvctl backup makes them: of one node, which
// has read at the newest revision before. Each is held against the state of replay and
// against what clients had seen. Some are kept as increments, by the code of production. From one of them
// the servers of a new cluster are made in the end, and that is played too.

// keeper makes backups.
type keeper struct {
	*customer
	tries   int
	id      string        // of the transient snapshot that the node makes for this try
	floor   uint64        // what clients had seen when the try began
	read    uint64        // the revision that the node has read at then
	content []byte        // what has come of it
	again   time.Duration // when it is asked for once more, if it is still being written
	kept    shelf
	wholes  map[string][]byte // what each of the kept files stands for
}

// What came of backups.
const (
	cellBackup    = "backup"
	cellIncrement = "backup-increment"
	cellRestore   = "backup-restored"
)

// drawBackups draws how often backups are made; 0: none are.
func (s *swarm) drawBackups(chance *rand.Rand) {
	// A state that was written wrong, with checksums that fit, goes into backups too; and one of a
	// level that is not real is for no kvctl.
	if s.rates[faultMiswrite]+s.rates[faultMisstate] == 0 && !s.levels && chance.IntN(3) == 0 {
		s.backups = pick(chance, 300*time.Millisecond, time.Second, 4*time.Second)
	}
}

// safeguard has backups made, until the world is healed.
func (r *run) safeguard() {
	if r.swarm.backups == 0 {
		return
	}
	k := &keeper{customer: r.customer("keeper"), kept: shelf{}, wholes: map[string][]byte{}}
	k.tireless = true
	r.keeper = k
	k.start()
	r.regularly("backups", 200*time.Millisecond, r.swarm.backups, k.goOn)
}

// goOn tries once more, unless a try is under way.
func (k *keeper) goOn() {
	if r := k.run; len(k.under) == 0 && r.world.clock.now > k.again {
		r.by("backups", k.try)
	}
}

// try begins another, at any of the members.
func (k *keeper) try() {
	r := k.run
	members := slices.DeleteFunc(slices.Clone(r.servers), func(s *server) bool {
		return !s.up() || !s.isMember() || r.healed && (s.aged || s.rotten())
	})
	if r.check.reference == nil || len(members) == 0 {
		return
	}
	s := members[r.chaos.IntN(len(members))]
	k.crash()
	k.startWith([]string{s.listen()}, true)
	k.tries++
	k.id, k.content = fmt.Sprintf("%s%d", messages.TransientPrefix, k.tries), nil
	get := k.submit(&messages.Submit{Read: &messages.Read{Kind: &messages.Read_Get{Get: &messages.Get{Key: []byte{0}}}}})
	k.floor = get.floor
	get.then = func(d *messages.Done) {
		k.read = d.Read.Revision
		k.asks(&messages.SnapshotRequest{Kind: &messages.SnapshotRequest_Create{Create: &messages.SnapshotCreate{Id: k.id}}}, func(*messages.SnapshotReply) { k.fetch() })
	}
}

// asks goes on if a request for files is granted, and otherwise gives this try up. CONFLICT:
// the file is being written, and is asked for again.
func (k *keeper) asks(m *messages.SnapshotRequest, granted func(*messages.SnapshotReply)) {
	k.submit(&messages.Submit{Snapshot: m}).then = func(d *messages.Done) {
		switch code := d.Snapshot.GetCode(); {
		case code == messages.Code_OK:
			granted(d.Snapshot)
		case code == messages.Code_CONFLICT && m.GetFetch() != nil:
			const soon = 50 * time.Millisecond
			k.again = k.run.world.clock.now + soon
			id := k.id
			k.run.world.clock.after(soon, k.host, func() {
				if id == k.id {
					k.fetch()
				}
			})
		}
	}
}

// fetch asks for the next part.
func (k *keeper) fetch() {
	window := pick[uint32](k.run.chancesOf("backups"), 0, 300, 4<<10)
	from := uint64(len(k.content))
	k.asks(&messages.SnapshotRequest{Kind: &messages.SnapshotRequest_Fetch{Fetch: &messages.SnapshotFetch{Id: k.id, From: from, Window: window}}}, func(m *messages.SnapshotReply) {
		part := m.GetPart()
		if part.GetFrom() != from || part.GetChecksum() != messages.PartChecksum(part) {
			k.run.world.fail("parts of files are what was sent", "the part of %s at byte %d: %s", k.id, from, messages.Line(m))
			return
		}
		if k.content = append(k.content, part.Body...); uint64(len(k.content)) < part.Total && len(part.Body) > 0 {
			k.fetch()
			return
		}
		k.take()
	})
}

// take holds a backup that is whole against what it should be, and keeps it.
func (k *keeper) take() {
	r := k.run
	c, err := backup.Read(bytes.NewReader(k.content), nil)
	switch {
	case err != nil:
		r.world.fail("backups are whole", "%s: %v", k.id, err)
		return
	case c.Header.Revision < k.read: // the node was started anew in between: kvctl says so
		return
	case c.Header.Revision < k.floor:
		r.world.fail("a backup has what was acknowledged", "%s is of revision %d, and clients had seen %d before it began", k.id, c.Header.Revision, k.floor)
	}
	if what := r.check.reference.fileDiffers(k.content); what != "" {
		r.world.fail("state from snapshot equals state from replay", "%s: %s", k.id, what)
	}
	r.coverage[cellBackup]++
	r.note("%s is a backup of revision %d", k.id, c.Header.Revision)
	k.keep(fmt.Sprintf("backup-%06d.kvb", k.tries), c.Header.Revision)
}

// keep puts it beside the others, whole or as an increment on the one before.
func (k *keeper) keep(name string, revision uint64) {
	r, file, names := k.run, k.content, k.kept.names()
	if len(names) > 0 && r.chancesOf("backups").IntN(3) > 0 {
		var increment bytes.Buffer
		since, err := backup.LookSince(context.Background(), k.kept, names[len(names)-1])
		if err == nil {
			_, _, err = since.WriteIncrement(context.Background(), bytes.NewReader(k.content), &increment)
		}
		if err != nil {
			r.world.fail("increments are made", "%s on %s, of revision %d: %v", name, names[len(names)-1], revision, err)
			return
		}
		file = increment.Bytes()
		r.coverage[cellIncrement]++
	}
	k.kept[name], k.wholes[name] = file, k.content
	if _, err := backup.Prune(context.Background(), k.kept, 4); err != nil {
		r.world.fail("increments are made", "older backups than %s cannot go: %v", name, err)
	}
	for _, name := range k.kept.names() {
		all, err := k.open(name)
		if err != nil || !bytes.Equal(all, k.wholes[name]) {
			r.world.fail("chains make whole backups", "%s: %d bytes of %d: %v", name, len(all), len(k.wholes[name]), err)
		}
	}
}

// open reads what a file stands for, with all that it builds on.
func (k *keeper) open(name string) ([]byte, error) {
	chain, err := backup.Open(context.Background(), k.kept, name)
	if err != nil {
		return nil, err
	}
	defer chain.Close()
	return io.ReadAll(chain)
}

// shelf is a place of backups.
type shelf map[string][]byte

func (s shelf) names() []string { return slices.Sorted(maps.Keys(s)) }

func (s shelf) Path(name string) string                   { return name }
func (s shelf) Names(context.Context) ([]string, error)   { return s.names(), nil }
func (s shelf) Remove(_ context.Context, id string) error { delete(s, id); return nil }

func (s shelf) Open(_ context.Context, name string) (io.ReadCloser, int64, error) {
	content, there := s[name]
	if !there {
		return nil, 0, messages.Errorf(messages.Code_NOT_FOUND, "there is no backup %s", name)
	}
	return struct {
		io.ReadSeeker
		io.Closer
	}{bytes.NewReader(content), io.NopCloser(nil)}, int64(len(content)), nil
}

func (s shelf) Create(context.Context, string, uint64) (backup.Upload, error) {
	return nil, messages.Errorf(messages.Code_INTERNAL, "files are put here")
}

// backupMax is how long a backup takes at most in a world without faults, with what the last try
// before has left behind.
const backupMax = 20 * time.Second

// backUp makes one more in the healed world: then it succeeds.
func (r *run) backUp() {
	k := r.keeper
	if k == nil || r.world.over() || r.split {
		return
	}
	made := r.coverage[cellBackup]
	for limit := r.world.clock.now + backupMax + r.shipping(); !r.world.over() && r.coverage[cellBackup] == made; {
		if r.world.clock.now >= limit {
			r.world.fail("a healed cluster is backed up", "nothing came of %d tries", k.tries)
		}
		k.goOn()
		r.world.run(r.world.clock.now + r.swarm.options.TickInterval)
	}
}

// restored is a cluster that a backup was made of.
type restored struct {
	before  *model // the true history of the cluster that was backed up
	content []byte
	values  uint64        // written there
	invited []*invitation // nodes, there
}

// survivor is what a backup of this run makes a new cluster of; nil: there is none.
func (r *run) survivor() *restored {
	if r.keeper == nil || r.world.over() || len(r.keeper.kept) == 0 {
		return nil
	}
	names := r.keeper.kept.names()
	content, err := r.keeper.open(names[r.chancesOf("backups").IntN(len(names))])
	if err != nil {
		r.world.fail("chains make whole backups", "%v", err)
		return nil
	}
	r.coverage[cellRestore]++
	from := &restored{before: r.check.model, content: content, values: r.values}
	if r.inviter != nil {
		from.invited = r.inviter.made
		for _, i := range from.invited {
			i.foreign = true
		}
	}
	return from
}

// next are the options of the run of the restored cluster: another world, and another size.
func (o Options) next(from *restored) Options {
	o.Seed, o.Duration, o.Until, o.restored = o.Seed^1<<63, min(o.Duration, 5*time.Second), 0, from
	return o
}

// restore makes the disks of the founders from the backup, by the code of production, and
// begins the true history where the new cluster does.
func (r *run) restore(from *restored) {
	chance := stream(r.options.Seed, "restore")
	plan := backup.Plan{Token: token, WithoutAuth: true, RevisionGap: pick[uint64](chance, 1, 1000, 1_000_000), Random: reader{chance}, Directories: map[string]string{}}
	for i, s := range r.servers[:r.swarm.nodes] {
		plan.Founders = append(plan.Founders, &messages.Founder{RaftId: uint64(i) + 1, Name: s.name(), Address: s.listen()})
		plan.Directories[s.name()] = s.name()
	}
	made, err := backup.RestoreTo(bytes.NewReader(from.content), plan, func(dir string) (disk.Disk, error) {
		i := slices.IndexFunc(r.servers, func(s *server) bool { return s.name() == dir })
		return r.servers[i].disk, nil
	})
	if err != nil {
		r.world.fail("backups are restored", "%v", err)
		return
	}
	first := r.servers[0].disk.LastCheckpoint()
	if bytes.Equal(first.ClusterId, made.Header.ClusterId) || len(first.Sessions) > 0 || len(first.Operations) > 0 || len(first.Invitations.GetAll()) > 0 || len(first.Members) != r.swarm.nodes {
		r.world.fail("a restore makes a new cluster", "of cluster %x: %s", made.Header.ClusterId, messages.Line(first))
	}
	r.check.begins = r.servers[0].disk.SnapshotRows()
	r.check.model.goOn(from.before, made.Header.Revision, first)
	r.history.begins, r.values = first.Revision, from.values
}

// goOn makes the model that of a cluster which was restored from a backup of a revision.
func (m *model) goOn(before *model, revision uint64, first *messages.Checkpoint) {
	m.revision, m.compacted, m.timeMS, m.level = first.Revision, first.CompactedRevision, first.LogTimeMs, first.Level
	m.keys = slices.Clone(before.keys)
	for key, all := range before.versions {
		n := slices.IndexFunc(all, func(v version) bool { return v.revision > revision })
		if n < 0 {
			n = len(all)
		}
		m.versions[key] = slices.Clone(all[:n])
	}
	maps.Copy(m.written, before.written)
}
