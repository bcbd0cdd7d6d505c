package filesystemtest

import "testing"

// Image makes an empty file system in a file, for a reader's tests of its own.
func (m Maker) Image(t testing.TB) string {
	t.Helper()
	return m.image(t)
}

// Mounted calls do with the place where the kernel shows the image, under the
// options of the Maker and these.
func (m Maker) Mounted(t testing.TB, image, options string, do func(dir string)) {
	t.Helper()
	m.mounted(t, image, options, do)
}

// Populate fills dir with one of each thing that takes little room.
func Populate(t testing.TB, dir string) {
	t.Helper()
	populate(t, dir, false)
}
