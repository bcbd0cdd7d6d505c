//go:build functional

package crash

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/engine/api"
)

// talk says numbered lines in bursts, and at the end that it is over.
const talk = `/bin/busybox stty -echo; trap 'echo over; exit 5' TERM; i=0
while :; do j=0; while [ $j -lt 40 ]; do j=$((j+1)); i=$((i+1)); echo "line $i"; done; sleep 0.02; done`

// talker is a container that must outlive everything and lose nothing.
type talker struct {
	h    *host
	id   string
	pid  int
	said int
}

func newTalker(t testing.TB, h *host, id string) *talker {
	t.Helper()
	start := sh(talk)
	c, err := h.api.Create(soon(t), api.Create{ID: id, Image: image, Start: &start})
	if err != nil {
		t.Fatal(err)
	}
	k := &talker{h: h, id: id, pid: c.Pid}
	k.advance(t)
	return k
}

// advance waits until it has said more, and checks that it is the one it was.
func (k *talker) advance(t testing.TB) {
	t.Helper()
	until(t, patience, k.id+" says more", func() bool {
		n := k.last(t)
		more := n > k.said
		k.said = max(n, k.said)
		return more
	})
	c, err := k.h.api.Container(soon(t), k.id)
	if err != nil || c.Status != engine.StatusRunning || c.Pid != k.pid {
		t.Errorf("%s is %s with pid %d (exit %+v, %v), want pid %d", k.id, c.Status, c.Pid, c.Exit, err, k.pid)
	}
}

// last is the number of its last whole line.
func (k *talker) last(t testing.TB) int {
	t.Helper()
	lines := 2
	n := 0
	for line := range strings.Lines(k.h.console(t, k.id, api.LogsRequest{Lines: &lines})) {
		if strings.HasSuffix(line, "\n") {
			_, _ = fmt.Sscanf(line, "line %d", &n)
		}
	}
	return n
}

// console reads a console log through the service.
func (h *host) console(t testing.TB, id string, req api.LogsRequest) string {
	t.Helper()
	ctx, cancel := within(t)
	defer cancel()
	text, err := h.read(ctx, id, req)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (h *host) said(ctx context.Context, id string) (string, error) {
	return h.read(ctx, id, api.LogsRequest{})
}

func (h *host) read(ctx context.Context, id string, req api.LogsRequest) (string, error) {
	r, err := h.api.Logs(ctx, id, req)
	if err != nil {
		return "", err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	return strings.ReplaceAll(string(data), "\r\n", "\n"), err
}

// finish ends it and checks each line that it has ever said, and how it ended.
func (k *talker) finish(t testing.TB) (lines int) {
	t.Helper()
	k.advance(t)
	c, err := k.h.api.Stop(soon(t), k.id, api.Stop{Signal: 15, Timeout: patience.Seconds()}, api.Change{})
	if err != nil || c.Exit == nil || !c.Exit.Known || c.Exit.Code != 5 {
		t.Errorf("%s ended with %+v, %v", k.id, c.Exit, err)
	}
	text := k.h.console(t, k.id, api.LogsRequest{})
	for line := range strings.Lines(strings.TrimSuffix(text, "over\n")) {
		if lines++; line != fmt.Sprintf("line %d\n", lines) {
			t.Errorf("%s: line %d is %.80q", k.id, lines, line)
			break
		}
	}
	if !strings.HasSuffix(text, "over\n") || lines < k.said {
		t.Errorf("%s: %d lines, had said %d; the end is %q", k.id, lines, k.said, text[max(0, len(text)-80):])
	}
	if err := k.h.api.Remove(soon(t), k.id, false, api.Change{}); err != nil {
		t.Error(err)
	}
	return lines
}
