// Package logging names the fields of log lines, so that every package writes
// the same word for the same thing, and makes the root logger.
package logging

import (
	"io"

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
	level := zerolog.InfoLevel
	if debug {
		level = zerolog.DebugLevel
	}
	return zerolog.New(w).Level(level).With().Timestamp().Logger()
}
