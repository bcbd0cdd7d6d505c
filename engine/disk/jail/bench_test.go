package jail_test

import (
	"io"
	"testing"

	"github.com/gantry-project/gantry/engine/disk"
	"github.com/gantry-project/gantry/engine/disk/disktest"
)

// BenchmarkConvert reads 100 MiB out of a disk, with and without a jail.
func BenchmarkConvert(b *testing.B) {
	raw := disktest.Make(b, "ext4", disktest.Tree(b, disktest.Root()), 160*disktest.MiB)
	disktest.Script(b, raw, "dd if=/dev/urandom of=x bs=1M count=100")
	for name, image := range map[string]string{"raw": raw, "qcow2": disktest.QCOW2(b, raw)} {
		for how, convert := range map[string]disk.Converter{"free": disk.Convert, "jailed": convert} {
			b.Run(name+" "+how, func(b *testing.B) {
				f, size := file(b, image)
				b.SetBytes(100 * disktest.MiB)
				for b.Loop() {
					if _, err := convert(b.Context(), f, size, disk.Options{}, io.Discard); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
