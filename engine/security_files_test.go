package engine_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
)

func tarFifo(name string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeFifo, Mode: 0o666}
}

// TestSecurityNothingOfTheImageRuns: RT-11, IM-9, CVE-2019-14271, CVE-2026-41567.
// Programs of the image, and of the PATH of the service, with the names of
// helpers leave a mark when somebody runs them; nobody does.
func TestSecurityNothingOfTheImageRuns(t *testing.T) {
	canary := hostCanary(t)
	trap := "#!/bin/busybox sh\n/bin/busybox touch " + canary + "/ran /ran\n"
	path := t.TempDir()
	var traps []entry
	for _, d := range []string{"usr", "usr/bin", "usr/sbin", "sbin", "lib"} {
		traps = append(traps, dir(d))
	}
	for _, name := range []string{"tar", "gzip", "gunzip", "xz", "unxz", "unpigz", "pigz", "zstd", "bzip2", "mount", "umount", "cp", "newuidmap", "newgidmap", "ldconfig", "passwd", "chpasswd", "useradd"} {
		for _, d := range []string{"bin", "usr/bin", "usr/sbin", "sbin"} {
			traps = append(traps, file(d+"/"+name, trap))
		}
		check(t, os.WriteFile(filepath.Join(path, name), []byte(trap), 0o755))
	}
	for _, lib := range []string{"lib/libnss_files.so.2", "lib/libnss_compat.so.2", "etc/ld.so.preload", "etc/nsswitch.conf"} {
		traps = append(traps, file(lib, trap))
	}
	t.Setenv("PATH", path+":"+os.Getenv("PATH"))
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write(hostileBase(t, traps...))
	check(t, errors.Join(err, z.Close()))
	_, e, done := hostile(t)
	defer done()
	_, err = e.Import(t.Context(), engine.ImportRequest{Ref: "traps", Content: &packed, ContainerFormat: "bare", DiskFormat: "raw"})
	check(t, err)
	check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "traps", Limits: limits}))
	check(t, e.Start(t.Context(), "c", engine.StartRequest{Args: sh("echo up; " + forever), Env: []string{"PATH=/bin"}, User: "root", ConsoleBytes: 1 << 16}))
	console(t, e, "c", "up")
	_, err = e.CopyIn(t.Context(), "c", engine.CopyRequest{Path: "/tmp"}, tarOf(t, map[string]string{"in": "x"}))
	check(t, err)
	if got := copyOut(t, e, "/tmp"); got["tmp/in"] != "x" {
		t.Errorf("copied out %v", got)
	}
	for _, open := range []func() (io.ReadCloser, error){
		func() (io.ReadCloser, error) { return e.Export(t.Context(), "c") },
		func() (io.ReadCloser, error) { return e.Logs(t.Context(), "c", engine.LogsRequest{Lines: -1}) },
		func() (io.ReadCloser, error) { c, err := e.Commit(t.Context(), "c"); return c.Content, err },
	} {
		r, err := open()
		check(t, err)
		_, err = io.Copy(io.Discard, r)
		check(t, errors.Join(err, r.Close()))
	}
	_, err = e.Top(t.Context(), "c")
	check(t, err)
	if out, _ := execOutput(t, e, engine.ExecRequest{Args: sh("test -e /ran && echo ran; echo end")}); out != "end\n" {
		t.Errorf("inside: %q", out)
	}
}

// TestSecurityUsers: RT-10, CVE-2024-40635 and its kin. A user that is no plain
// one is refused, at a start and at an exec, whatever the image says it is.
func TestSecurityUsers(t *testing.T) {
	hostCanary(t)
	_, e, done := hostile(t)
	defer done()
	script(t, e, forever, limits)
	for _, user := range []string{"2147483648:0", "-1", "4294967295", "0x0", " 0", "a:b:c", "nobody", "0:4294967295", "\n0", "00"} {
		if _, err := e.Exec(t.Context(), "c", engine.ExecRequest{Args: []string{"/bin/id"}, User: user}); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("exec as %q: %v", user, err)
		}
	}
	uid := func(user string) string {
		out, _ := execOutput(t, e, engine.ExecRequest{Args: []string{"/bin/id", "-u"}, User: user})
		return out
	}
	if got := uid("1000"); got != "1000\n" { // the image has a user of that name with id 0
		t.Errorf("1000 is %s", got)
	}
	for _, change := range []string{"/bin/mkfifo /etc/passwd", "/bin/ln -s /proc/1/fd/0 /etc/passwd", "/bin/ln -s /dev/zero /etc/passwd", "/bin/head -c 2000000 /dev/zero >/etc/passwd"} {
		check(t, e.Delete(t.Context(), "c"))
		script(t, e, "/bin/rm /etc/passwd; "+change+"; echo ready; "+forever, limits)
		console(t, e, "c", "ready")
		if _, err := e.Exec(t.Context(), "c", engine.ExecRequest{Args: []string{"/bin/id"}, User: "user"}); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("exec after %s: %v", change, err)
		}
	}
}

// TestSecurityInjection: RT-15, CVE-2022-0811, CVE-2026-23953. Nothing that a
// caller gives becomes a line of its own in a file of the host, and a NUL is
// refused.
func TestSecurityInjection(t *testing.T) {
	hostCanary(t)
	h, e, done := hostile(t)
	defer done()
	const mark = "injected-line=1"
	bad := "x\n" + mark + "\r\n%n$(touch /tmp/x)`id`=+;"
	long := strings.Repeat("a", 100_000) + "\n" + mark
	check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits, Labels: map[string]string{bad: bad, "long": long}}))
	check(t, e.Start(t.Context(), "c", engine.StartRequest{
		Args: append(sh("/bin/sleep 1000; true"), bad, long), Env: []string{"PATH=/bin", "A=" + bad, "B=" + long}, ConsoleBytes: 1 << 16,
	}))
	check(t, filepath.WalkDir(h.Root, func(name string, d fs.DirEntry, err error) error {
		rel := strings.TrimPrefix(name, h.Root+"/")
		if err == nil && d.IsDir() && (rel == "rootfs" || rel == "snapshots" || rel == "ns") {
			return fs.SkipDir // the container's own, and the kernel's
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(name)
		if bytes.Contains(data, []byte("\n"+mark)) || bytes.Contains(data, []byte("\r"+mark)) {
			t.Errorf("%s has the line", rel)
		}
		return err
	}))
	if got, err := e.State(t.Context(), "c"); err != nil || len(got.Args) != 5 || got.Args[3] != bad {
		t.Errorf("arguments %q %v", got.Args, err)
	}
	check(t, e.Delete(t.Context(), "c"))
	for name, req := range map[string]engine.StartRequest{
		"argument": {Args: []string{"/bin/true", "a\x00b"}}, "environment": {Args: []string{"/bin/true"}, Env: []string{"A=a\x00b"}},
		"host name": {Args: []string{"/bin/true"}, Hostname: "a\x00b"}, "long host name": {Args: []string{"/bin/true"}, Hostname: strings.Repeat("a", 65)},
		"directory": {Args: []string{"/bin/true"}, Cwd: "/a\x00b"},
	} {
		check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}))
		if err := e.Start(t.Context(), "c", req); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		check(t, e.Delete(t.Context(), "c"))
	}
	for _, id := range []engine.ContainerID{"../x", "a/b", "a\nb", "", ".", "a.b"} {
		if err := e.Create(t.Context(), engine.CreateRequest{ID: id, Image: "busybox"}); !errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("id %q: %v", id, err)
		}
	}
}

// TestSecurityConsole: ST-2. A flood leaves no more than its bound on the disk,
// in files that only root may read.
func TestSecurityConsole(t *testing.T) {
	h, e, done := hostile(t)
	defer done()
	const limit, flood = 64 << 10, 16 << 20
	check(t, e.Create(t.Context(), engine.CreateRequest{ID: "c", Image: "busybox", Limits: limits}))
	check(t, e.Start(t.Context(), "c", engine.StartRequest{Args: []string{"/bin/probe", "flood", fmt.Sprint(flood)}, ConsoleBytes: limit}))
	console(t, e, "c", "flooded\n")
	var total int64
	check(t, filepath.WalkDir(filepath.Join(h.Root, "console"), func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			total += info.Size()
			if info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v", name, info.Mode())
			}
		}
		return err
	}))
	if total == 0 || total > 2*limit {
		t.Errorf("%d bytes of a log of %d", total, limit)
	}
}

// TestSecurityStdio: ST-3. What the host gives a session as its files keeps its
// owner and mode.
func TestSecurityStdio(t *testing.T) {
	hostCanary(t) // with /dev/null and /dev/zero
	_, e, done := hostile(t)
	defer done()
	script(t, e, forever, limits)
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	check(t, err)
	defer null.Close()
	plain, err := os.Create(filepath.Join(t.TempDir(), "out"))
	check(t, err)
	defer plain.Close()
	for _, files := range [][3]*os.File{{}, {null, null, null}, {null, plain, plain}} {
		s, err := e.Exec(t.Context(), "c", engine.ExecRequest{Args: []string{"/bin/id"}, User: "1000:1000", Stdio: files})
		check(t, err)
		_, err = e.ExecWait(t.Context(), "c", s.ID)
		check(t, err)
	}
	var st unix.Stat_t
	check(t, unix.Fstat(int(plain.Fd()), &st))
	if st.Uid != 0 || st.Gid != 0 || st.Mode&0o777 != 0o644 {
		t.Errorf("the file of the host: %+v", st)
	}
}
