package layer

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// asLayer is the layer that a directory holds.
func asLayer(t *testing.T, dir string) []byte {
	t.Helper()
	var out bytes.Buffer
	if _, err := Diff(t.Context(), openDirs(t, dir)[0], &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// staging is a directory that changes and its copy.
type staging struct {
	t        *testing.T
	src, dst string
	from     *os.File
	stage    *Stage
}

func newStaging(t *testing.T) *staging {
	src, dst := t.TempDir(), t.TempDir()
	open := openDirs(t, src, dst)
	return &staging{t, src, dst, open[0], NewStage(open[1])}
}

// pass runs one and demands that the copy is the same layer then.
func (s *staging) pass(mapped func() (bool, error)) Pass {
	s.t.Helper()
	res, err := s.stage.Run(s.t.Context(), s.from, mapped)
	if err != nil {
		s.t.Fatal(err)
	}
	if want, got := asLayer(s.t, s.src), asLayer(s.t, s.dst); !bytes.Equal(want, got) {
		s.t.Fatalf("the copy differs:\n%s", cmp.Diff(listing(s.t, want), listing(s.t, got)))
	}
	return res
}

// old makes everything look as if it had been changed long ago, as far as the
// stage knows: what was copied within a tick of its change is copied again.
func (s *staging) old() {
	for path, f := range s.stage.files {
		f.racy = false
		s.stage.files[path] = f
	}
}

func unmapped() (bool, error) { return false, nil }
func isMapped() (bool, error) { return true, nil }

func (s *staging) path(name string) string { return filepath.Join(s.src, name) }

func TestStageFollowsWhatChanges(t *testing.T) {
	s := newStaging(t)
	must(t, os.MkdirAll(s.path("d/e"), 0o750), os.WriteFile(s.path("d/a"), []byte("one"), 0o640),
		os.WriteFile(s.path("d/e/same"), []byte("same"), 0o600), os.Link(s.path("d/a"), s.path("d/e/b")),
		os.Symlink("a", s.path("d/l")), unix.Mkfifo(s.path("fifo"), 0o600), unix.Mknod(s.path("gone"), unix.S_IFCHR, 0),
		unix.Setxattr(s.path("d"), OpaqueXattr, []byte("y"), 0), unix.Setxattr(s.path("d/a"), "user.x", []byte("1"), 0))
	if p := s.pass(unmapped); p.Files != 3 {
		t.Errorf("first pass: %+v", p)
	}
	s.old()
	if p := s.pass(unmapped); p != (Pass{}) {
		t.Errorf("a pass over what has not changed copied %+v", p)
	}
	for _, c := range []struct {
		name   string
		change func() error
	}{
		{"written", func() error { return os.WriteFile(s.path("d/a"), []byte("two"), 0o640) }},
		{"grown", func() error { return os.WriteFile(s.path("d/e/same"), []byte("same and more"), 0o600) }},
		{"renamed", func() error { return os.Rename(s.path("d/e"), s.path("d/f")) }},
		{"removed", func() error { return os.Remove(s.path("d/f/b")) }},
		{"a link more", func() error { return os.Link(s.path("d/a"), s.path("d/c")) }},
		{"another mode", func() error { return os.Chmod(s.path("d"), 0o700) }},
		{"another owner", func() error { return os.Lchown(s.path("d/l"), 5, 6) }},
		{"not opaque", func() error { return unix.Removexattr(s.path("d"), OpaqueXattr) }},
		{"without attribute", func() error { return unix.Removexattr(s.path("d/a"), "user.x") }},
		{"file for directory", func() error { return errors.Join(os.RemoveAll(s.path("d/f")), os.WriteFile(s.path("d/f"), nil, 0o600)) }},
		{"directory for fifo", func() error { return errors.Join(os.Remove(s.path("fifo")), os.Mkdir(s.path("fifo"), 0o711)) }},
		{"file for whiteout", func() error {
			return errors.Join(os.Remove(s.path("gone")), os.WriteFile(s.path("gone"), []byte("back"), 0o600))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &staging{t, s.src, s.dst, s.from, s.stage}
			must(t, c.change())
			s.pass(nil)
			s.old()
			if p := s.pass(nil); p != (Pass{}) {
				t.Errorf("copied again: %+v", p)
			}
		})
	}
}

// A program that has a file mapped writes without any call that would stamp it.
func TestStageSeesWritesToMappedFiles(t *testing.T) {
	s := newStaging(t)
	must(t, os.WriteFile(s.path("m"), make([]byte, 8192), 0o600))
	f, err := os.OpenFile(s.path("m"), os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	mem, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	t.Cleanup(func() { _ = unix.Munmap(mem) })
	mem[0] = 1
	s.pass(isMapped)
	s.old()
	mem[1] = 2
	if p := s.pass(nil); p.Files != 1 {
		t.Errorf("the second pass copied %+v", p)
	}
}

func TestStageThatFails(t *testing.T) {
	s := newStaging(t)
	must(t, os.WriteFile(s.path("a"), bytes.Repeat([]byte("x"), 1<<20), 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.stage.Run(ctx, s.from, nil); !errors.Is(err, errdefs.ErrAborted) {
		t.Errorf("ended: %v", err)
	}
	broken := errors.New("it cannot be told")
	if _, err := s.stage.Run(t.Context(), s.from, func() (bool, error) { return false, broken }); !errors.Is(err, broken) {
		t.Errorf("mappings that cannot be told: %v", err)
	}
	small := detachedTmpfs(t, "size=256k")
	if _, err := NewStage(small).Run(t.Context(), s.from, nil); !errors.Is(err, errdefs.ErrExhausted) {
		t.Errorf("full disk: %v", err)
	}
}
