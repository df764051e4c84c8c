#include "engine/soft/vcpu/quiesce.hpp"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <thread>
#include <vector>

#include "engine/soft/mmu/mmu.hpp"
#include "engine/soft/vcpu/context.hpp"

namespace lodge::engine::soft {

// Counts in place of emptying TLBs that these vCPUs have not.
void mmu_flush_data(CpuState& c) { ++c.instructions; }
void mmu_flush_all(CpuState& c) { c.instructions += 1000; }

namespace {

constexpr int kRounds = 500;

class QuiesceTest : public testing::Test {
 protected:
  struct Processor {
    CpuState cpu = {};
    VcpuContext context = {};
  };

  QuiesceTest() {
    for (auto& p : processors) {
      p = std::make_unique<Processor>();
      p->cpu.vcpu = &p->context;
      p->context.cpu = &p->cpu;
      p->context.vm = vm.get();
      p->context.participant = quiesce_add(vm->quiesce, &p->cpu);
    }
  }
  CpuState* cpu(size_t index) { return &processors[index]->cpu; }
  static void wait_for_request(CpuState* cpu, uint32_t bit) {
    while (!(cpu->request.load() & bit)) std::this_thread::yield();
  }

  std::unique_ptr<VmContext> vm = std::make_unique<VmContext>();
  std::array<std::unique_ptr<Processor>, 3> processors;
};

TEST_F(QuiesceTest, AVcpuOutsideCountsAsFlushedAndFlushesOnItsWayIn) {
  request_flush_and_wait(vm->quiesce, nullptr);
  EXPECT_EQ(cpu(0)->instructions, 0u);
  quiesce_enter_guest(cpu(0));
  EXPECT_EQ(cpu(0)->instructions, 1u);
  EXPECT_EQ(cpu(0)->request.load() & kRequestFlush, 0u);
  quiesce_leave_guest(cpu(0));
  quiesce_enter_guest(cpu(0));
  EXPECT_EQ(cpu(0)->instructions, 1u) << "once a request";
  quiesce_leave_guest(cpu(0));
}

TEST_F(QuiesceTest, NewMemorySlotsMakeVcpusForgetCodeToo) {
  {
    const Exclusive exclusive(vm->quiesce);
    request_forget(vm->quiesce);
  }
  quiesce_enter_guest(cpu(0));
  EXPECT_EQ(cpu(0)->instructions, 1000u);
  EXPECT_EQ(cpu(0)->request.load() & (kRequestFlush | kRequestForget), 0u);
  quiesce_leave_guest(cpu(0));
  request_flush_and_wait(vm->quiesce, nullptr);
  quiesce_enter_guest(cpu(0));
  EXPECT_EQ(cpu(0)->instructions, 1001u) << "once a request";
  quiesce_leave_guest(cpu(0));
}

TEST_F(QuiesceTest, ARequestWaitsForTheAcknowledgementOfAVcpuInGuestMode) {
  quiesce_enter_guest(cpu(0));
  std::atomic<bool> returned = false;
  std::thread requester([&] {
    request_flush_and_wait(vm->quiesce, nullptr);
    returned = true;
  });
  wait_for_request(cpu(0), kRequestFlush);
  EXPECT_FALSE(returned);
  quiesce_poll(cpu(0));
  requester.join();
  EXPECT_EQ(cpu(0)->instructions, 1u);
  quiesce_leave_guest(cpu(0));
}

TEST_F(QuiesceTest, LeavingGuestModeAcknowledgesToo) {
  quiesce_enter_guest(cpu(0));
  std::thread requester([&] { request_flush_and_wait(vm->quiesce, nullptr); });
  wait_for_request(cpu(0), kRequestFlush);
  quiesce_leave_guest(cpu(0));
  requester.join();
  EXPECT_EQ(cpu(0)->instructions, 0u);
}

TEST_F(QuiesceTest, VcpusThatWaitForEachOtherBothReturn) {
  std::vector<std::thread> threads;
  for (size_t i = 0; i < processors.size(); ++i) {
    threads.emplace_back([this, i] {
      quiesce_enter_guest(cpu(i));
      for (int round = 0; round < kRounds; ++round) request_flush_and_wait(cpu(i));
      quiesce_leave_guest(cpu(i));
    });
  }
  for (auto& thread : threads) thread.join();
  for (size_t i = 0; i < processors.size(); ++i) {
    quiesce_enter_guest(cpu(i));
    EXPECT_GT(cpu(i)->instructions, 0u);
    EXPECT_EQ(cpu(i)->request.load(), 0u);
    quiesce_leave_guest(cpu(i));
  }
}

TEST_F(QuiesceTest, NobodyIsInGuestModeDuringAnExclusiveSection) {
  std::atomic<int> inside = 0;  // vCPUs in guest mode but for the moments of polling
  std::atomic<bool> overlap = false;
  int counter = 0;  // guarded by the exclusive section
  std::vector<std::thread> threads;
  for (size_t i = 0; i < processors.size(); ++i) {
    threads.emplace_back([&, i] {
      quiesce_enter_guest(cpu(i));
      for (int round = 0; round < kRounds; ++round) {
        ++inside;
        --inside;
        if (round % processors.size() != i) {
          quiesce_poll(cpu(i));
          continue;
        }
        const Exclusive exclusive(vm->quiesce, cpu(i));
        if (inside != 0) overlap = true;
        ++counter;
      }
      quiesce_leave_guest(cpu(i));
    });
  }
  for (int round = 0; round < kRounds; ++round) {
    const Exclusive exclusive(vm->quiesce);
    if (inside != 0) overlap = true;
    ++counter;
  }
  for (auto& thread : threads) thread.join();
  EXPECT_FALSE(overlap);
  EXPECT_EQ(counter, kRounds + kRounds);
  for (size_t i = 0; i < processors.size(); ++i) EXPECT_EQ(cpu(i)->request.load() & kRequestStop, 0u);
}

TEST_F(QuiesceTest, AFlushWaitsForTheVcpuThatHoldsTheExclusiveSection) {
  quiesce_enter_guest(cpu(0));
  exclusive_begin(vm->quiesce, cpu(0));
  std::atomic<bool> returned = false;
  std::thread requester([&] {
    request_flush_and_wait(vm->quiesce, nullptr);
    returned = true;
  });
  wait_for_request(cpu(0), kRequestFlush);
  EXPECT_FALSE(returned);
  exclusive_end(vm->quiesce, cpu(0));
  requester.join();
  quiesce_leave_guest(cpu(0));
}

TEST_F(QuiesceTest, TheHolderOfTheExclusiveSectionMayRequestAFlush) {
  quiesce_enter_guest(cpu(0));
  exclusive_begin(vm->quiesce, cpu(0));
  request_flush_and_wait(cpu(0));
  exclusive_end(vm->quiesce, cpu(0));
  quiesce_leave_guest(cpu(0));
  quiesce_enter_guest(cpu(1));
  EXPECT_EQ(cpu(1)->instructions, 1u);
  quiesce_leave_guest(cpu(1));
}

}  // namespace
}  // namespace lodge::engine::soft
