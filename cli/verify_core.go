package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"keyval/actors/client"
	"keyval/messages"
)

// verifyKeys is how many keys are compared at once; a node may give fewer.
const verifyKeys = 4096

// repicksMax is how often in a row one range may be given up because its revision
// is no longer kept.
const repicksMax = 10

// replica is a member that is asked what it holds.
type replica struct {
	member
	store   Store
	problem *messages.Error // why it is not asked any more
	futures int             // answers in a row that it has not come to the revision
}

// held is what a replica has of one key.
type held struct {
	name    string
	present bool
	item    client.Item
}

// difference is the first key that the replicas do not hold alike.
type difference struct {
	key      []byte
	revision uint64
	holds    []held
}

// verifier compares replicas range by range: each range at one revision, which is
// the same for all as long as it is kept. Invariant: below from they hold the same.
type verifier struct {
	replicas []*replica
	newest   func(context.Context) (uint64, error)
	// waiting is called while a replica is behind, and says how far.
	waiting func(name string, at, of uint64)
	// compared is called after every range.
	compared func()
	patience time.Duration // with a replica that is behind and does not get on

	fixed           bool // the revision was given
	first, revision uint64
	from, to        []byte
	keys, bytes     uint64
	repicks         int
}

// run ends with the first difference, or nil.
func (v *verifier) run(ctx context.Context) (*difference, error) {
	for len(v.present()) > 1 {
		digests, again, err := v.digests(ctx, verifyKeys)
		switch {
		case err != nil:
			return nil, err
		case again || len(digests) < 2:
			continue
		case !alike(digests):
			found, err := v.narrow(ctx, verifyKeys)
			if err != nil || found != nil {
				return found, err
			}
			continue
		}
		v.pass(digests[0].Rows, digests[0].Bytes)
		if !anyMore(digests) {
			return nil, nil
		}
		if d := digests[0]; d.Rows > 0 {
			v.from = afterKey(d.Last)
			continue
		}
		return nil, messages.Errorf(messages.Code_INTERNAL, "a digest of no keys says that there are more")
	}
	return nil, nil
}

// pass counts what is alike.
func (v *verifier) pass(keys, bytes uint64) {
	v.keys, v.bytes, v.repicks = v.keys+keys, v.bytes+bytes, 0
	v.compared()
}

func (v *verifier) present() []*replica {
	var present []*replica
	for _, r := range v.replicas {
		if r.problem == nil {
			present = append(present, r)
		}
	}
	return present
}

// digests asks every replica for the first keys from v.from on.
func (v *verifier) digests(ctx context.Context, limit int) (digests []*messages.RangeDigest, again bool, err error) {
	var mu sync.Mutex
	again, err = v.each(ctx, func(r *replica) error {
		found, err := r.store.Digest(ctx, v.from, v.to, limit, v.revision)
		if err == nil {
			mu.Lock()
			defer mu.Unlock()
			digests = append(digests, found.RangeDigest)
		}
		return err
	})
	return digests, again, err
}

// alike reports whether all digests are of the same keys.
func alike(digests []*messages.RangeDigest) bool {
	return !slices.ContainsFunc(digests, func(d *messages.RangeDigest) bool {
		first := digests[0]
		return !bytes.Equal(d.Hash, first.Hash) || d.Rows != first.Rows || d.Bytes != first.Bytes || !bytes.Equal(d.Last, first.Last)
	})
}

// anyMore reports whether somebody has keys behind.
func anyMore(digests []*messages.RangeDigest) bool {
	return slices.ContainsFunc(digests, func(d *messages.RangeDigest) bool { return d.More })
}

// narrow finds the first key that differs among the first limit ones from v.from on,
// where a difference was seen: the most keys that are alike, and then the next one.
// It finds nothing when the revision had to be chosen anew, or when those that
// differed cannot be asked any more.
func (v *verifier) narrow(ctx context.Context, limit int) (*difference, error) {
	same, differ, behind := 0, limit, v.from
	alikes := &messages.RangeDigest{} // of the same ones
	for differ-same > 1 {
		middle := same + (differ-same)/2
		digests, again, err := v.digests(ctx, middle)
		switch {
		case err != nil || again:
			return nil, err
		case len(digests) < 2:
			return nil, nil
		case alike(digests) && digests[0].Rows > 0:
			same, alikes, behind = middle, digests[0], afterKey(digests[0].Last)
		case alike(digests): // nothing is there: who differed is asked no more
			return nil, nil
		default:
			differ = middle
		}
	}
	holds, again, err := v.next(ctx, behind)
	if err != nil || again || len(holds) < 2 {
		return nil, err
	}
	v.pass(alikes.Rows, alikes.Bytes)
	v.from = behind
	if d := v.judge(holds); d != nil {
		return d, nil
	}
	// The next key is alike, and yet one key more is not: they were cut differently.
	if next := holds[0]; next.present {
		v.pass(1, uint64(len(next.item.Key)+len(next.item.Value)))
		v.from = afterKey(next.item.Key)
	}
	return nil, nil
}

// next asks every replica for the first key from a place on.
func (v *verifier) next(ctx context.Context, from []byte) (holds []held, again bool, err error) {
	var mu sync.Mutex
	again, err = v.each(ctx, func(r *replica) error {
		h := held{name: r.Name}
		for item, err := range r.store.Scan(ctx, from, v.to, client.ScanOptions{Limit: 1, Revision: v.revision, Stale: true}) {
			if err != nil {
				return err
			}
			h.present, h.item = true, item
		}
		mu.Lock()
		defer mu.Unlock()
		holds = append(holds, h)
		return nil
	})
	slices.SortFunc(holds, func(a, b held) int { return cmp.Compare(a.name, b.name) })
	return holds, again, err
}

// judge holds the next keys of all against each other. The least of them is the one
// that differs, if any does: whoever has a later one lacks it.
func (v *verifier) judge(holds []held) *difference {
	d := &difference{revision: v.revision}
	for _, h := range holds {
		if h.present && (d.key == nil || bytes.Compare(h.item.Key, d.key) < 0) {
			d.key = h.item.Key
		}
	}
	differ := false
	for _, h := range holds {
		if h.present && !bytes.Equal(h.item.Key, d.key) {
			h = held{name: h.name}
		}
		d.holds = append(d.holds, h)
		first := d.holds[0]
		differ = differ || h.present != first.present || h.item.Revision != first.item.Revision || !bytes.Equal(h.item.Value, first.item.Value)
	}
	if !differ {
		return nil
	}
	return d
}

// afterKey is the place right behind a key.
func afterKey(key []byte) []byte { return append(bytes.Clone(key), 0) }

// each asks all replicas at once, and sees to those that did not answer: one that
// is behind is waited for, one that fails is asked no more. again says that the
// answers do not belong together.
func (v *verifier) each(ctx context.Context, ask func(*replica) error) (again bool, err error) {
	present := v.present()
	errs := make([]error, len(present))
	var asked sync.WaitGroup
	for i, r := range present {
		asked.Go(func() { errs[i] = ask(r) })
	}
	asked.Wait()
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	compacted := error(nil)
	for i, r := range present {
		switch messages.CodeOf(errs[i]) {
		case messages.Code_OK:
			r.futures = 0
		case messages.Code_COMPACTED:
			compacted = errs[i]
		case messages.Code_INVALID:
			again = true
			if err := v.await(ctx, r, errs[i]); err != nil {
				return false, err
			}
		default:
			again = true // those that answered may be too few, or all that is left
			r.problem, _ = explain(errs[i])
		}
	}
	if compacted == nil {
		return again, nil
	}
	return true, v.repick(ctx, compacted)
}

// repick goes on at the newest revision, where the one that was compared at is no
// longer kept.
func (v *verifier) repick(ctx context.Context, why error) error {
	v.repicks++
	switch {
	case v.fixed:
		return why
	case v.repicks > repicksMax:
		return broken(why, "history is given up faster than it can be compared: ")
	}
	newest, err := v.newest(ctx)
	if err != nil {
		return err
	}
	v.revision = newest
	return nil
}

// await waits until a replica has come to the revision, as long as it gets on.
func (v *verifier) await(ctx context.Context, r *replica, why error) error {
	const futuresMax = 5
	r.futures++
	if r.futures > futuresMax { // it is there, and says that it is not
		r.problem, _ = explain(why)
		return nil
	}
	poll := time.NewTicker(followEvery)
	defer poll.Stop()
	at, moved := uint64(0), time.Now()
	for {
		s, _, err := r.store.Status(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			r.problem, _ = explain(err)
			return nil
		case s.Revision >= v.revision:
			return nil
		case s.Revision != at:
			at, moved = s.Revision, time.Now()
		case time.Since(moved) >= v.patience:
			r.problem = messages.Errorf(messages.Code_TIMED_OUT, "it is at revision %d and does not get on to %d", at, v.revision)
			return nil
		}
		v.waiting(r.Name, at, v.revision)
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", r.Name, context.Cause(ctx))
		}
	}
}
