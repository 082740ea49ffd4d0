package grpc

import "testing"

func TestAddresses(t *testing.T) {
	for _, row := range []struct {
		address          string
		good, everywhere bool
	}{
		{"127.0.0.1:7001", true, false}, {"host:1", true, false}, {"[::1]:65535", true, false},
		{":7001", true, true}, {"0.0.0.0:7001", true, true}, {"[::]:7001", true, true},
		{"", false, false}, {"host", false, false}, {"host:", false, false}, {"host:0", false, false}, {"host:65536", false, false},
		{"host:http", false, false}, {"::1:7001", false, false}, {"a b:1", false, false}, {"http://host:1", false, false}, {"a,b:1", false, false},
	} {
		err, reachable := CheckAddress(row.address), CheckReachable(row.address)
		if (err == nil) != row.good || (reachable == nil) != (row.good && !row.everywhere) {
			t.Errorf("%q: %v, %v", row.address, err, reachable)
		}
		if err != nil && err.Hint == "" || reachable != nil && reachable.Hint == "" {
			t.Errorf("%q: no next step", row.address)
		}
		if row.good && Everywhere(row.address) != row.everywhere {
			t.Errorf("%q: everywhere is %v", row.address, !row.everywhere)
		}
	}
}

func TestLoopback(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:1": true, "127.9.9.9:1": true, "[::1]:1": true, "localhost:1": true,
		"10.0.0.1:1": false, "0.0.0.0:1": false, ":1": false, "[::]:1": false, "example.org:1": false, "": false,
	} {
		if got := Loopback(address); got != want {
			t.Errorf("%q: %v", address, got)
		}
	}
}
