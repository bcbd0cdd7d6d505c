package linux

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenInRootStaysInside(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(dir, "secret")
	if err := os.WriteFile(outside, []byte("host"), 0o600); err != nil {
		t.Fatal(err)
	}
	rootDir := filepath.Join(dir, "root")
	if err := os.MkdirAll(filepath.Join(rootDir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"abs": outside, "up": "../../secret", "magic": "/proc/self/fd/0"} {
		if err := os.Symlink(target, filepath.Join(rootDir, "etc", name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(rootDir, "secret"), []byte("inside"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(rootDir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(rootDir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()

	if data, err := ReadRegularInRoot(root, "etc/up", 10); err != nil || string(data) != "inside" {
		t.Errorf("etc/up: %q, %v; want the file inside the root", data, err)
	}
	for _, name := range []string{"etc/abs", "etc/magic"} {
		if data, err := ReadRegularInRoot(root, name, 10); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %q, %v; want not found", name, data, err)
		}
	}
	if _, err := ReadRegularInRoot(root, "fifo", 10); !errors.Is(err, ErrNotRegular) {
		t.Errorf("fifo: %v", err)
	}
	if _, err := ReadRegularInRoot(root, "secret", 5); !errors.Is(err, ErrTooLarge) {
		t.Errorf("large: %v", err)
	}
}

func TestParseStartTime(t *testing.T) {
	const tail = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21"
	tests := map[string]struct {
		in   string
		want uint64
		ok   bool
	}{
		"plain":            {"7 (sh)" + tail, 4242, true},
		"hostile name":     {"7 (a) S 1 2 (b c)" + tail, 4242, true},
		"no name":          {"7 sh" + tail, 0, false},
		"cut off":          {"7 (sh) S 1 2", 0, false},
		"not a number":     {"7 (sh) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 x 20", 0, false},
		"negative, absurd": {"7 (sh) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 -1 20", 0, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parseStartTime([]byte(tt.in))
			if got != tt.want || (err == nil) != tt.ok {
				t.Errorf("got %d, %v", got, err)
			}
		})
	}
	if _, err := StartTime(os.Getpid()); err != nil {
		t.Error(err)
	}
}

func TestPidfdSeesExit(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f, err := PidfdOpen(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := PidfdSignal(f, int(unix.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	if err := AwaitPidfd(f); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if err := PidfdSignal(f, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("signal after the end: %v", err)
	}
}

func TestRecvFiles(t *testing.T) {
	ours, theirs, err := SeqpacketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ours.Close() }()
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	if err := unix.Sendmsg(int(theirs.Fd()), []byte("hi"), unix.UnixRights(int(null.Fd())), nil, 0); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 8)
	n, files, err := RecvFiles(ours, buf, 1)
	if err != nil || string(buf[:n]) != "hi" || len(files) != 1 {
		t.Fatalf("got %q, %d files, %v", buf[:n], len(files), err)
	}
	CloseAll(files)
	_ = theirs.Close()
	if n, _, err := RecvFiles(ours, buf, 1); n != 0 || err != nil {
		t.Errorf("end of stream: %d, %v", n, err)
	}
}
