package image

import (
	"encoding/json"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// dockerV1 is the document of one layer (docker image specification v1.0, "Image
// JSON Description"); the topmost one is the configuration.
type dockerV1 struct {
	ID     string `json:"id"`
	Parent string `json:"parent"`
}

// openDockerV1 opens an archive of docker before 1.10: the file repositories
// names one layer for each tag, and each layer the one below it. Its layers have
// ids that are no digests of them.
func openDockerV1(idx *index, opts OpenOptions) (*Archive, error) {
	id, err := topOfV1(idx, opts.Limits)
	if err != nil {
		return nil, err
	}
	var blobs []blob // the topmost first
	var doc configDoc
	var top []byte
	for seen := map[string]bool{}; id != ""; {
		if seen[id] || len(blobs) == opts.Limits.Layers {
			return nil, refuse(errdefs.ErrInvalid, "the image's layers are in a circle, or more than %d", opts.Limits.Layers)
		}
		seen[id] = true
		data, err := idx.document(id+"/json", "the description of a layer", opts.Limits.Config)
		if err != nil {
			return nil, err
		}
		var l dockerV1
		if err := decodeJSON(data, opts.Limits.JSONDepth, &l); err != nil {
			return nil, damaged("the description of a layer cannot be read: %w", err)
		}
		if l.ID != id || l.Parent != "" && hexStem(l.Parent) != l.Parent {
			return nil, damaged("the description of the layer %.12s is that of another one", id)
		}
		b, ok := idx.find(id + "/layer.tar")
		if !ok {
			return nil, damaged("the layer %.12s is missing", id)
		}
		if top == nil {
			top = data
		}
		blobs, id = append(blobs, b), l.Parent
	}
	if err := json.Unmarshal(top, &doc); err != nil {
		return nil, damaged("its configuration cannot be read: %w", err)
	}
	if err := doc.runsOn(hostArch(opts)); err != nil {
		return nil, err
	}
	config, err := doc.parse()
	if err != nil {
		return nil, err
	}
	a := &Archive{kind: DockerArchive, id: digest.FromBytes(top), config: config.Config}
	for _, b := range slices.Backward(blobs) {
		l, err := newLayer(b, "", "", opts.Limits)
		if err != nil {
			return nil, err
		}
		a.layers = append(a.layers, l)
	}
	return a, nil
}

// topOfV1 is the topmost layer of the one image of the archive.
func topOfV1(idx *index, lim Limits) (string, error) {
	data, err := idx.document("repositories", "its list of names", lim.Manifest)
	if err != nil {
		return "", err
	}
	var list map[string]map[string]string
	if err := decodeJSON(data, lim.JSONDepth, &list); err != nil {
		return "", damaged("its list of names cannot be read: %w", err)
	}
	var ids []string
	for _, tags := range list {
		for _, id := range tags {
			if hexStem(id) != id {
				return "", refuse(errdefs.ErrInvalid, "the image names a layer by %.80q, which is no id", id)
			}
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	if len(ids) != 1 {
		return "", refuse(errdefs.ErrInvalid, "the archive holds %d images; it must hold one", len(ids))
	}
	return ids[0], nil
}
