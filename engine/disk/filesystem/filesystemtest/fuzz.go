package filesystemtest

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/gantry-project/gantry/engine/disk/filesystem"
)

func newRandom(seed byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{seed}) }

// Fuzz is the body of a reader's fuzz target. The inputs are changes to one of
// the images, which Pack made: two bytes say where it is cut off (of 65,536
// parts; 0: nowhere), then each change is two bytes for the page, of those
// that look like metadata, two for the place in it, one for a length of 1 to 8,
// and what to write. open is to take each checksum as right.
func Fuzz(f *testing.F, open filesystem.Opener, packed ...string) {
	var images []*Image
	for i, name := range packed {
		s, err := ReadPacked(name)
		if err != nil {
			f.Fatal(err)
		}
		images = append(images, s)
		f.Add(uint8(i), []byte{0, 0})
		f.Add(uint8(i), []byte{0, 128})
		for page := range min(24, len(s.meta)) {
			f.Add(uint8(i), []byte{0, 0, byte(page), 0, 0x08, 0, 3, 0xff, 0xff, 0xff, 0xff})
			f.Add(uint8(i), []byte{0, 0, byte(page), 0, 0x30, 4, 1, 0x7f, 0x00})
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, changes []byte) {
		s := images[int(which)%len(images)].patched()
		if err := promised(look(s, change(s, changes), open)); err != nil {
			t.Fatal(err)
		}
	})
}

// change applies the input of a fuzz target, and returns the size.
func change(s *Image, data []byte) int64 {
	if len(data) < 2 {
		return s.size
	}
	if cut := int64(binary.LittleEndian.Uint16(data)); cut != 0 {
		s.size = s.size / 65536 * cut
	}
	for data = data[2:]; len(data) > 5; {
		page := s.meta[int(binary.LittleEndian.Uint16(data))%len(s.meta)]
		at := int(binary.LittleEndian.Uint16(data[2:])) % pageSize
		n := min(1+int(data[4])%8, len(data)-5, pageSize-at)
		s.set(page, at, data[5:5+n])
		data = data[5+n:]
	}
	return s.size
}
