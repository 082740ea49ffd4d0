package client

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"keyval/messages"
)

// verifyKeys is how many keys are compared at once; a node may give fewer.
const verifyKeys = 4096

// repicksMax is how often in a row one range may be given up because its revision
// is no longer kept.
const repicksMax = 10

// verifyPause is how long a Verification waits before it asks a replica that is
// behind how far it is.
const verifyPause = 200 * time.Millisecond

// Holder is asked what one node holds: a Client with that one endpoint.
type Holder interface {
	Digest(ctx context.Context, from, to []byte, limit int, revision uint64) (DigestResult, error)
	Scan(ctx context.Context, from, to []byte, o ScanOptions) iter.Seq2[Item, error]
	Status(ctx context.Context) (*messages.StatusReply, string, error)
}

// Replica is one of those that a Verification compares.
type Replica struct {
	Name    string
	Holder  Holder
	Problem error // why it is not asked, or not any more

	futures int // answers in a row that it has not come to the revision
}

// Held is what a replica has of one key.
type Held struct {
	Name    string // the replica's
	Present bool
	Item    Item
}

// Difference is the first key that the replicas do not hold alike.
type Difference struct {
	Key      []byte
	Revision uint64
	Holds    []Held // by name
}

// Verification compares what replicas hold, from outside: range by range, each at one
// revision, which is the same for all as long as it is kept. Invariant: below From
// they hold the same.
type Verification struct {
	Replicas []*Replica
	From, To []byte // where it is, and where it ends; empty: no end
	Revision uint64 // that is compared at
	Fixed    bool   // Revision must not be changed for a newer one
	// Newest is asked for a revision when Revision is no longer kept.
	Newest   func(context.Context) (uint64, error)
	Patience time.Duration // with a replica that is behind and does not get on
	// Waiting is called while a replica is behind, and says how far.
	Waiting func(name string, at, of uint64)
	// Compared is called after every range.
	Compared func()

	Keys, Bytes uint64 // that were found alike so far

	repicks int
}

// Run ends with the first difference, or nil.
func (v *Verification) Run(ctx context.Context) (*Difference, error) {
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
			v.From = afterKey(d.Last)
			continue
		}
		return nil, messages.Errorf(messages.Code_INTERNAL, "a digest of no keys says that there are more")
	}
	return nil, nil
}

// pass counts what is alike.
func (v *Verification) pass(keys, bytes uint64) {
	v.Keys, v.Bytes, v.repicks = v.Keys+keys, v.Bytes+bytes, 0
	v.Compared()
}

func (v *Verification) present() []*Replica {
	var present []*Replica
	for _, r := range v.Replicas {
		if r.Problem == nil {
			present = append(present, r)
		}
	}
	return present
}

// digests asks every replica for the first keys from v.From on.
func (v *Verification) digests(ctx context.Context, limit int) (digests []*messages.RangeDigest, again bool, err error) {
	var mu sync.Mutex
	again, err = v.each(ctx, func(r *Replica) error {
		d, err := r.Holder.Digest(ctx, v.From, v.To, limit, v.Revision)
		if err == nil {
			mu.Lock()
			defer mu.Unlock()
			digests = append(digests, d.RangeDigest)
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

// narrow finds the first key that differs among the first limit ones from v.From on,
// where a difference was seen: the most keys that are alike, and then the next one.
// It finds nothing when the revision had to be chosen anew, or when those that
// differed cannot be asked any more.
func (v *Verification) narrow(ctx context.Context, limit int) (*Difference, error) {
	same, differ, behind := 0, limit, v.From
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
	v.From = behind
	if d := v.judge(holds); d != nil {
		return d, nil
	}
	// The next key is alike, and yet one key more is not: they were cut differently.
	if next := holds[0]; next.Present {
		v.pass(1, uint64(len(next.Item.Key)+len(next.Item.Value)))
		v.From = afterKey(next.Item.Key)
	}
	return nil, nil
}

// next asks every replica for the first key from a place on.
func (v *Verification) next(ctx context.Context, from []byte) (holds []Held, again bool, err error) {
	var mu sync.Mutex
	again, err = v.each(ctx, func(r *Replica) error {
		h := Held{Name: r.Name}
		for item, err := range r.Holder.Scan(ctx, from, v.To, ScanOptions{Limit: 1, Revision: v.Revision, Stale: true}) {
			if err != nil {
				return err
			}
			h.Present, h.Item = true, item
		}
		mu.Lock()
		defer mu.Unlock()
		holds = append(holds, h)
		return nil
	})
	slices.SortFunc(holds, func(a, b Held) int { return cmp.Compare(a.Name, b.Name) })
	return holds, again, err
}

// judge holds the next keys of all against each other. The least of them is the one
// that differs, if any does: whoever has a later one lacks it.
func (v *Verification) judge(holds []Held) *Difference {
	d := &Difference{Revision: v.Revision}
	for _, h := range holds {
		if h.Present && (d.Key == nil || bytes.Compare(h.Item.Key, d.Key) < 0) {
			d.Key = h.Item.Key
		}
	}
	differ := false
	for _, h := range holds {
		if h.Present && !bytes.Equal(h.Item.Key, d.Key) {
			h = Held{Name: h.Name}
		}
		d.Holds = append(d.Holds, h)
		first := d.Holds[0]
		differ = differ || h.Present != first.Present || h.Item.Revision != first.Item.Revision || !bytes.Equal(h.Item.Value, first.Item.Value)
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
func (v *Verification) each(ctx context.Context, ask func(*Replica) error) (again bool, err error) {
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
			r.Problem = errs[i]
		}
	}
	if compacted == nil {
		return again, nil
	}
	return true, v.repick(ctx, compacted)
}

// repick goes on at the newest revision, where the one that was compared at is no
// longer kept.
func (v *Verification) repick(ctx context.Context, why error) error {
	v.repicks++
	switch {
	case v.Fixed:
		return why
	case v.repicks > repicksMax:
		return reworded(why, func(e *messages.Error) {
			e.Message = "history is given up faster than it can be compared: " + e.Message
		})
	}
	newest, err := v.Newest(ctx)
	if err != nil {
		return err
	}
	v.Revision = newest
	return nil
}

// await waits until a replica has come to the revision, as long as it gets on.
func (v *Verification) await(ctx context.Context, r *Replica, why error) error {
	const futuresMax = 5
	r.futures++
	if r.futures > futuresMax { // it is there, and says that it is not
		r.Problem = why
		return nil
	}
	poll := time.NewTicker(verifyPause)
	defer poll.Stop()
	at, moved := uint64(0), time.Now()
	for {
		s, _, err := r.Holder.Status(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			r.Problem = err
			return nil
		case s.Revision >= v.Revision:
			return nil
		case s.Revision != at:
			at, moved = s.Revision, time.Now()
		case time.Since(moved) >= v.Patience:
			r.Problem = messages.Errorf(messages.Code_TIMED_OUT, "it is at revision %d and does not get on to %d", at, v.Revision)
			return nil
		}
		v.Waiting(r.Name, at, v.Revision)
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", r.Name, context.Cause(ctx))
		}
	}
}
