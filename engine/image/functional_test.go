//go:build functional

package image

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	tarlayer "github.com/gantry-project/gantry/engine/layer"
)

// These tests need skopeo, umoci and podman (Debian packages of these names).

func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// podmanStorage returns the options of a podman with a storage of its own,
// whose run root may have 50 characters.
func podmanStorage(t *testing.T) []string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pod")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return []string{"--root", filepath.Join(dir, "storage"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs"}
}

// umociImage makes an OCI layout with one image of two layers.
func umociImage(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	run(t, dir, "umoci", "init", "--layout", "oci")
	run(t, dir, "umoci", "new", "--image", "oci:test")
	for i, script := range []string{
		"mkdir -p etc bin tmp && echo one > etc/conf && echo gone > etc/gone && chmod 1777 tmp && ln etc/conf etc/hard && ln -s /bin/sh bin/link",
		"rm etc/gone && echo two > etc/conf2 && chown 1000:1001 etc/conf2 && chmod 4755 etc/conf2",
	} {
		bundle := filepath.Join(dir, "bundle"+string(rune('0'+i)))
		run(t, dir, "umoci", "unpack", "--image", "oci:test", bundle)
		run(t, filepath.Join(bundle, "rootfs"), "sh", "-c", script)
		run(t, dir, "umoci", "repack", "--image", "oci:test", bundle)
	}
	run(t, dir, "umoci", "config", "--image", "oci:test", "--config.entrypoint", "/bin/sh", "--config.cmd", "-c", "--config.env", "A=b",
		"--config.workingdir", "/etc", "--config.user", "1000", "--architecture", runtime.GOARCH, "--os", "linux")
	return dir
}

func openFile(t *testing.T, name string) *Archive {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	a, err := Open(t.Context(), f, st.Size(), OpenOptions{ContainerFormat: "docker", DiskFormat: "raw", SpoolDir: t.TempDir()})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// unpackAll applies the layers to directories of their own.
func unpackAll(t *testing.T, a *Archive) []string {
	t.Helper()
	var dirs []string
	for _, l := range a.Layers() {
		dir := t.TempDir()
		d, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		r, err := l.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tarlayer.Apply(t.Context(), d, r, tarlayer.Options{Verified: l.DiffID()}); err != nil {
			t.Fatal(err)
		}
		_, _ = r.Close(), d.Close()
		dirs = append(dirs, dir)
	}
	return dirs
}

func TestArchivesOfRealTools(t *testing.T) {
	dir := umociImage(t)
	run(t, dir, "tar", "-cf", "layout.tar", "-C", "oci", ".")
	run(t, dir, "gzip", "-k", "layout.tar")
	run(t, dir, "skopeo", "copy", "oci:oci:test", "oci-archive:skopeo-oci.tar:test")
	run(t, dir, "skopeo", "copy", "oci:oci:test", "docker-archive:skopeo-docker.tar:localhost/test:1")
	run(t, dir, "skopeo", "copy", "--dest-compress-format", "zstd", "--dest-compress", "--dest-oci-accept-uncompressed-layers", "oci:oci:test", "oci:zstd:test")
	run(t, dir, "tar", "-cf", "zstd.tar", "-C", "zstd", ".")
	storage := podmanStorage(t)
	run(t, dir, "podman", append(storage, "load", "-i", "skopeo-docker.tar")...)
	run(t, dir, "podman", append(storage, "save", "--format", "docker-archive", "-o", "podman-docker.tar", "localhost/test:1")...)
	run(t, dir, "podman", append(storage, "save", "--format", "oci-archive", "-o", "podman-oci.tar", "localhost/test:1")...)
	for name, kind := range map[string]Kind{
		"layout.tar": OCIArchive, "layout.tar.gz": OCIArchive, "skopeo-oci.tar": OCIArchive, "zstd.tar": OCIArchive,
		"skopeo-docker.tar": DockerArchive, "podman-docker.tar": DockerArchive, "podman-oci.tar": OCIArchive,
	} {
		t.Run(name, func(t *testing.T) {
			a := openFile(t, filepath.Join(dir, name))
			c := a.Config()
			if a.Kind() != kind || len(a.Layers()) != 2 || strings.Join(c.Entrypoint, " ") != "/bin/sh" || strings.Join(c.Cmd, " ") != "-c" ||
				c.User != "1000" || c.WorkingDir != "/etc" || strings.Join(c.Env, " ") != "A=b" {
				t.Fatalf("%s, %d layers, %+v", a.Kind(), len(a.Layers()), c)
			}
			dirs := unpackAll(t, a)
			if out := run(t, dirs[0], "stat", "-c", "%n %a %h", "tmp", "etc/conf", "etc/hard"); out != "tmp 1777 2\netc/conf 644 2\netc/hard 644 2\n" {
				t.Error(out)
			}
			if out := run(t, dirs[1], "stat", "-c", "%n %a %u %g %F %t %T", "etc/conf2", "etc/gone"); out !=
				"etc/conf2 4755 1000 1001 regular file 0 0\netc/gone 0 0 0 character special file 0 0\n" {
				t.Error(out)
			}
		})
	}
}

// TestRealToolsReadWhatBuildWrites goes the other way.
func TestRealToolsReadWhatBuildWrites(t *testing.T) {
	dir := t.TempDir()
	base, top := filepath.Join(dir, "base"), filepath.Join(dir, "top")
	run(t, dir, "sh", "-c", "mkdir -p base/bin base/etc top/etc && cp /bin/busybox base/bin/sh && echo base > base/etc/a && echo gone > base/etc/b && "+
		"echo top > top/etc/a && chown 33:33 top/etc/a && mknod top/etc/b c 0 0")
	spec := BuildSpec{
		Config:  Config{Architecture: runtime.GOARCH, Entrypoint: []string{"/bin/sh", "-c"}, Cmd: []string{"cat /etc/a; ls /etc"}, Env: []string{"PATH=/bin"}},
		Created: time.Now(), Name: "snap:1", TempDir: dir,
	}
	for _, d := range []string{base, top} {
		spec.Layers = append(spec.Layers, LayerSource{Step: Step{CreatedBy: "test"}, Open: func(ctx context.Context) (io.ReadCloser, error) {
			var buf bytes.Buffer
			f, err := os.Open(d)
			if err == nil {
				_, err = tarlayer.Diff(ctx, f, &buf)
				_ = f.Close()
			}
			return io.NopCloser(&buf), err
		}})
	}
	_, data := readBuilt(t, spec)
	if err := os.WriteFile(filepath.Join(dir, "snap.tar"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := run(t, dir, "skopeo", "inspect", "--config", "oci-archive:snap.tar"); !strings.Contains(out, "cat /etc/a") {
		t.Error(out)
	}
	run(t, dir, "skopeo", "copy", "oci-archive:snap.tar", "docker-archive:again.tar:snap:1")
	run(t, dir, "skopeo", "copy", "docker-archive:snap.tar", "dir:fromdocker")
	run(t, dir, "sh", "-c", "mkdir layout && tar -xf snap.tar -C layout")
	run(t, dir, "umoci", "unpack", "--image", "layout:snap:1", "bundle")
	if out := run(t, filepath.Join(dir, "bundle/rootfs"), "sh", "-c", "cat etc/a; stat -c '%u %g' etc/a; ls etc"); out != "top\n33 33\na\n" {
		t.Error(out)
	}
	storage := podmanStorage(t)
	if out := run(t, dir, "podman", append(storage, "load", "-i", "snap.tar")...); !strings.Contains(out, "snap:1") {
		t.Error(out)
	}
	for _, name := range []string{"snap.tar", "again.tar"} {
		if got := unpackAll(t, openFile(t, filepath.Join(dir, name))); len(got) != 2 {
			t.Errorf("%s has %d layers", name, len(got))
		}
	}
}
