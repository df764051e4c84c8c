// The guest of the functional proof as data: its memory, its first registers, and what it must have left behind.
//
// Nothing here allocates when a guest is set up, so that it can be used on both sides of a fork.
#pragma once

#include <linux/kvm.h>

#include <cstddef>
#include <span>
#include <string>

namespace lodge::engine::select {

// Fills zeroed guest memory of PROOF_MEMORY_SIZE bytes, to be mapped at guest-physical 0.
void load_proof(std::span<std::byte> memory);

// Long mode, ring 0, interrupts off, at the payload's first instruction; from the state that a new vCPU has.
void set_proof_state(kvm_sregs& sregs, kvm_regs& regs);

// What is wrong with the memory that the guest left behind; empty if all is as it must be.
[[nodiscard]] std::string check_proof(std::span<const std::byte> memory);

// The step that the guest was in, in words.
[[nodiscard]] const char* proof_step(std::span<const std::byte> memory);

}  // namespace lodge::engine::select
