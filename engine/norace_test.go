//go:build !race

package engine_test

const jailMemory = 0 // the default
