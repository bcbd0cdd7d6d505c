package view

import "testing"

// FuzzNumbers: whatever control groups say, numbers are not negative and no list
// is longer than there can be processors.
func FuzzNumbers(f *testing.F) {
	for _, text := range []string{"0-3,7", "8:0 rbytes=1 wios=2", "8:0 Read 5\n", "anon 7\nfile x\n", "max 100000", "-1", "0-99999999999", ",", "1-0"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if n := countList(text); n < 0 || n > len(text)*maxCPUs {
			t.Errorf("%q has %d members", text, n)
		}
		if n := number(text); n < -1 {
			t.Errorf("%q is %d", text, n)
		}
		read, write := sumThrottle(text)
		_, _ = read, write
		_ = sumIOStat(text)
		var m Memory
		m.setParts(flat(text), "")
		if m.Available() > m.Total {
			t.Errorf("%q: %+v", text, m)
		}
	})
}
