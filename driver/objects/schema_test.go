package objects

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-project/gantry/internal/errdefs"
)

var update = flag.Bool("update", false, "write testdata/fingerprints.txt")

// TestFingerprints fails when the fields of an object change and its version
// does not: on the wire the version is the only sign of other fields.
func TestFingerprints(t *testing.T) {
	var b strings.Builder
	for s := range Schemas() {
		fmt.Fprintf(&b, "%s %s-%s\n", s.Name, s.Version, fingerprint(s))
	}
	const file = "testdata/fingerprints.txt"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(b.String(), "\n")); diff != "" {
		t.Fatalf("fields or versions changed; raise the version, then run with -update (-recorded +now):\n%s", diff)
	}
}

func fingerprint(s Schema) string {
	h := sha256.New()
	for _, f := range s.Fields {
		fmt.Fprintf(h, "%s %s %v\n", f.Name, f.Type, f.Nullable)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

func TestEverySchemaIsClosed(t *testing.T) {
	n := 0
	for s := range Schemas() {
		n++
		if len(Manifest(s.Name)) == 0 || New(s.Name).Version != s.Version {
			t.Errorf("%s: no manifest or another version", s.Name)
		}
	}
	if n < 100 {
		t.Errorf("only %d objects", n)
	}
}

// TestManifests compares with manifests that Nova's own code printed.
func TestManifests(t *testing.T) {
	for name, want := range map[string]string{
		"Service":         `{"ComputeNode":"1.19","HVSpec":"1.2","PciDevicePool":"1.1","PciDevicePoolList":"1.1","Service":"1.22"}`,
		"MigrationList":   `{"Migration":"1.7","MigrationList":"1.5"}`,
		"SchedulerLimits": `{"NUMATopologyLimits":"1.1","NetworkMetadata":"1.0","SchedulerLimits":"1.0"}`,
		"RequestSpec":     `{"CellMapping": "1.1", "ComputeNode": "1.19", "ComputeNodeList": "1.17", "Destination": "1.4", "Flavor": "1.2", "HVSpec": "1.2", "ImageMeta": "1.8", "ImageMetaProps": "1.34", "InstanceGroup": "1.11", "InstanceNUMACell": "1.6", "InstanceNUMATopology": "1.3", "InstancePCIRequest": "1.4", "InstancePCIRequests": "1.1", "NUMATopologyLimits": "1.1", "NetworkMetadata": "1.0", "NetworkRequest": "1.3", "NetworkRequestList": "1.1", "PciDevicePool": "1.1", "PciDevicePoolList": "1.1", "RequestGroup": "1.3", "RequestLevelParams": "1.1", "RequestSpec": "1.14", "SchedulerLimits": "1.0", "SchedulerRetries": "1.1", "SecurityGroup": "1.2", "SecurityGroupList": "1.1", "VirtCPUTopology": "1.0"}`,
	} {
		var m map[string]string
		if err := json.Unmarshal([]byte(want), &m); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, Manifest(name)); diff != "" {
			t.Errorf("%s (-nova +ours):\n%s", name, diff)
		}
	}
}

func TestCheckVersions(t *testing.T) {
	for _, c := range []struct {
		name, version string
		ok            bool
	}{
		{"Instance", "2.7", true},
		{"Instance", "2.8", true},
		{"Instance", "2.8.1", true},
		{"Instance", "2.0", true},
		{"Instance", "3.0", false},
		{"Instance", "1.31", false},
		{"ShareMapping", "1.0", false},
	} {
		o := &Object{Name: c.name, Version: c.version}
		err := Check(o)
		if (err == nil) != c.ok {
			t.Errorf("%s %s: %v", c.name, c.version, err)
		}
		if c.ok {
			continue
		}
		ve, is := errors.AsType[*VersionError](err)
		if !is || ve.Object != o || !errors.Is(err, errdefs.ErrUnsupported) || !strings.Contains(err.Error(), c.name) {
			t.Errorf("%s %s: wrong error %v", c.name, c.version, err)
		}
	}
}

func TestSince(t *testing.T) {
	for _, c := range []struct {
		have, want string
		since      bool
	}{
		{"2.8", "2.8", true},
		{"2.8.1", "2.8", true},
		{"2.10", "2.8", true},
		{"2.7", "2.8", false},
		{"3.0", "2.8", false},
		{"1.9", "2.8", false},
		{"", "2.8", false},
		{"2", "2.0", false},
		{"2.x", "2.0", false},
	} {
		if got := (&Object{Version: c.have}).Since(c.want); got != c.since {
			t.Errorf("%q since %q: %v", c.have, c.want, got)
		}
	}
}

func TestParseSchemasRefuses(t *testing.T) {
	for _, text := range []string{"Instance", "Instance 2.7", "Instance: id i", "A 1.0: id", "A 1.0: id i\nA 1.0: id i"} {
		if _, err := parseSchemas(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}
