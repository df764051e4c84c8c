#include "engine/kvm/event.hpp"

#include "base/eventfd.hpp"
#include "engine/kvm/device.hpp"

namespace lodge::engine::kvm {

namespace {

class Irqfd final : public InterruptEvent {
 public:
  Irqfd(std::shared_ptr<const Fd> vm, Fd event, uint32_t gsi) : vm_(std::move(vm)), event_(std::move(event)), gsi_(gsi) {}
  ~Irqfd() override {
    kvm_irqfd irqfd = {};
    irqfd.fd = static_cast<uint32_t>(event_.get());
    irqfd.gsi = gsi_;
    irqfd.flags = KVM_IRQFD_FLAG_DEASSIGN;
    ::ioctl(vm_->get(), KVM_IRQFD, &irqfd);
  }
  Irqfd(const Irqfd&) = delete;
  Irqfd& operator=(const Irqfd&) = delete;

  void signal() override { eventfd_write(event_.get(), 1); }
  [[nodiscard]] int fd() const override { return event_.get(); }

 private:
  std::shared_ptr<const Fd> vm_;
  Fd event_;
  uint32_t gsi_;
};

class Ioeventfd final : public DoorbellEvent {
 public:
  Ioeventfd(std::shared_ptr<const Fd> vm, Fd event, const kvm_ioeventfd& doorbell)
      : vm_(std::move(vm)), event_(std::move(event)), doorbell_(doorbell) {}
  ~Ioeventfd() override {
    doorbell_.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
    ::ioctl(vm_->get(), KVM_IOEVENTFD, &doorbell_);
  }
  Ioeventfd(const Ioeventfd&) = delete;
  Ioeventfd& operator=(const Ioeventfd&) = delete;

  [[nodiscard]] int fd() const override { return event_.get(); }

 private:
  std::shared_ptr<const Fd> vm_;
  Fd event_;
  kvm_ioeventfd doorbell_;
};

}  // namespace

Result<std::unique_ptr<InterruptEvent>> create_irqfd(std::shared_ptr<const Fd> vm, uint32_t gsi) {
  Fd event = TRY(new_eventfd());
  kvm_irqfd irqfd = {};
  irqfd.fd = static_cast<uint32_t>(event.get());
  irqfd.gsi = gsi;
  TRY(call(vm->get(), KVM_IRQFD, "KVM_IRQFD", &irqfd));
  return std::make_unique<Irqfd>(std::move(vm), std::move(event), gsi);
}

Result<std::unique_ptr<DoorbellEvent>> create_ioeventfd(std::shared_ptr<const Fd> vm, const Doorbell& doorbell) {
  Fd event = doorbell.eventfd < 0 ? TRY(new_eventfd()) : TRY(duplicate(doorbell.eventfd));
  kvm_ioeventfd ioeventfd = {};
  ioeventfd.fd = event.get();
  ioeventfd.addr = doorbell.address;
  ioeventfd.len = doorbell.length;
  ioeventfd.datamatch = doorbell.datamatch;
  ioeventfd.flags = doorbell.flags;
  TRY(call(vm->get(), KVM_IOEVENTFD, "KVM_IOEVENTFD", &ioeventfd));
  return std::make_unique<Ioeventfd>(std::move(vm), std::move(event), ioeventfd);
}

}  // namespace lodge::engine::kvm
