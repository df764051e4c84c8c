// For tests: a channel as a driver sees it, with drives over images in memory.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "devices/ata/hard_disk.hpp"
#include "devices/ata/optical_drive.hpp"
#include "devices/ata/piix_ide.hpp"
#include "devices/storage/test_image.hpp"
#include "memory/test_memory.hpp"

namespace lodge::devices::ata::test {

using storage::test::Image;

// The PIIX's IDE function on buses of its own; interrupts can be waited for.
struct Ide {
  static constexpr uint16_t kPrimary = 0x1f0, kControl = 0x3f6, kMaster = 0xc000;
  static constexpr uint64_t kTable = 0x1000;

  Ide() {
    std::array<IrqPin, 2> pins;
    for (unsigned i = 0; i < pins.size(); ++i) {
      pins[i] = IrqPin([this, i](bool level) {
        std::lock_guard lock(mutex);
        line[i] = level;
        edges[i] += level;
        changed.notify_all();
      });
    }
    ide = std::make_unique<PiixIde>(*memory.guest, ports, pins);
  }
  ~Ide() { ide->shut_down(); }
  Ide(const Ide&) = delete;
  Ide& operator=(const Ide&) = delete;

  // After the drives have been attached.
  void start() {
    ide->write_config(4, 2, 5);  // ports, bus master
    ide->write_config(0x40, 2, 0x8000);
  }
  void attach(unsigned place, std::unique_ptr<Device> device) { ide->attach(place, std::move(device)); }
  [[nodiscard]] Channel& primary() { return ide->channel(0); }

  uint8_t get(unsigned offset) { return static_cast<uint8_t>(ports.read(kPrimary + offset, 1)); }
  void put(unsigned offset, unsigned value) { ports.write(kPrimary + offset, 1, value); }
  [[nodiscard]] uint8_t alternate_status() { return static_cast<uint8_t>(ports.read(kControl, 1)); }
  void control(unsigned value) { ports.write(kControl, 1, value); }
  // The registers of a 28-bit command, by LBA.
  void address(uint32_t sector, unsigned count, unsigned device = 0) {
    put(6, 0xe0 | device << 4 | sector >> 24);
    put(2, count);
    put(3, sector & 0xff);
    put(4, sector >> 8 & 0xff);
    put(5, sector >> 16 & 0xff);
  }
  void address_long(uint64_t sector, unsigned count) {
    put(6, 0x40);
    put(2, count >> 8);
    put(3, sector >> 24 & 0xff);
    put(4, sector >> 32 & 0xff);
    put(5, sector >> 40 & 0xff);
    put(2, count & 0xff);
    put(3, sector & 0xff);
    put(4, sector >> 8 & 0xff);
    put(5, sector >> 16 & 0xff);
  }
  // Until INTRQ is up; then the status, whose reading lets it down.
  uint8_t wait() {
    {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return line[0]; });
    }
    return get(7);
  }
  uint8_t command(unsigned value) {
    put(7, value);
    return wait();
  }
  std::string read_data(size_t bytes) {
    std::string data;
    for (size_t i = 0; i < bytes; i += 2) {
      const uint32_t word = ports.read(kPrimary, 2);
      data += static_cast<char>(word);
      data += static_cast<char>(word >> 8);
    }
    return data;
  }
  void write_data(const std::string& data) {
    for (size_t i = 0; i < data.size(); i += 2)
      ports.write(kPrimary, 2, static_cast<uint8_t>(data[i]) | static_cast<uint32_t>(static_cast<uint8_t>(data[i + 1])) << 8);
  }
  // The bus master's registers.
  uint32_t master(unsigned offset, unsigned size = 1) { return static_cast<uint32_t>(ide->read_bar(4, offset, size)); }
  void set_master(unsigned offset, unsigned size, uint32_t value) { ide->write_bar(4, offset, size, value); }
  // A table of regions; the last one ends it.
  void table(const std::vector<std::pair<uint32_t, uint32_t>>& regions) {
    for (size_t i = 0; i < regions.size(); ++i) {
      memory.put<uint32_t>(kTable + 8 * i, regions[i].first);
      memory.put<uint32_t>(kTable + 8 * i + 4, (regions[i].second & 0xffff) | (i + 1 == regions.size() ? 1u << 31 : 0));
    }
    set_master(4, 4, kTable);
  }

  memory::test::Memory memory;
  PortBus ports;
  std::mutex mutex;
  std::condition_variable changed;
  std::array<bool, 2> line{};
  std::array<unsigned, 2> edges{};
  std::unique_ptr<PiixIde> ide;
};

}  // namespace lodge::devices::ata::test
