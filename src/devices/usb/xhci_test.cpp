// The controller under a small driver, which does as chapter 4 of the specification tells it.
#include "devices/usb/xhci.hpp"

#include <gtest/gtest.h>

#include "devices/pci/test_board.hpp"
#include "devices/usb/tablet.hpp"
#include "memory/test_memory.hpp"

namespace lodge::devices::usb {
namespace {

class UsbController : public testing::Test {
 protected:
  static constexpr uint64_t kBar = 0xc0000000;
  static constexpr uint64_t kContexts = 0x10000, kCommands = 0x11000, kEventTable = 0x12000, kEvents = 0x13000, kInput = 0x14000,
                            kOutput = 0x15000, kControl = 0x16000, kInterrupt = 0x17000, kBuffer = 0x18000;
  static constexpr unsigned kEventCount = 16;

  struct Event {
    uint64_t parameter;
    unsigned code, type, slot, left;
  };

  UsbController() {
    xhci.attach(1, tablet);
    EXPECT_TRUE(board.bridge->plug(xhci, 4));
    board.write(4, pci::kBar0, 4, kBar);
    board.write(4, pci::kCommand, 2, pci::kMemorySpace | pci::kBusMaster);
  }
  uint32_t get(uint64_t offset) { return static_cast<uint32_t>(board.memory.read(kBar + offset, 4)); }
  void put(uint64_t offset, uint32_t value) { board.memory.write(kBar + offset, 4, value); }
  uint32_t port(unsigned number) { return get(0x40 + 0x400 + 0x10 * (number - 1)); }

  void start() {
    put(0x40 + 0x30, kContexts);
    put(0x40 + 0x34, 0);
    put(0x40 + 0x38, 8);
    put(0x40 + 0x18, kCommands | 1);
    put(0x40 + 0x1c, 0);
    memory.put<uint64_t>(kEventTable, kEvents);
    memory.put<uint32_t>(kEventTable + 8, kEventCount);
    put(0x1028, 1);
    put(0x1038, kEvents);
    put(0x103c, 0);
    put(0x1030, kEventTable);
    put(0x1034, 0);
    put(0x1020, 2);
    put(0x40, 5);
  }
  std::optional<Event> next_event() {
    const uint64_t at = kEvents + 16 * event_;
    const auto control = memory.get<uint32_t>(at + 12);
    if ((control & 1) != event_cycle_) return std::nullopt;
    const Event event{memory.get<uint64_t>(at), memory.get<uint32_t>(at + 8) >> 24, control >> 10 & 0x3f, control >> 24,
                      memory.get<uint32_t>(at + 8) & 0xffffff};
    if (++event_ == kEventCount) {
      event_ = 0;
      event_cycle_ ^= 1;
    }
    return event;
  }
  void done_with_events() {
    put(0x1038, static_cast<uint32_t>(kEvents + 16 * event_) | 8);
    put(0x103c, 0);
  }
  void put_trb(uint64_t ring, unsigned& place, uint64_t parameter, uint32_t status, uint32_t control) {
    const uint64_t at = ring + 16 * place++;
    memory.put<uint64_t>(at, parameter);
    memory.put<uint32_t>(at + 8, status);
    memory.put<uint32_t>(at + 12, control | 1);
  }
  Event command(uint64_t parameter, unsigned type, uint32_t more = 0) {
    put_trb(kCommands, command_, parameter, 0, type << 10 | more);
    put(0x2000, 0);
    for (;;) {
      const auto event = next_event();
      if (!event) {
        ADD_FAILURE() << "no completion of command " << type;
        return {};
      }
      if (event->type == 33) return *event;
    }
  }
  // Slot 1 with the tablet at address 1 and its control endpoint.
  void address() {
    put(0x40 + 0x400, port(1) | 1 << 4);
    EXPECT_EQ(command(0, 9).slot, 1U);
    memory.put<uint64_t>(kContexts + 8, kOutput);
    memory.put<uint32_t>(kInput + 4, 3);
    memory.put<uint32_t>(kInput + 32, 1 << 27 | 3 << 20);
    memory.put<uint32_t>(kInput + 32 + 4, 1 << 16);
    memory.put<uint32_t>(kInput + 64 + 4, 64 << 16 | 4 << 3 | 3 << 1);
    memory.put<uint64_t>(kInput + 64 + 8, kControl | 1);
    EXPECT_EQ(command(kInput, 11, 1 << 24).code, 1U);
  }
  void configure() {
    memory.put<uint32_t>(kInput + 4, 1 | 1 << 3);
    memory.put<uint32_t>(kInput + 32, 3 << 27 | 3 << 20);
    memory.put<uint32_t>(kInput + 32 * 4 + 4, 8 << 16 | 7 << 3 | 3 << 1);
    memory.put<uint64_t>(kInput + 32 * 4 + 8, kInterrupt | 1);
    EXPECT_EQ(command(kInput, 12, 1 << 24).code, 1U);
    EXPECT_EQ(no_data({0x00, 9, 1, 0, 0}).code, 1U);
  }
  static uint64_t setup_bytes(const usb::Setup& s) {
    return s.type | s.request << 8 | uint64_t{s.value} << 16 | uint64_t{s.index} << 32 | uint64_t{s.length} << 48;
  }
  Event wait_transfer() {
    for (;;) {
      const auto event = next_event();
      if (!event) {
        ADD_FAILURE() << "no transfer event";
        return {};
      }
      if (event->type == 32) return *event;
    }
  }
  Event in(const usb::Setup& setup, uint32_t room) {
    put_trb(kControl, control_, setup_bytes(setup), 8, 2 << 10 | 1 << 6 | 3 << 16);
    put_trb(kControl, control_, kBuffer, room, 3 << 10 | 1 << 16 | 1 << 2);
    put_trb(kControl, control_, 0, 0, 4 << 10 | 1 << 5);
    put(0x2004, 1);
    return wait_transfer();
  }
  Event no_data(const usb::Setup& setup) {
    put_trb(kControl, control_, setup_bytes(setup), 8, 2 << 10 | 1 << 6);
    put_trb(kControl, control_, 0, 0, 4 << 10 | 1 << 5 | 1 << 16);
    put(0x2004, 1);
    return wait_transfer();
  }

  memory::test::Memory memory;
  FakeClock clock;
  Tablet tablet;
  pci::test::Board board;
  Xhci xhci{*memory.guest, clock};
  unsigned command_ = 0, control_ = 0, event_ = 0, event_cycle_ = 1;
};

TEST_F(UsbController, SaysWhatItHas) {
  EXPECT_EQ(get(0) & 0xff, 0x40U);
  EXPECT_EQ(get(4), 8U | 1 << 8 | 2U << 24);
  EXPECT_EQ(get(0x44) & 1, 1U) << "halted";
  EXPECT_EQ(port(1) & 3, 1U) << "connected, not enabled";
  EXPECT_EQ(port(2) & 1, 0U);
  EXPECT_EQ(get(0x20) & 0xff, 2U) << "supported protocol";
  EXPECT_EQ(board.memory.read(kBar + 2, 2), 0x100U) << "a part of a dword";
}

TEST_F(UsbController, PortsTellOfTheirReset) {
  start();
  auto event = next_event();
  ASSERT_TRUE(event);
  EXPECT_EQ(event->type, 34U) << "something is connected";
  put(0x40 + 0x400, port(1) | 1 << 4);
  event = next_event();
  ASSERT_TRUE(event);
  EXPECT_EQ(event->type, 34U);
  EXPECT_EQ(event->parameter >> 24, 1U);
  EXPECT_EQ(port(1) & 0x200003, 0x200003U) << "enabled; the reset has ended";
  put(0x40 + 0x400, 1 << 21 | 1 << 9);
  EXPECT_EQ(port(1) & 0x200002, 2U);
}

TEST_F(UsbController, ReadsDescriptors) {
  start();
  address();
  const Event event = in({0x80, 6, 0x0100, 0, 18}, 64);
  EXPECT_EQ(event.code, 13U) << "shorter than the room";
  EXPECT_EQ(event.left, 64U - 18);
  EXPECT_EQ(memory.get<uint16_t>(kBuffer), 18 | 1 << 8);
  EXPECT_EQ(wait_transfer().code, 1U) << "the status stage";
}

TEST_F(UsbController, UnknownRequestsStallUntilReset) {
  start();
  address();
  EXPECT_EQ(in({0xc0, 1, 0, 0, 4}, 4).code, 6U);
  EXPECT_EQ(memory.get<uint32_t>(kOutput + 32) & 7, 2U) << "halted";
  put(0x2004, 1);
  EXPECT_FALSE(next_event()) << "nothing goes on";
  EXPECT_EQ(command(0, 14, 1 << 24 | 1 << 16).code, 1U);
  control_ = 0;
  EXPECT_EQ(command(kControl | 1, 16, 1 << 24 | 1 << 16).code, 1U);
  EXPECT_EQ(in({0x80, 6, 0x0100, 0, 18}, 18).code, 1U);
}

TEST_F(UsbController, ReportsArriveWhenTheyCome) {
  start();
  address();
  configure();
  unsigned place = 0;
  put_trb(kInterrupt, place, kBuffer, 8, 1 << 10 | 1 << 5);
  put(0x2004, 3);
  EXPECT_FALSE(next_event()) << "there is nothing to say";
  tablet.point(0x0102, 0x0304, 0, 1);
  const Event event = wait_transfer();
  EXPECT_EQ(event.code, 13U);
  EXPECT_EQ(event.left, 2U);
  EXPECT_EQ(memory.text(kBuffer, 5), std::string("\x01\x02\x01\x04\x03", 5));
  tablet.point(1, 1, 0, 0);
  EXPECT_FALSE(next_event()) << "there is no room for it";
  put_trb(kInterrupt, place, kBuffer, 6, 1 << 10 | 1 << 5);
  put(0x2004, 3);
  EXPECT_EQ(wait_transfer().code, 1U);
}

TEST_F(UsbController, StoppedEndpointsSayWhereTheyAre) {
  start();
  address();
  configure();
  unsigned place = 0;
  put_trb(kInterrupt, place, kBuffer, 8, 1 << 10 | 1 << 5);
  put(0x2004, 3);
  tablet.point(1, 1, 0, 0);
  wait_transfer();
  EXPECT_EQ(command(0, 15, 1 << 24 | 3 << 16).code, 1U);
  EXPECT_EQ(memory.get<uint32_t>(kOutput + 32 * 3) & 7, 3U);
  EXPECT_EQ(memory.get<uint64_t>(kOutput + 32 * 3 + 8), (kInterrupt + 16) | 1);
  EXPECT_EQ(command(0, 15, 1 << 24 | 3 << 16).code, 19U) << "it is stopped already";
}

TEST_F(UsbController, InterruptsUntilTheHandlerIsDone) {
  start();
  EXPECT_TRUE(board.lines[pci::HostBridge::line_of(4, 1)]);
  EXPECT_EQ(get(0x44) & 8, 8U);
  EXPECT_EQ(get(0x1020) & 1, 1U);
  while (next_event()) {
  }
  put(0x44, 8);
  put(0x1020, 3);
  done_with_events();
  EXPECT_FALSE(board.lines[pci::HostBridge::line_of(4, 1)]);
  command(0, 23);
  EXPECT_TRUE(board.lines[pci::HostBridge::line_of(4, 1)]);
}

TEST_F(UsbController, EventsWaitForRoom) {
  start();
  for (unsigned i = 0; i < 3 * kEventCount; ++i) put_trb(kCommands, command_, 0, 0, 23 << 10);
  put(0x2000, 0);
  unsigned seen = 0, rounds = 0;
  while (seen < 3 * kEventCount && ++rounds < 100) {
    while (const auto event = next_event()) seen += event->type == 33;
    done_with_events();
  }
  EXPECT_EQ(seen, 3 * kEventCount);
}

TEST_F(UsbController, WrongCommandsAreRefused) {
  start();
  EXPECT_EQ(command(0, 11, 1 << 24).code, 11U) << "slot not enabled";
  EXPECT_EQ(command(0, 50).code, 11U);
  for (unsigned i = 1; i <= 8; ++i) EXPECT_EQ(command(0, 9).slot, i);
  EXPECT_EQ(command(0, 9).code, 9U) << "no slots";
  memory.put<uint32_t>(kInput + 4, 3);
  memory.put<uint32_t>(kInput + 32 + 4, 2 << 16);
  done_with_events();
  EXPECT_EQ(command(kInput, 11, 1 << 24).code, 17U) << "there is nothing at port 2";
  EXPECT_EQ(command(0, 10, 1 << 24).code, 1U);
}

TEST_F(UsbController, ResetForgetsAll) {
  start();
  address();
  configure();
  EXPECT_TRUE(tablet.in_use());
  put(0x40, 2);
  EXPECT_FALSE(tablet.in_use());
  EXPECT_EQ(get(0x44) & 1, 1U);
  EXPECT_EQ(get(0x40), 0U);
}

}  // namespace
}  // namespace lodge::devices::usb
