//go:build linux

package netbridge

// NewCounting returns a Plugger that reports each change.
func NewCounting(o Options, note func(string)) Plugger { return newLinux(o, note) }
