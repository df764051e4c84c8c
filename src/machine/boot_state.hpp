// The first vCPU's registers at the kernel's entry, and what firmware would have set up on every vCPU.
#pragma once

#include "base/error.hpp"
#include "engine/api/engine.hpp"
#include "machine/kernel.hpp"

namespace lodge::machine {

[[nodiscard]] Result<> set_entry_state(engine::Vcpu& vcpu, const Entry& entry);

// Virtual wire mode (MP specification 3.6.2.2): LINT0 of the first vCPU takes the 8259's interrupts, LINT1 is NMI
// everywhere; and memory is write-back (MTRR default type).
[[nodiscard]] Result<> set_firmware_state(engine::Vcpu& vcpu, bool first);

}  // namespace lodge::machine
