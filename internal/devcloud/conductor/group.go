package conductor

import (
	"context"
	"slices"

	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
)

func (c *Conductor) getGroup(ctx context.Context, in call) (any, error) {
	id := in.text(0, "instance_uuid")
	if c.o.Groups == nil {
		return nil, noGroup(id)
	}
	g, err := c.o.Groups.GroupOf(ctx, id)
	if err != nil {
		return nil, or(err, noGroup(id))
	}
	return c.withHosts(ctx, g)
}

func (c *Conductor) getGroupByHint(ctx context.Context, in call) (any, error) {
	hint := in.text(0, "hint")
	if c.o.Groups == nil {
		return nil, noGroup(hint)
	}
	g, err := c.o.Groups.GroupByHint(ctx, hint)
	if err != nil {
		return nil, or(err, noGroup(hint))
	}
	return c.withHosts(ctx, g)
}

func noGroup(id string) *messaging.RemoteError {
	return messaging.NovaError("InstanceGroupNotFound", 404, "Instance group %s could not be found.", id)
}

// withHosts fills in where the members of a group are.
func (c *Conductor) withHosts(ctx context.Context, g objects.InstanceGroup) (*objects.Object, error) {
	hosts, err := c.hostsOf(ctx, g.Members(), nil)
	if err != nil {
		return nil, err
	}
	o := g.Clone()
	o.SetClean("hosts", hosts)
	return o, nil
}

// hostsOf are the hosts of instances without the excluded ones, sorted.
func (c *Conductor) hostsOf(ctx context.Context, members, exclude []string) ([]string, error) {
	var ids []any
	for _, m := range members {
		if !slices.Contains(exclude, m) {
			ids = append(ids, m)
		}
	}
	rows, err := c.o.Store.ListInstances(ctx, cell.InstanceQuery{Deleted: cell.LiveAndSoft, Match: map[string][]any{"uuid": ids}})
	hosts := []string{}
	for _, row := range rows {
		if row.Host() != "" {
			hosts = append(hosts, row.Host())
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts), err
}

func (c *Conductor) groupHosts(ctx context.Context, in call) (*objects.Object, any, error) {
	hosts, err := c.hostsOf(ctx, in.obj.StringList("members"), texts(in.arg(0, "exclude")))
	return nil, hosts, err
}
