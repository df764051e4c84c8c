// One instruction in a virtual machine of the engine under test.
//
// The guest is in long mode at CPL 3, in a 64-bit, 32-bit or 16-bit code segment, with Linux's descriptors and page tables
// that map the test pages at the same linear addresses as natively. Each gate of its IDT leads to an OUT whose port tells
// the vector; the exception's frame lies on the guest's supervisor stack.
//
// Used by one thread.
#pragma once

#include <atomic>
#include <memory>
#include <thread>

#include "base/error.hpp"
#include "engine/api/engine.hpp"
#include "memory/guest_memory.hpp"
#include "state.hpp"

namespace lodge::oracle {

class Guest {
 public:
  static Result<std::unique_ptr<Guest>> create(engine::System& system);
  ~Guest();

  // A run that does not end within some seconds gives the vector kHang.
  Result<> run(const Case& test, Outcome& out);

 private:
  Guest() = default;
  Result<> build_memory();
  Result<> build_vcpu(engine::System& system);
  void map(uint64_t linear, uint64_t physical, uint64_t flags);
  uint64_t allocate_page();
  void put(uint64_t physical, uint64_t value);
  void write_memory(const Case& test);
  void read_memory(Outcome& out);
  Result<> load_state(const State& state);
  Result<> read_state(Outcome& out);
  void watch();

  std::unique_ptr<memory::GuestMemory> memory_;
  std::unique_ptr<engine::Vm> vm_;
  std::unique_ptr<engine::Vcpu> vcpu_;
  kvm_sregs sregs_ = {};  // what every case starts from
  uint64_t next_page_ = 0;
  uint64_t cr3_ = 0, gdt_ = 0, ldt_ = 0, idt_ = 0, tss_ = 0, stack_ = 0, handlers_ = 0;
  uint64_t image_ = 0;  // guest-physical address of the test areas
  std::atomic<uint64_t> runs_ = 0;
  std::atomic<bool> running_ = false, stop_ = false;
  std::thread watchdog_;
};

}  // namespace lodge::oracle
