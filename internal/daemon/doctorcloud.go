package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-project/gantry/config"
	"github.com/gantry-project/gantry/driver/messaging/amqp"
	"github.com/gantry-project/gantry/internal/doctor"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/openstack"
)

// askTime bounds what one of the services around the host gets to answer.
const askTime = 10 * time.Second

// around are the services that a compute service would talk to, as the doctor
// asks them.
type around struct {
	cfg    *config.Config
	broker amqp.Options
	cloud  *cloud
	// sessions by the section whose account they are of, in the order of names.
	names    []string
	sessions map[string]*openstack.Session
	// nova is a session for the compute API, with the account of [neutron]; nil
	// without an identity service.
	nova *openstack.Session
}

// surroundings are the checks of what a service with that configuration talks
// to. done lets the connections go. The error is of the configuration.
func surroundings(c *config.Config) (_ []doctor.Check, done func(), err error) {
	a := &around{cfg: c, cloud: &cloud{}, sessions: map[string]*openstack.Session{}}
	if a.broker, err = brokerOptions(c, zerolog.Nop()); err != nil {
		return nil, nil, err
	}
	accounts := map[string]config.Auth{"neutron": c.Neutron.Auth, "glance": glanceAuth(c), "placement": c.Placement}
	if c.ServiceUser.SendServiceUserToken {
		accounts["service_user"] = c.ServiceUser.Auth
	}
	session := func(name string, auth config.Auth) (*openstack.Session, error) {
		auth.Timeout, auth.ConnectRetries = askTime, 0
		return a.cloud.session(name, auth)
	}
	for name, auth := range accounts {
		if a.sessions[name], err = session(name, auth); err != nil {
			return nil, nil, err
		}
		a.names = append(a.names, name)
	}
	slices.Sort(a.names)
	if auth := c.Neutron.Auth; auth.AuthURL != "" {
		auth.EndpointOverride = ""
		if a.nova, err = session("neutron", auth); err != nil {
			return nil, nil, err
		}
	}
	return a.checks(), a.cloud.close, nil
}

func (a *around) checks() []doctor.Check {
	log := "look at the service's own log, and at its endpoint with openstack catalog show"
	return []doctor.Check{
		{
			Name: "broker", Run: bounded(a.askBroker),
			Costs:  "the service waits for it and takes no messages; Nova shows the host as down",
			Remedy: "[DEFAULT] transport_url and [oslo_messaging_rabbit] ssl…: address, port, user, password, vhost as rabbitmqctl list_users and list_vhosts show them",
		},
		{
			Name: "identity", Run: bounded(a.askIdentity),
			Costs:  "the service has no tokens: no networks, no images, no place in Placement",
			Remedy: "auth_url, username, password, project and domains of the sections that are named",
		},
		{
			Name: "clock-offset", Run: bounded(a.askClock),
			Costs:  "tokens are refused or outlive their time; Nova takes the service for down",
			Remedy: "the same time servers for this host and the controllers (chronyc sources)",
		},
		{
			Name: "placement", Run: bounded(a.ask("placement", "placement", "/resource_providers", url.Values{"name": {a.cfg.Default.Host}})),
			Costs:  "the host has no inventory, so no instance is scheduled to it",
			Remedy: log + " placement",
		},
		{
			Name: "neutron", Run: bounded(a.ask("neutron", "network", "/v2.0/extensions", url.Values{"fields": {"alias"}})),
			Costs:  "instances get no networks",
			Remedy: log + " network",
		},
		{
			Name: "glance", Run: bounded(a.ask("glance", "image", "/v2/images", url.Values{"limit": {"1"}})),
			Costs:  "images cannot be fetched",
			Remedy: log + " image",
		},
		{
			Name: "neutron-agent", Run: bounded(a.askAgent),
			Costs:  "ports of instances cannot be bound to this host, and builds fail",
			Remedy: "start the layer 2 agent of this host (or ovn-controller) with [DEFAULT] host as the service has it: openstack network agent list",
		},
		{
			Name: "nova-service", Run: bounded(a.askNova),
			Costs:  "Nova schedules nothing to this host",
			Remedy: "start the service: it registers by itself; then nova-manage cell_v2 discover_hosts, and openstack compute service set --enable",
		},
	}
}

// bounded gives a check its time.
func bounded(run func(context.Context) (doctor.Level, string)) func(context.Context, *doctor.Host) (doctor.Level, string) {
	return func(ctx context.Context, _ *doctor.Host) (doctor.Level, string) {
		ctx, cancel := context.WithTimeoutCause(ctx, askTime, fmt.Errorf("no answer within %s: %w", askTime, errdefs.ErrUnavailable))
		defer cancel()
		level, found := run(ctx)
		if level != doctor.OK && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			found += " (" + context.Cause(ctx).Error() + ")"
		}
		return level, found
	}
}

// askBroker logs in to all brokers. One of several that does not answer is a
// warning: the service takes another.
func (a *around) askBroker(ctx context.Context) (doctor.Level, string) {
	probed, err := amqp.Probe(ctx, a.broker)
	if err != nil {
		return doctor.Fail, err.Error()
	}
	var good, bad []string
	for _, p := range probed {
		if p.Err == nil {
			good = append(good, p.Host.String())
		} else {
			bad = append(bad, p.Err.Error())
		}
	}
	switch {
	case len(good) == 0:
		return doctor.Fail, strings.Join(bad, "; ")
	case len(bad) > 0:
		return doctor.Warn, strings.Join(bad, "; ")
	}
	kind := "without TLS"
	if a.broker.SSL {
		kind = "by TLS"
	}
	return doctor.OK, fmt.Sprintf("%s, vhost %s, %s", strings.Join(good, ", "), a.broker.URL.VHost, kind)
}

// askIdentity logs in with each account.
func (a *around) askIdentity(ctx context.Context) (doctor.Level, string) {
	errs := make([]error, len(a.names))
	var all sync.WaitGroup
	for i, name := range a.names {
		all.Go(func() { _, errs[i] = a.sessions[name].Token(ctx) })
	}
	all.Wait()
	var bad []string
	for i, err := range errs {
		if err != nil {
			bad = append(bad, fmt.Sprintf("[%s] %v", a.names[i], err))
		}
	}
	if len(bad) > 0 {
		return doctor.Fail, strings.Join(bad, "; ")
	}
	return doctor.OK, "accounts of [" + strings.Join(a.names, "], [") + "]"
}

// ask makes one request as the account of a section.
func (a *around) ask(section, serviceType, path string, q url.Values) func(context.Context) (doctor.Level, string) {
	return func(ctx context.Context) (doctor.Level, string) {
		rest := a.sessions[section].Service(serviceType, nil)
		if err := rest.Do(ctx, openstack.UserAuth{}, openstack.Request{Method: http.MethodGet, Path: path, Query: q}); err != nil {
			return doctor.Fail, err.Error()
		}
		return doctor.OK, "answers"
	}
}

// A token's life and Nova's service_down_time (60 s) bound how far the clocks of
// a cloud may differ. The header tells whole seconds.
const (
	offsetNoted = 2 * time.Second
	offsetMost  = 30 * time.Second
)

// askClock compares the clock with that of the first service that tells the
// time: some servers of WSGI send no Date.
func (a *around) askClock(ctx context.Context) (level doctor.Level, found string) {
	for _, s := range []struct{ section, kind, path string }{
		{"neutron", "network", "/"}, {"glance", "image", "/"}, {"placement", "placement", "/"},
	} {
		began := time.Now()
		answer, err := a.sessions[s.section].Service(s.kind, nil).Open(ctx, openstack.UserAuth{}, openstack.Request{Method: http.MethodGet, Path: s.path})
		if err != nil {
			if level == "" {
				level, found = doctor.Warn, "nobody tells the time: "+err.Error()
			}
			continue
		}
		_ = answer.Body.Close()
		date := answer.Header.Get("Date")
		if date != "" {
			level, found = clockOffset(date, began, time.Now())
			return level, found + " towards " + s.section
		}
		level, found = doctor.Note, "not to be found out: no service tells the time"
	}
	return level, found
}

// clockOffset judges what a service says the time is, which was asked between
// two moments.
func clockOffset(date string, began, ended time.Time) (doctor.Level, string) {
	theirs, err := http.ParseTime(date)
	if err != nil {
		return doctor.Note, fmt.Sprintf("the answer has no time: %.40q", date)
	}
	// theirs is the beginning of the second in which the answer was made
	var off time.Duration
	switch {
	case theirs.After(ended):
		off = theirs.Sub(ended)
	case theirs.Add(time.Second).Before(began):
		off = theirs.Add(time.Second).Sub(began)
	}
	off = off.Round(time.Second)
	found := off.String()
	switch {
	case off.Abs() >= offsetMost:
		return doctor.Fail, found
	case off.Abs() >= offsetNoted:
		return doctor.Warn, found
	}
	return doctor.OK, found
}

// layer2 are the agents that bind ports.
var layer2 = []string{
	"Linux bridge agent", "Open vSwitch agent", "OVN Controller agent", "OVN Controller Gateway agent", "Macvtap agent", "NIC Switch agent", "HyperV agent",
}

// askAgent looks for the agent that binds the ports of this host.
func (a *around) askAgent(ctx context.Context) (doctor.Level, string) {
	var out struct {
		Agents []struct {
			Type  string `json:"agent_type"`
			Alive bool   `json:"alive"`
			Up    bool   `json:"admin_state_up"`
		} `json:"agents"`
	}
	err := a.sessions["neutron"].Service("network", nil).Do(ctx, openstack.UserAuth{}, openstack.Request{
		Method: http.MethodGet, Path: "/v2.0/agents", Query: url.Values{"host": {a.cfg.Default.Host}}, Into: &out,
	})
	if level, found, end := unknown(err); end {
		return level, found
	}
	var dead []string
	for _, agent := range out.Agents {
		switch {
		case !slices.Contains(layer2, agent.Type):
		case agent.Alive && agent.Up:
			return doctor.OK, agent.Type + " is alive"
		case agent.Alive:
			dead = append(dead, agent.Type+" is switched off")
		default:
			dead = append(dead, agent.Type+" is dead")
		}
	}
	if len(dead) > 0 {
		return doctor.Fail, strings.Join(dead, ", ")
	}
	return doctor.Warn, fmt.Sprintf("Neutron knows none of host %q", a.cfg.Default.Host)
}

// askNova looks for the record of this host's service.
func (a *around) askNova(ctx context.Context) (doctor.Level, string) {
	if a.nova == nil {
		return doctor.Note, "not to be asked: [neutron] has no auth_url"
	}
	var out struct {
		Services []struct {
			State  string `json:"state"`
			Status string `json:"status"`
			Reason string `json:"disabled_reason"`
		} `json:"services"`
	}
	err := a.nova.Service("compute", nil).Do(ctx, openstack.UserAuth{}, openstack.Request{
		Method: http.MethodGet, Path: "/v2.1/os-services", Into: &out,
		Query: url.Values{"host": {a.cfg.Default.Host}, "binary": {"nova-compute"}},
	})
	if _, found, end := unknown(err); end {
		return doctor.Note, found // the service itself never asks
	}
	switch {
	case len(out.Services) == 0:
		return doctor.Note, fmt.Sprintf("Nova knows none of host %q yet", a.cfg.Default.Host)
	case out.Services[0].State != "up":
		return doctor.Warn, "Nova shows it as " + out.Services[0].State
	case out.Services[0].Status != "enabled":
		return doctor.Warn, strings.TrimSpace("disabled " + out.Services[0].Reason)
	}
	return doctor.OK, "up and enabled"
}

// unknown is what is said when asking was not possible: an account that may not
// ask is no defect.
func unknown(err error) (doctor.Level, string, bool) {
	var status *openstack.StatusError
	switch {
	case err == nil:
		return "", "", false
	case errors.As(err, &status) && (status.Status == http.StatusForbidden || status.Status == http.StatusNotFound):
		return doctor.Note, "not to be found out: the account may not ask: " + err.Error(), true
	}
	return doctor.Warn, err.Error(), true
}
