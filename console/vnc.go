package console

import (
	"context"
	"fmt"
	"image"
	"net"
	"sync"
	"time"

	"github.com/gantry-project/gantry/console/rfb"
	"github.com/gantry-project/gantry/console/terminal"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// The size of a screen that nobody has asked for another: that of a text screen.
const usualColumns, usualRows = 80, 25

// maxTyped bounds what waits for an instance that does not read (bytes).
const maxTyped = 64 << 10

// screen is the terminal of an instance as its VNC viewers share it. It has a
// connection to the console while there is a viewer.
type screen struct {
	p *port

	mu      sync.Mutex
	viewers int                // guarded by mu, as are all
	stop    context.CancelFunc // of the connection
	term    *terminal.Terminal
	pic     *terminal.Picture
	changed chan struct{} // closed at the next change
	typed   []byte        // not yet written
	keys    chan struct{} // of one: typed has something
	size    image.Point   // in cells
	resized chan struct{} // of one: size has changed
}

func newScreen(p *port) *screen {
	s := &screen{p: p, size: image.Pt(usualColumns, usualRows), changed: make(chan struct{}), keys: make(chan struct{}, 1), resized: make(chan struct{}, 1)}
	s.blank()
	return s
}

// blank begins with an empty terminal. It needs mu, or a screen nobody else has.
func (s *screen) blank() {
	s.term = terminal.New(s.size.X, s.size.Y, s.send)
	s.pic = terminal.NewPicture(s.term)
	s.touch()
}

// touch tells of a change. It needs mu.
func (s *screen) touch() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (p *port) serveVNC(conn net.Conn) error {
	if err := p.screen.enter(); err != nil {
		_ = conn.Close()
		return err
	}
	defer p.screen.leave()
	return rfb.Serve(p.ctx, conn, &view{screen: p.screen}, rfb.Options{Security: p.s.o.Security, Name: p.instance})
}

// enter connects for the first viewer.
func (s *screen) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil {
		s.viewers++
		return nil
	}
	stream, err := s.p.s.o.Open(s.p.ctx, s.p.instance)
	if err != nil {
		return fmt.Errorf("open console: %w", err)
	}
	ctx, cancel := context.WithCancel(s.p.ctx)
	s.viewers++
	s.stop, s.typed = cancel, nil
	s.blank()
	poke(s.resized)
	s.p.s.all.Go(func() { s.run(ctx, stream) })
	return nil
}

// leave disconnects after the last viewer.
func (s *screen) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.viewers--; s.viewers == 0 && s.stop != nil {
		s.stop()
		s.stop = nil
	}
}

// run shows one connection after the other: those who look stay when the
// instance reboots.
func (s *screen) run(ctx context.Context, stream Stream) {
	for stream != nil {
		life, end := context.WithCancel(ctx)
		var speaking sync.WaitGroup
		speaking.Go(func() { s.speak(life, stream) })
		err := s.listen(life, stream)
		end()
		speaking.Wait()
		s.say(ctx, "\x1b[0m\r\n["+reason(err)+"]\r\n")
		if stream = s.again(ctx); stream != nil {
			poke(s.resized)
		}
	}
}

// lookAgain is how often it is tried to connect again.
const lookAgain = 500 * time.Millisecond

// again connects again; nil at the end of ctx.
func (s *screen) again(ctx context.Context) Stream {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if stream, err := s.p.s.o.Open(ctx, s.p.instance); err == nil {
			s.mu.Lock()
			s.blank()
			s.typed = nil
			s.mu.Unlock()
			return stream
		}
	}
}

// listen shows what the console says until it ends.
func (s *screen) listen(ctx context.Context, stream Stream) error {
	stop := context.AfterFunc(ctx, func() { _ = stream.Close() })
	defer func() {
		if stop() {
			_ = stream.Close()
		}
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := stream.Read(buf)
		if n > 0 {
			s.say(ctx, string(buf[:n]))
		}
		if err != nil {
			return err
		}
	}
}

// say writes to the terminal.
func (s *screen) say(ctx context.Context, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() == nil {
		_, _ = s.term.Write([]byte(text))
		s.touch()
	}
}

func reason(err error) string {
	if err := ended(err); err != nil {
		return "the connection to the console is lost"
	}
	return "the instance has stopped"
}

// speak types what viewers type, and sets the size that they ask for.
func (s *screen) speak(ctx context.Context, stream Stream) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.keys:
			s.mu.Lock()
			b := s.typed
			s.typed = nil
			s.mu.Unlock()
			if _, err := stream.Write(b); err != nil {
				return
			}
		case <-s.resized:
			s.mu.Lock()
			size := s.size
			s.mu.Unlock()
			if err := stream.Resize(ctx, uint16(size.Y), uint16(size.X)); err != nil {
				s.p.log().Debug().Err(err).Msg("console not resized")
			}
		}
	}
}

// send types. It needs mu.
func (s *screen) send(b []byte) {
	if len(b) > 0 && len(s.typed)+len(b) <= maxTyped {
		s.typed = append(s.typed, b...)
		poke(s.keys)
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// view is a screen as one viewer has it: with keys that are held down.
type view struct {
	*screen
	mods terminal.Modifiers // of the goroutine that serves the viewer
}

var _ rfb.Screen = (*view)(nil)

// Size implements rfb.Screen.
func (v *view) Size() image.Point {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.look()
	return v.pic.Size()
}

// look brings the picture up to date. It needs mu.
func (s *screen) look() uint64 {
	return s.pic.Update()
}

// Changes implements rfb.Screen.
func (v *view) Changes(since uint64) ([]image.Rectangle, uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	version := v.look()
	return v.pic.Changes(since), version
}

// Wait implements rfb.Screen.
func (v *view) Wait(version uint64) <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.look() > version {
		now := make(chan struct{})
		close(now)
		return now
	}
	return v.changed
}

// Draw implements rfb.Screen.
func (v *view) Draw(part image.Rectangle, dst []uint32) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.pic.Draw(part, dst)
}

// Key implements rfb.Screen.
func (v *view) Key(sym uint32, down bool) {
	var m terminal.Modifiers
	switch sym {
	case 0xffe1, 0xffe2:
		m = terminal.Shift
	case 0xffe3, 0xffe4:
		m = terminal.Control
	case 0xffe7, 0xffe8, 0xffe9, 0xffea:
		m = terminal.Alt
	}
	switch {
	case m != 0 && down:
		v.mods |= m
	case m != 0:
		v.mods &^= m
	case down:
		v.mu.Lock()
		defer v.mu.Unlock()
		v.send(v.term.Key(sym, v.mods))
	}
}

// Paste implements rfb.Screen.
func (v *view) Paste(text string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.send(v.term.Paste(text))
}

// Resize implements rfb.Screen.
func (v *view) Resize(size image.Point) error {
	cols, rows := size.X/terminal.CellWidth, size.Y/terminal.CellHeight
	if cols == 0 || rows == 0 {
		return fmt.Errorf("a screen of %v: %w", size, errdefs.ErrInvalid)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.term.Resize(cols, rows)
	cols, rows = v.term.Size()
	v.size = image.Pt(cols, rows)
	v.touch()
	poke(v.resized)
	return nil
}
