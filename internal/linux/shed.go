package linux

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// Shed gives back what only the start of a program has needed: freed heap, and
// the pages of its file that it has read, code and tables of packages that
// initialise themselves. It is for a service, once it serves. What is needed
// again comes back from the page cache, 16 pages by one fault; nothing is lost.
// It reads /proc/self/smaps (proc(5)).
func Shed() error {
	debug.FreeOSMemory()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return err
	}
	for _, m := range unwritten(string(maps)) {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED); errno != 0 {
			return os.NewSyscallError("madvise", errno)
		}
	}
	return nil
}

// addresses of a mapping.
type addresses struct{ from, to uintptr }

// unwritten returns the private mappings of files, of a text of
// /proc/PID/smaps, of which each page is as it is in the file: nobody can write
// to them, and nobody has, as a dynamic linker does before it protects what it
// has relocated.
func unwritten(smaps string) (out []addresses) {
	var m addresses
	of := false // the last header was of a file that nobody can write to
	for line := range strings.Lines(smaps) {
		var at addresses
		var perms, device string
		var offset, inode uint64
		if n, _ := fmt.Sscanf(line, "%x-%x %s %x %s %d", &at.from, &at.to, &perms, &offset, &device, &inode); n == 6 {
			m = at
			of = inode != 0 && len(perms) == 4 && perms[0] == 'r' && perms[1] == '-' && perms[3] == 'p'
		}
		if kib, is := strings.CutPrefix(line, "Anonymous:"); is && of && strings.TrimSpace(kib) == "0 kB" {
			out = append(out, m)
		}
	}
	return out
}
