package local

import (
	"slices"
	"strings"
	"testing"
)

func TestCPUTraits(t *testing.T) {
	for _, c := range []struct {
		arch, features string
		want           []string
	}{
		{"amd64", "fpu vme sse sse2 pni sse4_1 vmx svm aes avx512_vpopcntdq no_such", []string{
			"HW_CPU_X86_AESNI", "HW_CPU_X86_AVX512VPOPCNTDQ", "HW_CPU_X86_SSE", "HW_CPU_X86_SSE2", "HW_CPU_X86_SSE3", "HW_CPU_X86_SSE41",
		}},
		{"amd64", "", nil},
		{"arm64", "fp asimd aes atomics sse", []string{"HW_CPU_AARCH64_AES", "HW_CPU_AARCH64_ASIMD", "HW_CPU_AARCH64_ATOMICS", "HW_CPU_AARCH64_FP"}},
	} {
		have, all := cpuTraits(c.arch, strings.Fields(c.features))
		if !slices.Equal(have, c.want) {
			t.Errorf("%s with %q: %q, want %q", c.arch, c.features, have, c.want)
		}
		for _, trait := range have {
			if !slices.Contains(all, trait) {
				t.Errorf("%s is said but not owned", trait)
			}
		}
	}
	if _, all := cpuTraits("amd64", nil); !slices.Contains(all, "HW_CPU_X86_VMX") {
		t.Error("what a nova-compute with libvirt said of virtualization would stay")
	}
}
