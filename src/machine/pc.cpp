#include "machine/pc.hpp"

#include <unistd.h>

#include "base/log.hpp"
#include "machine/acpi/tables.hpp"

namespace lodge::machine {

namespace {
constexpr uint32_t kIrqTimer = 0, kIrqKeyboard = 1, kIrqCom1 = 4, kIrqFloppy = 6, kIrqRtc = 8, kIrqMouse = 12;
constexpr uint16_t kPortKeyboardData = 0x60, kPortKeyboardCommand = 0x64, kPortRtc = 0x70, kPortPostCode = 0x80, kPortSystemControlA = 0x92,
                   kPortApm = 0xb2, kPortBochsConsole = 0xe9, kPortCom1 = 0x3f8, kPortOvmfConsole = 0x402, kPortResetControl = 0xcf9,
                   kPortDebugExit = 0x501;
constexpr uint16_t kDebugExitBytes = 4;
// As the ICH9 has it (datasheet, 21.1.8): the last four inputs, which its bridges use as well.
constexpr uint32_t kFirstSharedInput = 20, kSharedInputs = 4;
constexpr unsigned kByBridges = 0, kByHpet = 1;
}  // namespace

std::vector<kvm_irq_routing_entry> pc_gsi_routing() {
  constexpr uint32_t kPicLines = 16, kIoapicLines = 24, kIoapicTimerInput = 2, kCascade = 2;
  std::vector<kvm_irq_routing_entry> entries;
  const auto route = [&](uint32_t gsi, uint32_t chip, uint32_t input) {
    kvm_irq_routing_entry entry{};
    entry.gsi = gsi;
    entry.type = KVM_IRQ_ROUTING_IRQCHIP;
    entry.u.irqchip = {.irqchip = chip, .pin = input};
    entries.push_back(entry);
  };
  for (uint32_t gsi = 0; gsi < kPicLines; ++gsi)
    if (gsi != kCascade) route(gsi, gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, gsi % 8);
  for (uint32_t gsi = 0; gsi < kIoapicLines; ++gsi)
    if (gsi != kIoapicTimerInput) route(gsi, KVM_IRQCHIP_IOAPIC, gsi == 0 ? kIoapicTimerInput : gsi);
  return entries;
}

devices::IrqPin Pc::pin(uint32_t gsi) const {
  return devices::IrqPin([&vm = vm_, gsi](bool level) {
    if (const auto done = vm.irq_line(gsi, level); !done) log::debug("interrupt line {}: {}", gsi, done.error().message);
  });
}

// RTC_STS rises with the clock's own interrupt (ACPI 6.5, 4.8.2.4).
devices::IrqPin Pc::rtc_pin() {
  return devices::IrqPin([this, line = pin(kIrqRtc)](bool level) {
    if (!timers_replaced_) line.set(level);
    if (level) acpi_.rtc_interrupt();
  });
}

devices::IrqPin Pc::board_pin(uint32_t gsi) {
  const uint32_t shared = gsi - kFirstSharedInput;
  return shared < shared_lines_.size() ? shared_lines_[shared]->input(kByBridges) : pin(gsi);
}

// With the HPET in their place the 8254's and the clock's interrupts go nowhere (IA-PC HPET 1.0a, 2.3.5).
void Pc::replace_timers(bool by_hpet) {
  timers_replaced_ = by_hpet;
  if (by_hpet) pin(kIrqRtc).lower();  // what the clock had raised would hide the HPET's edges
  auto pit = vm_.get_pit2();
  if (!pit) return log::debug("8254: {}", pit.error().message);
  pit->flags = by_hpet ? pit->flags | KVM_PIT_FLAGS_HPET_LEGACY : pit->flags & ~uint32_t{KVM_PIT_FLAGS_HPET_LEGACY};
  if (const auto done = vm_.set_pit2(*pit); !done) log::debug("8254: {}", done.error().message);
}

Result<> Pc::attach_hpet() {
  devices::Hpet::Board board{.irq0 = pin(kIrqTimer),
                             .irq8 = pin(kIrqRtc),
                             .inputs = {},
                             .legacy = [this](bool on) { replace_timers(on); },
                             .changed = [this] { host_.loop.wake(); }};
  for (uint32_t i = 0; i < kSharedInputs; ++i) {
    shared_lines_.push_back(std::make_unique<devices::SharedLine>(pin(kFirstSharedInput + i)));
    board.inputs[kFirstSharedInput + i] = shared_lines_.back()->input(kByHpet);
    board.possible |= 1u << (kFirstSharedInput + i);
  }
  hpet_ = std::make_unique<devices::Hpet>(std::move(board), host_.clock);
  return mmio_.attach(devices::Hpet::kBase, devices::Hpet::kBytes, *hpet_, "HPET");
}

void Pc::debug_byte(uint8_t byte) const {
  if (host_.debug_console < 0) return;
  [[maybe_unused]] const ssize_t written = write(host_.debug_console, &byte, 1);
}

Pc::Pc(Kind kind, engine::Vm& vm, Host host)
    : vm_(vm),
      host_(std::move(host)),
      com1_(pin(kIrqCom1), host_.clock,
            {.transmit = [this](std::span<const uint8_t> bytes) { host_.serial.write(bytes); }, .changed = [this] { host_.loop.wake(); }}),
      rtc_(rtc_pin(), host_.clock, [this] { host_.loop.wake(); }),
      a20_(host_.a20),
      // Whoever boots a kernel without firmware sits at a serial line: nothing to probe for.
      keyboard_({.keyboard = pin(kIrqKeyboard),
                 .mouse = pin(kIrqMouse),
                 .has_mouse = kind != Kind::Direct,
                 .tested = kind == Kind::Direct,
                 .reset = host_.init,
                 .a20 = [this](bool open) { a20_.set(open); }}),
      acpi_(pin(acpi::kSciIrq), host_.clock, acpi_layout(kind), {.power_off = host_.power_off, .changed = [this] { host_.loop.wake(); }}),
      reset_control_(host_.reset),
      system_control_a_(host_.init, a20_),
      panic_event_(host_.panicked),
      debug_exit_(host_.debug_exit),
      bochs_console_(0xe9, [this](uint8_t byte) { debug_byte(byte); }),
      ovmf_console_(0xe9, [this](uint8_t byte) { debug_byte(byte); }) {}

Result<> Pc::attach_all(Kind kind, const MemoryMap& map, memory::GuestMemory& memory) {
  TRY(ports_.attach(kPortKeyboardData, 1, keyboard_.data_port(), "i8042 data"));
  TRY(ports_.attach(kPortKeyboardCommand, 1, keyboard_.command_port(), "i8042 command"));
  TRY(ports_.attach(kPortRtc, 2, rtc_, "rtc"));
  TRY(ports_.attach(kPortPostCode, 1, post_code_, "post code"));
  TRY(ports_.attach(kPortSystemControlA, 1, system_control_a_, "system control A"));
  TRY(ports_.attach(kPortApm, devices::ApmPorts::kBytes, apm_, "power management"));
  TRY(ports_.attach(kPortBochsConsole, 1, bochs_console_, "debug console"));
  TRY(ports_.attach(kPortCom1, 8, com1_, "com1"));
  TRY(ports_.attach(kPortOvmfConsole, 1, ovmf_console_, "debug console"));
  TRY(ports_.attach(acpi::kPanicPort, 1, panic_event_, "panic event"));
  if (host_.debug_exit) TRY(ports_.attach(kPortDebugExit, kDebugExitBytes, debug_exit_, "debug exit"));
  // 0xCF9 lies within the dword at 0xCF8 by which PCI configuration is reached: a byte there is the reset control's.
  TRY(beside_pci_.attach(kPortResetControl, 1, reset_control_, "reset control"));
  if (kind != Kind::Direct) {
    dma_ = std::make_unique<devices::I8237>(memory);
    TRY(dma_->attach(ports_));
    TRY(attach_hpet());
  }
  if (host_.floppy) {
    floppy_ = std::make_unique<devices::floppy::Controller>(pin(kIrqFloppy), *dma_);
    TRY(floppy_->attach(ports_));
  }
  chipset_ = TRY(Chipset::create(kind, {.map = map,
                                        .memory = memory,
                                        .ports = ports_,
                                        .mmio = mmio_,
                                        .beside_pci = beside_pci_,
                                        .acpi = acpi_,
                                        .pin = [this](uint32_t gsi) { return board_pin(gsi); },
                                        .send_message = [this](uint64_t address, uint32_t data) { send_message(address, data); },
                                        .shadow_changed = host_.shadow_changed,
                                        .floppy = host_.floppy,
                                        .root_ports = host_.root_ports}));
  return {};
}

// Whatever the guest has written as its message: one that is none goes nowhere, as on the bus.
void Pc::send_message(uint64_t address, uint32_t data) const {
  const kvm_msi message{.address_lo = static_cast<uint32_t>(address), .address_hi = static_cast<uint32_t>(address >> 32), .data = data};
  if (const auto sent = vm_.signal_msi(message); !sent) log::debug("MSI to {:#x}: {}", address, sent.error().message);
}

void Pc::connect_host() {
  host_.serial.set_sink(
      {.space = [this] { return com1_.receive_space(); }, .receive = [this](std::span<const uint8_t> bytes) { com1_.receive(bytes); }});
  deadlines_.push_back(host_.loop.add_deadline([this] { return com1_.deadline(); }, [this] { com1_.on_deadline(); }));
  deadlines_.push_back(host_.loop.add_deadline([this] { return rtc_.deadline(); }, [this] { rtc_.on_deadline(); }));
  deadlines_.push_back(host_.loop.add_deadline([this] { return acpi_.deadline(); }, [this] { acpi_.on_deadline(); }));
  if (hpet_) deadlines_.push_back(host_.loop.add_deadline([this] { return hpet_->deadline(); }, [this] { hpet_->on_deadline(); }));
}

Result<std::unique_ptr<Pc>> Pc::create(Kind kind, engine::Vm& vm, const MemoryMap& map, memory::GuestMemory& memory, Host host) {
  std::unique_ptr<Pc> pc(new Pc(kind, vm, std::move(host)));
  TRY(pc->attach_all(kind, map, memory));
  pc->rtc_.set_memory_size(map.low_end, map.above_size);
  pc->connect_host();
  return pc;
}

Result<> Pc::start() {
  if (floppy_) rtc_.set_floppy_types(floppy_->drive_types());
  return chipset_->start();
}

Pc::~Pc() {
  host_.serial.set_sink({});
  for (const EventLoop::Handle deadline : deadlines_) host_.loop.remove(deadline);
}

}  // namespace lodge::machine
