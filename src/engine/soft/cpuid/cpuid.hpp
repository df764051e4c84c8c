// CPUID as the software engine offers it: the host's, reduced to what the engine carries out.
#pragma once

#include <linux/kvm.h>

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

namespace lodge::engine::soft {

// EAX, EBX, ECX, EDX.
using CpuidRegisters = std::array<uint32_t, 4>;
using CpuidReader = std::function<CpuidRegisters(uint32_t leaf, uint32_t subleaf)>;

// KVM_GET_SUPPORTED_CPUID. User-mode features are those that both the host and the translator have; system features are the
// engine's own and do not depend on the host. APIC ids, topology and the number of processors are left 0: whoever
// builds the machine fills them in. OSXSAVE and the sizes in leaf 0xD follow the vCPU's state (sys_cpuid).
// `tsc_khz`: frequency of the guest's TSC for leaf 0x40000010, 0 when unknown.
[[nodiscard]] std::vector<kvm_cpuid_entry2> supported_cpuid(uint32_t tsc_khz = 0);

// The same for any host, so that it can be tested.
[[nodiscard]] std::vector<kvm_cpuid_entry2> filter_cpuid(const CpuidReader& host, uint32_t tsc_khz);

}  // namespace lodge::engine::soft
