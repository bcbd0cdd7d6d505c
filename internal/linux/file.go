package linux

import (
	"os"

	"golang.org/x/sys/unix"
)

// ReadFile reads a whole file as os.ReadFile does, with the same errors, but in
// four system calls instead of eleven: it asks neither for the size nor the
// runtime's poller. It is for small files that never make a reader wait, as
// those of /proc, /sys and control groups are.
func ReadFile(name string) ([]byte, error) {
	fd, err := OpenFd(name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var first [4096]byte
	data := first[:0]
	for {
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
		n, err := RetryEINTR(func() (int, error) { return unix.Read(fd, data[len(data):cap(data)]) })
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: name, Err: err}
		}
		if n == 0 {
			return append([]byte{}, data...), nil
		}
		data = data[:len(data)+n]
	}
}

// OpenFd opens a file without the runtime's poller, for one or two calls or for
// a child; O_CLOEXEC is added to the flags. The error is an *os.PathError. The
// caller closes the descriptor.
func OpenFd(name string, flags int) (int, error) {
	fd, err := RetryEINTR(func() (int, error) { return unix.Open(name, flags|unix.O_CLOEXEC, 0) })
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}
