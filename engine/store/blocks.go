package store

import (
	"fmt"
	"iter"
	"math/bits"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// lastBlock is the last first id: the block must end below the ids that mean
// "nobody" to the kernel, and within a signed 32 bit number.
const lastBlock = (1<<31 - 1) - IDBlock

// freeBlock returns the lowest block that is not taken. It has a bit for each
// block: each new container looks at those of all others.
func freeBlock(taken iter.Seq[uint32]) (uint32, error) {
	const blocks = (lastBlock-FirstID)/IDBlock + 1
	var used [blocks/64 + 1]uint64
	for base := range taken {
		if n := (base - FirstID) / IDBlock; base >= FirstID && n < blocks {
			used[n/64] |= 1 << (n % 64)
		}
	}
	for i, word := range used {
		if n := uint32(i*64 + bits.TrailingZeros64(^word)); word != ^uint64(0) && n < blocks {
			return FirstID + n*IDBlock, nil
		}
	}
	return 0, fmt.Errorf("allocate user ids: %w", errdefs.ErrExhausted)
}
