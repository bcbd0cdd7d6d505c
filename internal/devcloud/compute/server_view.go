package compute

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/cell"
	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

// serverView is a server as the API shows it. Fields of later microversions
// and those for administrators are pointers, or any, and absent when nil or
// zero; optional marks values that are shown even when they are null.
type serverView struct {
	ID          string               `json:"id"`
	Name        string               `json:"name"`
	Status      string               `json:"status"`
	TenantID    string               `json:"tenant_id"`
	UserID      string               `json:"user_id"`
	Metadata    map[string]string    `json:"metadata"`
	HostID      string               `json:"hostId"`
	Image       any                  `json:"image"`
	Flavor      any                  `json:"flavor"`
	Created     string               `json:"created"`
	Updated     *string              `json:"updated"`
	Addresses   map[string][]address `json:"addresses"`
	AccessIPv4  string               `json:"accessIPv4"`
	AccessIPv6  string               `json:"accessIPv6"`
	Links       []link               `json:"links"`
	DiskConfig  string               `json:"OS-DCF:diskConfig"`
	Fault       *faultView           `json:"fault,omitempty"`
	Progress    *int64               `json:"progress,omitempty"`
	Zone        *string              `json:"OS-EXT-AZ:availability_zone,omitempty"`
	ConfigDrive *string              `json:"config_drive,omitempty"`
	KeyName     optional             `json:"key_name,omitzero"`
	Launched    optional             `json:"OS-SRV-USG:launched_at,omitzero"`
	Terminated  optional             `json:"OS-SRV-USG:terminated_at,omitzero"`
	Groups      []map[string]string  `json:"security_groups,omitempty"`

	Host         optional `json:"OS-EXT-SRV-ATTR:host,omitzero"`
	InstanceName *string  `json:"OS-EXT-SRV-ATTR:instance_name,omitempty"`
	Node         optional `json:"OS-EXT-SRV-ATTR:hypervisor_hostname,omitzero"`
	Reservation  optional `json:"OS-EXT-SRV-ATTR:reservation_id,omitzero"`
	LaunchIndex  optional `json:"OS-EXT-SRV-ATTR:launch_index,omitzero"`
	Hostname     optional `json:"OS-EXT-SRV-ATTR:hostname,omitzero"`
	Kernel       optional `json:"OS-EXT-SRV-ATTR:kernel_id,omitzero"`
	Ramdisk      optional `json:"OS-EXT-SRV-ATTR:ramdisk_id,omitzero"`
	RootDevice   optional `json:"OS-EXT-SRV-ATTR:root_device_name,omitzero"`
	AdminPass    string   `json:"adminPass,omitempty"` // of a rebuild
	UserData     optional `json:"OS-EXT-SRV-ATTR:user_data,omitzero"`

	TaskState  optional  `json:"OS-EXT-STS:task_state,omitzero"`
	VMState    optional  `json:"OS-EXT-STS:vm_state,omitzero"`
	PowerState optional  `json:"OS-EXT-STS:power_state,omitzero"`
	Volumes    *[]string `json:"os-extended-volumes:volumes_attached,omitempty"`
	HostStatus *string   `json:"host_status,omitempty"`

	Locked       *bool     `json:"locked,omitempty"`
	LockedReason optional  `json:"locked_reason,omitzero"`
	Description  optional  `json:"description,omitzero"`
	Tags         *[]string `json:"tags,omitempty"`
	TrustedCerts optional  `json:"trusted_image_certificates,omitzero"`
	ServerGroups *[]string `json:"server_groups,omitempty"`
}

// optional is a value that is shown, null or not, once it is set.
type optional struct {
	set   bool
	value any
}

func some(v any) optional { return optional{true, v} }

// field is a field of an instance.
func field(i objects.Instance, name string) optional { return optional{true, i.Get(name)} }

// MarshalJSON implements json.Marshaler.
func (o optional) MarshalJSON() ([]byte, error) { return json.Marshal(o.value) }

type address struct {
	Version int    `json:"version"`
	Addr    string `json:"addr"`
	Type    string `json:"OS-EXT-IPS:type,omitempty"`
	MAC     string `json:"OS-EXT-IPS-MAC:mac_addr,omitempty"`
}

type faultView struct {
	Code    int    `json:"code"`
	Created string `json:"created"`
	Message string `json:"message"`
	Details string `json:"details,omitempty"`
}

type idLinks struct {
	ID    string `json:"id"`
	Links []link `json:"links"`
}

type embeddedFlavor struct {
	VCPUs      int64             `json:"vcpus"`
	RAM        int64             `json:"ram"`
	Disk       int64             `json:"disk"`
	Ephemeral  int64             `json:"ephemeral"`
	Swap       int64             `json:"swap"`
	Name       string            `json:"original_name"`
	ExtraSpecs map[string]string `json:"extra_specs"`
}

// viewer makes views for one request.
type viewer struct {
	s *Service
	r *rest.Request
	// all says that everything of a GET is shown; PUT shows less up to 2.74.
	all                      bool
	servers, images, flavors place
	words                    stateWords
	hosts                    map[string]string // host_status by host
	zones                    map[string]string
	groups                   map[string][]map[string]string // security groups by server
}

// viewer prepares views of instances: what is not in their rows is asked for
// once for all of them.
func (s *Service) viewer(ctx context.Context, r *rest.Request, all bool, of ...objects.Instance) (*viewer, error) {
	v := &viewer{
		s: s, r: r, all: all, words: s.words,
		servers: at(r, "servers"), images: at(r, "images"), flavors: at(r, "flavors"),
	}
	var err error
	if v.zones, err = s.Zones(ctx); err != nil {
		return nil, err
	}
	if r.Caller.Admin() && r.Version.AtLeast(2, 16) {
		if v.hosts, err = s.hostStatuses(ctx); err != nil {
			return nil, err
		}
	}
	if all {
		v.groups, err = s.serverGroupsOf(ctx, r.Caller, of)
	}
	return v, err
}

// hostStatuses are the host_status of compute hosts.
func (s *Service) hostStatuses(ctx context.Context) (map[string]string, error) {
	services, err := s.o.Cell.Services(ctx, cell.ServiceQuery{Binary: computeBinary})
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, svc := range services {
		switch {
		case svc.ForcedDown():
			out[svc.Host()] = "DOWN"
		case svc.Disabled():
			out[svc.Host()] = "MAINTENANCE"
		case cell.Up(svc, time.Now()):
			out[svc.Host()] = "UP"
		default:
			out[svc.Host()] = "UNKNOWN"
		}
	}
	return out, nil
}

// serverGroupsOf are the names of the security groups of servers' ports.
func (s *Service) serverGroupsOf(ctx context.Context, c *rest.Caller, of []objects.Instance) (map[string][]map[string]string, error) {
	if len(of) == 0 {
		return nil, nil
	}
	ids := make([]string, len(of))
	for n, i := range of {
		ids[n] = i.UUID()
	}
	ports, err := s.o.Networks.Ports(ctx, c, PortQuery{Servers: ids})
	if err != nil {
		return nil, fmt.Errorf("ports of servers: %w", err)
	}
	out, seen := map[string][]map[string]string{}, map[[2]string]bool{}
	for _, p := range ports {
		for _, g := range p.Groups {
			if key := [2]string{p.DeviceID, g.ID}; !seen[key] {
				seen[key] = true
				out[p.DeviceID] = append(out[p.DeviceID], map[string]string{"name": g.Name})
			}
		}
	}
	return out, nil
}

// server is the view of one instance.
func (v *viewer) server(i objects.Instance) *serverView {
	at := v.r.Version.AtLeast
	status := v.words.of(i)
	out := &serverView{
		ID: i.UUID(), Name: i.DisplayName(), Status: status, TenantID: i.ProjectID(), UserID: i.UserID(),
		Metadata: i.Metadata(), HostID: hostID(i.Host(), i.ProjectID()), Image: v.image(i), Flavor: v.flavor(i),
		Created: i.CreatedAt().UTC().Format(seconds), Updated: orNothing(i.UpdatedAt()),
		Addresses: addresses(i, at(2, 1) && v.all || at(2, 75)), AccessIPv4: i.String("access_ip_v4"), AccessIPv6: i.String("access_ip_v6"),
		Links: v.servers.links(i.UUID()), DiskConfig: diskConfig(i.Bool("auto_disk_config")),
	}
	switch status {
	case "ERROR", "DELETED":
		out.Fault = fault(i, v.r.Caller.Admin())
	case "ACTIVE", "BUILD", "REBUILD", "RESIZE", "VERIFY_RESIZE", "MIGRATING":
		progress := i.Int("progress")
		out.Progress = &progress
	}
	if v.all || at(2, 75) {
		v.extend(out, i)
	}
	if at(2, 9) {
		locked := !i.IsNull("locked_by")
		out.Locked = &locked
	}
	if at(2, 19) {
		out.Description = field(i, "display_description")
	}
	if at(2, 26) {
		tags := tagsOf(i)
		out.Tags = &tags
	}
	if at(2, 54) && !v.all {
		out.KeyName = field(i, "key_name")
	}
	if at(2, 63) {
		out.TrustedCerts = some(nil)
	}
	if at(2, 73) {
		out.LockedReason = some(nil)
		if reason, ok := i.SystemMetadata()["locked_reason"]; ok {
			out.LockedReason = some(reason)
		}
	}
	if at(2, 90) {
		out.Hostname = field(i, "hostname")
	}
	return out
}

// extend adds what once were extensions.
func (v *viewer) extend(out *serverView, i objects.Instance) {
	at, none, drive := v.r.Version.AtLeast, []string{}, i.ConfigDrive()
	zone := i.AvailabilityZone()
	if i.Host() != "" {
		zone = v.zones[i.Host()]
		if zone == "" {
			zone = defaultZone
		}
	}
	out.Zone, out.ConfigDrive, out.KeyName = &zone, &drive, field(i, "key_name")
	out.Launched, out.Terminated = some(micros(i.LaunchedAt())), some(micros(i.Time("terminated_at")))
	out.Groups = v.groups[i.UUID()]
	out.TaskState, out.VMState, out.PowerState = field(i, "task_state"), field(i, "vm_state"), field(i, "power_state")
	out.Volumes = &none
	if !v.r.Caller.Admin() {
		return
	}
	name := instanceName(i)
	out.Host, out.InstanceName, out.Node = field(i, "host"), &name, field(i, "node")
	if at(2, 3) {
		out.Reservation, out.LaunchIndex, out.Hostname = field(i, "reservation_id"), field(i, "launch_index"), field(i, "hostname")
		out.Kernel, out.Ramdisk, out.RootDevice = field(i, "kernel_id"), field(i, "ramdisk_id"), field(i, "root_device_name")
		out.UserData = field(i, "user_data")
	}
	if at(2, 16) {
		status := v.hosts[i.Host()] // "" without a host
		if status == "" && i.Host() != "" {
			status = "UNKNOWN"
		}
		out.HostStatus = &status
	}
}

func (v *viewer) image(i objects.Instance) any {
	id := i.ImageRef()
	if id == "" {
		return ""
	}
	return idLinks{id, []link{{"bookmark", v.images.bookmark + "/" + id}}}
}

func (v *viewer) flavor(i objects.Instance) any {
	f := i.Flavor()
	if f.Object == nil {
		return map[string]any{}
	}
	if !v.r.Version.AtLeast(2, 47) {
		return idLinks{f.FlavorID(), []link{{"bookmark", v.flavors.bookmark + "/" + f.FlavorID()}}}
	}
	return embeddedFlavor{f.VCPUs(), f.MemoryMB(), f.RootGB(), f.EphemeralGB(), f.SwapMB(), f.FlavorName(), f.ExtraSpecs()}
}

// fault is the reason of an error; its details are for administrators unless
// the tenant caused it.
func fault(i objects.Instance, admin bool) *faultView {
	f := i.Object.Object("fault")
	if f == nil {
		return nil
	}
	out := &faultView{Code: int(f.Int("code")), Created: f.Time("created_at").UTC().Format(seconds), Message: f.String("message")}
	if admin || out.Code != 500 {
		out.Details = f.String("details")
	}
	return out
}

// addresses are those of the instance's networks; a server that is being built
// shows none.
func addresses(i objects.Instance, extended bool) map[string][]address {
	out := map[string][]address{}
	info, err := i.NetworkInfo()
	if err != nil || i.VMState() == vmBuilding {
		return out
	}
	floating := map[string][]address{}
	for _, vif := range info {
		label := vif.Network.Label
		if out[label] == nil {
			out[label] = []address{}
		}
		add := func(ip objects.VIFIP) address {
			a := address{Version: ip.Version, Addr: ip.Address}
			if extended {
				a.Type, a.MAC = ip.Type, vif.Address
			}
			return a
		}
		for _, subnet := range vif.Network.Subnets {
			for _, ip := range subnet.IPs {
				out[label] = append(out[label], add(ip))
				for _, f := range ip.FloatingIPs {
					floating[label] = append(floating[label], add(f))
				}
			}
		}
	}
	for label, more := range floating {
		out[label] = append(out[label], more...)
	}
	return out
}

// hostID hides the host from tenants (nova.utils.generate_hostid).
func hostID(host, project string) string {
	if host == "" {
		return ""
	}
	sum := sha256.Sum224([]byte(project + host))
	return hex.EncodeToString(sum[:])
}

func diskConfig(auto bool) string {
	if auto {
		return "AUTO"
	}
	return "MANUAL"
}

func orNothing(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := t.UTC().Format(seconds)
	return &s
}

// tagsOf are the tags of an instance.
func tagsOf(i objects.Instance) []string {
	out := []string{}
	for _, t := range i.Objects("tags") {
		out = append(out, t.String("tag"))
	}
	return out
}
