package engine_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/enginetest"
)

// BenchmarkLife measures what one container costs with a cached image, step by
// step; the time for each step is reported in ms.
func BenchmarkLife(b *testing.B) {
	h := enginetest.NewHost(b)
	e, done := h.Engine(b)
	defer done()
	if _, err := e.Import(b.Context(), engine.ImportRequest{Ref: "busybox", Content: bytes.NewReader(enginetest.Busybox(b)), ContainerFormat: "bare", DiskFormat: "raw"}); err != nil {
		b.Fatal(err)
	}
	w := stopwatch{}
	n := 0
	for b.Loop() {
		n++
		id := engine.ContainerID(fmt.Sprint("c", n))
		w.time(b, "create", func() error {
			return e.Create(b.Context(), engine.CreateRequest{ID: id, Image: "busybox", Limits: limits})
		})
		w.time(b, "start", func() error { return e.Start(b.Context(), id, initRequest) })
		w.time(b, "delete", func() error { return e.Delete(b.Context(), id) })
		drain(e)
	}
	w.report(b, n)
}

// stopwatch adds up the time of named steps.
type stopwatch map[string]time.Duration

func (w stopwatch) time(b *testing.B, step string, fn func() error) {
	b.Helper()
	began := time.Now()
	err := fn()
	w[step] += time.Since(began)
	if err != nil {
		b.Fatal(err)
	}
}

func (w stopwatch) report(b *testing.B, n int) {
	b.Helper()
	for step, total := range w {
		b.ReportMetric(total.Seconds()*1000/float64(n), step+"-ms")
	}
}

// drain takes the events that are there.
func drain(e *engine.Engine) {
	for {
		select {
		case <-e.Events():
		default:
			return
		}
	}
}
