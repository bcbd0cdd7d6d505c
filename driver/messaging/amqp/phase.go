package amqp

import (
	"time"

	"github.com/gantry-project/gantry/driver/messaging"
)

// phase is what a link does since when, and how long that may take; 0 is for
// ever.
type phase struct {
	name  string
	since time.Time
	bound time.Duration
}

func (l *link) enter(name string, bound time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.phase = phase{name, time.Now(), bound}
}

// connection tells how the link is doing.
func (l *link) connection() messaging.Connection {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := messaging.Connection{Purpose: l.purpose, Up: l.current != nil && !l.current.isGone(), Phase: l.phase.name, Since: l.phase.since}
	if l.phase.bound > 0 {
		c.Until = l.phase.since.Add(l.phase.bound)
	}
	return c
}

// Connections implements messaging.Connected.
func (t *Transport) Connections() []messaging.Connection {
	return []messaging.Connection{t.publishing.connection(), t.consuming.connection()}
}
