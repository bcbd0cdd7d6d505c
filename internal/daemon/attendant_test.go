package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/messaging"
)

// manager is the service manager of this process: what it hears comes out of the
// channel.
func manager(t *testing.T, watchdog string) <-chan string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	name := filepath.Join(dir, "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	t.Setenv("WATCHDOG_USEC", watchdog)
	t.Setenv("WATCHDOG_PID", "")
	heard := make(chan string, 100)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			select {
			case heard <- string(buf[:n]):
			default: // nobody wants so much
			}
		}
	}()
	return heard
}

// awaitState reads until something with that beginning is heard.
func awaitState(t *testing.T, heard <-chan string, want string) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case got := <-heard:
			if strings.HasPrefix(got, want) {
				return
			}
		case <-deadline:
			t.Fatalf("%q was not heard within a minute", want)
		}
	}
}

func TestTheWatchdogIsFedOnlyWhileAllIsAlive(t *testing.T) {
	heard := manager(t, "30000")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a, done, err := attend(ctx, attendantOptions{log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	a.ready(func() string { return "connected" })
	awaitState(t, heard, "READY=1")
	awaitState(t, heard, "STATUS=serving; broker connected")
	awaitState(t, heard, "WATCHDOG=1")

	var well atomic.Bool
	asked := make(chan struct{}, 100)
	a.watch("test", func(context.Context) error {
		select {
		case asked <- struct{}{}:
		default: // nobody wants so much
		}
		if well.Load() {
			return nil
		}
		return errors.New("dead")
	})
	<-asked // a round before this one may have been fed
	<-asked
	a.say("X_MARK=1") // what was said before it has been heard
	awaitState(t, heard, "X_MARK=1")
	for range 3 {
		<-asked
	}
	a.say("X_MARK=2")
	if got := <-heard; got != "X_MARK=2" {
		t.Errorf("dead, and it says %q", got)
	}
	well.Store(true)
	awaitState(t, heard, "WATCHDOG=1")
	cancel()
	awaitState(t, heard, "STOPPING=1")
	awaitState(t, heard, "STATUS=stopping; instances go on")
}

func TestAReportWaitsForNoSection(t *testing.T) {
	var r report
	r.add("first", func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, "here\n")
		return err
	})
	r.add("broken", func(context.Context, io.Writer) error { return errors.New("no idea") })
	r.add("stuck", func(context.Context, io.Writer) error { select {} })
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // as if the time was over
	text := r.text(ctx)
	if !bytes.Contains(text, []byte("==== stuck\nno answer within")) || !bytes.Contains(text, []byte("TestAReportWaitsForNoSection")) {
		t.Errorf("report:\n%s", text)
	}
	var quick report
	quick.sections = r.sections[:2]
	text = quick.text(t.Context())
	if !bytes.Contains(text, []byte("==== first\nhere\n")) || !bytes.Contains(text, []byte("==== broken\nincomplete: no idea\n")) {
		t.Errorf("report:\n%s", text)
	}
	if _, err := r.deliver(ctx, filepath.Join(t.TempDir(), "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such directory: %v", err)
	}
}

// connected is a transport with connections.
type connected struct {
	messaging.Transport
	list []messaging.Connection
}

func (c connected) Connections() []messaging.Connection { return c.list }

func TestStuckConnections(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		list  []messaging.Connection
		state string
		stuck bool
	}{
		"none":     {nil, "connected", false},
		"up":       {[]messaging.Connection{{Purpose: "publish", Up: true, Since: now.Add(-time.Hour)}}, "connected", false},
		"dialling": {[]messaging.Connection{{Up: true}, {Purpose: "consume", Phase: "connecting to x", Since: now, Until: now.Add(time.Minute)}}, "away: consume: connecting to x", false},
		"a little late": {
			[]messaging.Connection{{Purpose: "consume", Phase: "p", Since: now.Add(-time.Hour), Until: now.Add(-time.Second)}},
			"away: consume: p", false,
		},
		"stuck": {
			[]messaging.Connection{{Purpose: "consume", Phase: "p", Since: now.Add(-time.Hour), Until: now.Add(-2 * overdue)}},
			"away: consume: p", true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := &wire{transport: connected{list: c.list}}
			if err := w.stuck(now); (err != nil) != c.stuck || w.state() != c.state {
				t.Errorf("%v, %q", err, w.state())
			}
		})
	}
}
