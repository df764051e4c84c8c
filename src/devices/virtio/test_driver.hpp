// For tests: a driver's side of a virtqueue, and a worker whose thread is the test's.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "devices/virtio/device.hpp"
#include "devices/virtio/queue.hpp"
#include "devices/worker/worker.hpp"
#include "memory/guest_memory.hpp"
#include "memory/test_memory.hpp"

namespace lodge::devices::virtio::test {

using memory::test::Memory;

struct Piece {
  uint64_t address = 0;
  uint32_t length = 0;
  bool write = false;
};

struct Shape {
  bool packed = false, event_index = false, indirect = false;
};

inline std::string name_of(const Shape& shape) {
  return std::string(shape.packed ? "Packed" : "Split") + (shape.event_index ? "Event" : "") + (shape.indirect ? "Indirect" : "");
}

inline std::ostream& operator<<(std::ostream& out, const Shape& shape) { return out << name_of(shape); }

inline constexpr std::array kAllShapes{Shape{false, false, false}, Shape{false, true, false}, Shape{false, false, true},
                                       Shape{false, true, true},   Shape{true, false, false}, Shape{true, true, false},
                                       Shape{true, false, true},   Shape{true, true, true}};

// After the drivers' parts of virtio 1.2, sections 2.7.13, 2.7.14 and 2.8.21, 2.8.22.
class Ring {
 public:
  static constexpr uint16_t kNext = 1, kWrite = 2, kIndirect = 4, kAvailable = 1 << 7, kUsed = 1 << 15;

  // Uses 1 MiB of memory from `base` on.
  Ring(Memory& memory, uint64_t base, uint16_t size, Shape shape) : memory_(memory), base_(base), size_(size), shape_(shape) {
    for (uint64_t at = base; at < base + kTables; at += 8) memory.put<uint64_t>(at, 0);
    for (uint16_t i = 0; i < size; ++i) free_.push_back(i);
  }

  [[nodiscard]] QueueSetup setup() const {
    return {.size = size_,
            .descriptors = descriptors(),
            .driver_area = driver_area(),
            .device_area = device_area(),
            .packed = shape_.packed,
            .event_index = shape_.event_index,
            .indirect = shape_.indirect};
  }
  [[nodiscard]] uint64_t descriptors() const { return base_; }
  [[nodiscard]] uint64_t driver_area() const { return base_ + 0x40000; }
  [[nodiscard]] uint64_t device_area() const { return base_ + 0x60000; }

  // Makes a buffer available; its id.
  uint16_t add(const std::vector<Piece>& pieces) {
    if (shape_.indirect && pieces.size() > 1) {
      const uint64_t table = base_ + kTables + tables_++ % 64 * 0x1000;
      for (size_t i = 0; i < pieces.size(); ++i) {
        const bool last = i + 1 == pieces.size();
        const uint16_t flags = static_cast<uint16_t>((pieces[i].write ? kWrite : 0) | (last || shape_.packed ? 0 : kNext));
        put_descriptor(table + 16 * i, pieces[i].address, pieces[i].length, flags, static_cast<uint16_t>(last ? 0 : i + 1));
      }
      return add_direct({{table, static_cast<uint32_t>(16 * pieces.size())}}, kIndirect);
    }
    return add_direct(pieces, 0);
  }
  [[nodiscard]] size_t room() const { return free_.size(); }

  struct Used {
    uint16_t id;
    uint32_t length;
    bool operator==(const Used&) const = default;
  };
  // Those that the device has given back since the last call.
  std::vector<Used> used() {
    std::vector<Used> all;
    if (shape_.packed)
      while (std::optional<Used> one = next_packed()) all.push_back(*one);
    else
      while (used_ != memory_.get<uint16_t>(device_area() + 2)) {
        const uint64_t at = device_area() + 4 + 8 * (used_++ & (size_ - 1));
        all.push_back({static_cast<uint16_t>(memory_.get<uint32_t>(at)), memory_.get<uint32_t>(at + 4)});
      }
    for (const Used& one : all) {
      const auto owned = owned_.extract(one.id);
      EXPECT_FALSE(owned.empty()) << "given back twice, or never made available: " << one.id;
      if (!owned.empty()) free_.insert(free_.end(), owned.mapped().begin(), owned.mapped().end());
    }
    return all;
  }
  // Is anything given back that used() has not told yet?
  [[nodiscard]] bool any_used() const {
    if (!shape_.packed) return used_ != memory_.get<uint16_t>(device_area() + 2);
    const auto flags = memory_.get<uint16_t>(descriptors() + 16 * used_ + 14);
    return ((flags & kAvailable) != 0) == used_wrap_ && ((flags & kUsed) != 0) == used_wrap_;
  }

  // --- Interrupts: none, all, or the one for the buffer (packed: entry) this many from now.
  void no_interrupts() {
    if (shape_.packed)
      memory_.put<uint16_t>(driver_area() + 2, 1);
    else if (shape_.event_index)
      memory_.put<uint16_t>(driver_area() + 4 + 2 * size_, static_cast<uint16_t>(used_ - 1));
    else
      memory_.put<uint16_t>(driver_area(), 1);
  }
  void interrupt_after(uint16_t entries) {
    if (!shape_.packed) {
      if (shape_.event_index) memory_.put<uint16_t>(driver_area() + 4 + 2 * size_, static_cast<uint16_t>(used_ + entries));
      memory_.put<uint16_t>(driver_area(), 0);
      return;
    }
    uint32_t at = used_ + uint32_t{entries};
    bool wrap = used_wrap_;
    if (at >= size_) {
      at -= size_;
      wrap = !wrap;
    }
    memory_.put<uint16_t>(driver_area(), static_cast<uint16_t>(at | (wrap ? 1u << 15 : 0)));
    memory_.put<uint16_t>(driver_area() + 2, shape_.event_index ? 2 : 0);
  }

  // Whether the device wants to be told of the buffers added since the last call.
  bool must_notify() {
    const uint16_t before = std::exchange(notified_, available_);
    if (shape_.packed) {
      const auto flags = memory_.get<uint16_t>(device_area() + 2);
      if (flags != 2) return flags == 0;
      const auto position = memory_.get<uint16_t>(device_area());
      auto event = static_cast<uint16_t>(position & 0x7fff);
      const bool same_round = (position >> 15 != 0) == available_wrap_;
      if (!same_round) event = static_cast<uint16_t>(event - size_);
      const auto old = static_cast<uint16_t>(available_ - packed_added_);
      packed_added_ = 0;
      return static_cast<uint16_t>(available_ - event - 1) < static_cast<uint16_t>(available_ - old);
    }
    if (!shape_.event_index) return memory_.get<uint16_t>(device_area()) == 0;
    const auto event = memory_.get<uint16_t>(device_area() + 4 + 8 * size_);
    return static_cast<uint16_t>(available_ - event - 1) < static_cast<uint16_t>(available_ - before);
  }

  // Flags in a packed ring that hand the next descriptor over.
  [[nodiscard]] uint16_t available_flags() const { return available_wrap_ ? kAvailable : kUsed; }
  // Writes a descriptor without making it available, for drivers that lie. `flags` of a packed ring are all of them.
  void put_descriptor(uint64_t at, uint64_t address, uint32_t length, uint16_t flags, uint16_t next) const {
    memory_.put(at, address);
    memory_.put(at + 8, length);
    memory_.put(at + 12, shape_.packed ? next : flags);
    memory_.put(at + 14, shape_.packed ? flags : next);
  }
  // Split: makes whatever the table holds from there on available.
  void offer(uint16_t head) {
    memory_.put(driver_area() + 4 + 2 * (available_ & (size_ - 1)), head);
    memory_.put(driver_area() + 2, ++available_);
  }

 private:
  static constexpr uint64_t kTables = 0x80000;

  uint16_t add_direct(const std::vector<Piece>& pieces, uint16_t more) {
    EXPECT_LE(pieces.size(), free_.size()) << "no room in the ring";
    std::vector<uint16_t> mine(free_.begin(), free_.begin() + static_cast<std::ptrdiff_t>(pieces.size()));
    free_.erase(free_.begin(), free_.begin() + static_cast<std::ptrdiff_t>(pieces.size()));
    const uint16_t id = mine[0];
    owned_[id] = mine;
    if (shape_.packed) {
      add_packed(pieces, more, id);
      return id;
    }
    for (size_t i = 0; i < pieces.size(); ++i) {
      const bool last = i + 1 == pieces.size();
      const uint16_t flags = static_cast<uint16_t>(more | (pieces[i].write ? kWrite : 0) | (last ? 0 : kNext));
      put_descriptor(descriptors() + uint64_t{16} * mine[i], pieces[i].address, pieces[i].length, flags, last ? 0 : mine[i + 1]);
    }
    offer(id);
    return id;
  }
  void add_packed(const std::vector<Piece>& pieces, uint16_t more, uint16_t id) {
    lengths_[id] = static_cast<uint16_t>(pieces.size());
    const uint16_t first = available_, first_flags = available_flags();
    for (size_t i = 0; i < pieces.size(); ++i) {
      const bool last = i + 1 == pieces.size();
      auto flags = static_cast<uint16_t>(more | (pieces[i].write ? kWrite : 0) | (last ? 0 : kNext));
      // The first is handed over when the others stand (2.8.21.1).
      if (i != 0) flags |= available_flags();
      put_descriptor(descriptors() + uint64_t{16} * available_, pieces[i].address, pieces[i].length, i != 0 ? flags : unavailable(flags),
                     id);
      if (++available_ == size_) {
        available_ = 0;
        available_wrap_ = !available_wrap_;
      }
      ++packed_added_;
    }
    const uint64_t at = descriptors() + uint64_t{16} * first + 14;
    memory_.put<uint16_t>(at, static_cast<uint16_t>((memory_.get<uint16_t>(at) & ~(kAvailable | kUsed)) | first_flags));
  }
  [[nodiscard]] uint16_t unavailable(uint16_t flags) const {
    return static_cast<uint16_t>(flags | (available_wrap_ ? 0 : kAvailable | kUsed));
  }
  std::optional<Used> next_packed() {
    if (!any_used()) return std::nullopt;
    const uint64_t at = descriptors() + uint64_t{16} * used_;
    const Used one{memory_.get<uint16_t>(at + 12), memory_.get<uint32_t>(at + 8)};
    const uint32_t next = used_ + uint32_t{lengths_[one.id]};
    used_wrap_ = next >= size_ ? !used_wrap_ : used_wrap_;
    used_ = static_cast<uint16_t>(next >= size_ ? next - size_ : next);
    return one;
  }

  Memory& memory_;
  const uint64_t base_;
  const uint16_t size_;
  const Shape shape_;
  std::deque<uint16_t> free_;
  std::map<uint16_t, std::vector<uint16_t>> owned_;  // by id
  std::map<uint16_t, uint16_t> lengths_;             // packed: entries by id
  uint16_t available_ = 0, used_ = 0, notified_ = 0, packed_added_ = 0;
  bool available_wrap_ = true, used_wrap_ = true;
  unsigned tables_ = 0;
};

// What is posted waits for run(), in order.
class TestWorker final : public Worker {
 public:
  void post(std::function<void()> work) override {
    posted_.push_back(std::move(work));
    if (at_once) run();
  }
  [[nodiscard]] std::unique_ptr<Watch> watch(int eventfd, std::function<void()> ready) override {
    struct Ends final : Watch {
      explicit Ends(std::map<int, std::function<void()>>& all, int fd) : all_(all), fd_(fd) {}
      ~Ends() override { all_.erase(fd_); }
      Ends(const Ends&) = delete;
      Ends& operator=(const Ends&) = delete;
      std::map<int, std::function<void()>>& all_;
      int fd_;
    };
    watches_[eventfd] = std::move(ready);
    return std::make_unique<Ends>(watches_, eventfd);
  }
  // Until nothing is left to do.
  void run() {
    for (;;) {
      while (!posted_.empty()) {
        const auto work = std::move(posted_.front());
        posted_.pop_front();
        work();
      }
      const auto rung = std::ranges::find_if(watches_, [](const auto& watch) {
        pollfd fd{watch.first, POLLIN, 0};
        return poll(&fd, 1, 0) == 1;
      });
      if (rung == watches_.end()) return;
      eventfd_t count = 0;
      eventfd_read(rung->first, &count);
      const auto ready = rung->second;
      ready();
    }
  }

  bool at_once = false;  // for what waits until it is done

 private:
  std::deque<std::function<void()>> posted_;
  std::map<int, std::function<void()>> watches_;
};

// Counts what the device tells.
struct Port final : DriverPort {
  void queue_interrupt(unsigned queue) override { ++interrupts[queue]; }
  void config_interrupt() override { ++config_changes; }
  void needs_reset() override { ++resets_wanted; }
  std::map<unsigned, unsigned> interrupts;
  unsigned config_changes = 0, resets_wanted = 0;
};

// A device that a driver runs without a transport in between. Rings lie 1 MiB apart from 1 MiB on.
struct Driven {
  Memory memory;
  TestWorker worker;
  Port port;
  std::map<unsigned, std::unique_ptr<Ring>> rings;

  void start(Device& device, uint64_t features, const std::vector<unsigned>& queues, uint16_t size = 16, Shape shape = {}) {
    device.connect(port);
    device.allow_access(true);
    device.start(*memory.guest, features);
    for (const unsigned queue : queues) {
      rings[queue] = std::make_unique<Ring>(memory, (1 + queue) * uint64_t{0x100000}, size, shape);
      device.start_queue(queue, rings[queue]->setup());
    }
  }
  [[nodiscard]] Ring& ring(unsigned queue) { return *rings.at(queue); }
  static void stop(Device& device) {
    bool stopped = false;
    device.stop([&stopped] { stopped = true; });
    EXPECT_TRUE(stopped);
  }
};

template <typename T>
T config_of(const Device& device, uint64_t offset) {
  std::array<uint8_t, sizeof(T)> bytes{};
  device.read_config(offset, bytes);
  T value{};
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

}  // namespace lodge::devices::virtio::test
