#include "devices/virtio/console/console.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace lodge::devices::virtio {

namespace {

constexpr unsigned kSize = 0, kEmergencyWrite = 2;  // 5.3.3
constexpr unsigned kReceive = 0, kTransmit = 1;     // 5.3.2
// 5.3.4.
constexpr size_t kColumnsAt = 0, kRowsAt = 2, kPortsAt = 4, kEmergencyAt = 8, kConfigBytes = 12;
constexpr uint16_t kEntries = 64;

}  // namespace

Console::Console(Worker& worker, console::Backend& line) : Device(Type::Console, "console", worker, {kEntries, kEntries}), line_(line) {}

// Without a terminal the driver keeps the size that it likes.
uint64_t Console::features() const { return (line_.size() ? feature(kSize) : 0) | feature(kEmergencyWrite); }

void Console::read_config(uint64_t offset, std::span<uint8_t> into) const {
  std::array<uint8_t, kConfigBytes> config{};
  const auto size = line_.size().value_or(console::Backend::Size{});
  constexpr uint32_t kPorts = 1;
  std::memcpy(&config[kColumnsAt], &size.columns, sizeof size.columns);
  std::memcpy(&config[kRowsAt], &size.rows, sizeof size.rows);
  std::memcpy(&config[kPortsAt], &kPorts, sizeof kPorts);
  for (size_t i = 0; i < into.size(); ++i) into[i] = offset + i < config.size() ? config[offset + i] : 0;
}

void Console::write_config(uint64_t offset, std::span<const uint8_t> from) {
  if (offset == kEmergencyAt && !from.empty()) line_.write(from.first(1));
}

void Console::size_changed() { config_changed(); }

void Console::started() {
  line_.set_sink({.space = [this] { return space(); }, .receive = [this](std::span<const uint8_t> bytes) { receive(bytes); }});
  // Linux's driver looks at the size only when it has changed.
  if (has(kSize)) config_changed();
}

void Console::stopped() { line_.set_sink({}); }

void Console::serve(unsigned queue) {
  if (queue != kTransmit) return;  // the line asks for space() before each wait
  bool done = false;
  for_each_buffer(queue, sending_, [&](const Chain& chain) {
    for (const iovec& piece : chain.readable()) line_.write({static_cast<const uint8_t*>(piece.iov_base), piece.iov_len});
    give_back(queue, chain, 0);
    done = true;
    return true;
  });
  if (done) interrupt(queue);
}

size_t Console::space() {
  while (!holds_) {
    if (!running(kReceive)) return 0;
    holds_ = take(kReceive, receiving_);
    if (holds_ && receiving_.writable_bytes() == 0) {
      give_back(kReceive, receiving_, 0);
      interrupt(kReceive);
      holds_ = false;
      continue;
    }
    if (!holds_ && !allow_notifications(kReceive)) return 0;
  }
  return receiving_.writable_bytes();
}

// No more than space() has promised.
void Console::receive(std::span<const uint8_t> bytes) {
  if (!std::exchange(holds_, false)) return;
  size_t at = 0;
  for (const iovec& piece : receiving_.writable()) {
    const size_t now = std::min(piece.iov_len, bytes.size() - at);
    if (now != 0) std::memcpy(piece.iov_base, &bytes[at], now);
    at += now;
  }
  give_back(kReceive, receiving_, at);
  interrupt(kReceive);
}

void Console::queue_stopping(unsigned queue) {
  if (queue == kReceive && std::exchange(holds_, false)) put_back(kReceive, receiving_);
}

}  // namespace lodge::devices::virtio
