//go:build !amd64 && !arm64

package coredump

const (
	machine    = uint16(0)
	statusSize = 512
	regSP      = 0
	regPC      = 1
)
