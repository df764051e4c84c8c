// A disk as controllers use it: a node of the block layer with what is to happen when the host's storage fails.
//
// It lives as long as the process; controllers come and go with the machines.
// Threads: the worker's, except where said.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/fd.hpp"
#include "block/node.hpp"
#include "devices/worker/io_thread.hpp"

namespace lodge::devices::storage {

// What the guest sees when the host's disk fails.
enum class OnError : uint8_t {
  Report,       // an I/O error
  Stop,         // nothing: the machine stands still until the request can be done
  StopOnSpace,  // that for lack of space, an I/O error otherwise
  Ignore,       // success
};

struct DiskOptions {
  bool read_only = false;
  bool discard = true;  // what the guest gives up is given up in the image
  std::string serial;   // at most 20 bytes are seen
  OnError on_read_error = OnError::Report, on_write_error = OnError::StopOnSpace;
};

class Disk {
 public:
  // How a machine is stopped and goes on for OnError::Stop. Worker's thread.
  struct Machine {
    std::function<void(const std::string& why)> pause;
    std::function<void()> resume;
  };

  // Thread and node must outlive it.
  Disk(std::string name, IoThread& thread, block::Node& node, const DiskOptions& options);

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] IoThread& thread() const { return thread_; }
  [[nodiscard]] const DiskOptions& options() const { return options_; }
  [[nodiscard]] uint64_t sectors() const { return sectors_; }  // of block::kSector bytes
  [[nodiscard]] block::Limits limits() const { return node_.limits(); }
  [[nodiscard]] bool in_range(uint64_t sector, uint64_t bytes) const {
    return sector <= sectors_ && bytes <= (sectors_ - sector) * block::kSector;
  }

  // The machine whose controllers use the disk now. While none of their requests is in flight.
  void set_machine(Machine machine) { machine_ = std::move(machine); }

  // Carries the request out; false: the guest sees an error. The request must stay until then.
  block::Task<bool> perform(block::Request& request);
  // For those who have no coroutines. `done` on the worker's thread. Any thread.
  void submit(block::Request request, std::function<void(bool ok)> done);

  // Requests that wait for the host's storage fail now, as those that come later do, until set_giving_up(false).
  void set_giving_up(bool giving_up);
  // Returns when nothing of its own is left on the thread; with no request in flight.
  block::Task<bool> settle();

 private:
  [[nodiscard]] bool waits_for(const Error& error, bool write) const;
  block::Task<> perform_and_tell(block::Request request, std::function<void(bool ok)> done);
  block::Task<> wait_for_retry();
  block::Task<> tick();
  void report(const Error& error);

  const std::string name_;
  IoThread& thread_;
  block::Node& node_;
  const DiskOptions options_;
  const uint64_t sectors_;
  Machine machine_;
  uint64_t errors_ = 0;
  // Those who wait to try again.
  block::WaitQueue retry_;
  unsigned waiting_ = 0;
  bool giving_up_ = false;
  Fd timer_;
};

}  // namespace lodge::devices::storage
