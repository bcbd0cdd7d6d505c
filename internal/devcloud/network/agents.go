package network

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

var agentResource = resource{
	name: "agent", plural: "agents", path: "agents",
	missing: func(id string) error { return notFound("AgentNotFound", "Agent %s could not be found.", id) },
	attrs: []attr{
		{name: "id", filter: true},
		{name: "agent_type", filter: true},
		{name: "binary", filter: true},
		{name: "topic", filter: true},
		{name: "host", filter: true},
		{name: "admin_state_up", put: true, def: true, check: boolean, filter: true},
		{name: "created_at"},
		{name: "started_at"},
		{name: "heartbeat_timestamp"},
		{name: "alive", filter: true},
		{name: "configurations"},
		{name: "availability_zone", filter: true},
		{name: "description", put: true, check: orNull(text(255)), filter: true},
		{name: "resources_synced"},
		{name: "tenant_id"},
		{name: "project_id"},
	},
}

// agent is one of those that a Neutron would have on this host. What they do is
// done by the fabric, in this process.
type agent struct {
	base

	Type, Binary, Topic string
	Zone                string `json:",omitempty"`
	Up                  bool
	Started             time.Time
}

// ensureAgents makes the agents that a host is expected to have.
func (st *state) ensureAgents() {
	for _, want := range []agent{
		{Type: "Linux bridge agent", Binary: "neutron-linuxbridge-agent", Topic: "N/A"},
		{Type: "DHCP agent", Binary: "neutron-dhcp-agent", Topic: "dhcp_agent", Zone: zone},
		{Type: "L3 agent", Binary: "neutron-l3-agent", Topic: "l3_agent", Zone: zone},
	} {
		have := st.agents.where(func(a *agent) bool { return a.Type == want.Type })
		if len(have) > 0 {
			want = *have[0]
		} else {
			want.ID, want.Created, want.Up = uuid.NewString(), st.now, true
		}
		want.Started = st.now
		st.agents.put(&want)
	}
}

func (s *Service) agentRoutes() {
	s.route(&agentResource, verbs{list: s.listAgents, show: s.showAgent, update: s.updateAgent, remove: s.deleteAgent})
	s.api.Handle("GET /v2.0/routers/{id}/l3-agents", s.agentsOfRouter)
	s.api.Handle("GET /v2.0/availability_zones", s.zones)
	s.api.Handle("GET /v2.0/service-providers", s.providers)
}

func (s *Service) agentView(a *agent) map[string]any {
	at := func(t time.Time) string { return t.UTC().Format(time.DateTime) }
	return map[string]any{
		"id": a.ID, "agent_type": a.Type, "binary": a.Binary, "topic": a.Topic, "host": s.o.Host, "admin_state_up": a.Up,
		"created_at": at(a.Created), "started_at": at(a.Started), "heartbeat_timestamp": at(time.Now()), "alive": true,
		"description": a.Description, "resources_synced": nil, "availability_zone": orNil(a.Zone), "configurations": map[string]any{},
	}
}

func (s *Service) listAgents(_ context.Context, r *rest.Request) (res *rest.Response, err error) {
	err = s.store.read(func(st *state) error {
		all := st.agents.where(func(*agent) bool { return r.Caller.Admin() })
		res, err = list(r, &agentResource, all, s.agentView)
		return err
	})
	return res, err
}

// agent finds the one of the path; only administrators see any.
func (st *state) agent(r *rest.Request) (*agent, error) {
	a, ok := st.agents.get(r.PathValue("id"))
	switch {
	case !ok:
		return nil, agentResource.missing(r.PathValue("id"))
	case !r.Caller.Admin():
		return nil, hidden()
	}
	return a, nil
}

func (s *Service) showAgent(_ context.Context, r *rest.Request) (res *rest.Response, err error) {
	err = s.store.read(func(st *state) error {
		a, err := st.agent(r)
		if err != nil {
			return err
		}
		res, err = show(r, &agentResource, s.agentView(a))
		return err
	})
	return res, err
}

func (s *Service) updateAgent(ctx context.Context, r *rest.Request) (*rest.Response, error) {
	all, _, err := agentResource.parse(r)
	if err != nil {
		return nil, err
	}
	var view map[string]any
	err = s.write(ctx, func(st *state) error {
		old, err := st.agent(r)
		if err != nil {
			return err
		}
		a := *old
		all[0].setFlag("admin_state_up", &a.Up)
		if all[0].has("description") {
			a.Description = nil
			if d, ok := all[0]["description"].(string); ok {
				a.Description = &d
			}
		}
		st.agents.put(&a)
		view = s.agentView(&a)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return show(r, &agentResource, view)
}

// deleteAgent refuses: all are alive, and Neutron's would come back at once.
func (s *Service) deleteAgent(_ context.Context, r *rest.Request) (res *rest.Response, err error) {
	err = s.store.read(func(st *state) error {
		if _, err := st.agent(r); err != nil {
			return err
		}
		return conflict("AgentInUse", "Agent %s is part of this process and cannot be removed.", r.PathValue("id"))
	})
	return nil, err
}

// agentsOfRouter names the L3 agent for each router that leads anywhere.
func (s *Service) agentsOfRouter(_ context.Context, r *rest.Request) (res *rest.Response, err error) {
	err = s.store.read(func(st *state) error {
		one, err := st.router(r.Caller, r.PathValue("id"))
		if err != nil {
			return err
		}
		if !r.Caller.Admin() {
			return denied("rule:get_l3-agents")
		}
		views := []map[string]any{}
		if len(st.portsOf(one)) > 0 {
			for _, a := range st.agents.where(func(a *agent) bool { return a.Topic == "l3_agent" }) {
				views = append(views, s.agentView(a))
			}
		}
		res, err = rest.OK(map[string]any{"agents": views})
		return err
	})
	return res, err
}

func (s *Service) zones(context.Context, *rest.Request) (*rest.Response, error) {
	one := func(kind string) map[string]string {
		return map[string]string{"name": zone, "resource": kind, "state": "available"}
	}
	return rest.OK(map[string]any{"availability_zones": []any{one("network"), one("router")}})
}

func (s *Service) providers(context.Context, *rest.Request) (*rest.Response, error) {
	return rest.OK(map[string]any{"service_providers": []any{
		map[string]any{"service_type": "L3_ROUTER_NAT", "name": "single_node", "default": true},
	}})
}
