package grpc

import (
	"math/bits"
	"sync"

	"google.golang.org/grpc/mem"
)

// parcels are the buffers of frames on their way out and in.
var parcels = &buffers{}

// buffers is a pool of byte slices by powers of two. gRPC's own pool has few sizes, up
// to 1 MiB, and clears the whole buffer each time: more work than writing what most
// parcels hold. This one does not clear, since whoever gets a buffer writes all of it.
type buffers struct {
	pools [bufferBitsMax + 1]sync.Pool // of *[]byte with a capacity of 1<<index
}

// Capacities of what is kept: larger ones are left to the garbage collector. gRPC
// gives nothing back that is 1 KiB or less.
const (
	bufferBitsMin = 11 // 2 KiB
	bufferBitsMax = 20 // 1 MiB
)

var _ mem.BufferPool = (*buffers)(nil)

// Get implements mem.BufferPool.
func (p *buffers) Get(length int) *[]byte {
	class := max(bufferBitsMin, bits.Len(uint(max(0, length-1))))
	if class > bufferBitsMax {
		b := make([]byte, length)
		return &b
	}
	if b, ok := p.pools[class].Get().(*[]byte); ok {
		*b = (*b)[:length]
		return b
	}
	b := make([]byte, length, 1<<class)
	return &b
}

// Put implements mem.BufferPool.
func (p *buffers) Put(b *[]byte) {
	if class := bits.Len(uint(cap(*b))) - 1; class >= bufferBitsMin && class <= bufferBitsMax && cap(*b) == 1<<class {
		p.pools[class].Put(b)
	}
}
