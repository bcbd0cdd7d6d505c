package metadata

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/gantry-project/gantry/driver/metadata"
	"github.com/gantry-project/gantry/driver/objects"
)

func ec2Listed() []string { return append(metadata.EC2Versions(), metadata.Latest) }

// titled is a directory that is listed by another name than its own.
type titled struct {
	title string
	tree  map[string]any
}

// ec2 answers VERSION/PATH; the empty path lists versions.
func (s *Service) ec2(r *http.Request, i objects.Instance, where string) (answer, error) {
	if where == "" {
		return text(strings.Join(ec2Listed(), "\n")), nil
	}
	parts := strings.Split(where, "/")
	version := parts[0]
	if version == metadata.Latest {
		version = metadata.EC2Versions()[len(metadata.EC2Versions())-1]
	}
	if !slices.Contains(metadata.EC2Versions(), version) {
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
		case map[string]any:
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
	case map[string]any:
		lines := make([]string, 0, len(v))
		for _, name := range slices.Sorted(maps.Keys(v)) {
			switch below := v[name].(type) {
			case titled:
				name = below.title
			case map[string]any:
				name += "/"
			}
			lines = append(lines, name)
		}
		return strings.Join(lines, "\n")
	}
	return fmt.Sprint(v)
}

// ec2Tree is what a version holds.
func (s *Service) ec2Tree(ctx context.Context, i objects.Instance, version, address string) (map[string]any, error) {
	info, err := i.NetworkInfo()
	if err != nil {
		return nil, err
	}
	groups, err := s.o.Groups.GroupNames(ctx, i.UUID())
	if err != nil {
		return nil, fmt.Errorf("security groups of instance %s: %w", i.UUID(), err)
	}
	disks, err := s.o.Cell.BlockDevices(ctx, i.UUID())
	if err != nil {
		return nil, err
	}
	md := metadata.EC2(i, info, version, metadata.EC2Facts{Groups: groups, Disks: disks[i.UUID()], Address: address})
	if keys, ok := md["public-keys"].(map[string]any); ok {
		// listed as "0=NAME", though the directory is "0"
		key, _ := keys["0"].(map[string]any)
		keys["0"] = titled{"0=" + i.KeyName(), key}
	}
	all := map[string]any{"meta-data": md}
	if i.UserData() != "" {
		data, err := metadata.UserData(i)
		if err != nil {
			return nil, err
		}
		all["user-data"] = string(data)
	}
	return all, nil
}
