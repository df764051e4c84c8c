#include "machine/acpi/dsdt.hpp"

#include <array>
#include <iterator>
#include <utility>

#include "devices/chipset/i440fx_board.hpp"
#include "devices/chipset/q35_board.hpp"
#include "devices/hpet.hpp"
#include "devices/pci/host_bridge.hpp"
#include "machine/acpi/aml.hpp"
#include "machine/acpi/header.hpp"
#include "machine/acpi/tables.hpp"

namespace lodge::machine::acpi {

namespace {

// `id`: a string, or an EISA identity.
Aml isa_device(std::string_view path, const Aml& id, const Aml& descriptors) {
  constexpr uint64_t kPresentEnabled = 0xf;
  return device(path, sequence(name("_HID", id), name("_STA", integer(kPresentEnabled)), name("_CRS", resources(descriptors))));
}
Aml isa_device(std::string_view path, std::string_view id, const Aml& descriptors) { return isa_device(path, eisa_id(id), descriptors); }

// The memory of PCI's configuration space must be reserved by some other device than the bus (PCI Firmware 3.2, 4.1.2).
Aml configuration_space(const devices::pci::Window& where) {
  const Aml memory = fixed_memory(static_cast<uint32_t>(where.base), static_cast<uint32_t>(where.size));
  return device("ECAM", sequence(name("_HID", eisa_id("PNP0C02")), name("_UID", integer(0)), name("_CRS", resources(memory))));
}

// What a board's devices lead to: for each pin of those on bus 0 the source and its index (6.2.13).
template <typename Target>
Aml routing_table(Target target) {
  using devices::pci::HostBridge;
  std::vector<Aml> routes;
  for (uint32_t number = 1; number < HostBridge::kDevices; ++number)
    for (uint32_t pin = 0; pin < HostBridge::kPins; ++pin) {
      const auto [source, index] = target(number, pin + 1);
      routes.push_back(package({integer(number << 16 | 0xffff), integer(pin), source, integer(index)}));
    }
  return package(routes);
}

// The direct machine's PCI bus, with the lines of its devices' pins (6.2.13).
Aml direct_bus() {
  using devices::pci::HostBridge;
  const Aml routes =
      routing_table([](uint32_t number, uint32_t pin) { return std::pair(integer(0), kFirstPciIrq + HostBridge::line_of(number, pin)); });
  const Aml windows = sequence(bus_numbers(0, 0), io_ports(HostBridge::kConfigAddress, 8), port_window(kPciPorts, 0x10000 - kPciPorts),
                               memory_window(kPciMemory, kPciMemoryBytes));
  const Aml bus = device("PCI0", sequence(name("_HID", eisa_id("PNP0A03")), name("_UID", integer(0)), name("_BBN", integer(0)),
                                          name("_CRS", resources(windows)), name("_PRT", routes)));
  return sequence(bus, configuration_space({kPciConfiguration, kPciConfigurationBytes}));
}

Aml processors(uint32_t vcpus) {
  Aml all;
  for (uint32_t i = 0; i < vcpus; ++i) {
    const std::string path = fmt::format("C{:03X}", i);
    all = sequence(all, device(path, sequence(name("_HID", string("ACPI0007")), name("_UID", integer(i)))));
  }
  return all;
}

// What all machines have on their ISA buses.
Aml legacy_devices() {
  return sequence(isa_device("PEVT", string("QEMU0001"), io_ports(kPanicPort, 1)),
                  isa_device("COM1", "PNP0501", sequence(io_ports(0x3f8, 8), irq(4))),
                  isa_device("RTC", "PNP0B00", sequence(io_ports(0x70, 2), irq(8))),
                  isa_device("KBD", "PNP0303", sequence(io_ports(0x60, 1), io_ports(0x64, 1), irq(1))));
}

// `global`: terms outside of \\_SB.
std::vector<uint8_t> make_dsdt(uint8_t soft_off_sleep, const Aml& devices, const Aml& global = {}) {
  const Aml s5 = package({integer(soft_off_sleep), integer(soft_off_sleep), integer(0), integer(0)});
  std::vector<uint8_t> out;
  append(out, make_header("DSDT", 2));
  const Aml body = sequence(name("\\_S5", s5), global, scope("\\_SB", devices));
  out.insert(out.end(), body.begin(), body.end());
  return finish(std::move(out));
}

// --- Interrupt routers

constexpr std::array<const char*, 8> kLinks{"LNKA", "LNKB", "LNKC", "LNKD", "LNKE", "LNKF", "LNKG", "LNKH"};
constexpr std::array<const char*, 8> kRouterFields{"PRQ0", "PRQ1", "PRQ2", "PRQ3", "PRQ4", "PRQ5", "PRQ6", "PRQ7"};

// One of the router's inputs as a device (6.2.13): its register holds the interrupt, or bit 7 when it leads nowhere (82371SB, 2.2.11;
// ICH9, 13.1.11).
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

Aml interrupt_links(unsigned count) {
  Aml links;
  for (unsigned i = 0; i < count; ++i) links = sequence(links, interrupt_link(i));
  return links;
}

// Four of the route registers, from `first` on.
Aml router_fields(std::string_view path, uint64_t offset, unsigned first) {
  const auto& fields = kRouterFields;
  return sequence(region(path, Space::PciConfig, offset, 4),
                  byte_fields(path, {fields[first], fields[first + 1], fields[first + 2], fields[first + 3]}));
}

// The bridge to ISA's devices, with the router's registers.
Aml isa_bridge(unsigned number, const Aml& router, bool has_floppy) {
  constexpr unsigned kFloppyIrq = 6, kFloppyDma = 2;
  const Aml floppy =
      has_floppy ? isa_device("FDC0", "PNP0700", sequence(io_ports(0x3f2, 4), io_ports(0x3f7, 1), irq(kFloppyIrq), dma_channel(kFloppyDma)))
                 : Aml();
  return device("ISA", sequence(name("_ADR", integer(uint64_t{number} << 16)), router, legacy_devices(),
                                isa_device("MOU", "PNP0F13", irq(12)), floppy));
}

// What every board's bridge passes on: ports but those of configuration; the display's memory.
Aml common_windows() {
  using devices::pci::HostBridge;
  constexpr uint32_t kAfterConfig = HostBridge::kConfigAddress + 8;
  constexpr uint64_t kDisplay = 0xa0000, kDisplayBytes = 0x20000;
  return sequence(bus_numbers(0, 0xff), io_ports(HostBridge::kConfigAddress, 8), port_window(0, HostBridge::kConfigAddress),
                  port_window(kAfterConfig, 0x10000 - kAfterConfig), memory_window(kDisplay, kDisplayBytes));
}

Aml event_timer() {
  using devices::Hpet;
  return device("HPET",
                sequence(name("_HID", eisa_id("PNP0103")), name("_UID", integer(0)),
                         name("_CRS", resources(fixed_memory(static_cast<uint32_t>(Hpet::kBase), static_cast<uint32_t>(Hpet::kBytes))))));
}

// --- The 440FX machine

using devices::chipset::I440FxBoard;

Aml i440fx_bus(const LegacyBoard& board) {
  const MemoryMap& map = board.map;
  constexpr uint64_t kRouter = 0x60;
  const Aml routes =
      routing_table([](uint32_t number, uint32_t pin) { return std::pair(name_string(kLinks[I440FxBoard::line_of(number, pin)]), 0u); });
  // Memory: what lies between RAM and the IOAPIC, and above all RAM, where firmware may put 64-bit BARs.
  const Aml windows =
      sequence(common_windows(), memory_window(map.low_end, kIoapic - map.low_end), memory_window(map.end_above_4g(), kHighWindowBytes));
  return device("PCI0", sequence(name("_HID", eisa_id("PNP0A03")), name("_UID", integer(0)), name("_ADR", integer(0)),
                                 name("_CRS", resources(windows)),
                                 isa_bridge(I440FxBoard::kIsaDevice, router_fields("PIRQ", kRouter, 0), board.floppy),
                                 interrupt_links(devices::pci::HostBridge::kPins), name("_PRT", routes)));
}

// --- The Q35 machine

using devices::chipset::Q35Board;

// The operating system says which interrupt controllers it uses (5.8.1).
constexpr const char* kUsesApic = "\\PICF";
Aml interrupt_model() { return sequence(name(kUsesApic, integer(0)), method("\\_PIC", 1, store(argument(0), name_string(kUsesApic)))); }

// What of PCI Express the system may take into its hands (PCI Firmware 3.2, 4.5): all that it asks for but SHPC hot-plug, which needs a
// driver of its own, and for which there is nothing here.
Aml control_method() {
  constexpr uint8_t kUuid[]{0x5b, 0x4d, 0xdb, 0x33, 0xf7, 0x1f, 0x1c, 0x40, 0x96, 0x57, 0x74, 0x41, 0xc0, 0x3d, 0xd7, 0x66};
  constexpr uint32_t kUnknownUuid = 4, kGranted = 0x1d;
  const Aml known = sequence(dword_in_buffer(argument(3), 8, "CTRL"),
                             store(bit_and(name_string("CTRL"), integer(kGranted)), name_string("CTRL")), returns(argument(3)));
  return method(
      "_OSC", 4,
      sequence(if_true(equal(argument(0), buffer(Aml(std::begin(kUuid), std::end(kUuid)))), known), dword_in_buffer(argument(3), 0, "STAT"),
               store(bit_or(name_string("STAT"), integer(kUnknownUuid)), name_string("STAT")), returns(argument(3))));
}

Aml q35_bus(const LegacyBoard& board, const std::optional<devices::pci::Window>& configuration) {
  constexpr uint64_t kRouterA = 0x60, kRouterE = 0x68;
  const MemoryMap& map = board.map;
  const Aml by_apic = routing_table(
      [](uint32_t number, uint32_t pin) { return std::pair(integer(0), Q35Board::kFirstPirqInput + Q35Board::line_of(number, pin)); });
  const Aml by_router =
      routing_table([](uint32_t number, uint32_t pin) { return std::pair(name_string(kLinks[Q35Board::line_of(number, pin)]), 0u); });
  const Aml routes =
      sequence(name("PRTA", by_apic), name("PRTL", by_router),
               method("_PRT", 0, sequence(if_true(name_string(kUsesApic), returns(name_string("PRTA"))), returns(name_string("PRTL")))));
  // Memory as on the older board, around configuration space.
  Aml windows = common_windows();
  if (configuration && configuration->base > map.low_end && configuration->base + configuration->size < kIoapic) {
    const uint64_t end = configuration->base + configuration->size;
    windows = sequence(windows, memory_window(map.low_end, configuration->base - map.low_end), memory_window(end, kIoapic - end));
  } else {
    windows = sequence(windows, memory_window(map.low_end, kIoapic - map.low_end));
  }
  windows = sequence(windows, memory_window(map.end_above_4g(), kHighWindowBytes));
  return device("PCI0", sequence(name("_HID", eisa_id("PNP0A08")), name("_CID", eisa_id("PNP0A03")), name("_UID", integer(0)),
                                 name("_ADR", integer(0)), name("_CRS", resources(windows)), control_method(),
                                 isa_bridge(Q35Board::kLpcDevice,
                                            sequence(router_fields("PIRA", kRouterA, 0), router_fields("PIRE", kRouterE, 4)), board.floppy),
                                 interrupt_links(devices::pci::HostBridge::kLines), routes));
}

}  // namespace

std::vector<uint8_t> build_direct_dsdt(uint32_t vcpus) {
  return make_dsdt(kPmLayout.soft_off_sleep, sequence(legacy_devices(), direct_bus(), processors(vcpus)));
}

std::vector<uint8_t> build_i440fx_dsdt(uint32_t vcpus, const LegacyBoard& board) {
  return make_dsdt(I440FxBoard::kPowerLayout.soft_off_sleep, sequence(i440fx_bus(board), event_timer(), processors(vcpus)));
}

std::vector<uint8_t> build_q35_dsdt(uint32_t vcpus, const LegacyBoard& board, const std::optional<devices::pci::Window>& configuration) {
  // Beyond 4 GiB it is not described: then systems use the ports.
  const bool below_4g = configuration && configuration->base + configuration->size <= kAbove4G;
  const Aml reserved = below_4g ? configuration_space(*configuration) : Aml();
  return make_dsdt(Q35Board::kPowerLayout.soft_off_sleep,
                   sequence(q35_bus(board, configuration), reserved, event_timer(), processors(vcpus)), interrupt_model());
}

}  // namespace lodge::machine::acpi
