// Exits in the middle of an instruction: ports and memory-mapped I/O, split, repeated, and completed with immediate_exit.
#include "guest.hpp"

namespace lodge::engine::suite {
namespace {

class Exits : public testing::Test {
 protected:
  Guest guest{Mode::Long};
  kvm_run& shared() { return guest.vcpu().shared(); }

  void expect_mmio(uint64_t address, uint32_t length, bool write) {
    const Stop stop = guest.run();
    ASSERT_EQ(stop.exit_reason, uint32_t{KVM_EXIT_MMIO}) << stop;
    EXPECT_EQ(shared().mmio.phys_addr, address);
    EXPECT_EQ(shared().mmio.len, length);
    EXPECT_EQ(shared().mmio.is_write, write);
  }
  uint64_t mmio_data() {
    uint64_t value = 0;
    std::memcpy(&value, shared().mmio.data, shared().mmio.len);
    return value;
  }
  void answer_mmio(uint64_t value) { std::memcpy(shared().mmio.data, &value, shared().mmio.len); }
  // Answers an IN of words with the next numbers.
  void give_words(uint16_t& next) {
    for (uint32_t i = 0; i < shared().io.count; ++i, ++next) std::memcpy(io_data() + 2 * i, &next, 2);
  }
  std::byte* io_data() { return reinterpret_cast<std::byte*>(&shared()) + shared().io.data_offset; }
};

PAYLOAD(out_in, 64, "mov $0x123, %dx\n mov $0xa1b2c3d4, %eax\n out %eax, %dx\n in %dx, %ax\n in $0x60, %al\n" REPORT)
TEST_F(Exits, PortsOfEachSize) {
  guest.load(out_in());
  ASSERT_EQ(guest.run().exit_reason, uint32_t{KVM_EXIT_IO});
  EXPECT_EQ(shared().io.direction, KVM_EXIT_IO_OUT);
  EXPECT_EQ(shared().io.port, 0x123);
  EXPECT_EQ(shared().io.size, 4);
  EXPECT_EQ(shared().io.count, 1u);
  EXPECT_EQ(std::memcmp(io_data(), "\xd4\xc3\xb2\xa1", 4), 0);
  ASSERT_EQ(guest.run().exit_reason, uint32_t{KVM_EXIT_IO});
  EXPECT_EQ(shared().io.direction, KVM_EXIT_IO_IN);
  EXPECT_EQ(shared().io.size, 2);
  std::memcpy(io_data(), "\x11\x22", 2);
  ASSERT_EQ(guest.run().exit_reason, uint32_t{KVM_EXIT_IO});
  EXPECT_EQ(shared().io.port, 0x60);
  EXPECT_EQ(shared().io.size, 1);
  std::memcpy(io_data(), "\x33", 1);
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.regs().rax, 0xa1b22233u);
}

PAYLOAD(in_dword, 64, "mov $-1, %rax\n in $0x70, %eax\n" REPORT)
TEST_F(Exits, InOfADwordClearsTheUpperHalf) {
  guest.load(in_dword());
  ASSERT_EQ(guest.run().exit_reason, uint32_t{KVM_EXIT_IO});
  std::memcpy(io_data(), "\x01\x02\x03\x80", 4);
  // With immediate_exit the instruction completes and the next one does not begin.
  guest.complete();
  EXPECT_EQ(guest.regs().rax, 0x80030201u);
  EXPECT_EQ(guest.regs().rip, kCode + in_dword().size() - 2);
  ASSERT_TRUE(guest.run().reported);
}

TEST_F(Exits, ImmediateExitRunsNothing) {
  guest.load(in_dword());
  const State before = guest.state();
  guest.complete();
  EXPECT_EQ(difference(before, guest.state()), "");
}

PAYLOAD(mmio_each, 64,
        "mov $0xd0000000, %ebx\n"
        "movb $0x12, (%rbx)\n"
        "movw $0x3456, 2(%rbx)\n"
        "movl $0x789abcde, 4(%rbx)\n"
        "movabs $0x1122334455667788, %rax\n"
        "mov %rax, 8(%rbx)\n"
        "movzbl 0x10(%rbx), %ecx\n"
        "movswq 0x12(%rbx), %rdx\n"
        "mov 0x18(%rbx), %rsi\n" REPORT)
TEST_F(Exits, MmioOfEachSize) {
  guest.load(mmio_each());
  expect_mmio(kMmio, 1, true);
  EXPECT_EQ(mmio_data(), 0x12u);
  expect_mmio(kMmio + 2, 2, true);
  EXPECT_EQ(mmio_data(), 0x3456u);
  expect_mmio(kMmio + 4, 4, true);
  EXPECT_EQ(mmio_data(), 0x789abcdeu);
  expect_mmio(kMmio + 8, 8, true);
  EXPECT_EQ(mmio_data(), 0x1122334455667788u);
  expect_mmio(kMmio + 0x10, 1, false);
  answer_mmio(0xfe);
  expect_mmio(kMmio + 0x12, 2, false);
  answer_mmio(0x8001);
  expect_mmio(kMmio + 0x18, 8, false);
  answer_mmio(0xcafebabedeadbeef);
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.regs().rcx, 0xfeu);
  EXPECT_EQ(guest.regs().rdx, 0xffffffffffff8001u);
  EXPECT_EQ(guest.regs().rsi, 0xcafebabedeadbeefu);
}

PAYLOAD(mmio_modify, 64, "mov $0xd0000000, %ebx\n addl $5, (%rbx)\n" REPORT)
TEST_F(Exits, ReadModifyWriteExitsTwice) {
  guest.load(mmio_modify());
  expect_mmio(kMmio, 4, false);
  answer_mmio(0xfffffffe);
  expect_mmio(kMmio, 4, true);
  EXPECT_EQ(mmio_data(), 3u);
  guest.complete();
  EXPECT_EQ(guest.regs().rip, kCode + mmio_modify().size() - 2);
  EXPECT_EQ(guest.regs().rflags & 1, 1u);  // carry
  ASSERT_TRUE(guest.run().reported);
}

// Half in RAM, half in the hole behind it: one exit for the hole's half.
PAYLOAD(mmio_crossing, 64, "mov $0x3ffffc, %ebx\n movabs $0x1122334455667788, %rax\n mov %rax, (%rbx)\n mov (%rbx), %rcx\n" REPORT)
TEST_F(Exits, AccessAcrossRamAndHole) {
  guest.write64(kPdLow + 16, 0x400000 | kP | kRw | kPs);
  guest.load(mmio_crossing());
  expect_mmio(0x400000, 4, true);
  EXPECT_EQ(mmio_data(), 0x11223344u);
  expect_mmio(0x400000, 4, false);
  answer_mmio(0xaabbccdd);
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.read32(0x3ffffc), 0x55667788u);
  EXPECT_EQ(guest.regs().rcx, 0xaabbccdd55667788u);
}

// Across two pages that are both MMIO: two exits for one access, in the order of addresses.
PAYLOAD(mmio_two_pages, 64, "mov $0xd0000ffd, %ebx\n mov (%rbx), %rax\n mov %rax, (%rbx)\n" REPORT)
TEST_F(Exits, AccessAcrossTwoMmioPages) {
  guest.load(mmio_two_pages());
  expect_mmio(kMmio + 0xffd, 3, false);
  answer_mmio(0x030201);
  expect_mmio(kMmio + 0x1000, 5, false);
  answer_mmio(0x0807060504);
  expect_mmio(kMmio + 0xffd, 3, true);
  EXPECT_EQ(mmio_data(), 0x030201u);
  expect_mmio(kMmio + 0x1000, 5, true);
  EXPECT_EQ(mmio_data(), 0x0807060504u);
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.regs().rax, 0x0807060504030201u);
}

PAYLOAD(mmio_push, 64, "mov $0xd0000008, %esp\n mov $0x5a, %eax\n push %rax\n pop %rbx\n" REPORT)
TEST_F(Exits, PushAndPopToMmio) {
  guest.load(mmio_push());
  expect_mmio(kMmio, 8, true);
  EXPECT_EQ(mmio_data(), 0x5au);
  expect_mmio(kMmio, 8, false);
  answer_mmio(0x99);
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.regs().rbx, 0x99u);
  EXPECT_EQ(guest.regs().rsp, kMmio + 8);
}

PAYLOAD(mmio_movs, 64, "mov $0x200000, %esi\n mov $0xd0000000, %edi\n mov $3, %ecx\n rep movsl\n" REPORT)
TEST_F(Exits, RepMovsToMmio) {
  guest.write64(0x200000, 0x0000000200000001);
  guest.write32(0x200008, 3);
  guest.load(mmio_movs());
  for (uint64_t word = 0; word < 3; ++word) {
    expect_mmio(kMmio + word * 4, 4, true);
    EXPECT_EQ(mmio_data(), word + 1);
  }
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.regs().rcx, 0u);
  EXPECT_EQ(guest.regs().rsi, 0x20000cu);
  EXPECT_EQ(guest.regs().rdi, kMmio + 12);
}

PAYLOAD(mmio_movs_from, 64, "mov $0xd0000000, %esi\n mov $0x200000, %edi\n mov $2, %ecx\n rep movsq\n" REPORT)
TEST_F(Exits, RepMovsFromMmio) {
  guest.load(mmio_movs_from());
  for (uint64_t word = 0; word < 2; ++word) {
    expect_mmio(kMmio + word * 8, 8, false);
    answer_mmio(0x1111 * (word + 1));
  }
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.read64(0x200000), 0x1111u);
  EXPECT_EQ(guest.read64(0x200008), 0x2222u);
  EXPECT_EQ(guest.regs().rcx, 0u);
}

// A stop in the middle of REP: each element is complete, the registers say how far it got.
TEST_F(Exits, RepMovsStopsBetweenElements) {
  guest.load(mmio_movs());
  expect_mmio(kMmio, 4, true);
  guest.complete();
  const kvm_regs regs = guest.regs();
  EXPECT_EQ(regs.rcx, 2u);
  EXPECT_EQ(regs.rsi, 0x200004u);
  EXPECT_EQ(regs.rdi, kMmio + 4);
  EXPECT_EQ(regs.rip, kCode + 15);
}

// String I/O comes in as many exits as the engine likes; the bytes and their order are given.
PAYLOAD(rep_outs, 64, "mov $0x200000, %esi\n mov $7, %ecx\n mov $0x80, %dx\n rep outsw\n" REPORT)
TEST_F(Exits, RepOutsDeliversEveryElement) {
  std::vector<std::byte> sent;
  for (uint8_t byte = 0; byte < 14; ++byte) guest.write8(0x200000 + byte, byte + 1);
  guest.load(rep_outs());
  for (Stop stop = guest.run(); !stop.reported; stop = guest.run()) {
    ASSERT_EQ(stop.exit_reason, uint32_t{KVM_EXIT_IO}) << stop;
    ASSERT_EQ(shared().io.port, 0x80);
    EXPECT_EQ(shared().io.size, 2);
    sent.insert(sent.end(), io_data(), io_data() + shared().io.size * shared().io.count);
  }
  ASSERT_EQ(sent.size(), 14u);
  for (uint8_t byte = 0; byte < 14; ++byte) EXPECT_EQ(std::to_integer<uint8_t>(sent[byte]), byte + 1);
  EXPECT_EQ(guest.regs().rcx, 0u);
  EXPECT_EQ(guest.regs().rsi, 0x20000eu);
}

PAYLOAD(rep_ins, 64, "mov $0x200ffe, %edi\n mov $5, %ecx\n mov $0x80, %dx\n rep insb\n" REPORT)
TEST_F(Exits, RepInsFillsAcrossAPage) {
  guest.load(rep_ins());
  uint8_t next = 1;
  for (Stop stop = guest.run(); !stop.reported; stop = guest.run()) {
    ASSERT_EQ(stop.exit_reason, uint32_t{KVM_EXIT_IO}) << stop;
    ASSERT_EQ(shared().io.direction, KVM_EXIT_IO_IN);
    for (uint32_t i = 0; i < shared().io.count; ++i) io_data()[i] = std::byte{next++};
  }
  EXPECT_EQ(next, 6);
  for (uint8_t i = 0; i < 5; ++i) EXPECT_EQ(guest.read8(0x200ffe + i), i + 1);
  EXPECT_EQ(guest.regs().rdi, 0x201003u);
  EXPECT_EQ(guest.regs().rcx, 0u);
}

// As many as an engine reads at once, and what is left after one of its exits has been completed.
PAYLOAD(rep_ins_many, 64, "mov $0x200800, %edi\n mov $1500, %ecx\n mov $0x1f0, %dx\n rep insw\n" REPORT)
TEST_F(Exits, RepInsInLongRuns) {
  guest.load(rep_ins_many());
  uint16_t next = 0;
  Stop stop = guest.run();
  ASSERT_EQ(stop.exit_reason, uint32_t{KVM_EXIT_IO}) << stop;
  ASSERT_LE(shared().io.count * 2, 4096u);
  give_words(next);
  guest.complete();
  // Completed: what has come is in memory, and the registers say so.
  EXPECT_EQ(guest.regs().rcx, 1500u - next);
  EXPECT_EQ(guest.regs().rdi, 0x200800u + 2 * next);
  EXPECT_EQ(guest.read16(0x200800u + 2 * (next - 1)), next - 1);
  for (stop = guest.run(); !stop.reported; stop = guest.run()) {
    ASSERT_EQ(stop.exit_reason, uint32_t{KVM_EXIT_IO}) << stop;
    ASSERT_EQ(shared().io.size, 2);
    give_words(next);
  }
  EXPECT_EQ(next, 1500);
  for (uint16_t i = 0; i < 1500; ++i) ASSERT_EQ(guest.read16(0x200800 + 2 * i), i);
  EXPECT_EQ(guest.regs().rcx, 0u);
}

PAYLOAD(rep_ins_down, 64, "std\n mov $0x200806, %edi\n mov $4, %ecx\n mov $0x1f0, %dx\n rep insw\n cld\n" REPORT)
TEST_F(Exits, RepInsDownwards) {
  guest.load(rep_ins_down());
  uint16_t next = 1;
  for (Stop stop = guest.run(); !stop.reported; stop = guest.run()) {
    ASSERT_EQ(stop.exit_reason, uint32_t{KVM_EXIT_IO}) << stop;
    give_words(next);
  }
  EXPECT_EQ(guest.read64(0x200800), 0x0001000200030004u);
  EXPECT_EQ(guest.regs().rdi, 0x2007feu);
}

// The elements before a page that is not there are stored. The kernel's engine has read further ones then, which are lost.
TEST_F(Exits, RepInsUpToAPageThatIsNotThere) {
  guest.load(rep_ins_many());
  guest.set_pte(0x201000, 0);
  uint16_t next = 0;
  Stop stop = guest.run();
  for (; stop.exit_reason == KVM_EXIT_IO && !stop.reported && stop.vector < 0; stop = guest.run()) give_words(next);
  EXPECT_EQ(stop.vector, 14) << stop;
  EXPECT_GE(next, 0x400);
  EXPECT_EQ(guest.regs().rcx, 1500u - 0x400);
  EXPECT_EQ(guest.regs().rdi, 0x201000u);
}

// A write to a read-only slot is MMIO, a read of it is not.
PAYLOAD(rom, 64, "mov $0x400000, %ebx\n mov (%rbx), %eax\n movl $7, 4(%rbx)\n mov 4(%rbx), %ecx\n" REPORT)
TEST_F(Exits, ReadOnlySlot) {
  auto rom_memory = must(memory::GuestMemory::create({{0x400000, 0x1000}}));
  std::memcpy(rom_memory->regions()[0].host, "\x55\xaa\x00\x00\x01\x00\x00\x00", 8);
  kvm_userspace_memory_region region = {};
  region.slot = 1;
  region.flags = KVM_MEM_READONLY;
  region.guest_phys_addr = 0x400000;
  region.memory_size = 0x1000;
  region.userspace_addr = reinterpret_cast<uint64_t>(rom_memory->regions()[0].host);
  must(guest.vm().set_user_memory_region(region));
  guest.write64(kPdLow + 16, 0x400000 | kP | kRw | kPs);
  guest.load(rom());
  expect_mmio(0x400004, 4, true);
  EXPECT_EQ(mmio_data(), 7u);
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.regs().rax, 0xaa55u);
  EXPECT_EQ(guest.regs().rcx, 1u);
  region.memory_size = 0;
  must(guest.vm().set_user_memory_region(region));
}

// Dirty log: the guest's writes, and those of Lodge's devices, each once.
PAYLOAD(dirty, 64, "movb $1, 0x200000\n movb $1, 0x203fff\n mov 0x205000, %al\n" REPORT)
TEST_F(Exits, DirtyLog) {
  kvm_userspace_memory_region region = {};
  region.flags = KVM_MEM_LOG_DIRTY_PAGES;
  region.memory_size = kRamSize;
  region.userspace_addr = reinterpret_cast<uint64_t>(guest.memory().regions()[0].host);
  must(guest.vm().set_user_memory_region(region));
  guest.load(dirty());
  must(guest.vm().get_dirty_log(0));
  ASSERT_TRUE(guest.run().reported);
  const auto written = [&](const std::vector<uint64_t>& log, uint64_t gpa) { return (log[gpa >> 18] >> (gpa >> 12 & 63) & 1) != 0; };
  const auto first = must(guest.vm().get_dirty_log(0));
  ASSERT_EQ(first.size(), kRamSize / 0x1000 / 64);
  EXPECT_TRUE(written(first, 0x200000));
  EXPECT_TRUE(written(first, 0x203000));
  // 0x205000 was only read: the kernel's log may hold it all the same, since it maps a page writable on the first touch.
  EXPECT_FALSE(written(first, 0x201000));
  guest.write32(0x30fffe, 0);
  const auto second = must(guest.vm().get_dirty_log(0));
  EXPECT_TRUE(written(second, 0x30f000));
  EXPECT_TRUE(written(second, 0x310000));
  EXPECT_FALSE(written(second, 0x200000));
  guest.change_regs([](kvm_regs& r) { r.rip = kCode; });
  ASSERT_TRUE(guest.run().reported);
  const auto third = must(guest.vm().get_dirty_log(0));
  EXPECT_TRUE(written(third, 0x200000));
  EXPECT_FALSE(written(third, 0x205000));
  EXPECT_FALSE(written(third, 0x30f000));
}

// Doorbells: the guest's write counts in the eventfd and does not leave run().
PAYLOAD(doorbell, 64, "mov $0xd0000000, %ebx\n movl $1, (%rbx)\n movl $2, (%rbx)\n mov $0x510, %dx\n outw %ax, %dx\n" REPORT)
TEST_F(Exits, DoorbellsCountMatchingWrites) {
  Doorbell memory_bell;
  memory_bell.address = kMmio;
  memory_bell.length = 4;
  memory_bell.datamatch = 2;
  memory_bell.flags = KVM_IOEVENTFD_FLAG_DATAMATCH;
  Doorbell port_bell;
  port_bell.address = 0x510;
  port_bell.length = 2;
  port_bell.flags = KVM_IOEVENTFD_FLAG_PIO;
  auto matching = must(guest.vm().create_doorbell(memory_bell));
  const auto port = must(guest.vm().create_doorbell(port_bell));
  guest.load(doorbell());
  expect_mmio(kMmio, 4, true);
  EXPECT_EQ(mmio_data(), 1u);
  ASSERT_TRUE(guest.run().reported);
  uint64_t count = 0;
  ASSERT_EQ(read(matching->fd(), &count, sizeof count), 8);
  EXPECT_EQ(count, 1u);
  ASSERT_EQ(read(port->fd(), &count, sizeof count), 8);
  EXPECT_EQ(count, 1u);
  matching.reset();
  guest.change_regs([](kvm_regs& r) { r.rip = kCode; });
  expect_mmio(kMmio, 4, true);
  expect_mmio(kMmio, 4, true);
  EXPECT_EQ(mmio_data(), 2u);
}

// A kick ends a guest that never exits, and one that comes first ends the next run().
PAYLOAD(spin, 64, "1: inc %rax\n jmp 1b\n")
PAYLOAD(spin_closed, 64, "cli\n 1: hlt\n jmp 1b\n")
TEST_F(Exits, KickEndsALoop) {
  guest.load(spin());
  std::jthread kicker([&] {
    std::this_thread::yield();
    guest.vcpu().kick();
  });
  EXPECT_EQ(must(guest.vcpu().run()), RunResult::Interrupted);
  kicker.join();
  EXPECT_GE(guest.regs().rip, kCode);
  EXPECT_LT(guest.regs().rip, kCode + spin().size());
}
TEST_F(Exits, KickEndsAHalt) {
  guest.load(spin_closed());
  std::jthread kicker([&] { guest.vcpu().kick(); });
  EXPECT_EQ(must(guest.vcpu().run()), RunResult::Interrupted);
}
TEST_F(Exits, KickBeforeRunEndsTheNext) {
  guest.load(spin());
  guest.vcpu().kick();
  const State before = guest.state();
  EXPECT_EQ(must(guest.vcpu().run()), RunResult::Interrupted);
  EXPECT_EQ(guest.regs().rcx, before.regs.rcx);
  guest.vcpu().shared().immediate_exit = 0;
  guest.load(in_dword());
  EXPECT_EQ(guest.run().exit_reason, uint32_t{KVM_EXIT_IO});
}
TEST_F(Exits, NoKickIsLost) {
  guest.load(spin());
  for (int round = 0; round < 200; ++round) {
    std::jthread kicker([&] { guest.vcpu().kick(); });
    ASSERT_EQ(must(guest.vcpu().run()), RunResult::Interrupted);
  }
}

}  // namespace
}  // namespace lodge::engine::suite
