package store

import "iter"

// Decode is decode, for the fuzz target.
func Decode(stored []byte, v any) error { return decode(stored, v) }

// FreeBlock is freeBlock: filling a store up would take minutes.
func FreeBlock(taken iter.Seq[uint32]) (uint32, error) { return freeBlock(taken) }
