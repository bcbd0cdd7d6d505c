package foreign

import (
	"testing"

	"golang.org/x/sys/unix"
)

// The null device is one, and not the host's: that stays as it is when a
// runtime gives away what it inherits.
func TestNullIsNobodyElses(t *testing.T) {
	var before, after, own unix.Stat_t
	if err := unix.Stat("/dev/null", &before); err != nil {
		t.Fatal(err)
	}
	f, err := openNull()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := unix.Fchown(int(f.Fd()), 1000000, 1000000); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fstat(int(f.Fd()), &own); err != nil || own.Rdev != unix.Mkdev(1, 3) || own.Uid != 1000000 {
		t.Errorf("own: %+v, %v", own, err)
	}
	if n, err := f.WriteString("x"); n != 1 || err != nil {
		t.Errorf("write: %d, %v", n, err)
	}
	if err := unix.Stat("/dev/null", &after); err != nil || after.Uid != before.Uid || after.Gid != before.Gid {
		t.Errorf("the host's was %+v, is %+v, %v", before, after, err)
	}
}
