#include "devices/serial_port.hpp"

namespace lodge::devices {

void SerialPort::update_pin() {
  if (chip_.interrupt() == level_) return;
  level_ = !level_;
  irq_.set(level_);
}

uint8_t SerialPort::read_byte(uint64_t offset) {
  bool changed = false;
  uint8_t value = 0;
  {
    MutexLock lock(mutex_);
    const size_t space = chip_.receive_space();
    const uint64_t deadline = chip_.deadline();
    value = chip_.read(static_cast<unsigned>(offset), clock_.monotonic_ns());
    changed = (space == 0 && chip_.receive_space() > 0) || chip_.deadline() < deadline;
    update_pin();
  }
  if (changed && host_.changed) host_.changed();
  return value;
}

void SerialPort::write_byte(uint64_t offset, uint8_t value) {
  std::vector<uint8_t> transmitted;
  bool changed = false;
  {
    MutexLock lock(mutex_);
    const size_t space = chip_.receive_space();
    const uint64_t deadline = chip_.deadline();
    chip_.write(static_cast<unsigned>(offset), value, clock_.monotonic_ns());
    changed = (space == 0 && chip_.receive_space() > 0) || chip_.deadline() < deadline;
    transmitted = chip_.take_transmitted();
    update_pin();
  }
  if (!transmitted.empty() && host_.transmit) host_.transmit(transmitted);
  if (changed && host_.changed) host_.changed();
}

size_t SerialPort::receive_space() {
  MutexLock lock(mutex_);
  return chip_.receive_space();
}

size_t SerialPort::receive(std::span<const uint8_t> bytes) {
  MutexLock lock(mutex_);
  const size_t taken = chip_.receive(bytes, clock_.monotonic_ns());
  update_pin();
  return taken;
}

uint64_t SerialPort::deadline() {
  MutexLock lock(mutex_);
  return chip_.deadline();
}

void SerialPort::on_deadline() {
  MutexLock lock(mutex_);
  chip_.advance(clock_.monotonic_ns());
  update_pin();
}

}  // namespace lodge::devices
