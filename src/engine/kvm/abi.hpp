// The parts of <linux/kvm.h> that C++ cannot take from it.
//
// Structures that end in a flexible array have another size in C++ than in C with some versions of the header (an
// empty struct stands before the array, of size 0 in C and 1 in C++). Their ioctl numbers, which hold the size, are
// then wrong as well: the kernel answers EINVAL or ENOTTY. So the fixed parts and the numbers are spelled out here;
// the array follows the fixed part.
#pragma once

#include <linux/kvm.h>

#include "engine/api/engine.hpp"

namespace lodge::engine::kvm {

struct MsrListHeader {  // kvm_msr_list, followed by uint32_t indices[]
  uint32_t nmsrs;
};
struct MsrsHeader {  // kvm_msrs, followed by kvm_msr_entry entries[]
  uint32_t nmsrs;
  uint32_t pad;
};
struct Cpuid2Header {  // kvm_cpuid2, followed by kvm_cpuid_entry2 entries[]
  uint32_t nent;
  uint32_t padding;
};
struct IrqRoutingHeader {  // kvm_irq_routing, followed by kvm_irq_routing_entry entries[]
  uint32_t nr;
  uint32_t flags;
};
static_assert(sizeof(Xsave) == 4096);

constexpr unsigned long kGetMsrIndexList = _IOWR(KVMIO, 0x02, MsrListHeader);
constexpr unsigned long kGetSupportedCpuid = _IOWR(KVMIO, 0x05, Cpuid2Header);
constexpr unsigned long kSetGsiRouting = _IOW(KVMIO, 0x6a, IrqRoutingHeader);
constexpr unsigned long kGetMsrs = _IOWR(KVMIO, 0x88, MsrsHeader);
constexpr unsigned long kSetMsrs = _IOW(KVMIO, 0x89, MsrsHeader);
constexpr unsigned long kSetCpuid2 = _IOW(KVMIO, 0x90, Cpuid2Header);
constexpr unsigned long kGetXsave = _IOR(KVMIO, 0xa4, Xsave);
constexpr unsigned long kSetXsave = _IOW(KVMIO, 0xa5, Xsave);

}  // namespace lodge::engine::kvm
