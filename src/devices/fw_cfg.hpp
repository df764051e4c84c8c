// The firmware configuration device (QEMU's docs/specs/fw_cfg): items of bytes, by number and by name, that the machine offers to firmware
// and option ROMs.
//
// Ports 0x510 (selector, 16 bits), 0x511 (data, a byte at a time) and 0x514 (address of a DMA request, 64 bits, most significant byte
// first; its low half starts the request, which is done when the write returns). Reading past an item's end gives zeros.
//
// Threads: ports from any vCPU's thread; items are added before the first of them runs.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "base/mutex.hpp"
#include "devices/bus.hpp"
#include "memory/guest_memory.hpp"

namespace lodge::devices {

class FwCfg {
 public:
  static constexpr uint16_t kPorts = 0x510, kPortBytes = 2, kDmaPorts = 0x514, kDmaPortBytes = 8;

  // Numbers of items that need no look-up by name.
  enum Key : uint16_t {
    kSignature = 0x00,
    kFeatures = 0x01,
    kRamSize = 0x03,
    kGraphics = 0x04,
    kProcessors = 0x05,
    kKernelAddress = 0x07,
    kKernelSize = 0x08,
    kInitrdAddress = 0x0a,
    kInitrdSize = 0x0b,
    kBootMenu = 0x0e,
    kMaximumProcessors = 0x0f,
    kKernelData = 0x11,
    kInitrdData = 0x12,
    kCommandLineAddress = 0x13,
    kCommandLineSize = 0x14,
    kCommandLineData = 0x15,
    kSetupAddress = 0x16,
    kSetupSize = 0x17,
    kSetupData = 0x18,
    kDirectory = 0x19,
    kFirstFile = 0x20,
    kIrq0Override = 0x8002,
  };

  explicit FwCfg(memory::GuestMemory& memory);

  [[nodiscard]] PortDevice& ports() { return ports_; }
  [[nodiscard]] PortDevice& dma_ports() { return dma_ports_; }

  void add(uint16_t key, std::vector<uint8_t> bytes) LODGE_EXCLUDES(mutex_);
  void add_number16(uint16_t key, uint16_t value);  // little-endian, as all numbers of items
  void add_number32(uint16_t key, uint32_t value);
  // Names are paths such as "etc/e820", of at most 55 bytes, each once: ErrorKind::Internal otherwise. The guest may write into a
  // writable one, by DMA, and not past its end.
  [[nodiscard]] Result<> add_file(std::string_view name, std::vector<uint8_t> bytes, bool writable = false) LODGE_EXCLUDES(mutex_);
  // A file whose bytes are made anew each time that the guest selects it: always as many as now. From a vCPU's thread; it must not use
  // this object.
  [[nodiscard]] Result<> add_made_file(std::string_view name, std::function<std::vector<uint8_t>()> make) LODGE_EXCLUDES(mutex_);
  // The number of the file's item; 0: there is no such file.
  [[nodiscard]] uint16_t key_of(std::string_view name) LODGE_EXCLUDES(mutex_);
  // What the file holds now; empty if there is none of that name.
  [[nodiscard]] std::vector<uint8_t> file(std::string_view name) LODGE_EXCLUDES(mutex_);

 private:
  struct Item {
    std::vector<uint8_t> bytes;
    bool writable = false;
    std::function<std::vector<uint8_t>()> make{};
  };
  struct Ports final : PortDevice {
    explicit Ports(FwCfg& c) : chip(c) {}
    uint32_t read(uint64_t offset, unsigned size) override;
    void write(uint64_t offset, unsigned size, uint32_t value) override;
    FwCfg& chip;
  };
  struct DmaPorts final : BytePortDevice {
    explicit DmaPorts(FwCfg& c) : chip(c) {}
    uint8_t read_byte(uint64_t offset) override;
    void write_byte(uint64_t offset, uint8_t value) override;
    FwCfg& chip;
  };
  struct Request {
    uint32_t control, length;
    uint64_t address;
  };

  [[nodiscard]] Result<> add_item(std::string_view name, Item item) LODGE_EXCLUDES(mutex_);
  void select(uint16_t key) LODGE_REQUIRES(mutex_);
  [[nodiscard]] uint8_t next_byte() LODGE_REQUIRES(mutex_);
  void run_dma(uint64_t request) LODGE_REQUIRES(mutex_);
  [[nodiscard]] bool carry_out(const Request& request) LODGE_REQUIRES(mutex_);
  [[nodiscard]] bool copy_out(uint64_t address, uint32_t length) LODGE_REQUIRES(mutex_);
  [[nodiscard]] bool copy_in(uint64_t address, uint32_t length) LODGE_REQUIRES(mutex_);
  void rebuild_directory() LODGE_REQUIRES(mutex_);

  memory::GuestMemory& memory_;
  Ports ports_{*this};
  DmaPorts dma_ports_{*this};
  Mutex mutex_;
  std::map<uint16_t, Item> items_ LODGE_GUARDED_BY(mutex_);
  std::map<std::string, uint16_t, std::less<>> files_ LODGE_GUARDED_BY(mutex_);
  uint16_t next_file_ LODGE_GUARDED_BY(mutex_) = kFirstFile;
  Item* selected_ LODGE_GUARDED_BY(mutex_) = nullptr;  // null: a number that no item has
  uint64_t position_ LODGE_GUARDED_BY(mutex_) = 0;
  uint64_t dma_address_ LODGE_GUARDED_BY(mutex_) = 0;
};

}  // namespace lodge::devices
