// A vCPU's state for a kernel developer: registers, descriptor tables, code and stack.
#pragma once

#include <string>

#include "engine/api/engine.hpp"
#include "memory/guest_memory.hpp"

namespace lodge::machine {

// Several lines. The vCPU must be out of run().
[[nodiscard]] std::string dump_vcpu(engine::Vcpu& vcpu, const memory::GuestMemory& memory, uint32_t number);

// Why run() ended for good, in one line.
[[nodiscard]] std::string describe_exit(const kvm_run& run);

}  // namespace lodge::machine
