// A controller's requests that are with a disk: what comes of them under the controller's mutex, or nothing if a reset came first.
//
// Data that does not go to the guest's memory at once has a buffer here. A request that is under way holds the one that it was given: when
// it counts no more, there is another one for what follows.
//
// Threads: everything under the mutex, but where said; the disk's thread takes it itself.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/mutex.hpp"
#include "devices/storage/disk.hpp"

namespace lodge::devices::storage {

class Requests {
 public:
  [[nodiscard]] std::vector<uint8_t>& buffer() { return *buffer_; }

  // The disk carries it out, and `then` follows under `mutex`, unless abandon() came first.
  void submit(Mutex& mutex, Disk& disk, block::Request request, std::function<void(bool ok)> then);
  // What is under way counts no more.
  void abandon();
  // Nothing is under way.
  [[nodiscard]] bool idle() const { return in_flight_ == 0; }
  // Without the mutex, and not on a disk's thread.
  void wait_until_idle(Mutex& mutex);

 private:
  std::shared_ptr<std::vector<uint8_t>> buffer_ = std::make_shared<std::vector<uint8_t>>();
  uint64_t generation_ = 0;
  unsigned in_flight_ = 0;
  std::condition_variable idle_;
};

}  // namespace lodge::devices::storage
