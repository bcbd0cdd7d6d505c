package metadata

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"slices"

	"github.com/gantry-project/gantry/driver/objects"
)

// Versions that something came with (nova/api/metadata/base.py).
const (
	Grizzly   = "2013-04-04"
	Havana    = "2013-10-17"
	Liberty   = "2015-10-15"
	NewtonOne = "2016-06-30"
	Rocky     = "2018-08-27"
	NewtonTwo = "2016-10-06"
	Victoria  = "2020-10-14"
)

// Latest is the newest version by another name.
const Latest = "latest"

// Versions are all, oldest first (nova/api/metadata/base.py, OPENSTACK_VERSIONS).
func Versions() []string {
	return []string{"2012-08-10", Grizzly, Havana, Liberty, NewtonOne, NewtonTwo, "2017-02-22", Rocky, Victoria}
}

// Since reports whether a version has what came with another one. Both are
// among versions.
func Since(versions []string, version, first string) bool {
	return slices.Index(versions, version) >= slices.Index(versions, first)
}

// Names of documents.
const (
	NameMetadata    = "meta_data.json"
	NameUserData    = "user_data"
	NamePassword    = "password"
	NameVendorData  = "vendor_data.json"
	NameVendorData2 = "vendor_data2.json"
	NameNetwork     = "network_data.json"
)

// UserData is what the instance was given.
func UserData(i objects.Instance) ([]byte, error) {
	data, err := base64.StdEncoding.DecodeString(i.UserData())
	if err != nil {
		return nil, fmt.Errorf("user data of instance %s: %w", i.UUID(), err)
	}
	return data, nil
}

// seedSize is how many random bytes a guest gets to begin with.
const seedSize = 512

// MetaData is meta_data.json in a version that is not Latest. The seed in it is
// another one each time.
func MetaData(version string, i objects.Instance) map[string]any {
	md := map[string]any{
		"uuid": i.UUID(), "hostname": i.Hostname(), "name": i.DisplayName(), "launch_index": i.Int("launch_index"),
		"availability_zone": null(i.AvailabilityZone()),
	}
	if meta := i.Metadata(); len(meta) > 0 {
		md["meta"] = meta
	}
	if keys := i.KeyPairs(); i.KeyName() != "" && len(keys) > 0 {
		k := keys[0]
		md["public_keys"] = map[string]string{k.KeyName(): k.PublicKey()}
		md["keys"] = []map[string]string{{"name": k.KeyName(), "type": k.KeyType(), "data": k.PublicKey()}}
	} else if i.KeyName() != "" && i.KeyData() != "" { // a row without its key pairs
		md["public_keys"] = map[string]string{i.KeyName(): i.KeyData()}
		md["keys"] = []map[string]string{{"name": i.KeyName(), "type": "ssh", "data": i.KeyData()}}
	}
	has := func(first string) bool { return Since(Versions(), version, first) }
	if has(Grizzly) {
		seed := make([]byte, seedSize)
		_, _ = rand.Read(seed) // never fails
		md["random_seed"] = base64.StdEncoding.EncodeToString(seed)
	}
	if has(Liberty) {
		md["project_id"] = i.ProjectID()
	}
	if has(NewtonOne) {
		md["devices"] = devices(i, has(Rocky))
	}
	if has(Victoria) {
		md["dedicated_cpus"] = []int{}
	}
	return md
}

// devices are the tagged interfaces (nova/api/metadata/base.py,
// _get_device_metadata). Containers have neither buses nor tagged disks.
func devices(i objects.Instance, trust bool) []any {
	out := []any{}
	all := i.Object.Object("device_metadata")
	if all == nil {
		return out
	}
	for _, d := range all.Objects("devices") {
		if d.Name != "NetworkInterfaceMetadata" || !d.Has("tags") {
			continue
		}
		one := map[string]any{"type": "nic", "mac": d.String("mac"), "bus": "none", "address": "none", "tags": d.Get("tags")}
		if trust {
			one["vf_trusted"] = d.Bool("vf_trusted")
		}
		out = append(out, one)
	}
	return out
}

func null(s string) any {
	if s == "" {
		return nil
	}
	return s
}
