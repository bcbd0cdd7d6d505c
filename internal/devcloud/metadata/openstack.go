package metadata

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/driver/objects"
)

// Versions that something came with.
const (
	grizzly   = "2013-04-04"
	havana    = "2013-10-17"
	liberty   = "2015-10-15"
	newtonOne = "2016-06-30"
	newtonTwo = "2016-10-06"
	victoria  = "2020-10-14"
)

// versions are all, oldest first (nova/api/metadata/base.py,
// OPENSTACK_VERSIONS).
func versions() []string {
	return []string{"2012-08-10", grizzly, havana, liberty, newtonOne, newtonTwo, "2017-02-22", "2018-08-27", victoria}
}

// Names of documents.
const (
	nameMetadata    = "meta_data.json"
	nameUserData    = "user_data"
	namePassword    = "password"
	nameVendorData  = "vendor_data.json"
	nameVendorData2 = "vendor_data2.json"
	nameNetwork     = "network_data.json"
)

// documents are those of a version, in the order in which they are listed. Those
// that no version is too old for are answered in each, as Nova does.
func documents(version string, i objects.Instance) []string {
	out := []string{nameMetadata}
	if i.UserData() != "" {
		out = append(out, nameUserData)
	}
	for _, d := range []struct{ first, name string }{
		{grizzly, namePassword}, {havana, nameVendorData}, {liberty, nameNetwork}, {newtonTwo, nameVendorData2},
	} {
		if since(versions(), version, d.first) {
			out = append(out, d.name)
		}
	}
	return out
}

// openStack answers VERSION/DOCUMENT; the empty path lists versions.
func (s *Service) openStack(r *http.Request, i objects.Instance, where string) (answer, error) {
	if where == "" {
		return text(strings.Join(append(versions(), latest), "\n")), nil
	}
	version, name, _ := strings.Cut(where, "/")
	if version == latest {
		version = versions()[len(versions())-1]
	}
	if !slices.Contains(versions(), version) {
		return answer{}, notFound()
	}
	listed := documents(version, i)
	if name == "" || name == "version" {
		return text(strings.Join(listed, "\n")), nil
	}
	if !slices.Contains(listed, name) && name != nameNetwork {
		return answer{}, notFound()
	}
	switch name {
	case nameMetadata:
		return document(metadata(version, i))
	case nameUserData:
		data, err := userData(i)
		return answer{typeText, data}, err
	case namePassword:
		return s.password(r, i)
	case nameNetwork:
		info, err := i.NetworkInfo()
		if err != nil {
			return answer{}, err
		}
		a, err := document(networkData(info))
		a.kind = typeText // Nova's mistake, which no client minds
		return a, err
	case nameVendorData:
		return document(map[string]any{})
	default:
		return document(map[string]any{"static": map[string]any{}})
	}
}

// document is a value in JSON.
func document(v any) (answer, error) {
	var w bytes.Buffer
	e := json.NewEncoder(&w)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return answer{typeJSON, bytes.TrimSpace(w.Bytes())}, err
}

// seedSize is how many random bytes a guest gets to begin with.
const seedSize = 512

// metadata is meta_data.json.
func metadata(version string, i objects.Instance) map[string]any {
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
	}
	has := func(first string) bool { return since(versions(), version, first) }
	if has(grizzly) {
		seed := make([]byte, seedSize)
		_, _ = rand.Read(seed) // never fails
		md["random_seed"] = base64.StdEncoding.EncodeToString(seed)
	}
	if has(liberty) {
		md["project_id"] = i.ProjectID()
	}
	if has(newtonOne) {
		md["devices"] = []any{} // containers have no tagged ones
	}
	if has(victoria) {
		md["dedicated_cpus"] = []int{}
	}
	return md
}

func null(s string) any {
	if s == "" {
		return nil
	}
	return s
}
