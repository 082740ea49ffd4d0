package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// watching adds to each node's flags those by which it is watched, and begins to. It runs in this
// process, whose CPU is not counted.
type watching func(flags [][]string) (end func(), err error)

// watches are the ways by which KeyVal can be watched.
var watches = map[string]watching{"metrics": scraped, "tracing": traced("0.01"), "traced": traced("1")}

// scraped reads the metrics of each node once a second: more often than Prometheus does.
func scraped(flags [][]string) (func(), error) {
	addresses, err := freeAddresses(len(flags))
	if err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(context.Background())
	for i, a := range addresses {
		flags[i] = append(flags[i], "--metrics-listen", a, "--metrics-plain")
		go func() {
			every := time.NewTicker(time.Second)
			defer every.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-every.C:
					if answer, err := http.Get("http://" + a + "/metrics"); err == nil {
						_, _ = io.Copy(io.Discard, answer.Body) // whether it came is not what is measured
						answer.Body.Close()
					}
				}
			}
		}()
	}
	return end, nil
}

// traced has nodes trace a share of the requests, for a collector that takes all and keeps nothing.
func traced(share string) watching {
	return func(flags [][]string) (func(), error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
			spans := &emptypb.Empty{} // what it knows nothing of it keeps as bytes
			if err := s.RecvMsg(spans); err != nil {
				return err
			}
			return s.SendMsg(&emptypb.Empty{})
		}))
		go server.Serve(l)
		for i := range flags {
			flags[i] = append(flags[i], "--tracing-endpoint", "http://"+l.Addr().String(), "--tracing-ratio", share)
		}
		return server.Stop, nil
	}
}
