#include "machine/acpi/tables.hpp"

#include <cstring>
#include <numeric>
#include <span>

#include "devices/acpi_pm.hpp"
#include "devices/chipset_ports.hpp"
#include "devices/pci/host_bridge.hpp"
#include "machine/acpi/aml.hpp"
#include "machine/memory_map.hpp"

namespace lodge::machine::acpi {

namespace {

using devices::AcpiPm;

struct [[gnu::packed]] Header {  // table 5.4
  char signature[4];
  uint32_t length;
  uint8_t revision;
  uint8_t checksum;
  char oem_id[6];
  char oem_table_id[8];
  uint32_t oem_revision;
  char creator_id[4];
  uint32_t creator_revision;
};

struct [[gnu::packed]] GenericAddress {  // table 5.1
  uint8_t space;                         // 1: system I/O
  uint8_t bits;
  uint8_t bit_offset;
  uint8_t access;  // 1 byte, 2 word, 3 dword
  uint64_t address;
};

struct [[gnu::packed]] Fadt {  // table 5.9
  Header header;
  uint32_t firmware_ctrl, dsdt;
  uint8_t reserved0, preferred_pm_profile;
  uint16_t sci_int;
  uint32_t smi_cmd;
  uint8_t acpi_enable, acpi_disable, s4bios_req, pstate_cnt;
  uint32_t pm1a_evt_blk, pm1b_evt_blk, pm1a_cnt_blk, pm1b_cnt_blk, pm2_cnt_blk, pm_tmr_blk, gpe0_blk, gpe1_blk;
  uint8_t pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len, gpe0_blk_len, gpe1_blk_len, gpe1_base, cst_cnt;
  uint16_t p_lvl2_lat, p_lvl3_lat, flush_size, flush_stride;
  uint8_t duty_offset, duty_width, day_alarm, month_alarm, century;
  uint16_t boot_arch;
  uint8_t reserved1;
  uint32_t flags;
  GenericAddress reset_reg;
  uint8_t reset_value;
  uint16_t arm_boot_arch;
  uint8_t minor_version;
  uint64_t x_firmware_ctrl, x_dsdt;
  GenericAddress x_pm1a_evt_blk, x_pm1b_evt_blk, x_pm1a_cnt_blk, x_pm1b_cnt_blk, x_pm2_cnt_blk, x_pm_tmr_blk, x_gpe0_blk, x_gpe1_blk,
      sleep_control_reg, sleep_status_reg;
  uint64_t hypervisor_vendor;
};
static_assert(sizeof(Header) == 36 && sizeof(GenericAddress) == 12 && sizeof(Fadt) == 276);

struct [[gnu::packed]] Rsdp {  // table 5.3
  char signature[8];
  uint8_t checksum;
  char oem_id[6];
  uint8_t revision;
  uint32_t rsdt;
  uint32_t length;
  uint64_t xsdt;
  uint8_t extended_checksum;
  uint8_t reserved[3];
};
static_assert(sizeof(Rsdp) == 36);

struct [[gnu::packed]] Facs {  // table 5.13
  char signature[4];
  uint32_t length, hardware_signature, waking_vector, global_lock, flags;
  uint64_t x_waking_vector;
  uint8_t version;
  uint8_t reserved[31];
};
static_assert(sizeof(Facs) == 64);

struct [[gnu::packed]] MadtLocalApic {  // 5.2.12.2
  uint8_t type = 0, length = 8, processor_uid, apic_id;
  uint32_t flags = 1;  // enabled
};
struct [[gnu::packed]] MadtIoApic {  // 5.2.12.3
  uint8_t type = 1, length = 12, id = 0, reserved = 0;
  uint32_t address;
  uint32_t gsi_base = 0;
};
struct [[gnu::packed]] MadtOverride {  // 5.2.12.5
  uint8_t type = 2, length = 10, bus = 0, source;
  uint32_t gsi;
  uint16_t flags;
};
struct [[gnu::packed]] MadtLocalNmi {  // 5.2.12.7: all processors, LINT1
  uint8_t type = 4, length = 6, processor_uid = 0xff;
  uint16_t flags = 0;
  uint8_t lint = 1;
};

enum FadtFlag : uint32_t {
  kWbinvd = 1 << 0,
  kProcC1 = 1 << 2,
  kSleepButtonIsDevice = 1 << 5,  // there is no fixed sleep button
  kTimer32Bit = 1 << 8,
  kResetRegister = 1 << 10,
};
enum BootArch : uint16_t { kLegacyDevices = 1 << 0, k8042 = 1 << 1, kNoVga = 1 << 2 };

uint8_t checksum_of(std::span<const uint8_t> bytes) { return static_cast<uint8_t>(-std::accumulate(bytes.begin(), bytes.end(), 0u)); }

template <typename T>
void append(std::vector<uint8_t>& out, const T& value) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(&value);
  out.insert(out.end(), bytes, bytes + sizeof value);
}

Header make_header(const char* signature, uint8_t revision) {
  Header header{};
  std::memcpy(header.signature, signature, 4);
  header.revision = revision;
  std::memcpy(header.oem_id, "LODGE ", 6);
  std::memcpy(header.oem_table_id, "LODGEPC ", 8);
  header.oem_revision = 1;
  std::memcpy(header.creator_id, "LDGE", 4);
  header.creator_revision = 1;
  return header;
}

// Sets length and checksum of a complete table.
std::vector<uint8_t> finish(std::vector<uint8_t> table) {
  const auto length = static_cast<uint32_t>(table.size());
  std::memcpy(table.data() + offsetof(Header, length), &length, sizeof length);
  table[offsetof(Header, checksum)] = 0;
  table[offsetof(Header, checksum)] = checksum_of(table);
  return table;
}

Aml isa_device(std::string_view path, std::string_view id, const Aml& descriptors) {
  constexpr uint64_t kPresentEnabled = 0xf;
  return device(path, sequence(name("_HID", eisa_id(id)), name("_STA", integer(kPresentEnabled)), name("_CRS", resources(descriptors))));
}

// The PCI bus, with the lines of its devices' pins (6.2.13), and the memory of its configuration space, which must be reserved by some
// other device (PCI Firmware 3.2, 4.1.2).
Aml pci_bus() {
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

GenericAddress port(uint16_t address, uint8_t bits, uint8_t access) { return {1, bits, 0, access, address}; }

std::vector<uint8_t> build_xsdt(std::span<const uint64_t> tables) {
  std::vector<uint8_t> out;
  append(out, make_header("XSDT", 1));
  for (uint64_t table : tables) append(out, table);
  return finish(std::move(out));
}

Rsdp build_rsdp(uint64_t xsdt) {
  Rsdp rsdp{};
  std::memcpy(rsdp.signature, "RSD PTR ", 8);
  std::memcpy(rsdp.oem_id, "LODGE ", 6);
  rsdp.revision = 2;
  rsdp.length = sizeof rsdp;
  rsdp.xsdt = xsdt;
  const auto* bytes = reinterpret_cast<const uint8_t*>(&rsdp);
  rsdp.checksum = checksum_of({bytes, 20});
  rsdp.extended_checksum = checksum_of({bytes, sizeof rsdp});
  return rsdp;
}

}  // namespace

std::vector<uint8_t> build_dsdt(uint32_t vcpus) {
  const Aml devices =
      sequence(isa_device("COM1", "PNP0501", sequence(io_ports(0x3f8, 8), irq(4))),
               isa_device("RTC", "PNP0B00", sequence(io_ports(0x70, 2), irq(8))),
               isa_device("KBD", "PNP0303", sequence(io_ports(0x60, 1), io_ports(0x64, 1), irq(1))), pci_bus(), processors(vcpus));
  const Aml s5 = package({integer(kPmLayout.soft_off_sleep), integer(kPmLayout.soft_off_sleep), integer(0), integer(0)});
  std::vector<uint8_t> out;
  append(out, make_header("DSDT", 2));
  const Aml body = sequence(name("\\_S5", s5), scope("\\_SB", devices));
  out.insert(out.end(), body.begin(), body.end());
  return finish(std::move(out));
}

std::vector<uint8_t> build_madt(uint32_t vcpus) {
  constexpr uint32_t kPcAtCompatible = 1;
  constexpr uint16_t kBusDefault = 0, kActiveHighLevel = 0b1101;
  std::vector<uint8_t> out;
  append(out, make_header("APIC", 5));
  append(out, static_cast<uint32_t>(kLocalApic));
  append(out, kPcAtCompatible);
  for (uint32_t i = 0; i < vcpus; ++i)
    append(out, MadtLocalApic{.processor_uid = static_cast<uint8_t>(i), .apic_id = static_cast<uint8_t>(i)});
  append(out, MadtIoApic{.address = static_cast<uint32_t>(kIoapic)});
  append(out, MadtOverride{.source = 0, .gsi = 2, .flags = kBusDefault});  // the 8254 at IOAPIC input 2, as on PCs
  append(out, MadtOverride{.source = kSciIrq, .gsi = kSciIrq, .flags = kActiveHighLevel});
  append(out, MadtLocalNmi{});
  return finish(std::move(out));
}

// PCI Firmware 3.2, tables 4-2 and 4-3: one allocation.
std::vector<uint8_t> build_mcfg() {
  struct [[gnu::packed]] Body {
    uint64_t reserved = 0;
    uint64_t base = kPciConfiguration;
    uint16_t segment = 0;
    uint8_t first_bus = 0, last_bus = 0;
    uint32_t reserved_behind = 0;
  };
  static_assert(sizeof(Body) == 24);
  std::vector<uint8_t> out;
  append(out, make_header("MCFG", 1));
  append(out, Body{});
  return finish(std::move(out));
}

std::vector<uint8_t> build_fadt(uint64_t dsdt, uint64_t facs) {
  Fadt fadt{};
  fadt.header = make_header("FACP", 6);
  fadt.firmware_ctrl = static_cast<uint32_t>(facs);
  fadt.dsdt = static_cast<uint32_t>(dsdt);
  fadt.preferred_pm_profile = 1;  // desktop
  fadt.sci_int = kSciIrq;
  fadt.pm1a_evt_blk = kPmBase + AcpiPm::kEventBlock;
  fadt.pm1a_cnt_blk = kPmBase + AcpiPm::kControlBlock;
  fadt.pm_tmr_blk = kPmBase + AcpiPm::kTimerBlock;
  fadt.gpe0_blk = kPmBase + kPmLayout.gpe0_block;
  fadt.pm1_evt_len = AcpiPm::kEventBytes;
  fadt.pm1_cnt_len = AcpiPm::kControlBytes;
  fadt.pm_tmr_len = AcpiPm::kTimerBytes;
  fadt.gpe0_blk_len = AcpiPm::kGpe0Bytes;
  fadt.p_lvl2_lat = 0xfff;  // no C2, no C3
  fadt.p_lvl3_lat = 0xfff;
  fadt.century = 0x32;
  fadt.boot_arch = kLegacyDevices | k8042 | kNoVga;
  fadt.flags = kWbinvd | kProcC1 | kSleepButtonIsDevice | kTimer32Bit | kResetRegister;
  fadt.reset_reg = port(0xcf9, 8, 1);
  fadt.reset_value = devices::ResetControl::kResetValue;
  fadt.minor_version = 5;
  // X_FIRMWARE_CTRL stays 0: only one of the two may be given.
  fadt.x_dsdt = dsdt;
  fadt.x_pm1a_evt_blk = port(kPmBase + AcpiPm::kEventBlock, 32, 2);
  fadt.x_pm1a_cnt_blk = port(kPmBase + AcpiPm::kControlBlock, 16, 2);
  fadt.x_pm_tmr_blk = port(kPmBase + AcpiPm::kTimerBlock, 32, 3);
  fadt.x_gpe0_blk = port(kPmBase + kPmLayout.gpe0_block, 32, 1);
  std::vector<uint8_t> out;
  append(out, fadt);
  return finish(std::move(out));
}

Result<uint64_t> place_tables(memory::GuestMemory& memory, uint32_t vcpus) {
  uint64_t at = kRom + 0x100;  // behind the RSDP
  const auto place = [&](const std::vector<uint8_t>& table) -> Result<uint64_t> {
    const uint64_t where = at;
    at = (at + table.size() + 15) & ~uint64_t{15};
    if (at > kRomEnd || !memory.write(where, std::as_bytes(std::span(table))))
      return fail(ErrorKind::Internal, "the ACPI tables do not fit into the ROM area");
    return where;
  };

  // The operating system writes the FACS's global lock, so it lies in RAM.
  Facs facs{};
  std::memcpy(facs.signature, "FACS", 4);
  facs.length = sizeof facs;
  facs.version = 2;
  constexpr uint64_t kFacs = kEbda + 0x400;
  if (!memory.write(kFacs, std::as_bytes(std::span(&facs, 1)))) return fail(ErrorKind::Internal, "no memory for the FACS");

  const uint64_t dsdt = TRY(place(build_dsdt(vcpus)));
  const std::array<uint64_t, 3> tables{TRY(place(build_fadt(dsdt, kFacs))), TRY(place(build_madt(vcpus))), TRY(place(build_mcfg()))};
  const Rsdp rsdp = build_rsdp(TRY(place(build_xsdt(tables))));
  if (!memory.write(kRom, std::as_bytes(std::span(&rsdp, 1)))) return fail(ErrorKind::Internal, "no memory for the RSDP");
  return kRom;
}

}  // namespace lodge::machine::acpi
