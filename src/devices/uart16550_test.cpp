#include "devices/uart16550.hpp"

#include <gtest/gtest.h>

#include <string>

#include "base/clock.hpp"

namespace lodge::devices {
namespace {

// Register numbers and bits of the PC16550D data sheet, restated.
constexpr unsigned RBR = 0, THR = 0, IER = 1, IIR = 2, FCR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6, SCR = 7, DLL = 0, DLM = 1;

class Uart : public testing::Test {
 protected:
  uint8_t read(unsigned reg) { return uart.read(reg, now); }
  void write(unsigned reg, uint8_t value) { uart.write(reg, value, now); }
  size_t send(const std::string& text) { return uart.receive(std::span(reinterpret_cast<const uint8_t*>(text.data()), text.size()), now); }
  // 115200 8N1, receive interrupts, OUT2 on, FIFOs with the given trigger bits.
  void start(uint8_t fcr = 0x01) {
    write(LCR, 0x83);
    write(DLL, 1);
    write(DLM, 0);
    write(LCR, 0x03);
    write(FCR, fcr);
    write(MCR, 0x0b);
    write(IER, 0x01);
  }
  Uart16550 uart;
  uint64_t now = 1000;
};

TEST_F(Uart, ResetStateFollowsTable3) {
  EXPECT_EQ(read(IER), 0);
  EXPECT_EQ(read(IIR), 0x01);
  EXPECT_EQ(read(LCR), 0);
  EXPECT_EQ(read(MCR), 0);
  EXPECT_EQ(read(LSR), 0x60);
}

TEST_F(Uart, DivisorLatchHidesBehindDlab) {
  write(LCR, 0x80);
  write(DLL, 0x34);
  write(DLM, 0x12);
  EXPECT_EQ(read(DLL), 0x34);
  EXPECT_EQ(read(DLM), 0x12);
  write(LCR, 0x00);
  EXPECT_EQ(read(IER), 0);
  EXPECT_TRUE(uart.take_transmitted().empty());
}

TEST_F(Uart, ScratchAndModemControlKeepTheirBits) {
  write(SCR, 0xa5);
  write(MCR, 0xff);
  EXPECT_EQ(read(SCR), 0xa5);
  EXPECT_EQ(read(MCR), 0x1f);
}

TEST_F(Uart, TransmittedBytesLeaveInOrder) {
  write(THR, 'o');
  write(THR, 'k');
  EXPECT_EQ(uart.take_transmitted(), (std::vector<uint8_t>{'o', 'k'}));
  EXPECT_TRUE(uart.take_transmitted().empty());
}

TEST_F(Uart, EnablingTransmitterInterruptWithEmptyThrRaisesItAndReadingIirAcknowledges) {
  write(MCR, 0x08);
  write(IER, 0x02);
  EXPECT_TRUE(uart.interrupt());
  EXPECT_EQ(read(IIR) & 0x0f, 0x02);
  EXPECT_FALSE(uart.interrupt());
  EXPECT_EQ(read(IIR) & 0x0f, 0x01);
  write(THR, 'x');
  EXPECT_TRUE(uart.interrupt());
}

TEST_F(Uart, InterruptNeedsOut2) {
  write(IER, 0x02);
  EXPECT_FALSE(uart.interrupt());
  write(MCR, 0x08);
  EXPECT_TRUE(uart.interrupt());
}

TEST_F(Uart, ReceivedByteSetsDataReadyAndInterruptsAtTriggerOne) {
  start();
  EXPECT_EQ(send("a"), 1u);
  EXPECT_TRUE(uart.interrupt());
  EXPECT_EQ(read(IIR), 0xc4);
  EXPECT_EQ(read(LSR), 0x61);
  EXPECT_EQ(read(RBR), 'a');
  EXPECT_EQ(read(LSR), 0x60);
  EXPECT_FALSE(uart.interrupt());
}

TEST_F(Uart, BelowTriggerTheCharacterTimeoutComesAfterFourCharacterTimes) {
  start(0x81);  // trigger 8
  send("abc");
  EXPECT_FALSE(uart.interrupt());
  const uint64_t four_characters = 4 * 10 * kSecondNs / 115200;
  EXPECT_EQ(uart.deadline() / 1000, (now + four_characters) / 1000);
  uart.advance(uart.deadline() - 1);
  EXPECT_FALSE(uart.interrupt());
  now = uart.deadline();
  uart.advance(now);
  EXPECT_TRUE(uart.interrupt());
  EXPECT_EQ(read(IIR), 0xcc);
  EXPECT_EQ(uart.deadline(), kNever);
  EXPECT_EQ(read(RBR), 'a');
  EXPECT_FALSE(uart.interrupt()) << "reading restarts the timeout";
  EXPECT_NE(uart.deadline(), kNever);
}

TEST_F(Uart, TriggerLevelsAreOneFourEightFourteen) {
  const size_t levels[] = {1, 4, 8, 14};
  for (unsigned i = 0; i < 4; ++i) {
    Uart16550 fresh;
    uart = fresh;
    start(static_cast<uint8_t>(i << 6 | 1));
    send(std::string(levels[i] - 1, 'x'));
    EXPECT_FALSE(uart.interrupt()) << "level " << levels[i];
    send("x");
    EXPECT_EQ(read(IIR), 0xc4) << "level " << levels[i];
  }
}

TEST_F(Uart, ReceivedDataHasPriorityOverTransmitter) {
  start();
  write(IER, 0x03);
  send("a");
  EXPECT_EQ(read(IIR) & 0x0f, 0x04);
  read(RBR);
  EXPECT_EQ(read(IIR) & 0x0f, 0x02);
}

TEST_F(Uart, InputWaitsUntilTheGuestEnablesReceiving) {
  EXPECT_EQ(send("early"), 5u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(read(LSR) & 1, 0);
  read(RBR);  // a driver's probe clears what may be there
  start();
  std::string got;
  while (read(LSR) & 1) got += static_cast<char>(read(RBR));
  EXPECT_EQ(got, "early");
}

TEST_F(Uart, FifoResetLosesNoInput) {
  start();
  send("hello");
  EXPECT_EQ(read(RBR), 'h');
  write(IER, 0);
  write(FCR, 0x07);
  write(FCR, 0x00);
  write(FCR, 0x01);
  write(IER, 1);
  std::string got;
  while (read(LSR) & 1) got += static_cast<char>(read(RBR));
  EXPECT_EQ(got, "ello");
}

TEST_F(Uart, PollingGuestGetsInputWithoutInterrupts) {
  send("k");
  int polls = 0;
  while (!(read(LSR) & 1) && polls < 100) ++polls;
  EXPECT_LT(polls, 100);
  EXPECT_EQ(read(RBR), 'k');
}

TEST_F(Uart, PrintingGuestDoesNotCountAsPolling) {
  send("k");
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(read(LSR), 0x60);
    write(THR, 'x');
  }
}

TEST_F(Uart, QueueIsBoundedAndTakesAgainAfterReading) {
  start();
  const std::string much(Uart16550::kQueueBytes + 100, 'z');
  size_t taken = send(much);
  EXPECT_LT(taken, much.size());
  EXPECT_GE(taken, Uart16550::kQueueBytes);
  while (uart.receive_space() == 0) read(RBR);
  EXPECT_GT(send("more"), 0u);
}

TEST_F(Uart, RtsHoldsInputOnceTheGuestUsesIt) {
  start();
  write(MCR, 0x09);  // RTS off
  send("a");
  EXPECT_EQ(read(LSR) & 1, 0);
  write(MCR, 0x0b);
  EXPECT_EQ(read(LSR) & 1, 1);
}

TEST_F(Uart, LoopbackReturnsWhatIsSentAndSendsNothing) {
  write(MCR, 0x10);
  write(THR, 0x5a);
  EXPECT_EQ(read(LSR) & 1, 1);
  EXPECT_EQ(read(RBR), 0x5a);
  EXPECT_TRUE(uart.take_transmitted().empty());
}

TEST_F(Uart, LoopbackOverrunIsReportedOnce) {
  write(MCR, 0x10);
  write(THR, 1);
  write(THR, 2);
  EXPECT_EQ(read(LSR) & 0x02, 0x02);
  EXPECT_EQ(read(LSR) & 0x02, 0);
  EXPECT_EQ(read(RBR), 2);
}

TEST_F(Uart, LoopbackConnectsModemOutputsToInputs) {
  EXPECT_EQ(read(MSR), 0xb0);
  write(MCR, 0x1a);  // LOOP, OUT2, RTS: what Linux' probe writes, expecting DCD and CTS
  EXPECT_EQ(read(MSR) & 0xf0, 0x90);
  write(MCR, 0x15);  // LOOP, OUT1, DTR
  EXPECT_EQ(read(MSR) & 0xf0, 0x60);
}

TEST_F(Uart, ModemDeltasInterruptAndClearOnRead) {
  write(MCR, 0x08);
  write(IER, 0x08);
  write(MCR, 0x18);
  write(MCR, 0x08);  // back: CTS and DSR changed
  EXPECT_EQ(read(IIR) & 0x0f, 0x00);
  EXPECT_EQ(read(MSR) & 0x03, 0x03);
  EXPECT_EQ(read(MSR) & 0x0f, 0x00);
}

}  // namespace
}  // namespace lodge::devices
