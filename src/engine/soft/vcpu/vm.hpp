// A VM of the software engine.
//
// Locks, in their order: slots_mutex_ (memory slots; shared for commits of devices), then the exclusive section (quiesce.hpp).
// vcpus_mutex_, events_mutex_ and edge_mutex_ stand alone, but for doorbells: events_mutex_, then the exclusive section. None is taken in
// guest mode.
#pragma once

#include <memory>
#include <mutex>
#include <shared_mutex>
#include <thread>
#include <vector>

#include "base/fd.hpp"
#include "engine/soft/soft.hpp"
#include "engine/soft/vcpu/context.hpp"
#include "engine/soft/vcpu/event_thread.hpp"
#include "engine/soft/vcpu/jitdump.hpp"
#include "engine/soft/vcpu/memory_slots.hpp"
#include "engine/soft/vcpu/profile.hpp"
#include "engine/soft/vcpu/vcpu_memory.hpp"

namespace lodge::engine::soft {

// What the Vm, its Vcpus and its events hold together; ends with the last of them.
class VmCore {
 public:
  [[nodiscard]] static Result<std::shared_ptr<VmCore>> create(const Options& options);
  ~VmCore();
  VmCore(const VmCore&) = delete;
  VmCore& operator=(const VmCore&) = delete;

  [[nodiscard]] VmContext& context() { return *context_; }
  [[nodiscard]] bool virtual_clock() const { return context_->clock.picoseconds != 0; }

  [[nodiscard]] Result<> set_user_memory_region(const kvm_userspace_memory_region& region);
  [[nodiscard]] Result<std::vector<uint64_t>> get_dirty_log(uint32_t slot);
  void commit_write(uint64_t gpa, uint64_t length) noexcept;

  [[nodiscard]] Result<> create_irqchip();
  [[nodiscard]] Result<> create_pit2(const kvm_pit_config& config);
  // The memory of a new vCPU, entered everywhere. EEXIST for an id in use, EINVAL for one too large.
  [[nodiscard]] Result<VcpuMemory*> add_vcpu(uint32_t id);
  // KVM_SET_CLOCK for all vCPUs' pages.
  void set_kvmclock(uint64_t nanoseconds);

  [[nodiscard]] Profile* profile() { return profile_.get(); }

  void raise_edge(uint32_t gsi);
  [[nodiscard]] Result<> watch_interrupt(int fd, uint32_t gsi);
  void unwatch_interrupt(int fd);
  [[nodiscard]] Result<> add_doorbell(const DoorbellEntry& entry);
  void remove_doorbell(int fd);

 private:
  VmCore() = default;
  void start_timer_thread();
  void run_timers();

  std::unique_ptr<VmContext> context_;
  Fd trace_;
  std::unique_ptr<JitDump> jitdump_;
  std::unique_ptr<Profile> profile_;
  std::shared_mutex slots_mutex_;
  std::unique_ptr<MemorySlots> slots_;
  std::mutex vcpus_mutex_;
  std::vector<VcpuMemoryPtr> vcpus_;
  std::unique_ptr<IrqChip> chip_;
  std::mutex events_mutex_;
  std::unique_ptr<EventThread> events_;
  std::mutex edge_mutex_;
  std::thread timer_thread_;
};

[[nodiscard]] Result<std::unique_ptr<Vm>> create_vm(const Options& options);

}  // namespace lodge::engine::soft
