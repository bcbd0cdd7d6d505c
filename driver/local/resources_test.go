package local_test

import (
	"runtime"
	"slices"
	"testing"
)

// TestHostSaysItsTraits compares what the host says with its own processor.
func TestHostSaysItsTraits(t *testing.T) {
	r := newRig(t)
	res, err := r.driver.Resources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, trait := range []string{"COMPUTE_IMAGE_TYPE_QCOW2", "COMPUTE_IMAGE_TYPE_RAW", "CUSTOM_GANTRY", "CUSTOM_HV_CONTAINER"} {
		if !slices.Contains(res.Traits, trait) {
			t.Errorf("traits %q lack %s", res.Traits, trait)
		}
	}
	of := map[string]string{"amd64": "HW_CPU_X86_SSE2", "arm64": "HW_CPU_AARCH64_ASIMD"}[runtime.GOARCH]
	if !slices.Contains(res.Traits, of) || !slices.Contains(res.OwnTraits, of) {
		t.Errorf("traits %q of %q lack %s, which each %s has", res.Traits, res.OwnTraits, of, runtime.GOARCH)
	}
}
