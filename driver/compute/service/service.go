package service

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/logging"
)

// Binary and Topic of the record.
const (
	Binary = "nova-compute"
	Topic  = "compute"
)

// Conductor is the slice of Nova's conductor that the record needs. Errors are
// *messaging.RemoteError, messaging.ErrTimeout, or say that the broker is away.
type Conductor interface {
	// Ping is baseapi.ping: nil when a conductor answers.
	Ping(ctx context.Context, rc messaging.RequestContext) error
	// MinimumServiceVersion is Service.get_minimum_version; 0 without records.
	MinimumServiceVersion(ctx context.Context, rc messaging.RequestContext, binary string) (int, error)
	// GetService is Service.get_by_host_and_binary; nil when there is none.
	GetService(ctx context.Context, rc messaging.RequestContext, host, binary string) (*objects.Object, error)
	// CreateService is Service.create. On nil svc holds what the row holds.
	CreateService(ctx context.Context, rc messaging.RequestContext, svc *objects.Object) error
	// SaveService is Service.save of the changed fields; version goes along
	// unchanged. On nil the updates are merged into svc.
	SaveService(ctx context.Context, rc messaging.RequestContext, svc *objects.Object) error
}

// State is what the operator has said of this host.
type State struct {
	// Disabled keeps new instances away; Reason says why.
	Disabled bool
	Reason   string
	// ForcedDown says that the host was declared dead by hand.
	ForcedDown bool
}

// Options of a Service.
type Options struct {
	// Host is the name of this compute service.
	Host string
	// ReportInterval is the time between heartbeats; 0 means 10 s.
	ReportInterval time.Duration
	// Version overrides the choice of ChooseVersion when positive.
	Version int
	// Admit is asked with the version that the record has, 0 for none, before
	// the record is made or changed. Its error ends Register, unless it is of a
	// call that got no answer; then it is asked again. It may be nil.
	Admit func(ctx context.Context, previous int) error
	// OnState is told the state after Register and whenever a heartbeat finds
	// it changed. It must not block. It may be nil.
	OnState func(State)
}

// Service is the record of this host. Register comes first, then Heartbeat, in
// one goroutine each; the other methods are safe at any time.
type Service struct {
	conductor Conductor
	opts      Options
	log       zerolog.Logger

	mu       sync.Mutex
	record   *objects.Object // guarded by mu
	version  int             // guarded by mu
	previous *int            // guarded by mu; version of the record as found first, 0 for none
	state    State           // guarded by mu
	reported time.Time       // guarded by mu; when Heartbeat was last seen alive
}

// New returns the unregistered service.
func New(conductor Conductor, opts Options, log zerolog.Logger) *Service {
	if opts.ReportInterval <= 0 {
		opts.ReportInterval = 10 * time.Second
	}
	return &Service{conductor: conductor, opts: opts, log: log}
}

// Version returns the service version that is reported; 0 before Register.
func (s *Service) Version() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version
}

// Previous returns the version that the record had when Register found it, and
// 0 when there was no record: this host is new to the control plane.
func (s *Service) Previous() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.previous == nil {
		return 0
	}
	return *s.previous
}

// ID returns the row id of the record; 0 before Register.
func (s *Service) ID() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.record == nil {
		return 0
	}
	return s.record.Int("id")
}

// State returns the state that the last answer told.
func (s *Service) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Register waits for a conductor, chooses the version, and makes or updates
// the record. It repeats what an absent broker or conductor prevents until ctx
// ends. Any other error is for the operator: the control plane answered, and
// refused.
func (s *Service) Register(ctx context.Context) error {
	if err := s.awaitConductor(ctx); err != nil {
		return fmt.Errorf("register host %s: %w", s.opts.Host, err)
	}
	for attempt := 0; ; attempt++ {
		err := s.register(ctx)
		if err == nil {
			break
		}
		if !passing(err) || ctx.Err() != nil {
			return fmt.Errorf("register host %s: %w", s.opts.Host, err)
		}
		s.log.Warn().Err(err).Msg("registration is delayed, conductor does not answer")
		if !sleep(ctx, backoff(attempt)) {
			return fmt.Errorf("register host %s: %w", s.opts.Host, ctx.Err())
		}
	}
	s.log.Info().Str(logging.Host, s.opts.Host).Int("version", s.Version()).Int64("id", s.ID()).Msg("registered")
	s.tellState(true)
	return nil
}

// register is one idempotent try: after a lost reply the next one finds what
// this one did.
func (s *Service) register(ctx context.Context) error {
	rc := messaging.AdminContext()
	conductor, err := s.conductor.MinimumServiceVersion(ctx, rc, "nova-conductor")
	if err != nil {
		return fmt.Errorf("version of nova-conductor: %w", err)
	}
	version, err := ChooseVersion(conductor, s.opts.Version)
	if err != nil {
		return err
	}
	record, err := s.conductor.GetService(ctx, rc, s.opts.Host, Binary)
	if err != nil {
		return fmt.Errorf("look up service record: %w", err)
	}
	previous := 0
	if record != nil {
		previous = int(record.Int("version"))
	}
	if err := s.admit(ctx, previous); err != nil {
		return err
	}
	if record == nil {
		if record, err = s.create(ctx, rc, version); err != nil {
			return s.explain(err, version)
		}
	} else if err := s.update(ctx, rc, record, version); err != nil {
		return s.explain(err, version)
	}
	record.SetClean("version", version) // every report carries it
	s.mu.Lock()
	defer s.mu.Unlock()
	s.record, s.version = record, version
	return nil
}

// admit notes the version that the first try found, for a try with a lost reply
// finds what it made itself, and asks the owner of the host.
func (s *Service) admit(ctx context.Context, previous int) error {
	s.mu.Lock()
	if s.previous == nil {
		s.previous = &previous
	}
	previous = *s.previous
	s.mu.Unlock()
	if s.opts.Admit == nil {
		return nil
	}
	err := s.opts.Admit(ctx, previous)
	if err != nil && !noAnswer(err) {
		return refusal{err}
	}
	return err
}

// create makes the record, or reads the one that somebody made meanwhile.
func (s *Service) create(ctx context.Context, rc messaging.RequestContext, version int) (*objects.Object, error) {
	record := objects.NewService(s.opts.Host, Binary, Topic, version).Wire()
	err := s.conductor.CreateService(ctx, rc, record)
	if messaging.IsRemote(err, "ServiceBinaryExists", "ServiceTopicExists") {
		found, err := s.conductor.GetService(ctx, rc, s.opts.Host, Binary)
		if err == nil && found == nil {
			err = messaging.ErrTimeout // gone again: the next try sees what is true
		}
		if err != nil {
			return nil, err
		}
		return found, s.update(ctx, rc, found, version)
	}
	return record, err
}

// update brings the version of an existing record up to date.
func (s *Service) update(ctx context.Context, rc messaging.RequestContext, record *objects.Object, version int) error {
	record.ResetChanges()
	if int(record.Int("version")) == version {
		return nil
	}
	record.Set("version", version)
	return s.conductor.SaveService(ctx, rc, record)
}

// explain adds what the operator has to know of a refusal.
func (s *Service) explain(err error, version int) error {
	if messaging.IsRemote(err, "ServiceTooOld") {
		return fmt.Errorf("version %d is below that of the other compute hosts; upgrade gantry or raise its service version: %w", version, err)
	}
	return fmt.Errorf("write service record: %w", err)
}

// passing says whether an error may go away by waiting: everything that is not
// an answer of the control plane and not a refusal of ours.
func passing(err error) bool {
	_, answered := errors.AsType[*messaging.RemoteError](err)
	return !answered && !isRefusal(err)
}
