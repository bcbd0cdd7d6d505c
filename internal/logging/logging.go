// Package logging names the fields of log lines, so that every package writes
// the same word for the same thing, and makes the root logger.
package logging

import (
	"io"
	"sync/atomic"

	"github.com/rs/zerolog"
)

// Field names. Data goes into fields; messages are short constant phrases.
const (
	Instance  = "instance"
	Container = "container"
	Image     = "image"
	Port      = "port"
	Host      = "host"
	Request   = "req"
	Step      = "step"
	Took      = "took"
	Method    = "method"
	Node      = "node"
)

// New returns the root logger, writing JSON lines to w, at debug level when
// debug is set and at info level otherwise.
func New(w io.Writer, debug bool) zerolog.Logger {
	t := &Threshold{}
	t.Set(debug)
	return NewAdjustable(w, t)
}

// NewAdjustable returns the root logger with a level that can be changed, for all
// loggers that were made of it.
func NewAdjustable(w io.Writer, t *Threshold) zerolog.Logger {
	return zerolog.New(w).Level(zerolog.DebugLevel).Sample(t).With().Timestamp().Logger()
}

// Threshold is the level below which nothing is logged: info, or debug after
// Set(true). Safe for concurrent use.
type Threshold struct{ debug atomic.Bool }

// Set chooses debug level or info level.
func (t *Threshold) Set(debug bool) { t.debug.Store(debug) }

// Sample implements zerolog.Sampler.
func (t *Threshold) Sample(level zerolog.Level) bool {
	return level >= zerolog.InfoLevel || t.debug.Load()
}
