package local

import (
	"maps"
	"slices"
	"strings"
)

// x86Traits are the traits of os-traits (hw/cpu/x86) by the words that the kernel
// has for them in /proc/cpuinfo (arch/x86/include/asm/cpufeatures.h). What needs
// hardware virtualization (vmx, svm) is not among them: no guest gets /dev/kvm.
func x86Traits() map[string]string {
	traits := map[string]string{
		"3dnow": "3DNOW", "abm": "ABM", "aes": "AESNI", "bmi1": "BMI", "pclmulqdq": "CLMUL", "fma": "FMA3", "pni": "SSE3", "sse4_1": "SSE41",
		"sse4_2": "SSE42", "sha_ni": "SHA", "avx512_vnni": "AVX512VNNI", "avx512_vbmi2": "AVX512VBMI2", "avx512_bitalg": "AVX512BITALG",
		"avx512_vpopcntdq": "AVX512VPOPCNTDQ", "vaes": "AVX512VAES", "gfni": "AVX512GFNI", "vpclmulqdq": "AVX512VPCLMULQDQ", "rtm": "TSX",
	}
	for _, same := range strings.Fields("avx avx2 f16c fma4 mmx sse sse2 ssse3 sse4a xop avx512f avx512cd avx512pf avx512er avx512vl avx512bw avx512dq avx512vbmi avx512ifma bmi2 tbm mpx pdpe1gb stibp") {
		traits[same] = strings.ToUpper(same)
	}
	return traits
}

// arm64Traits are those of hw/cpu/aarch64, which has the kernel's own words.
func arm64Traits() map[string]string {
	traits := map[string]string{}
	for _, same := range strings.Fields("fp asimd evtstrm aes pmull sha1 sha2 crc32 fphp asimdhp asimdrdm atomics jscvt fcma lrcpc dcpop sha3 sm3 sm4 asimddp sha512 sve cpuid") {
		traits[same] = strings.ToUpper(same)
	}
	return traits
}

// cpuTraits are the traits of a processor with these features, sorted, and all
// that could have been said of one of that architecture. Guests run on the
// processor itself, so what it has they have.
func cpuTraits(goarch string, features []string) (have, all []string) {
	prefix, traits := "HW_CPU_X86_", x86Traits()
	if goarch == "arm64" {
		prefix, traits = "HW_CPU_AARCH64_", arm64Traits()
	}
	for _, feature := range slices.Sorted(maps.Keys(traits)) {
		all = append(all, prefix+traits[feature])
		if slices.Contains(features, feature) {
			have = append(have, prefix+traits[feature])
		}
	}
	if goarch != "arm64" {
		// a nova-compute with libvirt says these
		all = append(all, prefix+"VMX", prefix+"SVM", prefix+"INTEL_VMX", prefix+"AMD_SVM")
	}
	slices.Sort(have)
	slices.Sort(all)
	return have, all
}

// hostTraits follow from what this driver can do: images of these formats boot
// (Nova's request filter by image type asks for them), interfaces come and go.
// CUSTOM_GANTRY is by what an operator tells the hosts of gantry from others;
// CUSTOM_HV_CONTAINER tells hosts of containers from those of virtual machines.
func hostTraits() []string {
	return []string{
		"COMPUTE_IMAGE_TYPE_QCOW2", "COMPUTE_IMAGE_TYPE_RAW", "COMPUTE_NET_ATTACH_INTERFACE", "COMPUTE_NET_ATTACH_INTERFACE_WITH_TAG",
		"CUSTOM_GANTRY", "CUSTOM_HV_CONTAINER",
	}
}
