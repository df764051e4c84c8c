#include "devices/ata/device.hpp"

namespace lodge::devices::ata {

// ATA/ATAPI-7 volume 1, 5.14 (table 12).
void Device::set_signature() {
  registers.count = registers.low = 1;
  registers.mid = is_packet_device() ? 0x14 : 0;
  registers.high = is_packet_device() ? 0xeb : 0;
  registers.device &= kDeviceSecond;
}

void Device::reset() {
  requests_.abandon();
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
  requests_.submit(link_.mutex(), disk, std::move(request), std::move(then));
}

void Device::wait_until_idle() {
  {
    MutexLock lock(link_.mutex());
    requests_.abandon();
  }
  requests_.wait_until_idle(link_.mutex());
}

}  // namespace lodge::devices::ata
