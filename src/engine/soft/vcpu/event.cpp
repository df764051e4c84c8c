#include "engine/soft/vcpu/event.hpp"

#include <mutex>

#include "base/eventfd.hpp"
#include "base/log.hpp"

namespace lodge::engine::soft {

namespace {

// The descriptor, and the thread that serves it, exist once somebody has asked for it.
class Interrupt final : public InterruptEvent {
 public:
  Interrupt(std::shared_ptr<VmCore> vm, uint32_t gsi) : vm_(std::move(vm)), gsi_(gsi) {}
  ~Interrupt() override {
    if (event_) vm_->unwatch_interrupt(event_.get());
  }
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  void signal() override { vm_->raise_edge(gsi_); }
  [[nodiscard]] int fd() const override {
    const std::lock_guard lock(mutex_);
    if (!event_) open();
    return event_.get();
  }

 private:
  void open() const {
    Fd event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    const Result<> watched = event ? vm_->watch_interrupt(event.get(), gsi_) : os_fail("eventfd");
    if (watched)
      event_ = std::move(event);
    else
      log::error("interrupt {}: {}", gsi_, watched.error().message);
  }

  std::shared_ptr<VmCore> vm_;
  uint32_t gsi_;
  mutable std::mutex mutex_;
  mutable Fd event_;
};

class SoftDoorbell final : public DoorbellEvent {
 public:
  SoftDoorbell(std::shared_ptr<VmCore> vm, Fd event) : vm_(std::move(vm)), event_(std::move(event)) {}
  ~SoftDoorbell() override { vm_->remove_doorbell(event_.get()); }
  SoftDoorbell(const SoftDoorbell&) = delete;
  SoftDoorbell& operator=(const SoftDoorbell&) = delete;

  [[nodiscard]] int fd() const override { return event_.get(); }

 private:
  std::shared_ptr<VmCore> vm_;
  Fd event_;
};

}  // namespace

Result<std::unique_ptr<InterruptEvent>> create_interrupt(std::shared_ptr<VmCore> vm, uint32_t gsi) {
  return std::make_unique<Interrupt>(std::move(vm), gsi);
}

Result<std::unique_ptr<DoorbellEvent>> create_doorbell(std::shared_ptr<VmCore> vm, const Doorbell& doorbell) {
  Fd event = doorbell.eventfd < 0 ? TRY(new_eventfd()) : TRY(duplicate(doorbell.eventfd));
  TRY(vm->add_doorbell({.address = doorbell.address,
                        .datamatch = doorbell.datamatch,
                        .length = doorbell.length,
                        .flags = doorbell.flags,
                        .fd = event.get()}));
  return std::make_unique<SoftDoorbell>(std::move(vm), std::move(event));
}

}  // namespace lodge::engine::soft
