// The memory of one vCPU: a mapping of its own, so that its parts are aligned and start as zeros.
#pragma once

#include <linux/kvm.h>

#include <memory>

#include "base/error.hpp"
#include "engine/soft/cpu/state.hpp"
#include "engine/soft/mmu/tlb.hpp"
#include "engine/soft/translate/cache.hpp"
#include "engine/soft/vcpu/context.hpp"
#include "engine/soft/vcpu/replay.hpp"

namespace lodge::engine::soft {

struct VcpuMemory {
  // Shared with the caller of run(): kvm_run, and behind its page that of port data (kvm_run.io.data_offset).
  alignas(4096) kvm_run run;
  alignas(4096) uint8_t port_data[4096];
  alignas(4096) CpuState cpu;
  uint8_t up_to_the_jump_table[kJumpTableOffset - sizeof(CpuState)];
  JumpTable jump_table;
  alignas(64) uint8_t xsave[4096];
  Mmu mmu;
  JumpCache jump_cache;
  Replay replay;
  VcpuContext context;

  // Unmaps; all of it is plain data.
  struct Deleter {
    void operator()(VcpuMemory* memory) const;
  };
};
static_assert(offsetof(VcpuMemory, port_data) == 4096);
static_assert(offsetof(VcpuMemory, jump_table) - offsetof(VcpuMemory, cpu) == kJumpTableOffset);
using VcpuMemoryPtr = std::unique_ptr<VcpuMemory, VcpuMemory::Deleter>;
// Its parts linked with each other and the VM, TLBs empty, otherwise zeros.
[[nodiscard]] Result<VcpuMemoryPtr> create_vcpu_memory(VmContext& vm, uint32_t id);

}  // namespace lodge::engine::soft
