package compute

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

const (
	// rootDevice is the name of the root disk that Nova shows. There is no
	// such device in a container; tools expect one.
	rootDevice = "/dev/vda"
	// networkAllocated is the key of system_metadata that says that an
	// earlier host has left the ports to this one.
	networkAllocated = "network_allocated"
)

// buildArgs are the arguments of build_and_run_instance. raw keeps them as
// they came: a reschedule sends them on.
type buildArgs struct {
	raw            map[string]json.RawMessage
	image          driver.Image
	node           string
	limits         json.RawMessage
	adminPassword  string
	files          []driver.File
	networks       *objects.Object
	securityGroups []string
	devices        *objects.Object
	accelerators   []string
	filters        map[string]any
	// err says what could not be decoded.
	err error
}

func (a *buildArgs) decode(o *op) error {
	a.raw = o.req.Args
	a.filters = map[string]any{}
	if raw := a.raw["filter_properties"]; len(raw) > 0 {
		v, err := objects.Decode(raw)
		if err != nil {
			return fmt.Errorf("argument filter_properties: %w", err)
		}
		if m, ok := v.(map[string]any); ok {
			a.filters = m
		}
	}
	var files [][2]string
	var image wireImage
	for name, v := range map[string]any{
		"image": &image, "node": &a.node, "limits": &a.limits, "admin_password": &a.adminPassword,
		"injected_files": &files, "requested_networks": &a.networks, "security_groups": &a.securityGroups,
		"block_device_mapping": &a.devices, "accel_uuids": &a.accelerators,
	} {
		if err := o.arg(name, v); err != nil {
			return err
		}
	}
	a.image, a.limits = image.driver(), orNull(a.limits)
	var err error
	a.files, err = decodeFiles(files)
	return err
}

// wireImage is Glance's image as Nova passes it in a dictionary.
type wireImage struct {
	ID              string         `json:"id"`
	Name            string         `json:"name"`
	DiskFormat      string         `json:"disk_format"`
	ContainerFormat string         `json:"container_format"`
	Size            json.Number    `json:"size"`
	Checksum        string         `json:"checksum"`
	HashAlgo        string         `json:"os_hash_algo"`
	HashValue       string         `json:"os_hash_value"`
	MinDisk         json.Number    `json:"min_disk"`
	MinRAM          json.Number    `json:"min_ram"`
	Properties      map[string]any `json:"properties"`
}

func (w wireImage) driver() driver.Image {
	img := driver.Image{
		ID: w.ID, Name: w.Name, DiskFormat: w.DiskFormat, ContainerFormat: w.ContainerFormat,
		SizeBytes: number(w.Size), Checksum: w.Checksum, HashAlgo: w.HashAlgo, HashValue: w.HashValue,
		MinDiskGB: number(w.MinDisk), MinRAMMB: number(w.MinRAM), Properties: map[string]string{},
	}
	for k, v := range w.Properties {
		switch t := v.(type) {
		case nil:
		case string:
			img.Properties[k] = t
		default:
			text, _ := json.Marshal(t) // it came from JSON
			img.Properties[k] = string(text)
		}
	}
	return img
}

func number(n json.Number) int64 {
	i, _ := n.Int64()
	return i
}

// decodeFiles decodes the personality files.
func decodeFiles(files [][2]string) ([]driver.File, error) {
	out := make([]driver.File, 0, len(files))
	for _, f := range files {
		content, err := base64.StdEncoding.DecodeString(f[1])
		if err != nil {
			err = fmt.Errorf("injected file %q: %w: %w", f[0], errdefs.ErrInvalid, err)
			return nil, errdefs.WithPublic(err, "Invalid Base 64 data for file "+f[0])
		}
		out = append(out, driver.File{Path: f[0], Content: content})
	}
	return out, nil
}

// refuse names what the request demands and this service cannot do.
func (a *buildArgs) refuse(inst *objects.Object) error {
	no := func(v verdict, what string) error {
		err := fmt.Errorf("build %s: %s: %w", inst.String("uuid"), what, errdefs.ErrUnsupported)
		return judged(v, errdefs.WithPublic(err, what+" are not supported by this host"))
	}
	if a.err != nil {
		return judged(abort, a.err)
	}
	for _, d := range a.devices.Objects("objects") {
		switch {
		case d.Bool("no_device"):
		case d.String("destination_type") == "volume" || d.String("source_type") == "volume" || d.String("source_type") == "snapshot":
			return no(abort, "Volumes")
		case d.String("tag") != "":
			return no(abort, "Tags of disks")
		}
	}
	switch {
	case len(a.accelerators) > 0:
		return no(abort, "Accelerators")
	case len(inst.Object("trusted_certs").StringList("ids")) > 0:
		return no(abort, "Trusted image certificates")
	case len(inst.Object("pci_requests").Objects("requests")) > 0:
		// Another host may have the devices: nova-compute's claim fails.
		return no(reschedule, "PCI devices")
	case a.image.ID == "":
		return no(abort, "Volumes")
	}
	return nil
}

// noNetwork says that the user asked for no network at all.
func (a *buildArgs) noNetwork() bool {
	nets := a.networks.Objects("objects")
	return len(nets) == 1 && nets[0].String("network_id") == "none"
}

func (a *buildArgs) retry() (map[string]any, bool) {
	r, ok := a.filters["retry"].(map[string]any)
	return r, ok && len(r) > 0
}

// mayRetry says that the scheduler allows another host.
func (a *buildArgs) mayRetry() bool { _, ok := a.retry(); return ok }

// tries is the number of this try, 0 when it is the only one.
func (a *buildArgs) tries() int64 {
	r, _ := a.retry()
	n, _ := r["num_attempts"].(json.Number)
	return number(n)
}

// again returns the arguments of build_instances for another host.
func (a *buildArgs) again(inst *objects.Object, cause error) map[string]any {
	retry, _ := a.retry()
	retry = maps.Clone(retry)
	retry["exc"] = []any{translate(cause).Class + ": " + tenantText(cause) + "\n"}
	retry["exc_reason"] = tenantText(cause)
	filters := maps.Clone(a.filters)
	filters["retry"] = retry
	inst = inst.Clone()
	inst.ResetChanges()
	args := map[string]any{"instances": []*objects.Object{inst}, "filter_properties": filters}
	for _, name := range []string{"image", "admin_password", "injected_files", "requested_networks", "security_groups", "request_spec"} {
		args[name] = orNull(a.raw[name])
	}
	hosts := a.raw["host_list"]
	if len(hosts) == 0 {
		hosts = json.RawMessage("null")
	}
	args["host_lists"] = []json.RawMessage{hosts}
	return args
}

// request makes the driver's request.
func (b *build) request(net *allocation) driver.SpawnRequest {
	req := b.m.spawnRequest(b.op, b.args.image, net)
	req.AdminPassword, req.Files = b.args.adminPassword, b.args.files
	req.Drive = b.m.driveFor(b.op, &req, b.args.securityGroups, net.devices)
	return req
}

// spawnRequest is the request for a guest of the instance from an image.
func (m *Manager) spawnRequest(o *op, img driver.Image, net driver.NetworkSource) driver.SpawnRequest {
	inst := o.inst
	userData, err := base64.StdEncoding.DecodeString(inst.String("user_data"))
	if err != nil {
		userData = nil // Nova's API has checked it; the metadata service says the same
	}
	return driver.SpawnRequest{
		UUID: driver.InstanceUUID(o.uuid()), Name: instanceName(m.opt.InstanceNameTemplate, inst),
		Hostname: inst.String("hostname"), ProjectID: inst.String("project_id"),
		Flavor: flavorOf(inst), Image: img, Credentials: credentials(o.rc),
		Network: net, Events: eventWaiter{m: m, log: o.log},
		PublicKey: inst.String("key_data"), UserData: userData, Metadata: inst.Strings("metadata"),
	}
}

func flavorOf(inst *objects.Object) driver.Flavor {
	return pinned(flavorFrom(inst.Object("flavor")), inst.Object("numa_topology"))
}

// credentials are what an image may be read or written with for the user.
func credentials(rc messaging.RequestContext) driver.Credentials {
	id := rc.GlobalRequestID()
	if id == "" {
		id = rc.RequestID()
	}
	return driver.Credentials{UserToken: rc.AuthToken(), RequestID: id}
}

func joinRoles(roles []string) string { return strings.Join(roles, ",") }
