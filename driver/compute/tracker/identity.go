package tracker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/atomicfile"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// identityFile holds the UUID of the node, as text, in the state folder. Stock
// nova-compute of 2023.1 and newer keeps the same file (nova/virt/node.py).
const identityFile = "compute_id"

// stableIdentity is the service version from which computes keep the file.
const stableIdentity = 65

// evidence is what is known of the identity of this node before anything is
// written.
type evidence struct {
	host, node string
	// file is the UUID in the identity file, "" when there is none.
	file string
	// byName is the record of (host, node), byFile that with the file's UUID;
	// nil when the control plane said that there is none.
	byName, byFile *objects.Object
	// previous is the version of the service record, 0 for a host without one.
	previous int
	// guests is how many instances the driver has.
	guests int
}

// identify returns the UUID of the node and whether it is new to the file. An
// empty UUID asks for a new one. The errors, of class errdefs.ErrConflict, tell
// the operator what does not agree: starting all the same would make a second
// provider for this host, or take over another host's.
func identify(e evidence) (id string, write bool, err error) {
	refuse := func(format string, args ...any) (string, bool, error) {
		return "", false, fmt.Errorf("identity of node %s: %s: %w", e.node, fmt.Sprintf(format, args...), errdefs.ErrConflict)
	}
	switch {
	case e.previous == 0 && e.guests > 0:
		return refuse("%d instances are on this host, but the control plane has no service record of host %q: "+
			"was the host renamed, or the record deleted?", e.guests, e.host)
	case e.file == "" && e.previous >= stableIdentity:
		return refuse("the file %s is missing though this host has had one: restore it with the UUID of the compute node record", identityFile)
	case e.file == "" && e.byName != nil:
		return e.byName.String("uuid"), true, nil
	case e.file == "":
		return "", true, nil
	case e.byName != nil && e.byName.String("uuid") != e.file:
		return refuse("the file %s holds %s, the record of this host and node has %s", identityFile, e.file, e.byName.String("uuid"))
	case e.byFile != nil && e.byFile.String("host") != e.host:
		return refuse("the record %s belongs to host %q, this one is %q: was the host renamed?", e.file, e.byFile.String("host"), e.host)
	case e.byFile != nil && e.byFile.String("hypervisor_hostname") != e.node:
		return refuse("the record %s has node name %q: was the machine renamed?", e.file, e.byFile.String("hypervisor_hostname"))
	}
	return e.file, false, nil
}

// readIdentity returns the UUID in the file, "" when there is no file.
func readIdentity(dir string) (string, error) {
	name := filepath.Join(dir, identityFile)
	raw, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read node identity: %w", err)
	}
	id, err := parseIdentity(string(raw))
	if err != nil {
		return "", fmt.Errorf("read node identity %s: %w", name, err)
	}
	return id, nil
}

// parseIdentity reads the content of the file.
func parseIdentity(text string) (string, error) {
	text = strings.TrimSpace(text)
	id, err := uuid.Parse(text)
	if err != nil || len(text) != 36 {
		return "", fmt.Errorf("expected one UUID: %w", errdefs.ErrInvalid)
	}
	return id.String(), nil
}

// writeIdentity keeps the UUID for good.
func writeIdentity(dir, id string) error {
	if err := atomicfile.Write(filepath.Join(dir, identityFile), []byte(id+"\n"), 0o644); err != nil {
		return fmt.Errorf("write node identity: %w", err)
	}
	return nil
}
