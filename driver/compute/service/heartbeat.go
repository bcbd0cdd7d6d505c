package service

import (
	"context"
	"errors"
	"time"

	"github.com/gantry-project/gantry/driver/messaging"
)

// firstReport is how long after the start the first heartbeat comes
// (initial_delay of nova/servicegroup/drivers/db.py).
const firstReport = 5 * time.Second

// Heartbeat reports that the host lives until ctx ends, and returns nil.
//
// Each beat counts the record up from what the row held: conductor takes a
// beat as a sign of life only if the number is greater than the stored one. A
// failed beat is followed by the next one; a row of failures is logged once,
// and again when it ends. A deleted record is logged and not made again: only
// a restart brings a host back that the operator has removed.
func (s *Service) Heartbeat(ctx context.Context) error {
	s.stamp()
	next := time.Now().Add(firstReport)
	var failingSince time.Time
	for sleep(ctx, time.Until(next)) {
		s.stamp()
		next = time.Now().Add(s.opts.ReportInterval)
		failingSince = s.report(ctx, failingSince)
	}
	return nil
}

// Reported is when Heartbeat has last begun a report, whatever came of it, or
// was called; zero before. Reports follow one another at least each twice the
// ReportInterval.
func (s *Service) Reported() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reported
}

func (s *Service) stamp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reported = time.Now()
}

// report sends one beat and tells what came of it. It takes and returns since
// when reports fail.
func (s *Service) report(ctx context.Context, failingSince time.Time) time.Time {
	err := s.beat(ctx)
	if ctx.Err() != nil {
		return failingSince
	}
	if err == nil {
		s.tellState(false)
	}
	return s.logBeat(err, failingSince)
}

// beat sends one report. It gives up after two intervals, so that a lost reply
// does not cost more than the control plane's patience (service_down_time).
func (s *Service) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*s.opts.ReportInterval)
	defer cancel()
	s.mu.Lock()
	record := s.record.Sparse(s.record.Fields()...)
	s.mu.Unlock()
	record.ResetChanges()
	count := record.Int("report_count") + 1
	record.Set("report_count", count)
	err := s.conductor.SaveService(ctx, messaging.AdminContext(), record)
	s.mu.Lock()
	defer s.mu.Unlock()
	// Also after a failure: the beat may have been written without our hearing
	// of it, and the next one must be greater.
	s.record.SetClean("report_count", count)
	if err == nil {
		record.ResetChanges()
		s.record = record
	}
	return err
}

// logBeat logs changes between working and failing and returns since when
// reports fail, zero if they do not.
func (s *Service) logBeat(err error, since time.Time) time.Time {
	switch {
	case err == nil && since.IsZero():
	case err == nil:
		s.log.Info().Dur("outage", time.Since(since)).Msg("reports reach the control plane again")
		return time.Time{}
	case !since.IsZero():
		s.log.Debug().Err(err).Msg("report failed again")
	case messaging.IsRemote(err, "ServiceNotFound"):
		s.log.Error().Err(err).Msg("the record of this host was deleted; restart gantry to register again")
		return time.Now()
	case errors.Is(err, messaging.ErrTimeout) || errors.Is(err, context.DeadlineExceeded):
		s.log.Warn().Msg("conductor does not answer reports; the host will be shown as down until it does")
		return time.Now()
	default:
		s.log.Warn().Err(err).Msg("report failed; the host will be shown as down until one succeeds")
		return time.Now()
	}
	return since
}

// tellState calls OnState when the record says something new, or always.
func (s *Service) tellState(always bool) {
	s.mu.Lock()
	now := State{
		Disabled:   s.record.Bool("disabled"),
		Reason:     s.record.String("disabled_reason"),
		ForcedDown: s.record.Bool("forced_down"),
	}
	changed := now != s.state
	s.state = now
	s.mu.Unlock()
	if !changed && !always {
		return
	}
	if changed {
		s.log.Info().Bool("disabled", now.Disabled).Bool("forced_down", now.ForcedDown).Str("reason", now.Reason).
			Msg("state of this host in the control plane")
	}
	if s.opts.OnState != nil {
		s.opts.OnState(now)
	}
}
