package engine_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/enginetest"
)

// BenchmarkOperations measures what an operator or Nova asks of a running
// container, each step in ms: exec to running and with its end, pause, resume,
// stop of a process that obeys at once, delete of a stopped one.
func BenchmarkOperations(b *testing.B) {
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
		w.time(b, "start", func() error {
			return e.Start(b.Context(), id, engine.StartRequest{Args: sh("trap 'exit 0' TERM; echo ready; read x"), Env: initRequest.Env})
		})
		awaitConsole(b, e, id)
		var exec engine.ExecState
		w.time(b, "exec", func() (err error) {
			exec, err = e.Exec(b.Context(), id, engine.ExecRequest{Args: []string{"/bin/true"}})
			return err
		})
		w.time(b, "exec-end", func() error { _, err := e.ExecWait(b.Context(), id, exec.ID); return err })
		w.time(b, "pause", func() error { return e.Pause(b.Context(), id) })
		w.time(b, "resume", func() error { return e.Resume(b.Context(), id) })
		w.time(b, "stop", func() error { return e.Stop(b.Context(), id, engine.StopRequest{Timeout: time.Minute}) })
		w.time(b, "delete", func() error { return e.Delete(b.Context(), id) })
		drain(e)
	}
	w.report(b, n)
}

func awaitConsole(b *testing.B, e *engine.Engine, id engine.ContainerID) {
	b.Helper()
	r, err := e.Logs(b.Context(), id, engine.LogsRequest{Follow: true})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Read(make([]byte, 64)); err != nil {
		b.Fatal(err)
	}
}
