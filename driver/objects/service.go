package objects

import "time"

// Service is a row of the services table. Follows nova/objects/service.py,
// Service 1.22.
type Service struct{ *Object }

// NewService returns a record to create: report_count starts at 0.
func NewService(host, binary, topic string, version int) Service {
	s := Service{New("Service")}
	s.Set("host", host)
	s.Set("binary", binary)
	s.Set("topic", topic)
	s.Set("report_count", 0)
	s.Set("version", version)
	return s
}

// Wire returns the object.
func (s Service) Wire() *Object { return s.Object }

// UnmarshalJSON reads a Service primitive.
func (s *Service) UnmarshalJSON(raw []byte) error { return read(raw, "Service", &s.Object) }

// ID is the row id.
func (s Service) ID() int64 { return s.Int("id") }

// UUID is the id that the API shows.
func (s Service) UUID() string { return s.String("uuid") }

// Host is the service's host.
func (s Service) Host() string { return s.String("host") }

// Binary is for example "nova-compute".
func (s Service) Binary() string { return s.String("binary") }

// ReportCount is the heartbeat's counter. Conductor takes a save as a sign of
// life only if it is greater than the stored one.
func (s Service) ReportCount() int64 { return s.Int("report_count") }

// SetReportCount sets the counter.
func (s Service) SetReportCount(n int64) { s.Set("report_count", n) }

// ServiceVersion is the level that the service reports.
func (s Service) ServiceVersion() int { return int(s.Int("version")) }

// SetServiceVersion sets it.
func (s Service) SetServiceVersion(v int) { s.Set("version", v) }

// Disabled says that an operator, or the service itself, takes no new instances.
func (s Service) Disabled() bool { return s.Bool("disabled") }

// DisabledReason is the operator's text, "" when none.
func (s Service) DisabledReason() string { return s.String("disabled_reason") }

// ForcedDown says that an operator declared the host dead.
func (s Service) ForcedDown() bool { return s.Bool("forced_down") }

// LastSeenUp is the last heartbeat that conductor counted, zero when none.
func (s Service) LastSeenUp() time.Time { return s.Time("last_seen_up") }
