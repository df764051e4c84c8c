#include "engine/soft/vcpu/vcpu_memory.hpp"

#include <sys/mman.h>

#include <new>

#include "engine/soft/translate/cache.hpp"
#include "engine/soft/vcpu/hooks.hpp"

namespace lodge::engine::soft {

void VcpuMemory::Deleter::operator()(VcpuMemory* memory) const { munmap(memory, sizeof *memory); }

Result<VcpuMemoryPtr> create_vcpu_memory(VmContext& vm, uint32_t id) {
  void* mapping = mmap(nullptr, sizeof(VcpuMemory), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) return os_fail("memory of a vCPU");
  // Zeros are the initial value of all members.
  VcpuMemoryPtr memory(static_cast<VcpuMemory*>(mapping));
  CpuState& cpu = memory->cpu;
  cpu.id = id;
  cpu.mmu = &memory->mmu;
  cpu.replay = &memory->replay;
  cpu.hooks = &vcpu_hooks;
  cpu.run = &memory->run;
  cpu.vcpu = &memory->context;
  cpu.jump_cache = &memory->jump_cache;
  cpu.code_cache = vm.code;
  cpu.code_index = &code_index(vm.code);
  cpu.self = &cpu;
  cpu.jump_table = &memory->jump_table;
  code_cache_attach(vm.code, cpu);
  memory->mmu.map = &vm.map;
  mmu_flush_all(cpu);
  memory->context.cpu = &cpu;
  memory->context.vm = &vm;
  memory->context.injected_interrupt = -1;
  return memory;
}

}  // namespace lodge::engine::soft
