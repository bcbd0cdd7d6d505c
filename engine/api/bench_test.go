package api_test

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/api"
	"github.com/gantry-project/gantry/engine/enginetest"
)

// BenchmarkSocket measures requests by a client in the same process, in ms:
// create and start in one, an exec with its end, state, delete.
func BenchmarkSocket(b *testing.B) {
	h := enginetest.NewHost(b)
	e, done := h.Engine(b)
	b.Cleanup(done)
	f := serve(b, e, nil)
	_, err := e.Import(b.Context(), engine.ImportRequest{Ref: "busybox", Content: bytes.NewReader(enginetest.Busybox(b)), ContainerFormat: "bare", DiskFormat: "raw"})
	check(b, err)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	check(b, err)
	defer null.Close()
	steps := map[string]int64{}
	n := 0
	for b.Loop() {
		n++
		id := fmt.Sprint("c", n)
		for _, step := range []struct {
			name string
			fn   func() error
		}{
			{"run", func() error {
				return second(f.Create(b.Context(), api.Create{ID: id, Image: "busybox", Start: &api.Start{Args: []string{"/bin/sleep", "1000"}}}))
			}},
			{"state", func() error { return second(f.Container(b.Context(), id)) }},
			{"exec", func() error {
				run, err := f.Exec(b.Context(), id, api.Exec{Args: []string{"/bin/true"}}, [3]*os.File{null, null, null})
				if err != nil {
					return err
				}
				defer run.Close()
				return second(run.Wait(b.Context()))
			}},
			{"rm", func() error { return f.Remove(b.Context(), id, true, api.Change{}) }},
		} {
			began := b.Elapsed()
			check(b, step.fn())
			steps[step.name] += int64(b.Elapsed() - began)
		}
		for len(e.Events()) > 0 {
			<-e.Events()
		}
	}
	for name, total := range steps {
		b.ReportMetric(float64(total)/1e6/float64(n), name+"-ms")
	}
}
