package linux

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// Shed gives back what only the start of a program has needed: freed heap, and
// the pages of its file that it has read, code and tables of packages that
// initialise themselves. It is for a service, once it serves. What is needed
// again comes back from the page cache, 16 pages by one fault; nothing is lost.
// It reads /proc/self/maps (proc(5)).
func Shed() error {
	debug.FreeOSMemory()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	for lines := bufio.NewScanner(bytes.NewReader(maps)); lines.Scan(); {
		from, to, ok := unwritten(lines.Text())
		if !ok {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return os.NewSyscallError("madvise", errno)
		}
	}
	return nil
}

// unwritten returns the addresses of a line of /proc/PID/maps if it is a private
// mapping of a file that nobody can write to: what it shows is in the file.
func unwritten(line string) (from, to uintptr, ok bool) {
	var perms, device string
	var offset, inode uint64
	n, err := fmt.Sscanf(line, "%x-%x %s %x %s %d", &from, &to, &perms, &offset, &device, &inode)
	return from, to, err == nil && n == 6 && inode != 0 && len(perms) == 4 && perms[0] == 'r' && perms[1] == '-' && perms[3] == 'p'
}
