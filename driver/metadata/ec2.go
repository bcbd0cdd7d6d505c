package metadata

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/driver/objects"
)

// EC2Versions are all, oldest first (nova/api/metadata/base.py, VERSIONS).
func EC2Versions() []string {
	return []string{
		"1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01", "2008-09-01", "2009-04-04",
	}
}

// EC2Facts are what an instance's row does not say.
type EC2Facts struct {
	// Groups are the names of its security groups, Disks its block devices.
	Groups []string
	Disks  []*objects.Object
	// Address stands for a fixed one where there is none.
	Address string
}

// EC2 is meta-data in a version that is not Latest: strings, lists of strings,
// numbers and such maps.
func EC2(i objects.Instance, info objects.NetworkInfo, version string, facts EC2Facts) map[string]any {
	fixed, floating := addresses(info)
	md := map[string]any{
		"ami-id": "ami-" + ec2ID(imageNumber(i.ImageRef())), "ami-launch-index": i.Int("launch_index"),
		"ami-manifest-path": "FIXME", "instance-id": "i-" + ec2ID(uint32(i.ID())), "hostname": i.Hostname(),
		"local-ipv4": cmp.Or(fixed, facts.Address), "reservation-id": i.ReservationID(), "security-groups": facts.Groups,
	}
	if i.KeyName() != "" {
		md["public-keys"] = map[string]any{"0": map[string]any{"openssh-key": i.KeyData()}}
	}
	has := func(first string) bool { return Since(EC2Versions(), version, first) }
	if has("2007-01-19") {
		md["local-hostname"], md["public-hostname"], md["public-ipv4"] = i.Hostname(), i.Hostname(), floating
	}
	if has("2007-08-29") {
		md["instance-type"] = i.Flavor().FlavorName()
	}
	if has("2007-12-15") {
		md["block-device-mapping"] = mapping(i.RootDeviceName(), facts.Disks)
	}
	if has("2008-02-01") {
		md["placement"] = map[string]any{"availability-zone": i.AvailabilityZone()}
	}
	if has("2008-09-01") {
		md["instance-action"] = "none"
	}
	return md
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
func mapping(root string, disks []*objects.Object) map[string]any {
	if root == "" {
		return map[string]any{"ami": "sda1", "ephemeral0": "sda2", "root": "/dev/sda1", "swap": "sda3"}
	}
	out := map[string]any{"ami": strings.TrimPrefix(root, "/dev/"), "root": root}
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
