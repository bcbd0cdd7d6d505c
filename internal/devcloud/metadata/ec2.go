package metadata

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/gantry-project/gantry/driver/objects"
)

// latest is the newest version by another name.
const latest = "latest"

// ec2Versions are all, oldest first (nova/api/metadata/base.py, VERSIONS).
func ec2Versions() []string {
	return []string{
		"1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01", "2008-09-01", "2009-04-04",
	}
}

func ec2Listed() []string { return append(ec2Versions(), latest) }

// tree is a directory: values are texts, lists of them, and trees.
type tree map[string]any

// titled is a tree that is listed by another name than its own.
type titled struct {
	title string
	tree
}

// ec2 answers VERSION/PATH; the empty path lists versions.
func (s *Service) ec2(r *http.Request, i objects.Instance, where string) (answer, error) {
	if where == "" {
		return text(strings.Join(ec2Listed(), "\n")), nil
	}
	parts := strings.Split(where, "/")
	version := parts[0]
	if version == latest {
		version = ec2Versions()[len(ec2Versions())-1]
	}
	if !slices.Contains(ec2Versions(), version) {
		return answer{}, notFound()
	}
	data, err := s.ec2Tree(r.Context(), i, version, r.Header.Get(headerAddress))
	if err != nil {
		return answer{}, err
	}
	var at any = data
	for _, p := range parts[1:] {
		var ok bool
		switch dir := at.(type) {
		case tree:
			at, ok = dir[p]
		case titled:
			at, ok = dir.tree[p]
		}
		if !ok {
			return answer{}, notFound()
		}
	}
	return text(ec2Print(at)), nil
}

// ec2Print is a value as it is told: a directory as its list, in which
// directories end in a slash.
func ec2Print(v any) string {
	switch v := v.(type) {
	case titled:
		return ec2Print(v.tree)
	case []string:
		return strings.Join(v, "\n")
	case tree:
		lines := make([]string, 0, len(v))
		for _, name := range slices.Sorted(maps.Keys(v)) {
			switch below := v[name].(type) {
			case titled:
				name = below.title
			case tree:
				name += "/"
			}
			lines = append(lines, name)
		}
		return strings.Join(lines, "\n")
	}
	return fmt.Sprint(v)
}

func (s *Service) ec2Tree(ctx context.Context, i objects.Instance, version, address string) (tree, error) {
	info, err := i.NetworkInfo()
	if err != nil {
		return nil, err
	}
	groups, err := s.o.Groups.GroupNames(ctx, i.UUID())
	if err != nil {
		return nil, fmt.Errorf("security groups of instance %s: %w", i.UUID(), err)
	}
	fixed, floating := addresses(info)
	md := tree{
		"ami-id": "ami-" + ec2ID(imageNumber(i.ImageRef())), "ami-launch-index": strconv.FormatInt(i.Int("launch_index"), 10),
		"ami-manifest-path": "FIXME", "instance-id": "i-" + ec2ID(uint32(i.ID())), "hostname": i.Hostname(),
		"local-ipv4": cmp.Or(fixed, address), "reservation-id": i.ReservationID(), "security-groups": groups,
	}
	if i.KeyName() != "" {
		// listed as "0=NAME", though the directory is "0"
		md["public-keys"] = tree{"0": titled{"0=" + i.KeyName(), tree{"openssh-key": i.KeyData()}}}
	}
	has := func(first string) bool { return since(ec2Versions(), version, first) }
	if has("2007-01-19") {
		md["local-hostname"], md["public-hostname"], md["public-ipv4"] = i.Hostname(), i.Hostname(), floating
	}
	if has("2007-08-29") {
		md["instance-type"] = i.Flavor().FlavorName()
	}
	if has("2007-12-15") {
		disks, err := s.o.Cell.BlockDevices(ctx, i.UUID())
		if err != nil {
			return nil, err
		}
		md["block-device-mapping"] = mapping(i.RootDeviceName(), disks[i.UUID()])
	}
	if has("2008-02-01") {
		md["placement"] = tree{"availability-zone": i.AvailabilityZone()}
	}
	if has("2008-09-01") {
		md["instance-action"] = "none"
	}
	all := tree{"meta-data": md}
	if i.UserData() != "" {
		data, err := userData(i)
		if err != nil {
			return nil, err
		}
		all["user-data"] = string(data)
	}
	return all, nil
}

// userData is what the instance was given.
func userData(i objects.Instance) ([]byte, error) {
	data, err := base64.StdEncoding.DecodeString(i.UserData())
	if err != nil {
		return nil, fmt.Errorf("user data of instance %s: %w", i.UUID(), err)
	}
	return data, nil
}

// addresses are the first fixed and the first floating one of IPv4, "" for none.
func addresses(info objects.NetworkInfo) (fixed, floating string) {
	for _, vif := range info {
		for _, sub := range vif.Network.Subnets {
			for _, ip := range sub.IPs {
				if ip.Version == 4 {
					fixed = cmp.Or(fixed, ip.Address)
				}
				for _, f := range ip.FloatingIPs {
					floating = cmp.Or(floating, f.Address)
				}
			}
		}
	}
	return fixed, floating
}

// ec2ID is a number as EC2 writes it.
func ec2ID(n uint32) string { return fmt.Sprintf("%08x", n) }

// imageNumber stands for an image. Nova counts images instead; all that is
// promised is that it stays the same.
func imageNumber(id string) uint32 {
	sum := sha256.Sum256([]byte(id))
	return binary.BigEndian.Uint32(sum[:]) >> 1
}

// mapping names the disks (nova/block_device.py, instance_block_mapping).
func mapping(root string, disks []*objects.Object) tree {
	if root == "" {
		return tree{"ami": "sda1", "ephemeral0": "sda2", "root": "/dev/sda1", "swap": "sda3"}
	}
	out := tree{"ami": strings.TrimPrefix(root, "/dev/"), "root": root}
	var volumes []string
	ephemeral := 0
	for _, d := range disks {
		name := d.String("device_name")
		switch {
		case d.String("destination_type") == "volume":
			volumes = append(volumes, name)
		case d.String("source_type") != "blank":
		case d.String("guest_format") == "swap":
			out["swap"] = name
		default:
			out[fmt.Sprint("ephemeral", ephemeral)] = name
			ephemeral++
		}
	}
	slices.Sort(volumes)
	for n, name := range volumes {
		out[fmt.Sprint("ebs", n)] = name
	}
	return out
}
