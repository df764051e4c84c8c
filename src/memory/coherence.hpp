// The coherence contract: who may write guest memory, and how the engine learns of it (docs/engine.md).
//
// A device that writes guest memory brackets the writes: begin_write() before the first byte may change
// (or before the range is handed to io_uring), commit_write() after the last byte has. The engine
// invalidates translated code of the range and marks its pages in the dirty log no later than the return
// of commit_write(). A range may be in flight for long, and several may overlap.
//
// Threads: any. Neither call blocks on a vCPU that is itself inside a device.
#pragma once

#include <cstdint>

namespace lodge::memory {

class WriteObserver {
 public:
  virtual ~WriteObserver() = default;
  virtual void begin_write(uint64_t guest_physical, uint64_t length) noexcept = 0;
  virtual void commit_write(uint64_t guest_physical, uint64_t length) noexcept = 0;
};

}  // namespace lodge::memory
