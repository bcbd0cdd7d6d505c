package scheduler

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/devcloud/placement"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// disabled is the trait of hosts that take no new instances.
const disabled = "COMPUTE_STATUS_DISABLED"

// needs is what an instance needs of placement: the flavor's sizes, what its
// extra specs say of resources and traits, and the image's traits.
func needs(spec objects.RequestSpec) (placement.Request, error) {
	f := objects.Flavor{Object: spec.Object.Object("flavor")}
	if f.Object == nil {
		return placement.Request{}, fmt.Errorf("request of %s has no flavor: %w", spec.InstanceUUID(), errdefs.ErrInvalid)
	}
	disk := f.EphemeralGB() + (f.SwapMB()+1023)/1024
	if !spec.VolumeBacked() {
		disk += f.RootGB()
	}
	r := placement.Request{
		Resources: map[string]int64{"VCPU": f.VCPUs(), "MEMORY_MB": f.MemoryMB(), "DISK_GB": disk},
		Forbidden: []string{disabled},
	}
	for key, value := range f.ExtraSpecs() {
		if class, ok := strings.CutPrefix(key, "resources:"); ok {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil || n < 0 {
				return r, fmt.Errorf("flavor %s: %s is %q: %w", f.FlavorID(), key, value, errdefs.ErrInvalid)
			}
			r.Resources[class] = n
		}
		if name, ok := strings.CutPrefix(key, "trait:"); ok {
			switch value {
			case "required":
				r.Required = append(r.Required, name)
			case "forbidden":
				r.Forbidden = append(r.Forbidden, name)
			}
		}
	}
	r.Required = append(r.Required, spec.Object.Object("image").Object("properties").StringList("traits_required")...)
	slices.Sort(r.Required)
	r.Required = slices.Compact(r.Required)
	for class, n := range r.Resources {
		if n == 0 {
			delete(r.Resources, class) // an extra spec of 0 asks for none
		}
	}
	return r, nil
}
