//go:build race

package engine_test

// jailMemory: the race detector maps more than any bound.
const jailMemory = -1
