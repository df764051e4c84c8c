// The processor that the guest sees: what the engine carries out, with the topology of this machine.
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <span>
#include <vector>

namespace lodge::machine {

// One package, `vcpus` cores of one thread each; the APIC id is the vCPU's number. `supported` is the engine's
// KVM_GET_SUPPORTED_CPUID; KVM's own leaves (0x40000000...) stay as they are.
[[nodiscard]] std::vector<kvm_cpuid_entry2> guest_cpuid(std::span<const kvm_cpuid_entry2> supported, uint32_t vcpu, uint32_t vcpus);

}  // namespace lodge::machine
