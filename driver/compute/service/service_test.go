package service

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	client "github.com/gantry-project/gantry/driver/conductor"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

var _ Conductor = (*client.Client)(nil)

// conductor is a small real implementation: one table row, and a plan of
// failures by verb.
type conductor struct {
	mu       sync.Mutex
	minimum  int
	row      map[string]any
	lastSeen time.Time
	saves    [][]string
	fail     map[string][]error // the next answers of a verb; nil is success
	lose     bool               // the next create is done but its reply is lost
	pings    int
}

func newConductor() *conductor { return &conductor{minimum: 64, fail: map[string][]error{}} }

func (c *conductor) next(verb string) error {
	if len(c.fail[verb]) == 0 {
		return nil
	}
	err := c.fail[verb][0]
	c.fail[verb] = c.fail[verb][1:]
	return err
}

func (c *conductor) Ping(ctx context.Context, _ messaging.RequestContext) error {
	c.mu.Lock()
	c.pings++
	err := c.next("ping")
	c.mu.Unlock()
	if errors.Is(err, messaging.ErrTimeout) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Minute): // rpc_response_timeout
		}
	}
	return err
}

func (c *conductor) MinimumServiceVersion(_ context.Context, _ messaging.RequestContext, binary string) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if binary != "nova-conductor" {
		return 0, errors.New("asked for " + binary)
	}
	return c.minimum, c.next("minimum")
}

func (c *conductor) GetService(_ context.Context, _ messaging.RequestContext, host, binary string) (*objects.Object, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.next("get"); err != nil || c.row == nil {
		return nil, err
	}
	o := objects.New("Service")
	for k, v := range c.row {
		o.SetClean(k, v)
	}
	if o.String("host") != host || o.String("binary") != binary {
		return nil, errors.New("wrong key")
	}
	return o, nil
}

func (c *conductor) CreateService(_ context.Context, _ messaging.RequestContext, svc *objects.Object) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.next("create"); err != nil {
		return err
	}
	if c.row != nil {
		return messaging.NovaError("ServiceBinaryExists", 500, "exists")
	}
	c.row = map[string]any{"id": 9, "uuid": "u", "disabled": false, "disabled_reason": nil, "forced_down": false}
	c.store(svc)
	if c.lose {
		c.lose = false
		return messaging.ErrTimeout
	}
	return nil
}

func (c *conductor) SaveService(ctx context.Context, _ messaging.RequestContext, svc *objects.Object) error {
	c.mu.Lock()
	err := c.next("save")
	c.mu.Unlock()
	if errors.Is(err, messaging.ErrTimeout) {
		<-ctx.Done()
		return ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		return err
	}
	if c.row == nil {
		return messaging.NovaError("ServiceNotFound", 404, "no service")
	}
	if !svc.Has("version") {
		return errors.New("a save without version")
	}
	c.saves = append(c.saves, svc.Changes())
	c.store(svc)
	return nil
}

// store writes what is changed and merges the row back, as conductor does.
func (c *conductor) store(svc *objects.Object) {
	if n, ok := c.row["report_count"].(int); ok && int(svc.Int("report_count")) > n {
		c.lastSeen = time.Now()
	}
	for _, f := range svc.Changes() {
		switch f {
		case "report_count", "version":
			c.row[f] = int(svc.Int(f))
		default:
			c.row[f] = svc.Get(f)
		}
	}
	svc.ResetChanges()
	for k, v := range c.row {
		svc.SetClean(k, v)
	}
}

func TestChooseVersion(t *testing.T) {
	tests := []struct {
		name                string
		conductor, override int
		want                int
		refused             bool
	}{
		{"Zed", 64, 0, 64, false},
		{"2023.1 in an upgrade from Zed", 65, 0, 65, false},
		{"2023.2", 66, 0, 66, false},
		{"2024.1", 67, 0, 67, false},
		{"2025.1", 68, 0, 68, false},
		{"2025.2", 70, 0, 70, false},
		{"2026.1", 72, 0, 72, false},
		{"2026.1 in an upgrade to 2026.2", 73, 0, 73, false},
		{"2026.2", 74, 0, 74, false},
		{"the release after that", 76, 0, 74, false},
		{"override that 2025.2 refuses", 70, 67, 0, true},
		{"override that 2026.2 refuses", 74, 70, 0, true},
		{"override in range", 66, 64, 64, false},
		{"override where 66 is the least", 67, 64, 0, true},
		{"override of an operator who knows better", 70, 70, 70, false},
		{"Yoga", 61, 0, 0, true},
		{"unknown", 0, 0, 64, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ChooseVersion(tt.conductor, tt.override)
			if tt.refused != errors.Is(err, errdefs.ErrUnsupported) || got != tt.want {
				t.Errorf("ChooseVersion = %d, %v", got, err)
			}
		})
	}
}

func TestRegister(t *testing.T) {
	row := func(version int) map[string]any {
		return map[string]any{
			"id": 4, "host": "cmp1", "binary": Binary, "report_count": 70, "version": version, "disabled": true,
			"disabled_reason": "maintenance",
		}
	}
	exists := messaging.NovaError("ServiceBinaryExists", 500, "x")
	tests := []struct {
		name     string
		row      map[string]any
		set      func(*conductor)
		version  int
		previous int
		saves    int
	}{
		{name: "new host", version: 64},
		{name: "known host", row: row(64), version: 64, previous: 64},
		{name: "known host, upgraded", row: row(61), version: 64, previous: 61, saves: 1},
		{name: "reply to create lost", set: func(c *conductor) { c.lose = true }, version: 64, previous: 0},
		{name: "conductor goes away", set: func(c *conductor) { c.fail["minimum"] = []error{messaging.ErrTimeout, errdefs.ErrUnavailable} }, version: 64},
		{name: "made by somebody else", row: row(64), set: func(c *conductor) {
			c.fail["create"] = []error{exists}
		}, version: 64, previous: 64},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newConductor()
				c.row = tt.row
				if tt.set != nil {
					tt.set(c)
				}
				s := New(c, Options{Host: "cmp1"}, zerolog.Nop())
				if err := s.Register(t.Context()); err != nil {
					t.Fatal(err)
				}
				if s.Version() != tt.version || s.Previous() != tt.previous || s.ID() == 0 || len(c.saves) != tt.saves {
					t.Errorf("version %d, previous %d, id %d, saves %v", s.Version(), s.Previous(), s.ID(), c.saves)
				}
				if c.row["version"] != tt.version || s.State().Disabled != (tt.row != nil) {
					t.Errorf("row %v, state %+v", c.row, s.State())
				}
			})
		})
	}
}

func TestRegisterRefusals(t *testing.T) {
	t.Run("host does not admit it", func(t *testing.T) {
		c := newConductor()
		opts := Options{Host: "cmp1", Admit: func(_ context.Context, previous int) error {
			if previous != 0 {
				t.Errorf("previous = %d", previous)
			}
			return errdefs.ErrConflict
		}}
		err := New(c, opts, zerolog.Nop()).Register(t.Context())
		if !errors.Is(err, errdefs.ErrConflict) || c.row != nil {
			t.Errorf("Register = %v, row %v", err, c.row)
		}
	})
	t.Run("too old for the cloud", func(t *testing.T) {
		c := newConductor()
		c.minimum = 73
		err := New(c, Options{Host: "cmp1", Version: 71}, zerolog.Nop()).Register(t.Context())
		if !errors.Is(err, errdefs.ErrUnsupported) || c.row != nil {
			t.Errorf("Register = %v, row %v", err, c.row)
		}
	})
	t.Run("too old for the others", func(t *testing.T) {
		c := newConductor()
		c.fail["create"] = []error{messaging.NovaError("ServiceTooOld", 500, "x")}
		err := New(c, Options{Host: "cmp1"}, zerolog.Nop()).Register(t.Context())
		if !messaging.IsRemote(err, "ServiceTooOld") || !strings.Contains(err.Error(), "other compute hosts") {
			t.Errorf("Register = %v", err)
		}
	})
}

func TestAwaitConductor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConductor()
		c.fail["ping"] = slices.Repeat([]error{messaging.ErrTimeout}, 12)
		began := time.Now()
		if err := New(c, Options{Host: "cmp1"}, zerolog.Nop()).Register(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); c.pings != 13 || took != 10*10*time.Second+2*time.Minute {
			t.Errorf("%d pings in %v", c.pings, took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c := newConductor()
		c.fail["ping"] = slices.Repeat([]error{errdefs.ErrUnavailable}, 1000)
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		err := New(c, Options{Host: "cmp1"}, zerolog.Nop()).Register(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || c.pings > 10 {
			t.Errorf("Register = %v after %d pings", err, c.pings)
		}
	})
}

// logLines collects a log.
type logLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

// with counts the lines that hold text.
func (l *logLines) with(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, line := range l.lines {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// beating registers the service and lets it beat until the returned stop.
func beating(t *testing.T, c *conductor, opts Options, log zerolog.Logger) (*Service, func()) {
	t.Helper()
	opts.Host = "cmp1"
	s := New(c, opts, log)
	if err := s.Register(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Heartbeat(ctx) }()
	return s, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestHeartbeatCountsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConductor()
		c.row = map[string]any{"id": 4, "host": "cmp1", "binary": Binary, "report_count": 70, "version": 64}
		_, stop := beating(t, c, Options{}, zerolog.Nop())
		<-time.After(36 * time.Second) // beats at 5, 15, 25, 35
		stop()
		if c.row["report_count"] != 74 || len(c.saves) != 4 {
			t.Errorf("report_count %v after %d saves", c.row["report_count"], len(c.saves))
		}
		for _, fields := range c.saves {
			if !slices.Equal(fields, []string{"report_count"}) {
				t.Errorf("a beat changed %v", fields)
			}
		}
	})
}

func TestHeartbeatSurvivesAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out logLines
		c := newConductor()
		c.fail["save"] = append(slices.Repeat([]error{messaging.ErrTimeout}, 5), slices.Repeat([]error{errdefs.ErrUnavailable}, 10)...)
		_, stop := beating(t, c, Options{}, zerolog.New(&out).Level(zerolog.InfoLevel))
		<-time.After(10 * time.Minute)
		stop()
		if age := time.Since(c.lastSeen); age > 15*time.Second {
			t.Errorf("last seen %v ago", age)
		}
		if n := out.with("reports"); n != 2 {
			t.Errorf("%d lines on reports", n)
		}
	})
}

func TestDeletedRecordIsNotMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out logLines
		c := newConductor()
		_, stop := beating(t, c, Options{}, zerolog.New(&out).Level(zerolog.InfoLevel))
		<-time.After(20 * time.Second)
		c.mu.Lock()
		c.row = nil
		c.mu.Unlock()
		<-time.After(5 * time.Minute)
		stop()
		if c.row != nil {
			t.Error("the record was made again")
		}
		if n := out.with("was deleted"); n != 1 {
			t.Errorf("logged %d times", n)
		}
	})
}

func TestStateIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []State
		c := newConductor()
		_, stop := beating(t, c, Options{OnState: func(s State) { told = append(told, s) }}, zerolog.Nop())
		<-time.After(30 * time.Second)
		c.mu.Lock()
		c.row["disabled"], c.row["disabled_reason"] = true, "upgrade"
		c.mu.Unlock()
		<-time.After(30 * time.Second)
		stop()
		if want := []State{{}, {Disabled: true, Reason: "upgrade"}}; !slices.Equal(told, want) {
			t.Errorf("told %+v", told)
		}
	})
}
