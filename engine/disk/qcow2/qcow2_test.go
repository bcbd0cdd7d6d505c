package qcow2_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/gantry-project/gantry/engine/disk/qcow2"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// plain is a disk with data that compresses, data that does not, and holes; its
// length is no multiple of a cluster.
func plain(t testing.TB) []byte {
	t.Helper()
	disk := make([]byte, 5<<20+512)
	src := rand.New(rand.NewPCG(1, 2))
	for off := 0; off < len(disk); off += 100_000 {
		switch part := disk[off:min(off+50_000, len(disk))]; src.IntN(3) {
		case 0:
			for i := range part {
				part[i] = byte(src.Uint32())
			}
		case 1:
			for i := range part {
				part[i] = byte(i / 1000)
			}
		}
	}
	copy(disk[len(disk)-512:], "the end")
	return disk
}

// qemuImg runs qemu-img.
func qemuImg(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %v: %v\n%s", args, err, out)
	}
}

// convert makes an image of disk.
func convert(t testing.TB, disk []byte, args ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	raw, out := filepath.Join(dir, "raw"), filepath.Join(dir, "qcow2")
	if err := os.WriteFile(raw, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, append(append([]string{"convert", "-f", "raw", "-O", "qcow2"}, args...), raw, out)...)
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func open(data []byte) (*qcow2.Image, error) {
	return qcow2.Open(bytes.NewReader(data), int64(len(data)))
}

// readAll reads the disk in pieces of odd lengths.
func readAll(img *qcow2.Image) ([]byte, error) {
	var out bytes.Buffer
	_, err := io.CopyBuffer(struct{ io.Writer }{&out}, struct{ io.Reader }{io.NewSectionReader(img, 0, img.Size())}, make([]byte, 10_007))
	return out.Bytes(), err
}

// variants are the arguments of qemu-img that change how a disk is stored.
func variants() map[string][]string {
	return map[string][]string{
		"version 2":              {"-o", "compat=0.10"},
		"version 2, compressed":  {"-c", "-o", "compat=0.10"},
		"version 3":              nil,
		"small clusters":         {"-o", "cluster_size=512"},
		"small, compressed":      {"-c", "-o", "cluster_size=512"},
		"large clusters":         {"-o", "cluster_size=2M"},
		"large, compressed":      {"-c", "-o", "cluster_size=2M"},
		"zlib":                   {"-c"},
		"zstd":                   {"-c", "-o", "compression_type=zstd"},
		"large, zstd":            {"-c", "-o", "compression_type=zstd,cluster_size=2M"},
		"extended L2":            {"-o", "extended_l2=on"},
		"extended L2, zstd":      {"-c", "-o", "extended_l2=on,compression_type=zstd"},
		"extended L2, large":     {"-o", "extended_l2=on,cluster_size=2M"},
		"preallocated":           {"-o", "preallocation=metadata"},
		"allocated":              {"-S", "0"},
		"lazy reference counts":  {"-o", "lazy_refcounts=on"},
		"wide reference counts":  {"-o", "refcount_bits=64"},
		"narrow reference count": {"-o", "refcount_bits=1"},
	}
}

func TestReads(t *testing.T) {
	disk := plain(t)
	for name, args := range variants() {
		t.Run(name, func(t *testing.T) {
			img, err := open(convert(t, disk, args...))
			if err != nil {
				t.Fatal(err)
			}
			if img.Size() != int64(len(disk)) {
				t.Fatalf("%d bytes, want %d", img.Size(), len(disk))
			}
			got, err := readAll(img)
			if err != nil || !bytes.Equal(got, disk) {
				t.Fatalf("%d bytes that differ, %v", len(got), err)
			}
			src := rand.New(rand.NewPCG(3, 4))
			for range 200 {
				p := make([]byte, src.IntN(300_000))
				off := src.IntN(len(disk) - len(p))
				if _, err := img.ReadAt(p, int64(off)); err != nil || !bytes.Equal(p, disk[off:off+len(p)]) {
					t.Fatalf("%d bytes at %d: %v", len(p), off, err)
				}
			}
		})
	}
}

func TestReaderAt(t *testing.T) {
	disk := plain(t)
	img, err := open(convert(t, disk, "-c"))
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 1024)
	if n, err := img.ReadAt(p, img.Size()-512); n != 512 || err != io.EOF || !bytes.HasPrefix(p, []byte("the end")) {
		t.Error(n, err)
	}
	if n, err := img.ReadAt(p, img.Size()); n != 0 || err != io.EOF {
		t.Error(n, err)
	}
	if _, err := img.ReadAt(p, -1); !errors.Is(err, errdefs.ErrInvalid) {
		t.Error(err)
	}
	var wg sync.WaitGroup
	for k := range 4 {
		wg.Go(func() {
			p := make([]byte, 200_000)
			for off := k * 1000; off+len(p) < len(disk); off += 150_000 {
				if _, err := img.ReadAt(p, int64(off)); err != nil || !bytes.Equal(p, disk[off:off+len(p)]) {
					t.Errorf("at %d: %v", off, err)
				}
			}
		})
	}
	wg.Wait()
}

// TestChanged: what a machine wrote over an image and trimmed of it.
func TestChanged(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "d.qcow2")
	for _, options := range []string{"compat=1.1", "extended_l2=on"} {
		qemuImg(t, "create", "-q", "-f", "qcow2", "-o", options, name, "64M")
		cmd := exec.Command("qemu-io", "-f", "qcow2",
			"-c", "write -P 1 0 1M", "-c", "write -P 2 40M 70k", "-c", "write -z 128k 64k", "-c", "write -zu 300k 3k", "-c", "discard 512k 128k",
			"-c", "write -P 3 200k 1k", name)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("qemu-io: %v\n%s", err, out)
		}
		raw := filepath.Join(dir, "raw")
		qemuImg(t, "convert", "-O", "raw", name, raw)
		want, err := os.ReadFile(raw)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		img, err := open(data)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readAll(img); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: differs, %v", options, err)
		}
	}
}

// TestRefused: images that need more than themselves, and damaged ones. Each
// has a text for tenants.
func TestRefused(t *testing.T) {
	good := convert(t, plain(t))
	be := binary.BigEndian
	l1 := int(be.Uint64(good[40:]))
	l2 := int(be.Uint64(good[l1:]) & (1<<56 - 1<<9))
	data := l2
	for be.Uint64(good[data:])&(1<<56-1<<9) == 0 {
		data += 8
	}
	for name, c := range map[string]struct {
		change func(p []byte) []byte
		class  error
	}{
		"backing file":         {func(p []byte) []byte { be.PutUint64(p[8:], 512); be.PutUint32(p[16:], 11); return p }, errdefs.ErrInvalid},
		"backing offset only":  {func(p []byte) []byte { be.PutUint64(p[8:], 512); return p }, errdefs.ErrInvalid},
		"data file":            {func(p []byte) []byte { p[79] |= 4; return p }, errdefs.ErrInvalid},
		"data file name":       {func(p []byte) []byte { be.PutUint32(p[be.Uint32(p[100:]):], 0x44415441); return p }, errdefs.ErrInvalid},
		"encrypted":            {func(p []byte) []byte { p[35] = 1; return p }, errdefs.ErrInvalid},
		"key header":           {func(p []byte) []byte { be.PutUint32(p[be.Uint32(p[100:]):], 0x0537be77); return p }, errdefs.ErrInvalid},
		"corrupt":              {func(p []byte) []byte { p[79] |= 2; return p }, errdefs.ErrCorrupt},
		"unknown feature":      {func(p []byte) []byte { p[79] |= 64; return p }, errdefs.ErrUnsupported},
		"unknown compression":  {func(p []byte) []byte { p[79] |= 8; p[104] = 7; return p }, errdefs.ErrUnsupported},
		"lie on compression":   {func(p []byte) []byte { p[104] = 1; return p }, errdefs.ErrCorrupt},
		"version 9":            {func(p []byte) []byte { p[7] = 9; return p }, errdefs.ErrUnsupported},
		"tiny clusters":        {func(p []byte) []byte { p[23] = 8; return p }, errdefs.ErrCorrupt},
		"huge clusters":        {func(p []byte) []byte { p[23] = 63; return p }, errdefs.ErrCorrupt},
		"huge disk":            {func(p []byte) []byte { p[24] = 0xff; return p }, errdefs.ErrInvalid},
		"larger than table":    {func(p []byte) []byte { p[27] = 1; return p }, errdefs.ErrCorrupt},
		"huge table":           {func(p []byte) []byte { p[36] = 0xff; return p }, errdefs.ErrInvalid},
		"table beyond":         {func(p []byte) []byte { p[42] = 1; return p }, errdefs.ErrCorrupt},
		"long header":          {func(p []byte) []byte { p[100] = 1; return p }, errdefs.ErrCorrupt},
		"long extension":       {func(p []byte) []byte { p[be.Uint32(p[100:])+4] = 1; return p }, errdefs.ErrCorrupt},
		"cut off in header":    {func(p []byte) []byte { return p[:80] }, errdefs.ErrCorrupt},
		"cut off":              {func(p []byte) []byte { return p[:len(p)/2] }, errdefs.ErrCorrupt},
		"empty":                {func([]byte) []byte { return nil }, errdefs.ErrCorrupt},
		"second table beyond":  {func(p []byte) []byte { p[l1+2] = 1; return p }, errdefs.ErrCorrupt},
		"second table askew":   {func(p []byte) []byte { p[l1+6] ^= 2; return p }, errdefs.ErrCorrupt},
		"cluster beyond":       {func(p []byte) []byte { p[data+1] = 1; return p }, errdefs.ErrCorrupt},
		"cluster askew":        {func(p []byte) []byte { p[data+6] ^= 2; return p }, errdefs.ErrCorrupt},
		"junk for compressed":  {func(p []byte) []byte { p[data] |= 0x40; return p }, errdefs.ErrCorrupt},
		"compressed beyond":    {func(p []byte) []byte { be.PutUint64(p[data:], 1<<62|1<<50); return p }, errdefs.ErrCorrupt},
		"compressed at header": {func(p []byte) []byte { be.PutUint64(p[data:], 1<<62|1); return p }, errdefs.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			img, err := open(c.change(bytes.Clone(good)))
			if err == nil {
				_, err = readAll(img)
			}
			if !errors.Is(err, c.class) || errdefs.PublicText(err, "") == "" {
				t.Errorf("got %v, for tenants %q", err, errdefs.PublicText(err, ""))
			}
		})
	}
}

// TestCyclic: tables that point at themselves, at the first table and at the
// header are nonsense that ends.
func TestCyclic(t *testing.T) {
	good := convert(t, plain(t))
	be := binary.BigEndian
	l1 := be.Uint64(good[40:])
	l2 := be.Uint64(good[l1:]) & (1<<56 - 1<<9)
	for name, host := range map[string]uint64{"itself": l2, "first table": l1, "header": 0} {
		p := bytes.Clone(good)
		for k := range uint64(100) {
			be.PutUint64(p[l2+8*k:], host)
		}
		img, err := open(p)
		if err != nil {
			t.Fatal(name, err)
		}
		if got, err := readAll(img); int64(len(got)) != img.Size() {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

// TestSourceErrors are neither the tenant's fault nor the end of the disk.
func TestSourceErrors(t *testing.T) {
	good := convert(t, plain(t), "-c")
	broken := errors.New("input/output error")
	for from := range int64(6) {
		from *= int64(len(good)) / 6
		img, err := qcow2.Open(failing{bytes.NewReader(good), from, broken}, int64(len(good)))
		if err == nil {
			_, err = readAll(img)
		}
		if !errors.Is(err, broken) || errors.Is(err, errdefs.ErrCorrupt) {
			t.Errorf("broken from %d: %v", from, err)
		}
	}
}

// failing fails behind an offset.
type failing struct {
	r    io.ReaderAt
	from int64
	err  error
}

// ReadAt implements io.ReaderAt.
func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.from {
		return 0, f.err
	}
	return f.r.ReadAt(p, off)
}

func FuzzOpen(f *testing.F) {
	disk := bytes.Repeat([]byte("0123456789abcdef"), 2048)
	for _, args := range [][]string{{"-o", "cluster_size=512"}, {"-c", "-o", "cluster_size=512"}, {"-c", "-o", "cluster_size=512,compression_type=zstd"}, {"-o", "cluster_size=16k,extended_l2=on"}} {
		f.Add(convert(f, disk, args...))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		img, err := open(data)
		if err != nil {
			return
		}
		p := make([]byte, 70_000)
		for _, off := range []int64{0, 12_345, img.Size() / 2, img.Size() - 1, img.Size() - 60_000} {
			n, err := img.ReadAt(p, max(off, 0))
			if n < len(p) && err == nil {
				t.Fatalf("%d of %d bytes at %d without an error", n, len(p), off)
			}
		}
	})
}
