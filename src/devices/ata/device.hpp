// An ATA device: what is common to disks and packet devices (ATA/ATAPI-7 volume 1 and 2; ACS-3). A link (an IDE channel, a port of an AHCI
// controller) stands between it and the guest: it keeps the registers' side and moves the data.
//
// The conversation: the link calls start() when the guest has written a command. The device then asks the link, once or several times, to
// move a block of data through the data register (move_block(), answered by block_moved()) or by DMA (want_dma(), answered by
// dma_memory()), and at the end calls finished(). All that waits for the disk goes on on the disk's thread.
//
// Threads: everything under the link's mutex, which the device takes itself when the disk has answered.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/mutex.hpp"
#include "block/buffers.hpp"
#include "devices/ata/identify.hpp"
#include "devices/ata/registers.hpp"
#include "devices/storage/disk.hpp"
#include "devices/storage/requests.hpp"
#include "memory/guest_memory.hpp"

namespace lodge::devices::ata {

enum class Direction : uint8_t { ToHost, ToDevice };

// A command of the native queue (SATA 2.6, 13.6): READ or WRITE FPDMA QUEUED.
struct QueuedCommand {
  bool write = false, fua = false;
  uint8_t tag = 0;
  uint64_t sector = 0, count = 0;
};
// How it ended: the status and error registers, and whether that is an error.
struct QueuedEnd {
  uint8_t status = 0, error = 0;
};

class Device;
using Announcement = std::shared_ptr<memory::AnnouncedWrites>;

// The device's view of its link.
class Link {
 public:
  virtual ~Link() = default;
  [[nodiscard]] virtual Mutex& mutex() = 0;
  // Serial ATA: commands may be queued, and there is no cable to speak of.
  [[nodiscard]] virtual bool serial() const = 0;
  // A block is to be read or filled through the data register; it stays where it is until the device's block_moved(). With
  // `interrupt` the guest is told that it is there.
  virtual void move_block(Device& device, Direction direction, std::span<uint8_t> block, bool interrupt) = 0;
  // So many bytes are to be moved by DMA; answered by dma_memory() as soon as the guest has said where.
  virtual void want_dma(Device& device, Direction direction, uint64_t bytes) = 0;
  // The memory of dma_memory() has been read or written, so many bytes of it.
  virtual void dma_moved(Device& device, uint64_t bytes) = 0;
  // The command has ended, and the status is in the registers.
  virtual void finished(Device& device) = 0;
};

// What a device with a native queue does with the commands that its link has taken apart; tags are the link's business.
class NativeQueue {
 public:
  virtual ~NativeQueue() = default;
  // Nothing: the command can be carried out; else the end that it comes to now.
  [[nodiscard]] virtual std::optional<QueuedEnd> refuse_queued(const QueuedCommand& command) = 0;
  // Between the disk and memory of the command's size; `then` under the mutex, unless a reset or a failure came first.
  virtual void execute_queued(const QueuedCommand& command, block::Buffers memory, Announcement announcement,
                              std::function<void(QueuedEnd)> then) = 0;
};

class Device {
 public:
  explicit Device(Link& link) : link_(link) {}
  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  Registers registers;
  bool asserts_interrupt = false;  // INTRQ, whether or not the host may see it

  // After power-on, a reset on the link, or SRST; what is in flight counts no more.
  void reset();
  // The guest has written the command register. Not while the device is busy, except for what interrupts a command.
  void start(uint8_t command);
  [[nodiscard]] virtual bool is_packet_device() const { return false; }
  // The link cannot move what the command wants moved: it ends with an error.
  void abort_command() { fail(kAborted); }

  // --- The native queue; null: the device has none.
  [[nodiscard]] virtual NativeQueue* native_queue() { return nullptr; }
  // What is with the disk counts no more: the link is told nothing of it.
  void abandon() { requests_.abandon(); }
  // Nothing of it is on the disk's thread. Under the mutex.
  [[nodiscard]] bool idle() const { return requests_.idle(); }

  // --- The link's answers.
  virtual void block_moved() = 0;
  // `announcement` stands for that the memory is written; the device lets go of it when that is over.
  virtual void dma_memory(block::Buffers memory, Announcement announcement) = 0;

  // Wait until no request of it is on the disk's thread: those that are count no more, or end as they would. Without the mutex, and from
  // another thread.
  void wait_until_idle();
  void wait_for_requests() { requests_.wait_until_idle(link_.mutex()); }

 protected:
  virtual void execute(uint8_t command) = 0;
  virtual void reset_device() = 0;  // the registers hold the signature already

  [[nodiscard]] Link& link() { return link_; }
  [[nodiscard]] const Link& link() const { return link_; }
  [[nodiscard]] Connection connection() const {
    return {.serial = link_.serial(), .second = !link_.serial() && (registers.device & kDeviceSecond) != 0};
  }
  void finish();  // well
  void fail(uint8_t error);
  void set_signature();

  // Between the disk and the link, where data does not go to the guest's memory at once.
  [[nodiscard]] std::vector<uint8_t>& buffer() { return requests_.buffer(); }

  // The disk carries it out, and `then` follows under the mutex, unless a reset came first.
  void submit(storage::Disk& disk, block::Request request, std::function<void(bool ok)> then);

 private:
  Link& link_;
  storage::Requests requests_;
};

}  // namespace lodge::devices::ata
