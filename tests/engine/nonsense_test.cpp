// A guest's kernel that does nothing sensible: random bytes and system instructions with random operands, in each mode, at CPL 0. Hardware
// would fault, stop or shut down; whatever it is, run() returns, the process lives, and another guest runs as ever.
#include <array>
#include <cstdlib>
#include <random>

#include "guest.hpp"

namespace lodge::engine::suite {
namespace {

PAYLOAD(sensible, 64, "mov $0x1234, %eax\n" REPORT)

using Bytes = std::vector<std::byte>;

// Beginnings of instructions that reach furthest; what follows them is random.
constexpr std::array<std::array<uint8_t, 3>, 28> kOpenings = {{
    {0x0f, 0x22, 0xc0}, {0x0f, 0x22, 0xd8}, {0x0f, 0x22, 0xe0}, {0x0f, 0x30, 0x90}, {0x0f, 0x01, 0x10}, {0x0f, 0x01, 0x18},
    {0x0f, 0x00, 0xd8}, {0x0f, 0x00, 0xd0}, {0x0f, 0x23, 0xf8}, {0x8e, 0xd0, 0x90}, {0x8e, 0xd8, 0x90}, {0x8e, 0xe0, 0x90},
    {0xcf, 0x90, 0x90}, {0x48, 0xcf, 0x90}, {0xcb, 0x90, 0x90}, {0x48, 0xcb, 0x90}, {0x9d, 0x90, 0x90}, {0xfb, 0x90, 0x90},
    {0x0f, 0x05, 0x90}, {0x48, 0x0f, 0x07}, {0x0f, 0x34, 0x90}, {0xf3, 0xa5, 0x90}, {0xf3, 0xab, 0x90}, {0x0f, 0xae, 0x28},
    {0x0f, 0xc7, 0x18}, {0xff, 0x28, 0x90}, {0xff, 0x18, 0x90}, {0xcd, 0x80, 0x90},
}};

class Nonsense {
 public:
  explicit Nonsense(uint64_t seed) : random_(seed) {}

  Bytes code(size_t size) {
    Bytes bytes;
    while (bytes.size() < size) {
      if (pick(3) == 0) {
        for (const uint8_t b : kOpenings[pick(kOpenings.size())]) bytes.push_back(std::byte{b});
      } else {
        bytes.push_back(std::byte{static_cast<uint8_t>(random_())});
      }
    }
    return bytes;
  }

  // Values that mean something to somebody: addresses of tables, of the code, of nothing; control register bits; all ones.
  uint64_t value() {
    constexpr std::array<uint64_t, 12> kKnown = {0,     kGdt,  kIdt,       kCode,    kStack - 8, kPml4,
                                                 kMmio, kApic, 0x80000011, 0x1006a0, 0x600f,     ~0ull};
    switch (pick(4)) {
      case 0: return random_();
      case 1: return random_() & 0x3fffff;
      case 2: return random_() & 0xffffffff;
      default: return kKnown[pick(kKnown.size())];
    }
  }

  size_t pick(size_t n) { return random_() % n; }

 private:
  std::mt19937_64 random_;
};

void set_registers(Guest& guest, Nonsense& nonsense) {
  guest.change_regs([&](kvm_regs& regs) {
    for (__u64* r : {&regs.rax, &regs.rbx, &regs.rcx, &regs.rdx, &regs.rsi, &regs.rdi, &regs.rbp, &regs.r8, &regs.r9, &regs.r10, &regs.r11,
                     &regs.r12, &regs.r13, &regs.r14, &regs.r15})
      *r = nonsense.value();
    if (nonsense.pick(2)) regs.rsp = nonsense.value();
    if (nonsense.pick(2)) regs.rcx = 0xc0000080 + nonsense.pick(8);  // MSRs of the mode and of SYSCALL
  });
}

// Until it shuts down, asks for help, or has been interrupted often enough (an endless loop is a fine thing to do).
void let_it_run(Guest& guest) {
  Vcpu& vcpu = guest.vcpu();
  const std::jthread kicker([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      vcpu.kick();
      std::this_thread::sleep_for(std::chrono::microseconds(300));
    }
  });
  int interrupted = 0;
  for (int exits = 0; exits < 200 && interrupted < 3; ++exits) {
    const auto result = vcpu.run();
    if (!result) return;  // the engine says that this state cannot be entered
    if (*result == RunResult::Interrupted) {
      ++interrupted;
      continue;
    }
    const uint32_t reason = vcpu.shared().exit_reason;
    ASSERT_TRUE(reason == KVM_EXIT_IO || reason == KVM_EXIT_MMIO || reason == KVM_EXIT_SHUTDOWN || reason == KVM_EXIT_INTERNAL_ERROR ||
                reason == KVM_EXIT_HLT || reason == KVM_EXIT_FAIL_ENTRY)
        << "exit reason " << reason;
    if (reason != KVM_EXIT_IO && reason != KVM_EXIT_MMIO) return;
  }
}

class NonsenseGuest : public testing::TestWithParam<Mode> {};

TEST_P(NonsenseGuest, NeverHarmsTheProcess) {
  NEEDS_SILICON("QEMU aborts on some of it");
  // LODGE_NONSENSE_SEEDS=N tries more than the fixed ones.
  const char* const wanted = std::getenv("LODGE_NONSENSE_SEEDS");
  const uint64_t seeds = wanted ? std::strtoull(wanted, nullptr, 0) : 60;
  for (uint64_t seed = 0; seed < seeds; ++seed) {
    Nonsense nonsense(seed);
    Guest guest(GetParam());
    const Bytes code = nonsense.code(4096);
    guest.load(std::span(code));
    set_registers(guest, nonsense);
    let_it_run(guest);
    if (HasFatalFailure()) FAIL() << "seed " << seed;
  }
  Guest after(Mode::Long);
  after.load(sensible());
  ASSERT_TRUE(after.run().reported);
  EXPECT_EQ(after.regs().rax, 0x1234u);
}

INSTANTIATE_TEST_SUITE_P(Modes, NonsenseGuest,
                         testing::Values(Mode::Real, Mode::Protected16, Mode::Protected32, Mode::Pae, Mode::Long, Mode::Compatibility),
                         [](const auto& mode) { return name_of(mode.param); });

}  // namespace
}  // namespace lodge::engine::suite
