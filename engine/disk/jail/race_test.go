//go:build race

package jail_test

// memory: the race detector maps more than any bound.
const memory = -1
