package store

import (
	"fmt"
	"iter"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// lastBlock is the last first id: the block must end below the ids that mean
// "nobody" to the kernel, and within a signed 32 bit number.
const lastBlock = (1<<31 - 1) - IDBlock

// freeBlock returns the lowest block that is not taken.
func freeBlock(taken iter.Seq[uint32]) (uint32, error) {
	used := map[uint32]bool{}
	for base := range taken {
		used[base] = true
	}
	for base := FirstID; base <= lastBlock; base += IDBlock {
		if !used[base] {
			return base, nil
		}
	}
	return 0, fmt.Errorf("allocate user ids: %w", errdefs.ErrExhausted)
}
