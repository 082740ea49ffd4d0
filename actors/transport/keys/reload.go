package keys

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"keyval/messages"
)

// Files of keys are looked at again while they are used: what has changed is loaded, and connections that
// stand are held against it.

// watchInterval is how often files are looked at. A connection that stands is held against
// what is loaded, and the clock, as often.
const watchInterval = time.Second

// Expired says why certificates that were good are not any more, by the clock alone; nil:
// they are.
func (r *Ring) Expired(chain []*x509.Certificate, _ bool) error {
	for _, c := range chain {
		if r != nil && r.now().After(c.NotAfter) {
			return fmt.Errorf("it expired at %s", c.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// Stale says why certificates that were good when a connection was made are not any more, by
// the clock and by what is loaded now; nil: they are. It verifies signatures. signed: they are not
// the far side's own, but of the node that has signed its token.
func (r *Ring) Stale(chain []*x509.Certificate, signed bool) error {
	if r == nil || len(chain) == 0 {
		return nil
	}
	l := r.current.Load()
	if !signed {
		l = l.of(chain)
	}
	_, err := l.verify(chain, x509.ExtKeyUsageClientAuth, r.now())
	return err
}

// Watch loads what has changed until ctx ends, and calls check after each look with what
// connections that stand have to be held against: Expired, or Stale once something was
// loaded. What cannot be loaded is told to logger once, and what was loaded before stays.
func (r *Ring) Watch(ctx context.Context, logger *slog.Logger, check func(stale func(chain []*x509.Certificate, signed bool) error)) {
	if r == nil {
		return
	}
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	held := r.current.Load() // what all connections were held against
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		switch changed, err := r.Reload(false); {
		case err != nil && changed:
			logger.Error("new keys were not taken; the old ones are used on", "reason", err, "hint", "kvctl cert check DIR says what is wrong with the files")
		case changed:
			k := r.Told(false)
			logger.Info("new keys are used", "certificate", k.Certificate, "authorities", strings.Join(k.Authorities, ","), "expires", time.UnixMilli(k.ExpiresMs).UTC().Format(time.RFC3339))
		}
		stale := r.Expired
		if now := r.current.Load(); now != held { // whoever has loaded it
			held, stale = now, r.Stale
		}
		if check != nil {
			check(stale)
		}
	}
}

// Reload loads the files if they have changed since they were looked at last, or if it must.
// A certificate that names somebody else is not taken. changed: there was something to load.
func (r *Ring) Reload(must bool) (changed bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	state := r.files.state()
	if state == r.seen && !must {
		return false, nil
	}
	l, err := r.load()
	if before := r.Principal(); err == nil && l.principal() != before {
		err = messages.Errorf(messages.Code_INVALID, "keys: %s is now that of %s, and was that of %s", r.files.Cert, l.principal(), before)
	}
	r.seen = state
	if err != nil {
		r.problem.Store(new(err.Error()))
		return true, err
	}
	r.problem.Store(nil)
	r.current.Store(l)
	return true, nil
}

// state tells whether files have changed: when they were written, and how large they are.
func (f Files) state() string {
	var b strings.Builder
	names := []string{f.CA, f.Cert, f.Key, f.Token}
	if f.Peers != nil {
		names = append(names, f.Peers.CA, f.Peers.Cert, f.Peers.Key)
	}
	for _, name := range names {
		if info, err := os.Stat(name); err == nil {
			fmt.Fprintf(&b, "%d %d\n", info.ModTime().UnixNano(), info.Size())
		} else {
			b.WriteString("none\n")
		}
	}
	return b.String()
}

// Told is what is loaded, for people. open: a node without keys listens beyond its machine.
func (r *Ring) Told(open bool) *messages.Keys {
	if r == nil {
		return &messages.Keys{Open: open}
	}
	l := r.current.Load()
	k := &messages.Keys{}
	if why := r.problem.Load(); why != nil {
		k.Problem = *why
	}
	k.Certificate = PrincipalOf([]*x509.Certificate{l.leaf}).URI()
	for _, set := range l.all() {
		first, what := set.leaf.NotAfter, "its certificate"
		newest := slices.MaxFunc(set.authorities, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
		if newest.NotAfter.Before(first) {
			first, what = newest.NotAfter, "the last authority that it trusts"
		}
		if k.ExpiresMs == 0 || first.UnixMilli() < k.ExpiresMs {
			if set != l {
				what += ", for other nodes"
			}
			k.ExpiresMs, k.ExpiresWhat = first.UnixMilli(), what
		}
		for _, a := range set.authorities {
			if told := Fingerprint(a); !slices.Contains(k.Authorities, told) {
				k.Authorities = append(k.Authorities, told)
			}
		}
	}
	return k
}

// Fingerprint is the start of a certificate's SHA-256, as people compare it.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:6])
}

// Hosts are those that a certificate names.
func Hosts(c *x509.Certificate) []string {
	hosts := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		hosts = append(hosts, net.IP(ip).String())
	}
	return hosts
}
