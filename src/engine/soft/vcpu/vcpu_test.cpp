// The engine around the loop: run()'s states, get and set, time, events. The loop itself is a function of each test.
#include "engine/soft/vcpu/vcpu.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cinttypes>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "base/eventfd.hpp"
#include "engine/soft/cpu/mode.hpp"
#include "engine/soft/irqchip/lapic.hpp"
#include "engine/soft/translate/cache.hpp"
#include "engine/soft/vcpu/hooks.hpp"
#include "engine/soft/vcpu/host_faults.hpp"
#include "engine/soft/vcpu/loop.hpp"

namespace lodge::engine::soft {

namespace {

struct Invalidated {
  uint8_t* host;
  uint64_t length;
};
std::vector<Invalidated> invalidated;
std::function<LoopExit(CpuState&)> guest;
std::atomic<int> entered;
bool exits_first;

}  // namespace

// In place of the loop and of the code cache.
LoopExit run_guest(CpuState& c, void*) {
  ++entered;
  if (!exits_first && c.request.fetch_and(~uint32_t{kRequestKick}) & kRequestKick) return LoopExit::Interrupted;
  return guest(c);
}
struct CodeCache {
  CodeIndex index;
};
CodeIndex& code_index(CodeCache* cache) { return cache->index; }
CodeCache* code_cache_create(const CodeCacheOptions&) { return new CodeCache; }
void code_cache_destroy(CodeCache* cache) { delete cache; }
std::unique_lock<std::mutex> code_invalidate_all(CodeCache*, Quiesce&) { return {}; }
void code_cache_attach(CodeCache*, CpuState&) {}
void code_invalidate(CodeCache*, uint8_t* host, uint64_t length) { invalidated.push_back({host, length}); }
const Block* block_at(const CodeIndex&, const uint8_t*) { return nullptr; }
constinit thread_local CpuState* running_guest = nullptr;
void code_written(CpuState&, uint8_t* host, uint32_t length) { invalidated.push_back({host, length}); }

namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kRamSize = 64 * kPage;
constexpr uint64_t kApic = 0xfee00000;
constexpr uint32_t kMsrSystemTime = 0x4b564d01, kMsrTsc = 0x10;

LoopExit exit_with(CpuState& c, uint32_t reason) {
  c.run->exit_reason = reason;
  return LoopExit::Exit;
}

class SoftVcpuTest : public testing::Test {
 protected:
  void SetUp() override {
    invalidated.clear();
    entered = 0;
    exits_first = false;
    guest = [](CpuState& c) { return exit_with(c, KVM_EXIT_IO); };
    ram = static_cast<uint8_t*>(mmap(nullptr, kRamSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  }
  void TearDown() override {
    vcpus.clear();
    vm.reset();
    munmap(ram, kRamSize);
    guest = nullptr;
  }
  void start(const Options& options = {}, bool irqchip = true, uint32_t count = 1, uint32_t flags = 0) {
    vm = create_vm(options).value();
    if (irqchip) {
      ASSERT_TRUE(vm->create_irqchip());
    }
    ASSERT_TRUE(vm->set_user_memory_region({0, flags, 0, kRamSize, reinterpret_cast<uint64_t>(ram)}));
    for (uint32_t id = 0; id < count; ++id) vcpus.push_back(vm->create_vcpu(id).value());
  }
  void start_virtual() { start({.virtual_clock = true, .picoseconds_per_instruction = 1000}); }

  // kvm_run is the first member of the vCPU's memory.
  VcpuMemory& memory(size_t index = 0) { return *reinterpret_cast<VcpuMemory*>(&vcpus[index]->shared()); }
  CpuState& cpu(size_t index = 0) { return memory(index).cpu; }
  void apic_write(size_t index, uint32_t offset, uint32_t value) {
    EXPECT_TRUE(vcpu_hooks.chip_mmio_write(&cpu(index), kApic + offset, 4, value));
  }
  void enable_apic(size_t index = 0) { apic_write(index, 0xf0, 0x1ff); }
  void interrupts_on(size_t index = 0) {
    kvm_regs regs = vcpus[index]->get_regs().value();
    regs.rflags |= eflags::kIf;
    ASSERT_TRUE(vcpus[index]->set_regs(regs));
  }
  void send_msi(uint8_t vector) { ASSERT_TRUE(vm->signal_msi({.address_lo = 0xfee00000, .data = vector})); }
  void wait_until_blocked(size_t index = 0) {
    while (memory(index).context.blocked.load() == 0) std::this_thread::yield();
  }

  uint8_t* ram = nullptr;
  std::unique_ptr<Vm> vm;
  std::vector<std::unique_ptr<Vcpu>> vcpus;
};

// --- run()

TEST_F(SoftVcpuTest, AnExitOfTheLoopIsAnExitOfRun) {
  start();
  EXPECT_EQ(vcpus[0]->run().value(), RunResult::Exit);
  EXPECT_EQ(vcpus[0]->shared().exit_reason, uint32_t{KVM_EXIT_IO});
}

TEST_F(SoftVcpuTest, ATripleFaultIsAShutdown) {
  start();
  guest = [](CpuState&) { return LoopExit::Shutdown; };
  EXPECT_EQ(vcpus[0]->run().value(), RunResult::Exit);
  EXPECT_EQ(vcpus[0]->shared().exit_reason, uint32_t{KVM_EXIT_SHUTDOWN});
}

// Chipsets answer a shutdown by INIT#: whatever was under way when the processor gave up is gone.
TEST_F(SoftVcpuTest, AnInitEndsAShutdown) {
  start();
  uint64_t rip = 0;
  Delivery delivery = Delivery::Nmi;
  guest = [&](CpuState& c) {
    rip = c.rip;
    delivery = c.delivery;
    if (entered > 1) return exit_with(c, KVM_EXIT_IO);
    c.rip = 0x1234;
    c.delivery = Delivery::Exception;
    return LoopExit::Shutdown;
  };
  EXPECT_EQ(vcpus[0]->run().value(), RunResult::Exit);
  EXPECT_EQ(vcpus[0]->shared().exit_reason, uint32_t{KVM_EXIT_SHUTDOWN});
  ASSERT_TRUE(vm->signal_msi({.address_lo = 0xfeeff000, .data = 0x500}));
  EXPECT_EQ(vcpus[0]->run().value(), RunResult::Exit);
  EXPECT_EQ(entered, 2);
  EXPECT_EQ(rip, 0xfff0u);
  EXPECT_EQ(delivery, Delivery::None);
}

TEST_F(SoftVcpuTest, AKickBeforeRunInterruptsItOnce) {
  start();
  vcpus[0]->kick();
  EXPECT_EQ(vcpus[0]->run().value(), RunResult::Interrupted);
  EXPECT_EQ(vcpus[0]->run().value(), RunResult::Exit);
}

TEST_F(SoftVcpuTest, ImmediateExitLastsForItsCallOnly) {
  start();
  vcpus[0]->shared().immediate_exit = 1;
  EXPECT_EQ(vcpus[0]->run().value(), RunResult::Interrupted);
  EXPECT_EQ(vcpus[0]->run().value(), RunResult::Interrupted);
  vcpus[0]->shared().immediate_exit = 0;
  EXPECT_EQ(vcpus[0]->run().value(), RunResult::Exit);
}

TEST_F(SoftVcpuTest, AnExitUnderImmediateExitLeavesOnlyARealKickForTheNextRun) {
  start();
  exits_first = true;  // a split instruction: the loop exits again before it looks at the kick
  vcpus[0]->shared().immediate_exit = 1;
  EXPECT_EQ(vcpus[0]->run().value(), RunResult::Exit);
  EXPECT_EQ(cpu().request.load() & kRequestKick, 0u);
  vcpus[0]->kick();
  EXPECT_EQ(vcpus[0]->run().value(), RunResult::Exit);
  exits_first = false;
  vcpus[0]->shared().immediate_exit = 0;
  EXPECT_EQ(vcpus[0]->run().value(), RunResult::Interrupted);
}

TEST_F(SoftVcpuTest, AHaltedVcpuSleepsUntilItIsKickedAndStaysHalted) {
  start();
  guest = [](CpuState& c) {
    c.halted = true;
    return LoopExit::Halted;
  };
  RunResult result = RunResult::Exit;
  std::thread thread([&] { result = vcpus[0]->run().value(); });
  wait_until_blocked();
  vcpus[0]->kick();
  thread.join();
  EXPECT_EQ(result, RunResult::Interrupted);
  EXPECT_EQ(entered, 1);
  EXPECT_EQ(vcpus[0]->get_mp_state()->mp_state, uint32_t{KVM_MP_STATE_HALTED});
}

TEST_F(SoftVcpuTest, AnInterruptWakesAHaltedVcpuOnlyWithInterruptsEnabled) {
  start();
  enable_apic();
  ASSERT_TRUE(vcpus[0]->set_mp_state({KVM_MP_STATE_HALTED}));
  send_msi(0x41);
  vcpus[0]->kick();
  EXPECT_EQ(vcpus[0]->run().value(), RunResult::Interrupted);
  EXPECT_EQ(entered, 0) << "IF is clear";

  interrupts_on();
  int32_t vector = -1;
  guest = [&](CpuState& c) {
    EXPECT_TRUE(c.hooks->pending_events(&c) & kEventInterrupt);
    vector = c.hooks->acknowledge_interrupt(&c);
    return exit_with(c, KVM_EXIT_IO);
  };
  EXPECT_EQ(vcpus[0]->run().value(), RunResult::Exit);
  EXPECT_EQ(vector, 0x41);
  EXPECT_EQ(vcpus[0]->get_mp_state()->mp_state, uint32_t{KVM_MP_STATE_RUNNABLE});
}

TEST_F(SoftVcpuTest, AnNmiWakesAHaltedVcpu) {
  start();
  guest = [](CpuState& c) {
    if (entered == 1) {
      c.halted = true;
      return LoopExit::Halted;
    }
    EXPECT_TRUE(c.hooks->take_nmi(&c));
    EXPECT_FALSE(c.hooks->take_nmi(&c));
    return exit_with(c, KVM_EXIT_IO);
  };
  std::thread thread([&] { EXPECT_EQ(vcpus[0]->run().value(), RunResult::Exit); });
  wait_until_blocked();
  ASSERT_TRUE(vcpus[0]->nmi());
  thread.join();
  EXPECT_EQ(entered, 2);
}

TEST_F(SoftVcpuTest, HltLeavesRunWithoutAnInterruptController) {
  start({}, false);
  guest = [](CpuState& c) {
    c.halted = true;
    return LoopExit::Halted;
  };
  EXPECT_EQ(vcpus[0]->run().value(), RunResult::Exit);
  EXPECT_EQ(vcpus[0]->shared().exit_reason, uint32_t{KVM_EXIT_HLT});
  EXPECT_FALSE(vcpus[0]->get_lapic());
}

TEST_F(SoftVcpuTest, AnApplicationProcessorStartsAtItsSipi) {
  start({}, true, 2);
  EXPECT_EQ(vcpus[1]->get_mp_state()->mp_state, uint32_t{KVM_MP_STATE_UNINITIALIZED});
  uint64_t base = 0, rip = 1;
  guest = [&](CpuState& c) {
    base = c.seg[kCs].base;
    rip = c.rip;
    return exit_with(c, KVM_EXIT_IO);
  };
  std::thread thread([&] { EXPECT_EQ(vcpus[1]->run().value(), RunResult::Exit); });
  wait_until_blocked(1);
  EXPECT_EQ(entered, 0);
  apic_write(0, 0x310, 1u << 24);
  apic_write(0, 0x300, 0x4500);  // INIT
  apic_write(0, 0x300, 0x4608);  // SIPI to 0x8000
  thread.join();
  EXPECT_EQ(base, 0x8000u);
  EXPECT_EQ(rip, 0u);
  EXPECT_EQ(cpu(1).seg[kCs].selector, 0x800);
  EXPECT_EQ(vcpus[1]->get_mp_state()->mp_state, uint32_t{KVM_MP_STATE_RUNNABLE});
}

TEST_F(SoftVcpuTest, InitStopsAnApplicationProcessorAndKeepsItsVectorState) {
  start({}, true, 2);
  ASSERT_TRUE(vcpus[1]->set_mp_state({KVM_MP_STATE_RUNNABLE}));
  kvm_regs regs = {};
  regs.rip = 0x1234;
  ASSERT_TRUE(vcpus[1]->set_regs(regs));
  Xsave xsave = vcpus[1]->get_xsave().value();
  xsave.region[40] = 0xabcd;  // XMM0
  ASSERT_TRUE(vcpus[1]->set_xsave(xsave));
  apic_write(0, 0x310, 1u << 24);
  apic_write(0, 0x300, 0x4500);
  vcpus[1]->kick();
  EXPECT_EQ(vcpus[1]->run().value(), RunResult::Interrupted);
  EXPECT_EQ(entered, 0);
  EXPECT_EQ(vcpus[1]->get_mp_state()->mp_state, uint32_t{KVM_MP_STATE_INIT_RECEIVED});
  EXPECT_EQ(vcpus[1]->get_regs()->rip, 0xfff0u);
  EXPECT_EQ(vcpus[1]->get_xsave()->region[40], 0xabcdu);
}

TEST_F(SoftVcpuTest, OnlySingleStepsAreOfferedForDebugging) {
  start();
  ASSERT_TRUE(vcpus[0]->set_guest_debug({.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP}));
  EXPECT_TRUE(cpu().guest_debug_step);
  ASSERT_TRUE(vcpus[0]->set_guest_debug({}));
  EXPECT_FALSE(cpu().guest_debug_step);
  EXPECT_FALSE(vcpus[0]->set_guest_debug({.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP}));
}

// --- get and set

TEST_F(SoftVcpuTest, RegistersRoundTrip) {
  start();
  kvm_regs regs = {};
  for (size_t i = 0; i < 17; ++i) (&regs.rax)[i] = 0x1111111111111111 * (i % 15 + 1) + i;
  regs.rflags = eflags::kCf | eflags::kOf | eflags::kZf | eflags::kIf | eflags::kDf | eflags::kId | 2;
  ASSERT_TRUE(vcpus[0]->set_regs(regs));
  const kvm_regs back = vcpus[0]->get_regs().value();
  EXPECT_EQ(std::memcmp(&regs, &back, sizeof regs), 0);
  EXPECT_EQ(cpu().gpr[kRsp], regs.rsp);
  EXPECT_EQ(cpu().gpr[kRbx], regs.rbx);
}

kvm_sregs long_mode_sregs(kvm_sregs sregs) {
  sregs.cs = {.limit = 0xffffffff, .selector = 0x33, .type = 11, .present = 1, .dpl = 3, .s = 1, .l = 1, .g = 1};
  sregs.ss = {.limit = 0xffffffff, .selector = 0x2b, .type = 3, .present = 1, .dpl = 3, .db = 1, .s = 1, .g = 1};
  sregs.ds = sregs.es = {.unusable = 1};
  sregs.fs = {.base = 0x7f0000001000, .limit = 0xffffffff, .type = 3, .present = 1, .dpl = 3, .db = 1, .s = 1, .g = 1};
  sregs.tr = {.base = 0xfffffe0000003000, .limit = 0x206f, .selector = 0x40, .type = 11, .present = 1};
  sregs.gdt = {.base = 0xfffffe0000001000, .limit = 0x7f};
  sregs.idt = {.base = 0xfffffe0000000000, .limit = 0xfff};
  sregs.cr0 = 0x80050033;
  sregs.cr2 = 0xdead000;
  sregs.cr3 = 0x3000;
  sregs.cr4 = 0x3506f0 & ~0x2000ull;
  sregs.cr8 = 3;
  sregs.efer = 0xd01;
  return sregs;
}

TEST_F(SoftVcpuTest, SystemRegistersRoundTrip) {
  start();
  const kvm_sregs sregs = long_mode_sregs(vcpus[0]->get_sregs().value());
  const auto set = vcpus[0]->set_sregs(sregs);
  ASSERT_TRUE(set) << set.error().message;
  const kvm_sregs back = vcpus[0]->get_sregs().value();
  EXPECT_EQ(std::memcmp(&sregs, &back, sizeof sregs), 0);
  EXPECT_EQ(cpu().cpl, 3) << "from SS.DPL";
  EXPECT_TRUE(cpu().key & key::kCode64);
  EXPECT_TRUE(cpu().key & key::kUser);
}

TEST_F(SoftVcpuTest, ControlRegistersThatDoNotGoTogetherAreRefused) {
  start();
  const kvm_sregs good = long_mode_sregs(vcpus[0]->get_sregs().value());
  const std::function<void(kvm_sregs&)> mistakes[] = {
      [](kvm_sregs& s) { s.cr0 &= ~cr0::kPe; },            // paging without protection
      [](kvm_sregs& s) { s.cr0 |= cr0::kNw; },             // NW without CD
      [](kvm_sregs& s) { s.cr0 |= uint64_t{1} << 32; },    // reserved
      [](kvm_sregs& s) { s.cr4 &= ~cr4::kPae; },           // long mode without PAE
      [](kvm_sregs& s) { s.cr4 |= uint64_t{1} << 40; },    // reserved
      [](kvm_sregs& s) { s.efer &= ~efer::kLma; },         // LME and paging without LMA
      [](kvm_sregs& s) { s.efer &= ~efer::kLme; },         // LMA without LME
      [](kvm_sregs& s) { s.cr0 &= ~uint64_t{cr0::kPg}; },  // LMA without paging
      [](kvm_sregs& s) { s.efer |= uint64_t{1} << 1; },    // reserved
      [](kvm_sregs& s) { s.cr3 |= uint64_t{1} << 60; },    // beyond the physical addresses
      [](kvm_sregs& s) { s.cs.db = 1; },                   // CS.L and CS.D
  };
  for (size_t i = 0; i < std::size(mistakes); ++i) {
    kvm_sregs bad = good;
    mistakes[i](bad);
    const auto result = vcpus[0]->set_sregs(bad);
    ASSERT_FALSE(result) << i;
    EXPECT_EQ(result.error().os_errno, EINVAL) << i;
  }
  EXPECT_TRUE(vcpus[0]->set_sregs(good));
}

TEST_F(SoftVcpuTest, VectorStateStartsInitialAndRoundTrips) {
  start();
  Xsave xsave = vcpus[0]->get_xsave().value();
  EXPECT_EQ(xsave.region[0] & 0xffff, 0x37fu);
  EXPECT_EQ(xsave.region[6], 0x1f80u);
  auto* bytes = reinterpret_cast<uint8_t*>(xsave.region);
  for (uint32_t i = 160; i < 416; ++i) bytes[i] = static_cast<uint8_t>(i);
  for (uint32_t i = 576; i < 832; ++i) bytes[i] = static_cast<uint8_t>(i * 3);
  const uint64_t fip = 0x123456789abc;
  std::memcpy(bytes + 8, &fip, 8);
  ASSERT_TRUE(vcpus[0]->set_xsave(xsave));
  EXPECT_EQ(cpu().x87_ip, fip);
  const Xsave back = vcpus[0]->get_xsave().value();
  EXPECT_EQ(std::memcmp(&xsave, &back, sizeof xsave), 0);
}

TEST_F(SoftVcpuTest, ComponentsOutsideXstateBvAreInitial) {
  start();
  Xsave xsave = vcpus[0]->get_xsave().value();
  for (uint32_t i = 40; i < 104; ++i) xsave.region[i] = 0xffffffff;
  xsave.region[128] = 1;  // XSTATE_BV: x87 only
  ASSERT_TRUE(vcpus[0]->set_xsave(xsave));
  EXPECT_EQ(vcpus[0]->get_xsave()->region[40], 0u);
}

TEST_F(SoftVcpuTest, BadVectorStateIsRefused) {
  start();
  const Xsave good = vcpus[0]->get_xsave().value();
  Xsave bad = good;
  bad.region[128] |= 0x20;  // AVX-512
  EXPECT_FALSE(vcpus[0]->set_xsave(bad));
  bad = good;
  bad.region[131] = 0x80000000;  // XCOMP_BV: the compacted format
  EXPECT_FALSE(vcpus[0]->set_xsave(bad));
  bad = good;
  bad.region[6] = 0x10000;  // MXCSR
  EXPECT_FALSE(vcpus[0]->set_xsave(bad));
}

TEST_F(SoftVcpuTest, Xcr0RoundTripsAndIsChecked) {
  start();
  kvm_xcrs xcrs = {.nr_xcrs = 1};
  for (const uint64_t value : {1, 3, 7}) {
    xcrs.xcrs[0].value = value;
    EXPECT_TRUE(vcpus[0]->set_xcrs(xcrs));
    EXPECT_EQ(vcpus[0]->get_xcrs()->xcrs[0].value, value);
  }
  for (const uint64_t value : {0, 2, 5, 0xe7}) {
    xcrs.xcrs[0].value = value;
    EXPECT_FALSE(vcpus[0]->set_xcrs(xcrs)) << value;
  }
}

TEST_F(SoftVcpuTest, EventsRoundTrip) {
  start();
  kvm_vcpu_events events = {};
  events.exception = {.injected = 1, .nr = kPf, .has_error_code = 1, .error_code = 6};
  events.interrupt = {.injected = 1, .nr = 0x31, .shadow = KVM_X86_SHADOW_INT_STI};
  events.nmi = {.pending = 2, .masked = 1};
  events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
  ASSERT_TRUE(vcpus[0]->set_vcpu_events(events));
  const kvm_vcpu_events back = vcpus[0]->get_vcpu_events().value();
  EXPECT_EQ(std::memcmp(&events, &back, sizeof events), 0);
  EXPECT_EQ(cpu().shadow, kShadowSti);
  EXPECT_EQ(vcpu_hooks.acknowledge_interrupt(&cpu()), 0x31) << "an injected interrupt is delivered as it is";
  events.exception.nr = 32;
  EXPECT_FALSE(vcpus[0]->set_vcpu_events(events));
}

TEST_F(SoftVcpuTest, DebugRegistersRoundTrip) {
  start();
  kvm_debugregs regs = {.db = {1, 2, 3, 0xffff800000000000}, .dr6 = 0xffff4ff1, .dr7 = 0x401};
  ASSERT_TRUE(vcpus[0]->set_debugregs(regs));
  const kvm_debugregs back = vcpus[0]->get_debugregs().value();
  EXPECT_EQ(std::memcmp(&regs, &back, sizeof regs), 0);
  EXPECT_TRUE(cpu().key & key::kSingleStep) << "a breakpoint is armed";
  regs.dr7 = uint64_t{1} << 32;
  EXPECT_FALSE(vcpus[0]->set_debugregs(regs));
}

TEST_F(SoftVcpuTest, MpStatesRoundTrip) {
  start({}, true, 2);
  for (const uint32_t state : {KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_UNINITIALIZED}) {
    ASSERT_TRUE(vcpus[1]->set_mp_state({state}));
    EXPECT_EQ(vcpus[1]->get_mp_state()->mp_state, state);
  }
  EXPECT_FALSE(vcpus[1]->set_mp_state({KVM_MP_STATE_STOPPED}));
}

TEST_F(SoftVcpuTest, MsrsAnswerTheCountThatWorked) {
  start();
  kvm_msr_entry entries[] = {{.index = 0xc0000082, .data = 0xffffffff81000000}, {.index = 0x12345678}, {.index = 0xc0000081}};
  EXPECT_EQ(vcpus[0]->set_msrs(entries).value(), 1u);
  entries[0].data = 0;
  EXPECT_EQ(vcpus[0]->get_msrs(entries).value(), 1u);
  EXPECT_EQ(entries[0].data, 0xffffffff81000000u);
}

// --- memory

TEST_F(SoftVcpuTest, CommittedWritesAreInTheDirtyLogOnce) {
  start({}, true, 1, KVM_MEM_LOG_DIRTY_PAGES);
  vm->commit_write(3 * kPage - 1, 2);
  vm->commit_write(kRamSize - 1, 100 * kPage);  // reaches beyond the slot
  EXPECT_EQ(vm->get_dirty_log(0).value(), std::vector<uint64_t>{0xc | uint64_t{1} << 63});
  EXPECT_EQ(vm->get_dirty_log(0).value(), std::vector<uint64_t>{0});
  EXPECT_TRUE(invalidated.empty());
}

TEST_F(SoftVcpuTest, CommittedWritesToCodeDropItsTranslations) {
  start();
  memory().context.vm->map.find(0)->page_flags[2].store(kPageCode);
  vm->commit_write(0, 2 * kPage);
  EXPECT_TRUE(invalidated.empty());
  vm->commit_write(2 * kPage + 16, 8);
  ASSERT_EQ(invalidated.size(), 1u);
  EXPECT_EQ(invalidated[0].host, ram + 2 * kPage + 16);
  EXPECT_EQ(invalidated[0].length, 8u);
}

// --- time

// What a guest computes from its page (Documentation/virt/kvm/x86/msr.rst).
uint64_t guest_system_time(const uint8_t* page, uint64_t tsc) {
  uint64_t timestamp = 0, time = 0;
  uint32_t mul = 0;
  std::memcpy(&timestamp, page + 8, 8);
  std::memcpy(&time, page + 16, 8);
  std::memcpy(&mul, page + 24, 4);
  return time + clock_to_ns({mul, static_cast<int8_t>(page[28])}, tsc - timestamp);
}

TEST_F(SoftVcpuTest, TheParavirtualClockPageTellsTheVmsTime) {
  start_virtual();
  cpu().instructions = 5000;
  ASSERT_TRUE(vcpu_hooks.write_kvm_msr(&cpu(), kMsrSystemTime, 0x2000 | 1));
  const uint8_t* page = ram + 0x2000;
  EXPECT_EQ(page[0] & 1, 0) << "version";
  EXPECT_NE(page[0], 0);
  EXPECT_EQ(page[29], 1) << "PVCLOCK_TSC_STABLE_BIT";
  cpu().instructions = 12345;
  EXPECT_EQ(guest_system_time(page, vcpu_hooks.guest_tsc(&cpu())), vm->get_clock()->clock);
  EXPECT_EQ(vm->get_clock()->clock, 12345u);

  const uint8_t version = page[0];
  ASSERT_TRUE(vm->set_clock({.clock = 1'000'000}));
  ASSERT_TRUE(vcpus[0]->run());
  EXPECT_EQ(page[0], version + 2);
  EXPECT_EQ(guest_system_time(page, vcpu_hooks.guest_tsc(&cpu())), 1'000'000u);
}

TEST_F(SoftVcpuTest, SettingTheTscKeepsTheParavirtualClock) {
  start_virtual();
  ASSERT_TRUE(vcpu_hooks.write_kvm_msr(&cpu(), kMsrSystemTime, 0x2000 | 1));
  cpu().instructions = 700;
  vcpu_hooks.set_guest_tsc(&cpu(), 5);
  cpu().instructions = 1700;
  EXPECT_EQ(vcpu_hooks.guest_tsc(&cpu()), 1005u);
  EXPECT_EQ(guest_system_time(ram + 0x2000, 1005), 1700u);
}

TEST_F(SoftVcpuTest, RestoredTscsOfOneVmAreOneTsc) {
  start({}, true, 2);
  const kvm_msr_entry first = {.index = kMsrTsc, .data = uint64_t{1} << 50};
  const kvm_msr_entry second = {.index = kMsrTsc, .data = (uint64_t{1} << 50) + 100000};
  ASSERT_EQ(vcpus[0]->set_msrs({&first, 1}).value(), 1u);
  EXPECT_FALSE(vm->get_clock()->flags & KVM_CLOCK_TSC_STABLE);
  ASSERT_EQ(vcpus[1]->set_msrs({&second, 1}).value(), 1u);
  EXPECT_EQ(memory(0).context.tsc_offset.load(), memory(1).context.tsc_offset.load());
  EXPECT_TRUE(vm->get_clock()->flags & KVM_CLOCK_TSC_STABLE);
}

TEST_F(SoftVcpuTest, AVirtualHaltEndsAtTheTimersDeadlineExactly) {
  start_virtual();
  enable_apic();
  interrupts_on();
  cpu().instructions = 1000;
  apic_write(0, 0x3e0, 0xb);      // divide by 1
  apic_write(0, 0x320, 0x50);     // one shot, vector 0x50
  apic_write(0, 0x380, 250'000);  // ns at a bus clock of 1 GHz
  EXPECT_EQ(cpu().budget, 250'000);
  int32_t vector = -1;
  guest = [&](CpuState& c) {
    if (entered == 1) {
      c.halted = true;
      return LoopExit::Halted;
    }
    vector = c.hooks->acknowledge_interrupt(&c);
    return exit_with(c, KVM_EXIT_IO);
  };
  EXPECT_EQ(vcpus[0]->run().value(), RunResult::Exit);
  EXPECT_EQ(vector, 0x50);
  EXPECT_EQ(clock_now(memory().context.vm->clock), 251'000u);
}

TEST_F(SoftVcpuTest, AVirtualTimerFiresWhenTheBudgetIsUsedUp) {
  start_virtual();
  enable_apic();
  apic_write(0, 0x3e0, 0xb);
  apic_write(0, 0x320, 0x50);
  apic_write(0, 0x380, 1000);
  cpu().instructions = 999;
  vcpu_hooks.virtual_time(&cpu());
  EXPECT_FALSE(vcpu_hooks.pending_events(&cpu()) & kEventInterrupt);
  EXPECT_EQ(cpu().budget, 1);
  cpu().instructions = 1000;
  vcpu_hooks.virtual_time(&cpu());
  EXPECT_TRUE(vcpu_hooks.pending_events(&cpu()) & kEventInterrupt);
}

TEST_F(SoftVcpuTest, ARealTimerWakesAHaltedVcpu) {
  start();
  enable_apic();
  interrupts_on();
  apic_write(0, 0x3e0, 0xb);
  apic_write(0, 0x320, 0x50);
  apic_write(0, 0x380, 100'000);
  ASSERT_TRUE(vcpus[0]->set_mp_state({KVM_MP_STATE_HALTED}));
  int32_t vector = -1;
  guest = [&](CpuState& c) {
    vector = c.hooks->acknowledge_interrupt(&c);
    return exit_with(c, KVM_EXIT_IO);
  };
  EXPECT_EQ(vcpus[0]->run().value(), RunResult::Exit);
  EXPECT_EQ(vector, 0x50);
}

TEST_F(SoftVcpuTest, TheTimerThreadTellsARunningVcpu) {
  start();
  enable_apic();
  apic_write(0, 0x3e0, 0xb);
  apic_write(0, 0x320, 0x50);
  cpu().request.store(0);
  apic_write(0, 0x380, 100'000);
  while (!(cpu().request.load() & kRequestEvent)) std::this_thread::yield();
  EXPECT_TRUE(vcpu_hooks.pending_events(&cpu()) & kEventInterrupt);
}

// --- events

TEST_F(SoftVcpuTest, DoorbellsRingForMatchingWritesOnly) {
  start();
  auto any = vm->create_doorbell({.address = 0xd0000000}).value();
  auto matched =
      vm->create_doorbell({.address = 0xc000, .length = 2, .datamatch = 7, .flags = KVM_IOEVENTFD_FLAG_DATAMATCH | KVM_IOEVENTFD_FLAG_PIO})
          .value();
  EXPECT_FALSE(vm->create_doorbell({.address = 0xd0000000, .length = 4})) << "the first takes all lengths";
  EXPECT_TRUE(vcpu_hooks.chip_mmio_write(&cpu(), 0xd0000000, 4, 1));
  EXPECT_TRUE(vcpu_hooks.chip_mmio_write(&cpu(), 0xd0000000, 2, 9));
  EXPECT_FALSE(vcpu_hooks.chip_mmio_write(&cpu(), 0xd0000004, 4, 1));
  EXPECT_TRUE(vcpu_hooks.chip_port_write(&cpu(), 0xc000, 2, 7));
  EXPECT_FALSE(vcpu_hooks.chip_port_write(&cpu(), 0xc000, 2, 8));
  EXPECT_FALSE(vcpu_hooks.chip_port_write(&cpu(), 0xc000, 4, 7));
  eventfd_t count = 0;
  ASSERT_EQ(eventfd_read(any->fd(), &count), 0);
  EXPECT_EQ(count, 2u);
  ASSERT_EQ(eventfd_read(matched->fd(), &count), 0);
  EXPECT_EQ(count, 1u);
  any.reset();
  EXPECT_FALSE(vcpu_hooks.chip_mmio_write(&cpu(), 0xd0000000, 4, 1));
}

TEST_F(SoftVcpuTest, DoorbellsCountIntoAnEventfdOfTheCallers) {
  start();
  const Fd event = new_eventfd().value();
  auto first = vm->create_doorbell({.address = 0xd0000000, .eventfd = event.get()}).value();
  const auto second = vm->create_doorbell({.address = 0xd0000004, .eventfd = event.get()}).value();
  EXPECT_TRUE(vcpu_hooks.chip_mmio_write(&cpu(), 0xd0000000, 2, 1));
  EXPECT_TRUE(vcpu_hooks.chip_mmio_write(&cpu(), 0xd0000004, 2, 1));
  first.reset();
  EXPECT_FALSE(vcpu_hooks.chip_mmio_write(&cpu(), 0xd0000000, 2, 1));
  EXPECT_TRUE(vcpu_hooks.chip_mmio_write(&cpu(), 0xd0000004, 2, 1)) << "the other one of the same eventfd stays";
  eventfd_t count = 0;
  ASSERT_EQ(eventfd_read(event.get(), &count), 0);
  EXPECT_EQ(count, 3u);
}

TEST_F(SoftVcpuTest, AnInterruptEventSendsItsMessageDirectlyAndByDescriptor) {
  start();
  enable_apic();
  kvm_irq_routing_entry route = {.gsi = 24, .type = KVM_IRQ_ROUTING_MSI};
  route.u.msi = {.address_lo = 0xfee00000, .data = 0x61};
  ASSERT_TRUE(vm->set_gsi_routing({&route, 1}));
  auto event = vm->create_interrupt(24).value();
  event->signal();
  EXPECT_EQ(vcpu_hooks.acknowledge_interrupt(&cpu()), 0x61);
  apic_write(0, 0xb0, 0);
  ASSERT_GE(event->fd(), 0);
  eventfd_write(event->fd(), 1);
  while (!(vcpu_hooks.pending_events(&cpu()) & kEventInterrupt)) std::this_thread::yield();
  EXPECT_EQ(vcpu_hooks.acknowledge_interrupt(&cpu()), 0x61);
}

TEST_F(SoftVcpuTest, IdsAreUniqueAndTheChipComesBeforeTheVcpus) {
  start({}, true, 1);
  EXPECT_EQ(vm->create_vcpu(0).error().os_errno, EEXIST);
  EXPECT_EQ(vm->create_vcpu(256).error().os_errno, EINVAL);
  EXPECT_EQ(vm->create_irqchip().error().os_errno, EEXIST);
}

TEST_F(SoftVcpuTest, AVcpuOutlivesItsVm) {
  start();
  vm.reset();
  EXPECT_EQ(vcpus[0]->run().value(), RunResult::Exit);
}

// --- CPUID

TEST_F(SoftVcpuTest, CpuidFollowsTheProcessorsState) {
  start();
  const kvm_cpuid_entry2 entries[] = {
      {.function = 0, .eax = 0xd, .ebx = 0x68747541, .ecx = 0x444d4163, .edx = 0x69746e65},
      {.function = 1, .ecx = 1u << 26, .edx = 1u << 9},
      {.function = 0xd, .index = 0, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX, .eax = 7, .ebx = 0, .ecx = 832},
      {.function = 0xd, .index = 2, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX, .eax = 256, .ebx = 576},
  };
  ASSERT_TRUE(vcpus[0]->set_cpuid2(entries));
  uint32_t r[4] = {};
  vcpu_hooks.cpuid(&cpu(), 1, 0, r);
  EXPECT_EQ(r[2], 1u << 26);
  EXPECT_EQ(r[3], 1u << 9);
  cpu().cr4 |= cr4::kOsxsave;
  vcpu_hooks.cpuid(&cpu(), 1, 5, r);
  EXPECT_EQ(r[2], 1u << 26 | 1u << 27);
  cpu().xcr0 = 3;
  vcpu_hooks.cpuid(&cpu(), 0xd, 0, r);
  EXPECT_EQ(r[1], 576u);
  cpu().xcr0 = 7;
  vcpu_hooks.cpuid(&cpu(), 0xd, 0, r);
  EXPECT_EQ(r[1], 832u);
  vcpu_hooks.cpuid(&cpu(), 0xd, 2, r);
  EXPECT_EQ(r[1], 576u) << "the offset of AVX";
  vcpu_hooks.cpuid(&cpu(), 0xd, 3, r);
  EXPECT_EQ(r[0], 0u);
  vcpu_hooks.cpuid(&cpu(), 0x1f, 0, r);
  EXPECT_EQ(r[0] | r[1] | r[2] | r[3], 0u) << "AMD: zeros beyond the last leaf";
}

// A thread may run one profiled VM after another; each profile ends with its VM, and ticks that are still on their way find
// what they write to.
TEST_F(SoftVcpuTest, OneThreadRunsTwoProfiledMachinesOneAfterTheOther) {
  const auto burn = [] {
    const auto now = [] {
      timespec t;
      clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
      return t.tv_sec * 1'000'000'000 + t.tv_nsec;
    };
    // Fifty times what a sample takes: a busy host counts processor time in lumps.
    for (const int64_t end = now() + 200'000'000; now() < end;) {
    }
  };
  guest = [&](CpuState& c) {
    burn();
    return exit_with(c, KVM_EXIT_IO);
  };
  for (const char* const name : {"first.profile", "second.profile"}) {
    const std::string file = testing::TempDir() + name;
    start({.profile = file});
    ASSERT_EQ(vcpus[0]->run().value(), RunResult::Exit);
    vcpus.clear();
    vm.reset();
    burn();
    std::ifstream in(file);
    const std::string text((std::istreambuf_iterator<char>(in)), {});
    uint64_t samples = 0;
    ASSERT_EQ(sscanf(text.c_str(), "CPU time of the vCPUs' threads, %" SCNu64 " samples", &samples), 1) << text;
    EXPECT_GT(samples, 0U);
    std::filesystem::remove(file);
  }
}

}  // namespace
}  // namespace lodge::engine::soft
