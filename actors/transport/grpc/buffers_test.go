package grpc

import "testing"

func TestBuffersHaveTheLengthThatIsAsked(t *testing.T) {
	p := &buffers{}
	for _, length := range []int{0, 1, 511, 1024, 1025, 2048, 2049, 4096, 5000, 1 << 20, 1<<20 + 1} {
		for range 3 {
			b := p.Get(length)
			if len(*b) != length || cap(*b) > max(2*length, 1<<bufferBitsMin) {
				t.Fatalf("%d bytes were asked for: length %d, capacity %d", length, len(*b), cap(*b))
			}
			*b = (*b)[:length/2] // gRPC gives back a prefix
			p.Put(b)
		}
	}
}

func TestBuffersOfOthersAreNotKept(t *testing.T) {
	p := &buffers{}
	for _, capacity := range []int{0, 100, 3000, 1 << 21} {
		b := make([]byte, capacity)
		p.Put(&b)
	}
	for class := range p.pools {
		if b := p.pools[class].Get(); b != nil {
			t.Fatalf("a buffer is kept in class %d", class)
		}
	}
}
