#include "machine/chipset.hpp"

#include "devices/ata/ahci.hpp"
#include "devices/ata/piix_ide.hpp"
#include "devices/chipset/i440fx.hpp"
#include "devices/chipset/i440fx_board.hpp"
#include "devices/chipset/ich9_lpc.hpp"
#include "devices/chipset/piix3.hpp"
#include "devices/chipset/piix4_pm.hpp"
#include "devices/chipset/q35_board.hpp"
#include "devices/chipset/q35_mch.hpp"
#include "machine/acpi/dsdt.hpp"
#include "machine/acpi/tables.hpp"

namespace lodge::machine {

namespace {

constexpr uint32_t kIdePrimary = 14, kIdeSecondary = 15;

using devices::IrqPin;
using devices::pci::HostBridge;

// A host bridge without registers of its own, and no firmware: addresses are given by assign_resources(), the four lines lead to
// inputs of the IOAPIC, and the ACPI block stands where it stands.
class DirectChipset final : public Chipset {
 public:
  static Result<std::unique_ptr<Chipset>> create(const Site& site) {
    constexpr uint8_t kNoPicLine = 0xff;  // PCI 3.0, 6.2.4: these lines reach the IOAPIC only
    TRY(site.ports.attach(acpi::kPmBase, acpi::kPmBytes, site.acpi, "ACPI"));
    auto chipset = std::make_unique<DirectChipset>();
    std::array<IrqPin, HostBridge::kLines> lines;
    for (uint32_t i = 0; i < HostBridge::kPins; ++i) lines[i] = site.pin(acpi::kFirstPciIrq + i);
    chipset->pci_ = TRY(HostBridge::create({.ports = site.ports,
                                            .memory = site.mmio,
                                            .beside_config_address = site.beside_pci,
                                            .io = {acpi::kPciPorts, 0x10000 - acpi::kPciPorts},
                                            .memory32 = {kPciMemory, kPciMemoryBytes},
                                            .memory64 = {},
                                            .ecam = devices::pci::Window{kPciConfiguration, kPciConfigurationBytes},
                                            .send_message = site.send_message,
                                            .lines = lines,
                                            .interrupt_numbers = {kNoPicLine, kNoPicLine, kNoPicLine, kNoPicLine}}));
    return chipset;
  }
  HostBridge& pci() override { return *pci_; }
  Result<> start() override { return pci_->assign_resources(); }

 private:
  std::unique_ptr<HostBridge> pci_;
};

std::array<IrqPin, devices::chipset::PciIrqRouter::kIsaLines> isa_pins(const Chipset::Site& site) {
  std::array<IrqPin, devices::chipset::PciIrqRouter::kIsaLines> pins;
  for (uint32_t i = 0; i < pins.size(); ++i) pins[i] = site.pin(i);
  return pins;
}

// The PCI bridge of a board with firmware: all ports, what RAM leaves free of memory, and the lines that lead to the ISA bridge's router.
template <typename Board, typename IsaBridge>
Result<std::unique_ptr<HostBridge>> create_bridge(const Chipset::Site& site, IsaBridge& isa, devices::pci::Function& host) {
  std::array<IrqPin, HostBridge::kLines> lines;
  for (uint32_t i = 0; i < IsaBridge::kLines; ++i) lines[i] = IrqPin([&isa, i](bool level) { isa.set_line(i, level); });
  return HostBridge::create({.ports = site.ports,
                             .memory = site.mmio,
                             .beside_config_address = site.beside_pci,
                             .io = {0, 0x10000},
                             .memory32 = {site.map.low_end, kIoapic - site.map.low_end},
                             .memory64 = {site.map.end_above_4g(), kHighWindowBytes},
                             .ecam = {},
                             .send_message = site.send_message,
                             .lines = lines,
                             .line_of = &Board::line_of,
                             .bridge = &host});
}

acpi::LegacyBoard legacy_devices(const Chipset::Site& site) { return {.map = site.map, .floppy = site.floppy}; }

// Intel's 440FX with the PIIX3 and the PIIX4's power management: device 1, functions 0 and 3.
class I440FxChipset final : public Chipset {
 public:
  using Board = devices::chipset::I440FxBoard;

  explicit I440FxChipset(const Site& site)
      : legacy_(legacy_devices(site)),
        host_(site.shadow_changed),
        isa_(isa_pins(site)),
        ide_(site.memory, site.ports, {site.pin(kIdePrimary), site.pin(kIdeSecondary)}),
        power_(site.ports, site.acpi) {}

  static Result<std::unique_ptr<Chipset>> create(const Site& site) {
    auto chipset = std::make_unique<I440FxChipset>(site);
    chipset->pci_ = TRY(create_bridge<Board>(site, chipset->isa_, chipset->host_));
    TRY(chipset->pci_->plug(chipset->isa_, Board::kIsaDevice));
    TRY(chipset->pci_->plug(chipset->ide_, Board::kIsaDevice, Board::kIdeFunction));
    TRY(chipset->pci_->plug(chipset->power_, Board::kIsaDevice, Board::kPowerFunction));
    return chipset;
  }
  HostBridge& pci() override { return *pci_; }
  devices::ata::Controller* ata() override { return &ide_; }
  acpi::Board acpi_board(uint32_t vcpus) override {
    return {.hardware = {.base = power_.base(), .layout = Board::kPowerLayout},
            .dsdt = acpi::build_i440fx_dsdt(vcpus, legacy_),
            .level_lines = Board::kLevelLines};
  }
  Result<> start() override { return {}; }  // firmware does what is to be done

 private:
  const acpi::LegacyBoard legacy_;
  devices::chipset::I440Fx host_;
  devices::chipset::Piix3 isa_;
  devices::ata::PiixIde ide_;
  devices::chipset::Piix4Pm power_;
  std::unique_ptr<HostBridge> pci_;
};

// Intel's Q35 with the ICH9: device 31, functions 0 and 2.
class Q35Chipset final : public Chipset {
 public:
  using Board = devices::chipset::Q35Board;
  using Lpc = devices::chipset::Ich9Lpc;

  explicit Q35Chipset(const Site& site)
      : legacy_(legacy_devices(site)),
        host_(site.shadow_changed, [this](std::optional<devices::pci::Window> where) { pci_->show_ecam(where); }),
        isa_({.ports = site.ports, .memory = site.mmio, .power = site.acpi, .isa = isa_pins(site), .apic = apic_pins(site)}),
        sata_(site.memory) {}

  static Result<std::unique_ptr<Chipset>> create(const Site& site) {
    auto chipset = std::make_unique<Q35Chipset>(site);
    chipset->pci_ = TRY(create_bridge<Board>(site, chipset->isa_, chipset->host_));
    TRY(chipset->pci_->plug(chipset->isa_, Board::kLpcDevice));
    TRY(chipset->pci_->plug(chipset->sata_, Board::kLpcDevice, Board::kSataFunction));
    for (unsigned i = 0; i < site.root_ports; ++i) {
      chipset->root_ports_.push_back(std::make_unique<devices::pci::RootPort>(i + 1));
      TRY(chipset->pci_->plug_bridge(*chipset->root_ports_.back(), Board::kRootPortDevice, i));
    }
    return chipset;
  }
  const devices::pci::Bridge* root_port(unsigned number) override {
    return number == 0 || number > root_ports_.size() ? nullptr : root_ports_[number - 1].get();
  }
  HostBridge& pci() override { return *pci_; }
  devices::ata::Controller* ata() override { return &sata_; }
  acpi::Board acpi_board(uint32_t vcpus) override {
    const std::optional<devices::pci::Window> configuration = pci_->ecam();
    return {.hardware = {.base = isa_.power_base(), .layout = Board::kPowerLayout},
            .dsdt = acpi::build_q35_dsdt(vcpus, legacy_, configuration),
            .level_lines = Board::kLevelLines,
            .configuration = configuration};
  }
  Result<> start() override { return {}; }

 private:
  static std::array<IrqPin, Lpc::kLines> apic_pins(const Site& site) {
    std::array<IrqPin, Lpc::kLines> pins;
    for (uint32_t i = 0; i < pins.size(); ++i) pins[i] = site.pin(Board::kFirstPirqInput + i);
    return pins;
  }

  const acpi::LegacyBoard legacy_;
  devices::chipset::Q35Mch host_;
  Lpc isa_;
  devices::ata::Ahci sata_;
  std::vector<std::unique_ptr<devices::pci::RootPort>> root_ports_;
  std::unique_ptr<HostBridge> pci_;
};

}  // namespace

devices::AcpiPm::Layout acpi_layout(Kind kind) {
  switch (kind) {
    case Kind::Direct: return acpi::kPmLayout;
    case Kind::Pc: return devices::chipset::I440FxBoard::kPowerLayout;
    case Kind::Q35: return devices::chipset::Q35Board::kPowerLayout;
  }
  return {};
}

Result<std::unique_ptr<Chipset>> Chipset::create(Kind kind, const Site& site) {
  switch (kind) {
    case Kind::Direct: return DirectChipset::create(site);
    case Kind::Pc: return I440FxChipset::create(site);
    case Kind::Q35: return Q35Chipset::create(site);
  }
  return fail(ErrorKind::Internal, "no such machine");
}

}  // namespace lodge::machine
