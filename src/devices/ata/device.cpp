#include "devices/ata/device.hpp"

namespace lodge::devices::ata {

// ATA/ATAPI-7 volume 1, 5.14 (table 12).
void Device::set_signature() {
  registers.count = registers.low = 1;
  registers.mid = is_packet_device() ? 0x14 : 0;
  registers.high = is_packet_device() ? 0xeb : 0;
  registers.device &= kDeviceSecond;
}

// What is in flight counts no more, and keeps the buffer that it works on.
void Device::abandon() {
  ++generation_;
  if (in_flight_ != 0) buffer_ = std::make_shared<std::vector<uint8_t>>();
}

void Device::reset() {
  abandon();
  asserts_interrupt = false;
  registers.error = 0x01;  // diagnostic code: passed
  set_signature();
  // A packet device is not ready before its first command (volume 2, 9.1).
  registers.status = is_packet_device() ? 0 : kReady | kServiceOrSeekComplete;
  reset_device();
}

void Device::start(uint8_t command) {
  registers.command = command;
  registers.status = kBusy;
  registers.error = 0;
  asserts_interrupt = false;
  execute(command);
}

void Device::finish() {
  registers.status = kReady | kServiceOrSeekComplete;
  registers.error = 0;
  link_.finished(*this);
}

void Device::fail(uint8_t error) {
  registers.status = kReady | kServiceOrSeekComplete | kError;
  registers.error = error;
  link_.finished(*this);
}

void Device::submit(storage::Disk& disk, block::Request request, std::function<void(bool ok)> then) {
  ++in_flight_;
  disk.submit(std::move(request), [this, generation = generation_, held = buffer_, then = std::move(then)](bool ok) mutable {
    MutexLock lock(link_.mutex());
    if (generation == generation_) then(ok);
    then = nullptr;  // what it holds of the guest's memory is let go of before anybody takes the device for idle
    if (--in_flight_ == 0) idle_.notify_all();
  });
}

void Device::wait_until_idle() {
  MutexLock lock(link_.mutex());
  ++generation_;
  while (in_flight_ != 0) lock.wait(idle_);
}

}  // namespace lodge::devices::ata
