//go:build functional

package dashboard

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// asBrowser makes this program become the browser, see becomeBrowser.
const asBrowser = "GANTRY_TEST_BROWSER"

func TestMain(m *testing.M) {
	if os.Getenv(asBrowser) != "" {
		fmt.Fprintln(os.Stderr, becomeBrowser(os.Args))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// becomeBrowser replaces this process by the browser, without netlink. Chromium ends
// all requests with ERR_NETWORK_CHANGED when an address of its network namespace comes
// or goes, and those of the cloud's networks do at any time: a page then lacks a script
// or a part. Without netlink it takes the network as it is. Returns only with an error.
func becomeBrowser(args []string) error {
	program, err := exec.LookPath(browserProgram)
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	// seccomp(2), struct seccomp_data: the number at 0, the first argument's low half at 16
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 3, K: unix.SYS_SOCKET},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 16},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.AF_NETLINK},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EAFNOSUPPORT)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return syscall.Exec(program, append([]string{program}, args[1:]...), os.Environ())
}
