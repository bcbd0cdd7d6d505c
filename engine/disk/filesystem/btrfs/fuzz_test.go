package btrfs

import (
	"bytes"
	"flag"
	"path/filepath"
	"testing"

	"github.com/gantry-project/gantry/engine/disk/filesystem/filesystemtest"
)

var update = flag.Bool("update", false, "make the images of testdata again")

// TestPack makes the images that FuzzReader begins with, when -update is
// given: small file systems with a subvolume, a snapshot and all kinds of
// extents. It checks in any case that they can be read.
func TestPack(t *testing.T) {
	for name, m := range map[string]filesystemtest.Maker{
		"mixed": {Mkfs: []string{"--mixed", "-n", "4096", "-m", "single", "-d", "single"}, Size: 16 << 20, Options: "compress-force=lzo"},
		"plain": {Mkfs: []string{"-m", "single"}, Size: 128 << 20, Options: "compress-force=zstd"},
	} {
		packed := filepath.Join("testdata", name+".gz")
		if *update {
			m.Type, m.Mkfs = "btrfs", append([]string{"mkfs.btrfs", "-q"}, m.Mkfs...)
			image := m.Image(t)
			m.Mounted(t, image, "", func(dir string) {
				run(t, dir, `
					btrfs -q subvolume create @; btrfs -q subvolume create @/sub; mkdir @/d; ln -s ../f @/d/link; mkfifo @/d/pipe; mknod @/d/null c 1 3
					echo short > @/f; ln @/f @/d/again; setfattr -n user.a -v b @/f; i=0; while [ $i -lt 60 ]; do echo $i > @/sub/file-$i; i=$((i+1)); done
					seq 30000 > @/text; truncate -s 1M @/text; printf x | dd of=@/text bs=1 seek=500000 conv=notrunc status=none
					head -c 9000 /dev/zero > @/plain; fallocate -o 20000 -l 50000 @/plain; btrfs -q subvolume snapshot -r @ @/d/snapshot`)
			})
			filesystemtest.Pack(t, image, packed)
		}
		image, err := filesystemtest.ReadPacked(packed)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Open(image, image.Size())
		if err != nil {
			t.Fatal(err)
		}
		if all := listing(t, s.(*FileSystem)); len(all) != 4 {
			t.Errorf("%v", all)
		}
	}
}

// FuzzReader changes images; checksums are not looked at.
func FuzzReader(f *testing.F) {
	filesystemtest.Fuzz(f, unchecked, filepath.Join("testdata", "mixed.gz"), filepath.Join("testdata", "plain.gz"))
}

func FuzzExpand(f *testing.F) {
	for c := compressNone + 1; c.known(); c++ {
		f.Add(uint8(c), 5000, lzoOf(bytes.Repeat([]byte("x"), 5000)))
	}
	f.Add(uint8(compressLZO), 4096, []byte{14, 0, 0, 0, 6, 0, 0, 0, 18, 'a', 0x2c, 0, 0, 17})
	f.Fuzz(func(t *testing.T, c uint8, n int, in []byte) {
		kind := compression(c)
		if !kind.known() || n < 0 || n > maxCompressed {
			return
		}
		var x expander
		out := make([]byte, n+1)
		out[n] = 77
		_ = x.expand(kind, out[:n:n], in, 4096)
		if out[n] != 77 {
			t.Error("more than was asked for")
		}
	})
}

func TestLZO(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"literals":          {"\x14abc\x11\x00\x00", "abc"},
		"long literals":     {"\x03abcdef\x11\x00\x00", "abcdef"},
		"one byte repeated": {"\x12a\x2c\x00\x00\x11\x00\x00", "aaaaaaaaaaaaaaa"},
		"short match":       {"\x16abcde\x4c\x00\x11\x00\x00", "abcdebcd"},
		"two bytes":         {"\x13ab\x04\x00\x11\x00\x00", "abab"},
		"two bytes and one": {"\x13ab\x05\x00z\x11\x00\x00", "ababz"},
		"long match":        {"\x12a\x20\x00\x02\x00\x00\x11\x00\x00", "a" + repeat("a", 290)},
		"empty":             {"\x11\x00\x00", ""},
		"before the start":  {"\x12a\x2c\x08\x00\x11\x00\x00", "bad"},
		"no end":            {"\x14abc", "bad"},
		"cut off":           {"\x14ab", "bad"},
		"nothing":           {"", "bad"},
		"endless length":    {"\x12a\x20" + repeat("\x00", 5000), "bad"},
		"too much":          {"\x12a\x20" + repeat("\x00", 20) + "\x01\x00\x00\x11\x00\x00", "bad"},
	} {
		out := make([]byte, 4096)
		n, err := lzo1x(out, []byte(c.in))
		if (err != nil) != (c.want == "bad") || err == nil && string(out[:n]) != c.want {
			t.Errorf("%s: %q, %v", name, out[:n], err)
		}
	}
}

func repeat(s string, n int) string { return string(bytes.Repeat([]byte(s), n)) }
