package grpc

import (
	"keyval/actors/transport"
)

// stream is one end of a gRPC stream.
type stream interface {
	SendMsg(any) error
	RecvMsg(any) error
}

// writeQueue sends what comes into q, as much at a time as there is, until the
// stream breaks or stop is closed. What may not pass goes to reject.
func writeQueue(s stream, q *queue, stop <-chan struct{}, founding bool, reject func(item)) error {
	var batch []item
	for {
		select {
		case <-stop:
			return nil
		case <-q.ready:
		}
		batch = q.take(batch[:0], parcelSizeMax, transport.EnvelopesMax)
		if founding {
			batch = foundersOnly(batch, reject)
		}
		if len(batch) > 0 {
			if err := s.SendMsg(&outgoing{sealed: batch}); err != nil {
				return err
			}
		}
		clear(batch)
		q.sent()
	}
}

func foundersOnly(batch []item, reject func(item)) []item {
	kept := batch[:0]
	for _, it := range batch {
		if it.founding {
			kept = append(kept, it)
		} else {
			reject(it)
		}
	}
	return kept
}
