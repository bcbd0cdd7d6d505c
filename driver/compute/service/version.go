package service

import (
	"fmt"

	"github.com/gantry-project/gantry/internal/errdefs"
)

const (
	// HighestVersion is the newest service version whose behaviour gantry has:
	// that of 2026.2. Of what came after 66 it serves the topic compute-alt
	// (71) and says OWNER_NOVA (73); what else came is asked for by traits that
	// it does not have (models of sound and USB, vTPM) or is refused (shares).
	HighestVersion = 74
	// LowestVersion is the oldest control plane that gantry can talk to: Zed,
	// whose object versions it sends.
	LowestVersion = 64
)

// tolerance says which computes a control plane accepts: one that reports at
// least conductor refuses computes below oldest.
//
// Source: SERVICE_VERSION_ALIASES and OLDEST_SUPPORTED_SERVICE_VERSION of
// nova/objects/service.py in each release. 66 is reported by 2023.1, which
// takes 61, and by 2023.2, which takes 66: we report 66 to both.
type tolerance struct{ conductor, oldest int }

// oldestAccepted returns the least compute version that a control plane whose
// oldest conductor reports version accepts.
func oldestAccepted(version int) int {
	oldest := 61
	for _, t := range []tolerance{{67, 66}, {70, 68}, {73, 72}} {
		if version >= t.conductor {
			oldest = t.oldest
		}
	}
	return oldest
}

// ChooseVersion returns the service version to report to a control plane whose
// oldest conductor reports conductor, 0 for unknown. A positive override wins
// over the choice, not over what the control plane accepts.
//
// The error, of class errdefs.ErrUnsupported, is for the operator: one record
// below the limit would keep every service of the cloud from starting.
func ChooseVersion(conductor, override int) (int, error) {
	version := min(conductor, HighestVersion)
	if conductor == 0 {
		version = LowestVersion // no record to go by: the floor is the safe guess
	}
	if override > 0 {
		version = override
	}
	if conductor != 0 && conductor < LowestVersion {
		return 0, fmt.Errorf("service version: the oldest nova-conductor of this cell reports %d, older than Zed (%d): upgrade it first: %w",
			conductor, LowestVersion, errdefs.ErrUnsupported)
	}
	if oldest := oldestAccepted(conductor); version < oldest {
		return 0, fmt.Errorf("service version: this control plane (nova-conductor reports %d) accepts compute hosts of version %d and newer, this host is %d: a newer gantry is needed: %w",
			conductor, oldest, version, errdefs.ErrUnsupported)
	}
	return version, nil
}
