#include "machine/acpi/dsdt.hpp"

#include <array>

#include "devices/chipset/i440fx_board.hpp"
#include "devices/pci/host_bridge.hpp"
#include "machine/acpi/aml.hpp"
#include "machine/acpi/header.hpp"
#include "machine/acpi/tables.hpp"

namespace lodge::machine::acpi {

namespace {

Aml isa_device(std::string_view path, std::string_view id, const Aml& descriptors) {
  constexpr uint64_t kPresentEnabled = 0xf;
  return device(path, sequence(name("_HID", eisa_id(id)), name("_STA", integer(kPresentEnabled)), name("_CRS", resources(descriptors))));
}

// The direct machine's PCI bus, with the lines of its devices' pins (6.2.13), and the memory of its configuration space, which must be
// reserved by some other device (PCI Firmware 3.2, 4.1.2).
Aml direct_bus() {
  using devices::pci::HostBridge;
  std::vector<Aml> routes;
  for (uint32_t device = 1; device < HostBridge::kDevices; ++device)
    for (uint32_t pin = 0; pin < HostBridge::kPins; ++pin)
      routes.push_back(package(
          {integer(device << 16 | 0xffff), integer(pin), integer(0), integer(kFirstPciIrq + HostBridge::line_of(device, pin + 1))}));
  const Aml windows = sequence(bus_numbers(0, 0), io_ports(HostBridge::kConfigAddress, 8), port_window(kPciPorts, 0x10000 - kPciPorts),
                               memory_window(kPciMemory, kPciMemoryBytes));
  const Aml bus = device("PCI0", sequence(name("_HID", eisa_id("PNP0A03")), name("_UID", integer(0)), name("_BBN", integer(0)),
                                          name("_CRS", resources(windows)), name("_PRT", package(routes))));
  const Aml configuration = device("ECAM", sequence(name("_HID", eisa_id("PNP0C02")), name("_UID", integer(0)),
                                                    name("_CRS", resources(fixed_memory(kPciConfiguration, kPciConfigurationBytes)))));
  return sequence(bus, configuration);
}

Aml processors(uint32_t vcpus) {
  Aml all;
  for (uint32_t i = 0; i < vcpus; ++i) {
    const std::string path = fmt::format("C{:03X}", i);
    all = sequence(all, device(path, sequence(name("_HID", string("ACPI0007")), name("_UID", integer(i)))));
  }
  return all;
}

// What both machines have on their ISA buses.
Aml legacy_devices() {
  return sequence(isa_device("COM1", "PNP0501", sequence(io_ports(0x3f8, 8), irq(4))),
                  isa_device("RTC", "PNP0B00", sequence(io_ports(0x70, 2), irq(8))),
                  isa_device("KBD", "PNP0303", sequence(io_ports(0x60, 1), io_ports(0x64, 1), irq(1))));
}

std::vector<uint8_t> make_dsdt(uint8_t soft_off_sleep, const Aml& devices) {
  const Aml s5 = package({integer(soft_off_sleep), integer(soft_off_sleep), integer(0), integer(0)});
  std::vector<uint8_t> out;
  append(out, make_header("DSDT", 2));
  const Aml body = sequence(name("\\_S5", s5), scope("\\_SB", devices));
  out.insert(out.end(), body.begin(), body.end());
  return finish(std::move(out));
}

// --- The 440FX machine

using devices::chipset::I440FxBoard;

constexpr std::array<const char*, 4> kLinks{"LNKA", "LNKB", "LNKC", "LNKD"};
constexpr std::array<const char*, 4> kRouterFields{"PRQ0", "PRQ1", "PRQ2", "PRQ3"};

// One of the router's inputs as a device (6.2.13): its register holds the interrupt, or bit 7 when it leads nowhere (82371SB, 2.2.11).
Aml interrupt_link(unsigned number) {
  constexpr uint8_t kDisabled = 0x80, kLine = 0x0f, kPresentOnly = 0x09, kPresentEnabled = 0x0b;
  constexpr unsigned kLineInDescriptor = 5;
  const Aml reg = name_string(std::string("\\_SB.PCI0.ISA.") + kRouterFields[number]);
  const Aml is_off = bit_and(reg, integer(kDisabled));
  const Aml state = method("_STA", 0, sequence(if_true(is_off, returns(integer(kPresentOnly))), returns(integer(kPresentEnabled))));
  const Aml disable = method("_DIS", 0, store(bit_or(reg, integer(kDisabled)), reg));
  const Aml now =
      method("_CRS", 0,
             sequence(name("BUF0", resources(level_interrupt({0}))), dword_in_buffer(name_string("BUF0"), kLineInDescriptor, "IRQW"),
                      store(bit_and(reg, integer(kLine)), name_string("IRQW")), returns(name_string("BUF0"))));
  const Aml set = method("_SRS", 1, sequence(dword_in_buffer(argument(0), kLineInDescriptor, "IRQW"), store(name_string("IRQW"), reg)));
  return device(kLinks[number], sequence(name("_HID", eisa_id("PNP0C0F")), name("_UID", integer(number)), state, disable, now, set,
                                         name("_PRS", resources(level_interrupt({5, 10, 11})))));
}

Aml isa_bridge() {
  constexpr uint64_t kAddress = uint64_t{I440FxBoard::kIsaDevice} << 16;
  constexpr uint64_t kRouter = 0x60;
  const Aml fields = byte_fields("PIRQ", {kRouterFields[0], kRouterFields[1], kRouterFields[2], kRouterFields[3]});
  return device("ISA", sequence(name("_ADR", integer(kAddress)), region("PIRQ", Space::PciConfig, kRouter, 4), fields, legacy_devices(),
                                isa_device("MOU", "PNP0F13", irq(12))));
}

Aml i440fx_bus(const MemoryMap& map) {
  using devices::pci::HostBridge;
  std::vector<Aml> routes;
  for (uint32_t number = 1; number < HostBridge::kDevices; ++number)
    for (uint32_t pin = 0; pin < HostBridge::kPins; ++pin)
      routes.push_back(
          package({integer(number << 16 | 0xffff), integer(pin), name_string(kLinks[I440FxBoard::line_of(number, pin + 1)]), integer(0)}));
  // Ports but those of configuration; the display's memory; what lies between RAM and the IOAPIC, and above all RAM, where firmware may
  // put 64-bit BARs.
  constexpr uint32_t kAfterConfig = HostBridge::kConfigAddress + 8;
  constexpr uint64_t kDisplay = 0xa0000, kDisplayBytes = 0x20000;
  const Aml windows = sequence(bus_numbers(0, 0xff), io_ports(HostBridge::kConfigAddress, 8), port_window(0, HostBridge::kConfigAddress),
                               port_window(kAfterConfig, 0x10000 - kAfterConfig), memory_window(kDisplay, kDisplayBytes),
                               memory_window(map.low_end, kIoapic - map.low_end), memory_window(map.end_above_4g(), kHighWindowBytes));
  Aml links;
  for (unsigned i = 0; i < kLinks.size(); ++i) links = sequence(links, interrupt_link(i));
  return device("PCI0", sequence(name("_HID", eisa_id("PNP0A03")), name("_UID", integer(0)), name("_ADR", integer(0)),
                                 name("_CRS", resources(windows)), isa_bridge(), links, name("_PRT", package(routes))));
}

}  // namespace

std::vector<uint8_t> build_direct_dsdt(uint32_t vcpus) {
  return make_dsdt(kPmLayout.soft_off_sleep, sequence(legacy_devices(), direct_bus(), processors(vcpus)));
}

std::vector<uint8_t> build_i440fx_dsdt(uint32_t vcpus, const MemoryMap& map) {
  return make_dsdt(I440FxBoard::kPowerLayout.soft_off_sleep, sequence(i440fx_bus(map), processors(vcpus)));
}

}  // namespace lodge::machine::acpi
