//go:build !race

package jail_test

const memory = 0 // the default
