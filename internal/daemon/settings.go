package daemon

import (
	"slices"
	"sync"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/config"
)

// settings are those of a running service, of which some can be read again.
type settings struct {
	load func() (*config.Config, error)
	sink *logSink
	log  zerolog.Logger

	mu  sync.Mutex
	cfg *config.Config // guarded by mu: as the service runs
}

// rereadable are the options that reread changes; docs/operations.md lists them.
func rereadable() []string {
	return []string{"DEFAULT.debug", "DEFAULT.log_file", "oslo_reports.log_dir"}
}

// reread takes the new values of the options that it can, opens the log file
// again, and names the options that a restart would change. On an error nothing
// changes.
func (s *settings) reread() error {
	cfg, err := s.load()
	if err != nil {
		return err
	}
	if err := s.sink.follow(cfg); err != nil {
		return err
	}
	s.mu.Lock()
	changed := s.cfg.Changes(cfg)
	now := *s.cfg
	now.Default.Debug, now.Default.LogFile, now.Reports = cfg.Default.Debug, cfg.Default.LogFile, cfg.Reports
	s.cfg = &now
	s.mu.Unlock()
	later := slices.DeleteFunc(slices.Clone(changed), func(name string) bool { return slices.Contains(rereadable(), name) })
	s.log.Info().Strs("changed", changed).Strs("after_restart", later).Msg("configuration read again")
	return nil
}

func (s *settings) reportDir() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg.Reports.LogDir
}
