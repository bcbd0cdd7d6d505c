package daemon

import (
	"fmt"
	"os"
	"sync"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/config"
	"github.com/gantry-project/gantry/internal/logging"
)

// logSink is where the log goes and from which level on; both can be changed
// while it is written.
type logSink struct {
	level logging.Threshold

	mu   sync.RWMutex
	file *os.File // guarded by mu
}

// logger writes to the configured file, or to standard error. The sink is to be
// closed.
func logger(cfg *config.Config) (zerolog.Logger, *logSink, error) {
	s := &logSink{file: os.Stderr}
	if err := s.follow(cfg); err != nil {
		return zerolog.Nop(), nil, err
	}
	log := logging.NewAdjustable(s, &s.level).With().Int("pid", os.Getpid()).Logger()
	adoptStandardLog(log)
	return log, s, nil
}

// follow opens the file that cfg names, again if it is open: somebody may have
// renamed it. On an error nothing changes.
func (s *logSink) follow(cfg *config.Config) error {
	next := os.Stderr
	if cfg.Default.LogFile != "" {
		f, err := os.OpenFile(cfg.Default.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return fmt.Errorf("open log: %w", err)
		}
		next = f
	}
	s.level.Set(cfg.Default.Debug)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closeFile()
	s.file = next
	return nil
}

// Write implements io.Writer.
func (s *logSink) Write(line []byte) (int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.file.Write(line)
}

// close lets the file go; what is logged later goes to standard error.
func (s *logSink) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closeFile()
	s.file = os.Stderr
}

// closeFile needs mu.
func (s *logSink) closeFile() {
	if s.file != os.Stderr {
		s.file.Close()
	}
}
