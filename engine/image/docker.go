package image

import (
	"path"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-project/gantry/internal/errdefs"
)

// dockerManifest is an entry of manifest.json (docker image specification
// v1.2, "Combined Image JSON + Filesystem Changeset Format").
type dockerManifest struct {
	Config string
	Layers []string
}

// openDocker opens a docker archive with exactly one image.
func openDocker(idx *index, opts OpenOptions) (*Archive, error) {
	if _, ok := idx.find("manifest.json"); !ok {
		return openDockerV1(idx, opts)
	}
	data, err := idx.document("manifest.json", "its manifest", opts.Limits.Manifest)
	if err != nil {
		return nil, err
	}
	var list []dockerManifest
	if err := decodeJSON(data, opts.Limits.JSONDepth, &list); err != nil {
		return nil, damaged("its manifest cannot be read: %w", err)
	}
	if len(list) != 1 {
		return nil, refuse(errdefs.ErrInvalid, "the archive holds %d images; it must hold one", len(list))
	}
	m := list[0]
	if m.Config == "" {
		return nil, damaged("its manifest names no configuration")
	}
	doc, err := idx.document(m.Config, "its configuration", opts.Limits.Config)
	if err != nil {
		return nil, err
	}
	id := digest.FromBytes(doc)
	if stem := hexStem(path.Base(m.Config)); stem != "" && stem != id.Encoded() {
		return nil, damaged("its configuration does not match its name")
	}
	config, err := parseConfig(doc, hostArch(opts), opts.Limits)
	if err != nil {
		return nil, err
	}
	if len(m.Layers) != len(config.diffIDs) {
		return nil, damaged("its manifest has %d layers, its configuration %d", len(m.Layers), len(config.diffIDs))
	}
	a := &Archive{kind: DockerArchive, id: id, config: config.Config, steps: config.steps}
	for i, name := range m.Layers {
		b, ok := idx.find(name)
		if !ok {
			return nil, damaged("layer %d is missing", i)
		}
		l, err := newLayer(b, "", config.diffIDs[i], opts.Limits)
		if err != nil {
			return nil, err
		}
		a.layers = append(a.layers, l)
	}
	return a, nil
}
