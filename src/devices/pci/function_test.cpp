#include "devices/pci/function.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace lodge::devices::pci {
namespace {

struct Port final : FunctionPort {
  void send_message(uint64_t address, uint32_t data) override { messages.emplace_back(address, data); }
  void set_intx(bool level) override { levels.push_back(level); }
  std::vector<std::pair<uint64_t, uint32_t>> messages;
  std::vector<bool> levels;
};

struct Card final : Function {
  Card()
      : Function(
            {.vendor = 0x1234, .device = 0x5678, .revision = 9, .class_code = 0x020304, .subsystem_vendor = 0xabcd, .subsystem = 0xef01},
            "card") {
    add_bar(0, {.kind = BarKind::Memory64, .size = 0x4000, .prefetchable = true});
    add_bar(2, {.kind = BarKind::Io, .size = 0x40});
    add_bar(3, {.kind = BarKind::Memory32, .size = 0x1000});
    add_interrupt_pin();
    add_msi(1);
    add_msix({.vectors = 2, .bar = 3, .table_offset = 0x800, .pending_offset = 0xc00});
    connect(port);
  }
  using Function::set_intx;
  uint64_t bar_read(unsigned index, uint64_t offset, unsigned) override { return index << 16 | offset; }
  void bar_write(unsigned, uint64_t offset, unsigned, uint64_t) override { written.push_back(offset); }
  void bus_master_changed(bool allowed) override { masters.push_back(allowed); }
  Port port;
  std::vector<uint64_t> written;
  std::vector<bool> masters;
};

constexpr unsigned kMsi = 0x40, kMsix = 0x58;

TEST(PciFunction, HeaderIdentifiesIt) {
  Card card;
  EXPECT_EQ(card.read_config(0x00, 4), 0x56781234u);
  EXPECT_EQ(card.read_config(0x08, 4), 0x02030409u) << "class code and revision";
  EXPECT_EQ(card.read_config(0x0e, 1), 0u);
  EXPECT_EQ(card.read_config(0x2c, 4), 0xef01abcdu);
  EXPECT_EQ(card.read_config(0x3d, 1), 1u) << "INTA#";
  card.write_config(0x00, 4, 0xffffffff);
  card.write_config(0x08, 4, 0xffffffff);
  card.write_config(0x2c, 4, 0xffffffff);
  EXPECT_EQ(card.read_config(0x00, 4), 0x56781234u) << "read-only";
  EXPECT_EQ(card.read_config(0x08, 4), 0x02030409u);
  EXPECT_EQ(card.read_config(0x2c, 4), 0xef01abcdu);
  card.write_config(0x3c, 2, 0x050b);
  EXPECT_EQ(card.read_config(0x3c, 2), 0x010bu) << "the interrupt line is software's, the pin is not";
}

TEST(PciFunction, CapabilitiesFormAList) {
  Card card;
  EXPECT_EQ(card.read_config(0x06, 2) & 0x10, 0x10u);
  const uint32_t first = card.read_config(0x34, 1);
  EXPECT_EQ(first, kMsix);
  EXPECT_EQ(card.read_config(first, 1), 0x11u);
  const uint32_t second = card.read_config(first + 1, 1);
  EXPECT_EQ(second, kMsi);
  EXPECT_EQ(card.read_config(second, 1), 0x05u);
  EXPECT_EQ(card.read_config(second + 1, 1), 0u);
}

// PCI 3.0, 6.2.5.1: all ones written, the size read back.
TEST(PciFunction, BarsTellTheirSize) {
  Card card;
  for (unsigned at = 0x10; at < 0x28; at += 4) card.write_config(at, 4, 0xffffffff);
  EXPECT_EQ(card.read_config(0x10, 4), 0xffffc00cu) << "64 bits, prefetchable";
  EXPECT_EQ(card.read_config(0x14, 4), 0xffffffffu);
  EXPECT_EQ(card.read_config(0x18, 4), 0xffffffc1u) << "ports";
  EXPECT_EQ(card.read_config(0x1c, 4), 0xfffff000u);
  EXPECT_EQ(card.read_config(0x20, 4), 0u) << "not there";
  EXPECT_EQ(card.read_config(0x24, 4), 0u);
  EXPECT_EQ(card.read_config(0x30, 4), 0u) << "no expansion ROM";
}

TEST(PciFunction, CommandRegisterEnablesDecoding) {
  Card card;
  card.write_config(0x10, 4, 0xd0000000);
  card.write_config(0x14, 4, 0x12);
  card.write_config(0x18, 4, 0x2000);
  EXPECT_FALSE(card.decoded(0) || card.decoded(2) || card.decoded(3));
  card.write_config(0x04, 2, 0x2);
  EXPECT_EQ(card.decoded(0), 0x12d0000000u);
  EXPECT_FALSE(card.decoded(1)) << "the upper half is no BAR of its own";
  EXPECT_FALSE(card.decoded(2));
  EXPECT_EQ(card.decoded(3), 0u);
  card.write_config(0x04, 1, 0x1);
  EXPECT_FALSE(card.decoded(0));
  EXPECT_EQ(card.decoded(2), 0x2000u);
  card.write_config(0x04, 2, 0xffff);
  EXPECT_EQ(card.read_config(0x04, 2), 0x0547u) << "bits that the function has no use for stay zero";
}

TEST(PciFunction, SpacesWithoutABarCannotBeEnabled) {
  struct Bare final : Function {
    Bare() : Function({}, "bare") {}
    uint64_t bar_read(unsigned, uint64_t, unsigned) override { return 0; }
    void bar_write(unsigned, uint64_t, unsigned, uint64_t) override {}
  } bare;
  bare.write_config(0x04, 2, 0xffff);
  EXPECT_EQ(bare.read_config(0x04, 2), 0x0144u);
  EXPECT_EQ(bare.read_config(0x06, 2), 0u) << "no capabilities";
}

TEST(PciFunction, MsixStructuresAnswerInTheirBar) {
  Card card;
  card.write_bar(3, 0x808, 4, 0x1234);
  EXPECT_EQ(card.read_bar(3, 0x808, 4), 0x1234u);
  EXPECT_EQ(card.read_bar(3, 0x7fc, 4), 0x307fcu);
  EXPECT_EQ(card.read_bar(0, 0x808, 4), 0x808u) << "another BAR";
  card.write_bar(3, 0x400, 4, 1);
  EXPECT_EQ(card.written, std::vector<uint64_t>{0x400});
}

TEST(PciFunction, PinFollowsTheDeviceUnlessDisabled) {
  Card card;
  card.set_intx(true);
  card.set_intx(true);
  EXPECT_EQ(card.port.levels, std::vector<bool>{true});
  EXPECT_EQ(card.read_config(0x06, 2) & 8, 8u);
  card.write_config(0x04, 2, 0x400);
  EXPECT_EQ(card.port.levels, (std::vector<bool>{true, false}));
  EXPECT_EQ(card.read_config(0x06, 2) & 8, 8u) << "6.2.3: the status does not depend on the disable bit";
  card.write_config(0x04, 2, 0);
  EXPECT_EQ(card.port.levels, (std::vector<bool>{true, false, true}));
  card.set_intx(false);
  EXPECT_EQ(card.read_config(0x06, 2) & 8, 0u);
  EXPECT_EQ(card.port.levels.back(), false);
}

TEST(PciFunction, PinIsSilentWhileMessagesAreEnabled) {
  for (const auto& [capability, control] : {std::pair{kMsi, 0x1u}, std::pair{kMsix, 0x8000u}}) {
    Card card;
    card.set_intx(true);
    card.write_config(capability + 2, 2, control);
    EXPECT_EQ(card.port.levels, (std::vector<bool>{true, false}));
    EXPECT_EQ(card.read_config(0x06, 2) & 8, 0u);
    card.write_config(capability + 2, 2, 0);
    EXPECT_EQ(card.port.levels, (std::vector<bool>{true, false, true}));
  }
}

TEST(PciFunction, BusMasterBitIsToldOnce) {
  Card card;
  card.write_config(0x04, 2, 4);
  card.write_config(0x04, 2, 6);
  card.write_config(0x04, 1, 0);
  EXPECT_EQ(card.masters, (std::vector<bool>{true, false}));
}

}  // namespace
}  // namespace lodge::devices::pci
