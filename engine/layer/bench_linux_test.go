package layer

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// BenchmarkApply unpacks 2,000 files of 16 KiB in 100 directories.
func BenchmarkApply(b *testing.B) {
	var items []item
	body := strings.Repeat("0123456789abcdef", 1024)
	for i := range 100 {
		items = append(items, dirItem(fmt.Sprint("usr/share/d", i)))
		for k := range 20 {
			items = append(items, file(fmt.Sprintf("usr/share/d%d/f%d", i, k), body))
		}
	}
	data := makeTar(b, items...)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		b.StopTimer()
		j := newJail(b)
		b.StartTimer()
		if _, err := Apply(b.Context(), j.dir, bytes.NewReader(data), Options{Verified: digest.FromString("")}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDiff writes the same tree.
func BenchmarkDiff(b *testing.B) {
	j := newJail(b)
	body := strings.Repeat("0123456789abcdef", 1024)
	var items []item
	for i := range 2000 {
		items = append(items, file(fmt.Sprintf("d%d/f%d", i/20, i), body))
	}
	if _, err := j.apply(b, Options{}, makeTar(b, items...)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		res, err := Diff(b.Context(), j.dir, io.Discard)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(res.Size)
	}
}
