#include "machine/cpuid.hpp"

#include <algorithm>
#include <bit>

namespace lodge::machine {

namespace {

using Entry = kvm_cpuid_entry2;

uint32_t with_bits(uint32_t value, unsigned high, unsigned low, uint32_t field) {
  const uint32_t mask = (high - low == 31 ? ~0u : (1u << (high - low + 1)) - 1) << low;
  return (value & ~mask) | ((field << low) & mask);
}

// Bits of the APIC id that number the cores of a package.
uint32_t core_id_bits(uint32_t vcpus) { return static_cast<uint32_t>(std::bit_width(vcpus - 1)); }

// SDM vol. 2A, CPUID leaf 1; AMD APM vol. 3, Fn0000_0001.
void fix_basic(Entry& entry, uint32_t vcpu, uint32_t vcpus) {
  constexpr uint32_t kHtt = 1u << 28, kHypervisor = 1u << 31;
  entry.ebx = with_bits(entry.ebx, 31, 24, vcpu);
  entry.ebx = with_bits(entry.ebx, 23, 16, vcpus > 1 ? 1u << core_id_bits(vcpus) : 1);
  entry.edx = vcpus > 1 ? entry.edx | kHtt : entry.edx & ~kHtt;
  entry.ecx |= kHypervisor;
}

// Deterministic cache parameters: leaf 4, and AMD's Fn8000_001D, which has no core count in 31:26.
void fix_cache(Entry& entry, uint32_t vcpus) {
  if ((entry.eax & 0x1f) == 0) return;  // no more caches
  const uint32_t level = (entry.eax >> 5) & 7;
  const uint32_t sharing = level >= 3 ? (1u << core_id_bits(vcpus)) - 1 : 0;
  entry.eax = with_bits(entry.eax, 25, 14, sharing);
  if (entry.function == 4) entry.eax = with_bits(entry.eax, 31, 26, std::min((1u << core_id_bits(vcpus)) - 1, 63u));
}

// Extended topology: leaves 0xB and 0x1F. Subleaf 0 the thread, 1 the core, 2 the end.
void append_topology(std::vector<Entry>& entries, uint32_t function, uint32_t vcpu, uint32_t vcpus) {
  constexpr uint32_t kInvalid = 0, kThread = 1, kCore = 2;
  const auto level = [&](uint32_t index, uint32_t shift, uint32_t processors, uint32_t type) {
    entries.push_back({.function = function,
                       .index = index,
                       .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                       .eax = shift,
                       .ebx = processors,
                       .ecx = index | type << 8,
                       .edx = vcpu});
  };
  level(0, 0, 1, kThread);
  level(1, core_id_bits(vcpus), vcpus, kCore);
  level(2, 0, 0, kInvalid);
}

// AMD Fn8000_0008: ApicIdSize and the number of threads less one.
void fix_size_identifiers(Entry& entry, uint32_t vcpus) {
  entry.ecx = with_bits(entry.ecx, 7, 0, vcpus - 1);
  entry.ecx = with_bits(entry.ecx, 15, 12, core_id_bits(vcpus));
}

// AMD Fn8000_001E: extended APIC id, core id with one thread a core, one node.
void fix_amd_topology(Entry& entry, uint32_t vcpu) {
  entry.eax = vcpu;
  entry.ebx = vcpu & 0xff;
  entry.ecx = 0;
}

bool is_intel(std::span<const Entry> entries) {
  const auto leaf0 = std::ranges::find(entries, 0u, &Entry::function);
  return leaf0 != entries.end() && leaf0->ebx == 0x756e6547;  // "Genu"
}

}  // namespace

uint32_t physical_bits(const MemoryMap& map) {
  constexpr uint32_t kUsual = 40;
  return std::max(kUsual, static_cast<uint32_t>(std::bit_width(map.end_above_4g() + kHighWindowBytes - 1)));
}

std::vector<Entry> guest_cpuid(std::span<const Entry> supported, uint32_t vcpu, uint32_t vcpus, uint32_t physical_bits) {
  std::vector<Entry> entries;
  bool has_0xb = false, has_0x1f = false;
  const bool intel = is_intel(supported);
  for (Entry entry : supported) {
    switch (entry.function) {
      case 1: fix_basic(entry, vcpu, vcpus); break;
      case 4:
      case 0x8000001d: fix_cache(entry, vcpus); break;
      case 0xb: has_0xb = true; continue;
      case 0x1f: has_0x1f = true; continue;
      case 0x80000008:
        entry.eax = with_bits(entry.eax, 7, 0, std::min(entry.eax & 0xff, physical_bits));
        if (!intel) fix_size_identifiers(entry, vcpus);
        break;
      case 0x8000001e: fix_amd_topology(entry, vcpu); break;
      default: break;
    }
    entries.push_back(entry);
  }
  if (has_0xb) append_topology(entries, 0xb, vcpu, vcpus);
  if (has_0x1f) append_topology(entries, 0x1f, vcpu, vcpus);
  return entries;
}

}  // namespace lodge::machine
