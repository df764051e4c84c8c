// Interrupts and doorbells of the kernel's engine: eventfds tied to a VM with KVM_IRQFD and KVM_IOEVENTFD.
#pragma once

#include "base/fd.hpp"
#include "engine/api/engine.hpp"

namespace lodge::engine::kvm {

[[nodiscard]] Result<std::unique_ptr<InterruptEvent>> create_irqfd(std::shared_ptr<const Fd> vm, uint32_t gsi);
[[nodiscard]] Result<std::unique_ptr<DoorbellEvent>> create_ioeventfd(std::shared_ptr<const Fd> vm, const Doorbell& doorbell);

}  // namespace lodge::engine::kvm
