// The processor that the guest sees: what the engine carries out, with the topology of this machine.
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <span>
#include <vector>

#include "machine/memory_map.hpp"

namespace lodge::machine {

// One package, `vcpus` cores of one thread each; the APIC id is the vCPU's number. `supported` is the engine's
// KVM_GET_SUPPORTED_CPUID; KVM's own leaves (0x40000000...) stay as they are. `physical_bits`: it says that physical addresses have at most
// so many.
[[nodiscard]] std::vector<kvm_cpuid_entry2> guest_cpuid(std::span<const kvm_cpuid_entry2> supported, uint32_t vcpu, uint32_t vcpus,
                                                        uint32_t physical_bits = 64);

// What a machine with firmware needs, and at least what guests are used to: UEFI firmware maps all that the processor says it can address,
// with a quarter of a GiB of page tables and seconds of work for 46 bits.
[[nodiscard]] uint32_t physical_bits(const MemoryMap& map);

}  // namespace lodge::machine
