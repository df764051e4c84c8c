#include "devices/virtio/device.hpp"

#include <utility>

#include "base/log.hpp"

namespace lodge::devices::virtio {

Device::Device(Type type, std::string name, Worker& worker, std::vector<uint16_t> queue_sizes)
    : type_(type), name_(std::move(name)), worker_(worker), slots_(queue_sizes.size()) {
  for (size_t i = 0; i < slots_.size(); ++i) slots_[i].most_entries = queue_sizes[i];
}

void Device::write_config(uint64_t, std::span<const uint8_t>) {}

// --- Life

void Device::start(memory::GuestMemory& memory, uint64_t features) {
  memory_ = &memory;
  features_ = features;
  broken_ = false;
  started();
}

void Device::start_queue(unsigned queue, const QueueSetup& setup) {
  Slot& slot = slots_[queue];
  if (!slot.queue.configure(*memory_, setup)) return broken(slot.queue.what_is_broken());
  slot.running = true;
  queue_started(queue);
  serve(queue);
}

void Device::stop_queue(unsigned queue, std::function<void()> stopped) {
  Slot& slot = slots_[queue];
  slot.stopped = std::move(stopped);
  if (std::exchange(slot.running, false)) {
    hold(queue);
    queue_stopping(queue);
    release(queue);
  } else {
    settle(queue, 0);
  }
}

void Device::settle(unsigned queue, unsigned returned) {
  Slot& slot = slots_[queue];
  slot.taken -= returned;
  if (slot.taken != 0 || !slot.stopped) return;
  slot.queue.clear();
  std::exchange(slot.stopped, nullptr)();
}

void Device::stop(std::function<void()> all_stopped) {
  // The last queue's end may be the device's.
  const unsigned count = queue_count();
  auto left = std::make_shared<unsigned>(count);
  for (unsigned i = 0; i < count; ++i)
    stop_queue(i, [this, left, all_stopped] {
      if (--*left != 0) return;
      stopped();
      features_ = 0;
      all_stopped();
    });
}

void Device::notified() {
  for (unsigned i = 0; i < queue_count(); ++i)
    if (slots_[i].running) serve(i);
}

// --- Buffers

bool Device::take(unsigned queue, Chain& chain) {
  Slot& slot = slots_[queue];
  if (!slot.running || broken_ || !access_allowed_.load(std::memory_order_acquire)) return false;
  if (slot.queue.pop(chain)) {
    ++slot.taken;
    return true;
  }
  if (slot.queue.broken()) broken(slot.queue.what_is_broken());
  return false;
}

void Device::give_back(unsigned queue, const Chain& chain, uint64_t written) {
  slots_[queue].queue.push(chain, written);
  settle(queue, 1);
}

void Device::give_back(unsigned queue, std::span<const Queue::Used> all) {
  slots_[queue].queue.push(all);
  settle(queue, static_cast<unsigned>(all.size()));
}

void Device::put_back(unsigned queue, const Chain& chain) {
  slots_[queue].queue.unpop(chain);
  settle(queue, 1);
}

void Device::interrupt(unsigned queue) {
  if (slots_[queue].queue.wants_interrupt()) driver_->queue_interrupt(queue);
}

bool Device::allow_notifications(unsigned queue) {
  const Slot& slot = slots_[queue];
  if (!slot.running || broken_ || !access_allowed_.load(std::memory_order_acquire)) return false;
  return slots_[queue].queue.allow_notifications();
}

void Device::broken(std::string_view what) {
  if (std::exchange(broken_, true)) return;
  log::warning("{}: the guest's driver is at fault: {}; the device waits for its reset", name_, what);
  driver_->needs_reset();
}

}  // namespace lodge::devices::virtio
