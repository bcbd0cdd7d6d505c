package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// with is a file that has a mark at an offset.
func with(off int, mark string) []byte {
	b := make([]byte, 70<<10)
	copy(b[off:], mark)
	return b
}

// fakeDisk shows what it was asked for, and then more.
func fakeDisk(more []byte, err error) DiskReader {
	return func(_ context.Context, r io.ReaderAt, size int64, format string) (io.ReadCloser, error) {
		if err != nil {
			return nil, err
		}
		head := make([]byte, 4)
		if _, err := r.ReadAt(head, 0); err != nil {
			return nil, err
		}
		return io.NopCloser(io.MultiReader(strings.NewReader(fmt.Sprintf("%s %d %q ", format, size, head)), bytes.NewReader(more))), nil
	}
}

func TestDiskImages(t *testing.T) {
	for name, c := range map[string]struct {
		data   []byte
		format string
	}{
		"qcow2": {with(0, "QFI\xfb\x00\x00\x00\x03"), "qcow2"}, "mbr": {with(510, "\x55\xaa"), "raw"}, "gpt": {with(512, "EFI PART"), "raw"},
		"ext4": {with(1080, "\x53\xef"), "raw"}, "xfs": {with(0, "XFSB"), "raw"}, "btrfs": {with(65600, "_BHRfS_M"), "raw"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, opts := range []OpenOptions{{}, {ContainerFormat: "bare"}, {ContainerFormat: "bare", DiskFormat: c.format}} {
				opts.Disk = fakeDisk([]byte("tar"), nil)
				a, err := open(t, c.data, opts)
				if err != nil {
					t.Fatal(err)
				}
				l := a.Layers()
				if a.Kind() != DiskImage || a.ID() != "" || len(l) != 1 || l[0].DiffID() != "" || l[0].StoredSize() != int64(len(c.data)) {
					t.Fatalf("%+v", a)
				}
				for range 2 {
					r, err := l[0].Open(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					got, err := io.ReadAll(r)
					if want := fmt.Sprintf("%s %d %q tar", c.format, len(c.data), c.data[:4]); err != nil || string(got) != want {
						t.Errorf("got %q, %v; want %q", got, err, want)
					}
					check(t, r.Close())
				}
			}
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestDisksThatAreRefused: other formats, whatever was declared, and those that
// are not what was declared.
func TestDisksThatAreRefused(t *testing.T) {
	qcow2, raw := with(0, "QFI\xfb\x00\x00\x00\x03"), with(510, "\x55\xaa")
	for name, data := range map[string][]byte{
		"vmdk": with(0, "KDMV"), "vmdk ": with(0, "# Disk DescriptorFile\n"), "vhdx": with(0, "vhdxfile"), "vhd": with(0, "conectix"),
		"vdi": with(0x40, "\x7f\x10\xda\xbe"), "iso": with(32769, "CD001"), "ploop": with(0, "WithoutFreeSpace"), "qed": with(0, "QED\x00"),
		"squashfs": with(0, "hsqs"), "luks": with(0, "LUKS\xba\xbe"), "LVM": with(512, "LABELONE"),
	} {
		kind := strings.TrimSpace(name)
		for _, opts := range []OpenOptions{{}, {ContainerFormat: "bare", DiskFormat: kind}} {
			opts.Disk = fakeDisk(nil, nil)
			_, err := open(t, data, opts)
			wantRefusal(t, err, errdefs.ErrUnsupported, kind)
		}
	}
	for name, c := range map[string]struct {
		data            []byte
		disk, container string
		class           error
		text            string
	}{
		"qcow2 declared raw":    {qcow2, "raw", "bare", errdefs.ErrInvalid, "declared to have the disk_format raw"},
		"raw declared qcow2":    {raw, "qcow2", "bare", errdefs.ErrInvalid, "declared to have the disk_format qcow2"},
		"qcow2 declared vmdk":   {qcow2, "vmdk", "bare", errdefs.ErrInvalid, "declared to have the disk_format vmdk"},
		"vmdk declared raw":     {with(0, "KDMV"), "raw", "bare", errdefs.ErrInvalid, "vmdk"},
		"qcow2 declared docker": {qcow2, "qcow2", "docker", errdefs.ErrInvalid, "use bare"},
		"raw declared ova":      {raw, "raw", "ova", errdefs.ErrInvalid, "use bare"},
		"tar declared qcow2":    {makeTar(t, entry{"etc/a", ""}), "qcow2", "bare", errdefs.ErrInvalid, "archive"},
		"tar declared aki":      {makeTar(t, entry{"etc/a", ""}), "aki", "bare", errdefs.ErrInvalid, "archive"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open(t, c.data, OpenOptions{DiskFormat: c.disk, ContainerFormat: c.container, Disk: fakeDisk(nil, nil)})
			wantRefusal(t, err, c.class, c.text)
		})
	}
	_, err := open(t, qcow2, OpenOptions{})
	wantRefusal(t, err, errdefs.ErrUnsupported, "not read here")
}

// TestDiskLimits: what is read of a disk image is bounded like a layer, and a
// qcow2 that holds one cluster many times is a bomb.
func TestDiskLimits(t *testing.T) {
	lim := Limits{LayerBytes: 8 << 20, Ratio: 20, RatioFrom: 1 << 20}
	for name, c := range map[string]struct {
		data []byte
		n    int64
		text string
	}{
		"qcow2 within the ratio": {with(0, "QFI\xfb"), 1 << 20, ""},
		"qcow2 beyond":           {with(0, "QFI\xfb"), 2 << 20, "expands to more than 20 times"},
		"raw has no ratio":       {with(510, "\x55\xaa"), 7 << 20, ""},
		"raw beyond the size":    {with(510, "\x55\xaa"), 9 << 20, "more than 8388608 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := open(t, c.data, OpenOptions{Limits: lim, Disk: fakeDisk(make([]byte, c.n), nil)})
			check(t, err)
			r, err := a.Layers()[0].Open(t.Context())
			check(t, err)
			defer r.Close()
			_, err = io.Copy(io.Discard, r)
			if c.text == "" {
				check(t, err)
				return
			}
			wantRefusal(t, err, errdefs.ErrInvalid, c.text)
		})
	}
}

func TestDiskErrors(t *testing.T) {
	a, err := open(t, with(510, "\x55\xaa"), OpenOptions{Disk: fakeDisk(nil, os.ErrPermission)})
	check(t, err)
	if _, err := a.Layers()[0].Open(t.Context()); !errors.Is(err, os.ErrPermission) {
		t.Error(err)
	}
	a, err = open(t, with(510, "\x55\xaa"), OpenOptions{Disk: fakeDisk([]byte("x"), nil)})
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := a.Layers()[0].Open(ctx)
	check(t, err)
	cancel()
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, errdefs.ErrAborted) {
		t.Error(err)
	}
}
