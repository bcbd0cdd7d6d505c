package engine

import "testing"

func TestWritesFiles(t *testing.T) {
	for line, want := range map[string]bool{
		"7f00-7f01 rw-s 00000000 fe:00 123                        /root/data.mdb\n": true,
		"7f00-7f01 -w-s 00000000 fe:00 123                        /root/a b\n":      true,
		"7f00-7f01 rw-p 00000000 fe:00 123                        /bin/x\n":         false,
		"7f00-7f01 r--s 00000000 fe:00 123                        /root/x\n":        false,
		"7f00-7f01 rw-s 00000000 00:01 123                        /dev/zero\n":      false,
		"7f00-7f01 rw-s 00000000 00:01 123                        /memfd:x\n":       false,
		"7f00-7f01 rw-s 00000000 00:01 123                        /SYSV0000\n":      false,
		"7f00-7f01 rw-s 00000000 00:0e 123                        anon_inode:[x]\n": false,
		"7f00-7f01 rw-p 00000000 00:00 0\n":                                         false,
		"":                                                                          false,
		"broken\n":                                                                  false,
	} {
		if got := writesFiles([]byte(line)); got != want {
			t.Errorf("%q: %t", line, got)
		}
	}
}
