package metadata_test

import (
	"encoding/json"
	"net/netip"
	"path"
	"slices"
	"testing"

	"github.com/gantry-project/gantry/driver/metadata"
	"github.com/gantry-project/gantry/driver/objects"
)

func row(t *testing.T, more map[string]any) objects.Instance {
	t.Helper()
	i := objects.NewInstance()
	for name, v := range map[string]any{
		"id": 7, "uuid": "6f9a1c1e-3b47-4f0e-8d2a-5a0d6c1b2e3f", "hostname": "web", "display_name": "Web", "launch_index": 0,
		"project_id": "p", "key_name": "mine", "key_data": "ssh-ed25519 AAAA mine", "user_data": "I2Nsb3VkLWNvbmZpZwo=",
	} {
		i.Set(name, v)
	}
	for name, v := range more {
		i.Set(name, v)
	}
	return i
}

// TestDrive: each version has the documents that came with it, and latest is the
// newest.
func TestDrive(t *testing.T) {
	info := objects.NetworkInfo{{ID: "port", Address: "fa:16:3e:00:00:01", Type: "bridge", Network: objects.VIFNetwork{
		ID: "net", Subnets: []objects.VIFSubnet{{CIDR: netip.MustParsePrefix("10.0.0.0/24"), Version: 4, IPs: []objects.VIFIP{{Address: "10.0.0.5", Version: 4}}}},
	}}}
	files, err := metadata.Drive(row(t, nil), info, metadata.DriveFacts{
		EC2Facts: metadata.EC2Facts{Groups: []string{"default"}}, AdminPassword: "secret",
		Personality: []metadata.File{{Path: "/etc/motd", Data: []byte("\x00hi")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, f := range files {
		if all[f.Path] != nil || path.Clean(f.Path) != f.Path || path.IsAbs(f.Path) {
			t.Errorf("%q, twice or not clean", f.Path)
		}
		all[f.Path] = f.Data
	}
	for dir, want := range map[string][]string{
		"openstack/2012-08-10": {"meta_data.json", "user_data"},
		"openstack/2013-10-17": {"meta_data.json", "user_data", "vendor_data.json"},
		"openstack/2015-10-15": {"meta_data.json", "network_data.json", "user_data", "vendor_data.json"},
		"openstack/latest":     {"meta_data.json", "network_data.json", "user_data", "vendor_data.json", "vendor_data2.json"},
		"openstack/content":    {"0000"},
		"ec2/latest":           {"meta-data.json", "user-data"},
		"ec2/2009-04-04":       {"meta-data.json", "user-data"},
	} {
		var got []string
		for name := range all {
			if path.Dir(name) == dir {
				got = append(got, path.Base(name))
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s has %q, want %q", dir, got, want)
		}
	}
	var md struct {
		UUID, Hostname, Name string
		AdminPass            string `json:"admin_pass"`
		Keys                 []struct{ Name, Type, Data string }
		Files                []map[string]string
	}
	if err := json.Unmarshal(all["openstack/latest/meta_data.json"], &md); err != nil {
		t.Fatal(err)
	}
	if md.UUID != "6f9a1c1e-3b47-4f0e-8d2a-5a0d6c1b2e3f" || md.Hostname != "web" || md.Name != "Web" || md.AdminPass != "secret" ||
		len(md.Keys) != 1 || md.Keys[0].Name != "mine" || md.Keys[0].Data != "ssh-ed25519 AAAA mine" {
		t.Errorf("meta data %+v", md)
	}
	if len(md.Files) != 1 || md.Files[0]["path"] != "/etc/motd" || string(all["openstack"+md.Files[0]["content_path"]]) != "\x00hi" {
		t.Errorf("files %v", md.Files)
	}
	if string(all["openstack/latest/user_data"]) != "#cloud-config\n" {
		t.Errorf("user data %q", all["openstack/latest/user_data"])
	}
	var ec2 map[string]any
	if err := json.Unmarshal(all["ec2/latest/meta-data.json"], &ec2); err != nil || ec2["local-ipv4"] != "10.0.0.5" || ec2["hostname"] != "web" {
		t.Errorf("%v, %v", ec2, err)
	}
}

// TestDriveOfBrokenUserData is an error and no drive.
func TestDriveOfBrokenUserData(t *testing.T) {
	if files, err := metadata.Drive(row(t, map[string]any{"user_data": "%"}), nil, metadata.DriveFacts{}); err == nil || files != nil {
		t.Errorf("%d files, %v", len(files), err)
	}
}
