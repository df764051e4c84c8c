#include "machine/firmware_memory.hpp"

#include <gtest/gtest.h>

#include "machine/fake_engine.hpp"
#include "memory/test_memory.hpp"

namespace lodge::machine {
namespace {

using devices::chipset::ShadowArea;
using devices::chipset::ShadowState;

struct FirmwareArea : testing::Test {
  static constexpr uint64_t kRomBytes = 256 << 10;
  static constexpr uint32_t kFirst = 3;
  static constexpr ShadowArea kBios{0xf0000, 0x10000}, kExtension{0xe0000, 0x4000}, kOption{0xc0000, 0x4000};

  void SetUp() override { ASSERT_TRUE(chip.start()); }
  // The slot that shows the address.
  [[nodiscard]] const kvm_userspace_memory_region* slot(uint64_t address) const {
    for (const auto& [number, region] : script.slots)
      if (address - region.guest_phys_addr < region.memory_size) return &region;
    return nullptr;
  }
  [[nodiscard]] std::byte* shown(uint64_t address) const {
    const auto* region = slot(address);
    return region ? reinterpret_cast<std::byte*>(region->userspace_addr) + (address - region->guest_phys_addr) : nullptr;
  }
  void write(uint64_t address, unsigned size, uint64_t value) { chip.write(address - FirmwareMemory::kBase, size, value); }

  fake::Script script;
  fake::Vm vm{script};
  memory::test::Memory memory;
  std::unique_ptr<memory::GuestMemory> rom = std::move(*memory::GuestMemory::create({{0, kRomBytes}}));
  FirmwareMemory chip{vm, *memory.guest, std::span(rom->regions()[0].host, kRomBytes), kFirst};
};

TEST_F(FirmwareArea, ShowsTheRomTwiceAtFirst) {
  EXPECT_EQ(shown(0xfffffff0), rom->span(kRomBytes - 16, 1).data());
  EXPECT_EQ(shown(0xffff0), rom->span(kRomBytes - 16, 1).data());
  EXPECT_EQ(shown(0xe0000), rom->span(kRomBytes - 0x20000, 1).data());
  EXPECT_EQ(slot(0xffff0)->flags, static_cast<uint32_t>(KVM_MEM_READONLY));
  EXPECT_EQ(slot(0xc0000), nullptr);  // no ROM there
  EXPECT_EQ(chip.read(0, 4), ~uint64_t{0});
  for (const auto& [number, region] : script.slots) EXPECT_TRUE(number >= kFirst && number < kFirst + FirmwareMemory::kSlots);
}

TEST_F(FirmwareArea, WritesGoNowhereUntilTheyMay) {
  memory.put<uint32_t>(0xf0000, 0);
  write(0xf0000, 4, 0x12345678);
  EXPECT_EQ(memory.get<uint32_t>(0xf0000), 0u);
  // As firmware copies itself: what it reads is the ROM, what it writes is memory.
  chip.set(kBios, {.reads = false, .writes = true});
  EXPECT_EQ(shown(0xf0000), rom->span(kRomBytes - 0x10000, 1).data());
  write(0xf0000, 4, 0x12345678);
  EXPECT_EQ(memory.get<uint32_t>(0xf0000), 0x12345678u);
  // One that reaches into an area that may not be written.
  memory.put<uint64_t>(0xefffc, 0);
  write(0xefffc, 8, 0xaabbccdd99887766);
  EXPECT_EQ(memory.get<uint64_t>(0xefffc), 0xaabbccdd00000000u);
}

TEST_F(FirmwareArea, ShowsMemoryInPlaceOfTheRom) {
  chip.set(kBios, {.reads = true, .writes = true});
  EXPECT_EQ(shown(0xf0000), memory.guest->span(0xf0000, 1).data());
  EXPECT_EQ(slot(0xf0000)->flags, 0u);
  chip.set(kBios, {.reads = true, .writes = false});
  EXPECT_EQ(slot(0xf0000)->flags, static_cast<uint32_t>(KVM_MEM_READONLY));
  memory.put<uint32_t>(0xf0000, 1);
  write(0xf0000, 4, 2);
  EXPECT_EQ(memory.get<uint32_t>(0xf0000), 1u);
  chip.set(kOption, {.reads = true, .writes = true});
  EXPECT_EQ(shown(0xc0000), memory.guest->span(0xc0000, 1).data());
  chip.set(kOption, {});
  EXPECT_EQ(slot(0xc0000), nullptr);
  chip.set(kExtension, {.reads = true, .writes = true});
  chip.set(kExtension, {});
  EXPECT_EQ(shown(0xe0000), rom->span(kRomBytes - 0x20000, 1).data());
}

}  // namespace
}  // namespace lodge::machine
