package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
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

// staging is a directory that changes and the pack of what it was.
type staging struct {
	t         *testing.T
	src, pack string
	from      *os.File
	stage     *Stage
}

func newStaging(t *testing.T) *staging {
	src, pack := t.TempDir(), filepath.Join(t.TempDir(), "pack")
	f, err := os.OpenFile(pack, os.O_RDWR|os.O_CREATE, 0o600)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return &staging{t, src, pack, openDirs(t, src)[0], NewStage(f)}
}

// pass runs one and demands that the copy is the same layer then.
func (s *staging) pass(mapped func() (bool, error)) Pass {
	s.t.Helper()
	res, err := s.stage.Run(s.t.Context(), s.from, mapped)
	if err != nil {
		s.t.Fatal(err)
	}
	want := asLayer(s.t, s.src)
	var got, recipe, again bytes.Buffer
	streamed, err := s.stage.Stream(s.t.Context(), &got)
	must(s.t, err)
	if !bytes.Equal(want, got.Bytes()) {
		s.t.Fatalf("the copy differs:\n%s", cmp.Diff(listing(s.t, want), listing(s.t, got.Bytes())))
	}
	packed, err := s.stage.Pack(s.t.Context(), &recipe)
	must(s.t, err)
	if packed != streamed {
		s.t.Errorf("packed %+v, streamed %+v", packed, streamed)
	}
	must(s.t, s.unpacked(recipe.Bytes(), &again))
	if !bytes.Equal(want, again.Bytes()) {
		s.t.Fatalf("pack and recipe differ:\n%s", cmp.Diff(listing(s.t, want), listing(s.t, again.Bytes())))
	}
	return res
}

// unpacked reads the pack with its recipe, as somebody does who has not made them.
func (s *staging) unpacked(recipe []byte, w io.Writer) error {
	f, err := os.Open(s.pack)
	must(s.t, err)
	defer f.Close()
	return Unpacked(s.t.Context(), f, bytes.NewReader(recipe), w)
}

// old makes everything look as if it had been changed long ago, as far as the
// stage knows: what was copied within a tick of its change is copied again.
func (s *staging) old() {
	for _, n := range s.stage.nodes {
		n.racy = false
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
	if p := s.pass(unmapped); p.Files != 2 {
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
			s := &staging{t, s.src, s.pack, s.from, s.stage}
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
	fd, err := unix.Openat(int(detachedTmpfs(t, "size=256k").Fd()), "pack", unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	must(t, err)
	small := os.NewFile(uintptr(fd), "pack")
	defer small.Close()
	if _, err := NewStage(small).Run(t.Context(), s.from, nil); !errors.Is(err, errdefs.ErrExhausted) {
		t.Errorf("full disk: %v", err)
	}
}

// A path that no call could open makes no layer that could be unpacked.
func TestStageRefusesEndlessPaths(t *testing.T) {
	s := newStaging(t)
	dir := int(s.from.Fd())
	name := strings.Repeat("d", 255)
	for range 17 {
		must(t, unix.Mkdirat(dir, name, 0o755))
		fd, err := unix.Openat(dir, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		defer unix.Close(fd)
		dir = fd
	}
	if _, err := s.stage.Run(t.Context(), s.from, nil); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("%v", err)
	}
}

// Large files, holes and thousands of small files come back as they were, and
// holes take no room in the pack and in what is made of it.
func TestPackHoldsEverything(t *testing.T) {
	s := newStaging(t)
	random := rand.NewChaCha8([32]byte{1})
	for i := range 600 {
		data := make([]byte, i*7%9000)
		_, _ = random.Read(data)
		must(t, os.WriteFile(s.path(fmt.Sprintf("small%d", i)), data, 0o644))
	}
	large := make([]byte, 3<<20+17)
	_, _ = random.Read(large)
	must(t, os.WriteFile(s.path("large"), large, 0o600), os.WriteFile(s.path("hole"), []byte("begins"), 0o600), os.Truncate(s.path("hole"), 64<<20+1))
	f, err := os.OpenFile(s.path("hole"), os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("data"), 32<<20)
	must(t, errors.Join(err, f.Close()))
	s.pass(nil)
	var st unix.Stat_t
	must(t, unix.Stat(s.pack, &st))
	if used := st.Blocks * 512; used > 32<<20 {
		t.Errorf("the pack takes %d bytes", used)
	}
	var recipe bytes.Buffer
	_, err = s.stage.Pack(t.Context(), &recipe)
	must(t, err)
	to := t.TempDir()
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(s.unpacked(recipe.Bytes(), w)) }()
	_, err = Apply(t.Context(), openDirs(t, to)[0], r, Options{Holes: true})
	must(t, err, unix.Stat(filepath.Join(to, "hole"), &st))
	if used := st.Blocks * 512; used > 1<<20 {
		t.Errorf("the file with holes takes %d bytes", used)
	}
	if want, got := asLayer(t, s.src), asLayer(t, to); !bytes.Equal(want, got) {
		t.Errorf("what was unpacked differs:\n%s", cmp.Diff(listing(t, want), listing(t, got)))
	}
}

// A large file that changes from pass to pass takes its room once.
func TestPackGivesBackWhatIsOld(t *testing.T) {
	s := newStaging(t)
	for i := range 4 {
		must(t, os.WriteFile(s.path("large"), bytes.Repeat([]byte{byte(i + 1)}, 4<<20), 0o600))
		s.pass(nil)
	}
	var st unix.Stat_t
	must(t, unix.Stat(s.pack, &st))
	if used := st.Blocks * 512; used > 6<<20 {
		t.Errorf("the pack takes %d bytes", used)
	}
}

// A pack that lost its end in a power cut, and one of another recipe, are found
// out before anything else goes wrong.
func TestPackThatIsDamaged(t *testing.T) {
	s := newStaging(t)
	must(t, os.WriteFile(s.path("a"), []byte("one"), 0o644))
	s.pass(nil)
	var recipe bytes.Buffer
	_, err := s.stage.Pack(t.Context(), &recipe)
	must(t, err, os.Truncate(s.pack, 2))
	if err := s.unpacked(recipe.Bytes(), io.Discard); !errors.Is(err, errdefs.ErrCorrupt) {
		t.Errorf("cut off: %v", err)
	}
	for cut := range recipe.Len() {
		if err := s.unpacked(recipe.Bytes()[:cut], io.Discard); !errors.Is(err, errdefs.ErrCorrupt) {
			t.Errorf("recipe of %d bytes: %v", cut, err)
		}
	}
}
