// Interrupts and doorbells of the software engine (engine/api: InterruptEvent, DoorbellEvent).
#pragma once

#include "engine/soft/vcpu/vm.hpp"

namespace lodge::engine::soft {

[[nodiscard]] Result<std::unique_ptr<InterruptEvent>> create_interrupt(std::shared_ptr<VmCore> vm, uint32_t gsi);
[[nodiscard]] Result<std::unique_ptr<DoorbellEvent>> create_doorbell(std::shared_ptr<VmCore> vm, const Doorbell& doorbell);

}  // namespace lodge::engine::soft
