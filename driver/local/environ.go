package local

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/gantry-project/gantry/engine"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// envPrefix marks the server metadata that become environment: env:NAME.
const envPrefix = "env:"

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// productName tells cloud-init in a container that Nova's metadata service is
// there, as the name of the product tells it in a virtual machine
// (DataSourceOpenStack, detect_openstack; ds-identify, dscheck_OpenStack).
const productName = "product_name=OpenStack Nova"

// environment is what every guest has unless its image says otherwise (a PATH, a
// TERM, and the mark by which container guests know themselves), the image's, and
// on top what the server's metadata says. A name stands once; the last one counts.
// Metadata that names no variable is errdefs.ErrInvalid.
func environment(img engine.ImageInfo, metadata map[string]string) ([]string, error) {
	all := []string{"container=gantry", "TERM=linux", "PATH=" + defaultPath}
	if img.RootFS {
		all = append(all, productName)
	}
	all = append(all, img.Config.Env...)
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		name, ok := strings.CutPrefix(key, envPrefix)
		if !ok {
			continue
		}
		if !envName.MatchString(name) || strings.ContainsRune(metadata[key], 0) {
			return nil, errdefs.WithPublic(fmt.Errorf("metadata %q: %w", key, errdefs.ErrInvalid),
				"The server's metadata "+strconv.Quote(key)+" names no environment variable.")
		}
		all = append(all, name+"="+metadata[key])
	}
	var env []string
	at := map[string]int{}
	for _, e := range all {
		name, _, ok := strings.Cut(e, "=")
		if !ok || name == "" || strings.ContainsRune(e, 0) {
			continue
		}
		if i, twice := at[name]; twice {
			env[i] = e
			continue
		}
		at[name] = len(env)
		env = append(env, e)
	}
	return env, nil
}
