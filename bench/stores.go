package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"keyval/actors/client"
	"keyval/actors/transport"
	"keyval/actors/transport/keys"
)

// text is a key or value as either client library wants it, so that neither pays
// for the other's taste.
type text struct {
	s string
	b []byte
}

func textOf(s string) text { return text{s, []byte(s)} }

// store is a cluster as one of many workers sees it.
type store interface {
	put(ctx context.Context, worker int, key, value text) error
	get(ctx context.Context, worker int, key text) error
	// leader is the place of the leader among the endpoints.
	leader(ctx context.Context) (int, error)
	close()
}

const (
	storeKeyVal = "keyval"
	storeEtcd   = "etcd"
)

// callersMax is how many workers share one KeyVal client.
const callersMax = 256

func open(ctx context.Context, j job) (store, error) {
	switch j.Store {
	case storeKeyVal:
		return openKeyVal(ctx, j)
	case storeEtcd:
		return openEtcd(ctx, j)
	}
	return nil, fmt.Errorf("%q is no store", j.Store)
}

type keyvalStore struct {
	endpoints []string
	clients   []*client.Client
}

func openKeyVal(ctx context.Context, j job) (store, error) {
	s := &keyvalStore{endpoints: j.Endpoints}
	var ring *keys.Ring
	if j.Certs != "" {
		var err error
		if ring, err = keys.Load(keys.FilesIn(j.Certs, transport.UserKey)); err != nil {
			return nil, err
		}
	}
	for range (j.Clients + callersMax - 1) / callersMax {
		c, err := client.Connect(ctx, client.Options{Endpoints: j.Endpoints, Keys: ring})
		if err != nil {
			s.close()
			return nil, err
		}
		s.clients = append(s.clients, c)
	}
	return s, nil
}

func (s *keyvalStore) of(worker int) *client.Client { return s.clients[worker%len(s.clients)] }

func (s *keyvalStore) put(ctx context.Context, worker int, key, value text) error {
	_, err := s.of(worker).Put(ctx, key.b, value.b)
	return err
}

func (s *keyvalStore) get(ctx context.Context, worker int, key text) error {
	_, err := s.of(worker).Get(ctx, key.b)
	return err
}

func (s *keyvalStore) leader(ctx context.Context) (int, error) {
	status, _, err := s.clients[0].Status(ctx)
	if err != nil {
		return 0, err
	}
	at := slices.Index(s.endpoints, status.GetLeader().GetAddress())
	if at < 0 {
		return 0, errors.New("nobody leads")
	}
	return at, nil
}

func (s *keyvalStore) close() {
	for _, c := range s.clients {
		c.Close()
	}
}

type etcdStore struct {
	endpoints []string
	clients   []*clientv3.Client
}

// openEtcd makes the connections: to the leader, or to each node in turn.
func openEtcd(ctx context.Context, j job) (store, error) {
	config, err := etcdTLS(j.Certs)
	if err != nil {
		return nil, err
	}
	first, err := clientv3.New(clientv3.Config{Endpoints: j.Endpoints, Context: ctx, TLS: config})
	if err != nil {
		return nil, err
	}
	s := &etcdStore{endpoints: j.Endpoints, clients: []*clientv3.Client{first}}
	at, err := s.leader(ctx)
	s.close()
	if err != nil {
		return nil, err
	}
	s.clients = nil
	for i := range j.Way.Connections {
		endpoint := j.Endpoints[at]
		if j.Way.Spread {
			endpoint = j.Endpoints[(at+i)%len(j.Endpoints)]
		}
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Context: ctx, TLS: config})
		if err != nil {
			s.close()
			return nil, err
		}
		s.clients = append(s.clients, c)
	}
	return s, nil
}

// etcdTLS is how a client of etcd comes with the same keys; nil: with none.
func etcdTLS(certs string) (*tls.Config, error) {
	if certs == "" {
		return nil, nil
	}
	f := keys.FilesIn(certs, transport.UserKey)
	own, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, err
	}
	trusted, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(trusted)
	return &tls.Config{Certificates: []tls.Certificate{own}, RootCAs: pool, MinVersion: tls.VersionTLS13}, nil
}

func (s *etcdStore) of(worker int) *clientv3.Client { return s.clients[worker%len(s.clients)] }

func (s *etcdStore) put(ctx context.Context, worker int, key, value text) error {
	_, err := s.of(worker).Put(ctx, key.s, value.s)
	return err
}

func (s *etcdStore) get(ctx context.Context, worker int, key text) error {
	reply, err := s.of(worker).Get(ctx, key.s)
	if err == nil && len(reply.Kvs) != 1 {
		return fmt.Errorf("%s is not there", key.s)
	}
	return err
}

func (s *etcdStore) leader(ctx context.Context) (int, error) {
	var problems []string
	for i, e := range s.endpoints {
		status, err := s.clients[0].Status(ctx, e)
		switch {
		case err != nil:
			problems = append(problems, err.Error())
		case status.Leader == status.Header.MemberId:
			return i, nil
		}
	}
	return 0, fmt.Errorf("nobody leads: %s", strings.Join(problems, "; "))
}

func (s *etcdStore) close() {
	for _, c := range s.clients {
		_ = c.Close()
	}
}
