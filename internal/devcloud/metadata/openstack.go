package metadata

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/driver/metadata"
	"github.com/gantry-project/gantry/driver/objects"
)

// documents are those of a version, in the order in which they are listed. Those
// that no version is too old for are answered in each, as Nova does.
func documents(version string, i objects.Instance) []string {
	out := []string{metadata.NameMetadata}
	if i.UserData() != "" {
		out = append(out, metadata.NameUserData)
	}
	for _, d := range []struct{ first, name string }{
		{metadata.Grizzly, metadata.NamePassword}, {metadata.Havana, metadata.NameVendorData}, {metadata.Liberty, metadata.NameNetwork}, {metadata.NewtonTwo, metadata.NameVendorData2},
	} {
		if metadata.Since(metadata.Versions(), version, d.first) {
			out = append(out, d.name)
		}
	}
	return out
}

// openStack answers VERSION/DOCUMENT; the empty path lists versions.
func (s *Service) openStack(r *http.Request, i objects.Instance, where string) (answer, error) {
	if where == "" {
		return text(strings.Join(append(metadata.Versions(), metadata.Latest), "\n")), nil
	}
	version, name, _ := strings.Cut(where, "/")
	if version == metadata.Latest {
		version = metadata.Versions()[len(metadata.Versions())-1]
	}
	if !slices.Contains(metadata.Versions(), version) {
		return answer{}, notFound()
	}
	listed := documents(version, i)
	if name == "" || name == "version" {
		return text(strings.Join(listed, "\n")), nil
	}
	if !slices.Contains(listed, name) && name != metadata.NameNetwork {
		return answer{}, notFound()
	}
	switch name {
	case metadata.NameMetadata:
		return document(metadata.MetaData(version, i))
	case metadata.NameUserData:
		data, err := metadata.UserData(i)
		return answer{typeText, data}, err
	case metadata.NamePassword:
		return s.password(r, i)
	case metadata.NameNetwork:
		info, err := i.NetworkInfo()
		if err != nil {
			return answer{}, err
		}
		a, err := document(metadata.NetworkData(info))
		a.kind = typeText // Nova's mistake, which no client minds
		return a, err
	case metadata.NameVendorData:
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
