package fabric_test

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/netbridge/fabric"
)

// children is the processor time of the programs that were run, which tells more
// than the clock on a machine that has much else to do.
func children(b *testing.B) int64 {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkSetPort is what the binding of a port waits for.
func BenchmarkSetPort(b *testing.B) {
	for _, have := range []int{1, 100, 500} {
		b.Run(fmt.Sprintf("beside %d", have), func(b *testing.B) {
			h := benchHost(b)
			port := func(i int) fabric.Port {
				id := fmt.Sprintf("%08d-dddd-0000-0000-000000000000", i)
				return fabric.Port{
					ID: id, Device: "tap" + id[:11],
					Sources: []fabric.Source{{MAC: "fa:16:3e:00:00:01", Address: netip.MustParsePrefix("10.0.0.5/32")}},
					Rules:   []fabric.Rule{{First: -1, Last: -1}, {Ingress: true, First: -1, Last: -1, Group: "g"}},
				}
			}
			var w fabric.World
			for i := range have {
				w.Ports = append(w.Ports, port(i))
			}
			if err := h.Sync(b.Context(), w); err != nil {
				b.Fatal(err)
			}
			before := children(b)
			for i := 0; b.Loop(); i++ {
				if err := h.SetPorts(b.Context(), port(have+i%10)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(children(b)-before)/float64(b.N)/1e6, "child-ms/op")
		})
	}
}

func benchHost(b *testing.B) *fabric.Fabric {
	b.Helper()
	f := newNS(b)
	return fabric.New(fabric.Options{Cloud: "bench", Dir: b.TempDir(), HostNetNS: fdPath(f)})
}
