//go:build linux

package cgroup_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine/cgroup"
)

// TestMain turns the test binary into the process that runs inside a group.
func TestMain(m *testing.M) {
	if what := os.Getenv("CGROUP_HELPER"); what != "" {
		helper(what, os.Getenv("CGROUP_HELPER_FILES"))
	}
	os.Exit(m.Run())
}

// helper joins by the files from descriptor 3 on, as a runner's child does.
func helper(what, files string) {
	runtime.LockOSThread()
	n, _ := strconv.Atoi(files)
	for fd := 3; fd < 3+n; fd++ {
		if _, err := unix.Write(fd, []byte("0")); err != nil {
			_, _ = os.Stdout.WriteString("join: " + err.Error() + "\n")
			os.Exit(1)
		}
		_ = unix.Close(fd)
	}
	if os.Getenv("CGROUP_HELPER_BORN") != "" && n > 0 {
		// Only this thread has moved: go on as it alone.
		err := unix.Exec("/proc/self/exe", []string{"born"}, []string{"CGROUP_HELPER=" + what, "CGROUP_HELPER_FILES=0", "GOMAXPROCS=1"})
		_, _ = os.Stdout.WriteString("exec: " + err.Error() + "\n")
		os.Exit(1)
	}
	runtime.UnlockOSThread()
	_, _ = os.Stdout.WriteString("joined\n")
	name, arg, _ := strings.Cut(what, " ")
	switch name {
	case "sleep":
		block()
	case "eat": // memory, touched
		size, _ := strconv.Atoi(arg)
		kept := bytes.Repeat([]byte{1}, size)
		_, _ = os.Stdout.WriteString("ate " + strconv.Itoa(len(kept)) + "\n")
	case "keep": // memory, for ever
		size, _ := strconv.Atoi(arg)
		kept := bytes.Repeat([]byte{1}, size)
		_, _ = os.Stdout.WriteString("ate " + strconv.Itoa(len(kept)) + "\n")
		block()
		runtime.KeepAlive(kept)
	case "open": // path, for reading or writing
		path, mode, _ := strings.Cut(arg, " ")
		flags := unix.O_RDONLY
		if mode == "w" {
			flags = unix.O_WRONLY
		}
		_, err := unix.Open(path, flags, 0)
		_, _ = os.Stdout.WriteString(errno(err) + "\n")
	case "bomb": // never ends by itself
		for {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = []string{"CGROUP_HELPER=bomb", "CGROUP_HELPER_FILES=0"}
			_ = cmd.Start()
		}
	case "spin":
		for n := 0; ; n++ {
			runtime.KeepAlive(n)
		}
	}
	os.Exit(0)
}

// block waits for ever, and keeps the runtime from finding that out.
func block() {
	r, _, err := os.Pipe()
	if err == nil {
		_, _ = r.Read(make([]byte, 1))
	}
}

func errno(err error) string {
	if err == nil {
		return "ok"
	}
	return err.Error()
}

// start runs a helper in the group and returns its output once it has joined,
// and its end.
func start(t testing.TB, g cgroup.Group, what string) (out *os.File, cmd *exec.Cmd) {
	t.Helper()
	files, err := g.JoinFiles()
	if err != nil {
		t.Fatal(err)
	}
	return launch(t, files, what, nil)
}

// bear is start by BirthFiles.
func bear(t testing.TB, g cgroup.Group, what string) (out *os.File, cmd *exec.Cmd) {
	t.Helper()
	files, err := g.BirthFiles()
	if err != nil {
		t.Fatal(err)
	}
	attr := &syscall.SysProcAttr{}
	if st, err := files[0].Stat(); err != nil || st.IsDir() {
		attr.UseCgroupFD, attr.CgroupFD = true, int(files[0].Fd())
		defer files[0].Close()
		files = files[1:]
	}
	return launch(t, files, what, attr)
}

func launch(t testing.TB, files []*os.File, what string, attr *syscall.SysProcAttr) (out *os.File, cmd *exec.Cmd) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command("/proc/self/exe")
	cmd.Env = []string{"CGROUP_HELPER=" + what, "CGROUP_HELPER_FILES=" + strconv.Itoa(len(files)), "GOMAXPROCS=1"}
	if attr != nil {
		cmd.Env = append(cmd.Env, "CGROUP_HELPER_BORN=1")
		cmd.SysProcAttr = attr
	}
	cmd.Stdout, cmd.ExtraFiles = w, files
	err = cmd.Start()
	_ = w.Close()
	for _, f := range files {
		_ = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); _ = r.Close() })
	line := readLine(t, r)
	if line != "joined" {
		t.Fatalf("helper: %q", line)
	}
	return r, cmd
}

func readLine(t testing.TB, r io.Reader) string {
	t.Helper()
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := r.Read(b); err != nil || b[0] == '\n' {
			return string(line)
		}
		line = append(line, b[0])
	}
}
