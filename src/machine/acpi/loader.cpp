#include "machine/acpi/loader.hpp"

#include <array>
#include <cassert>
#include <string_view>
#include <utility>

#include "base/append_little.hpp"
#include "machine/acpi/header.hpp"

namespace lodge::machine::acpi {

namespace {

constexpr const char* kTables = "etc/acpi/tables";
constexpr const char* kRsdp = "etc/acpi/rsdp";
constexpr const char* kScript = "etc/table-loader";

// Firmware learns how long files are before it has placed the chips that the tables speak of: their lengths do not depend on that. A
// command of zeros is none.
constexpr size_t kTablesBytes = 64 << 10, kScriptBytes = 4096;
constexpr size_t kNameBytes = 56, kCommandBytes = 128;
enum Command : uint32_t { kAllocate = 1, kAddPointer = 2, kAddChecksum = 3 };
enum Zone : uint8_t { kAnywhere = 1, kFirstMegabyte = 2 };

// Where the FADT's pointers are (table 5.9).
constexpr size_t kFadtFacs = 36, kFadtDsdt = 40, kFadtXDsdt = 140;

class Script {
 public:
  void allocate(std::string_view file, uint32_t alignment, Zone zone) {
    begin(kAllocate);
    name(file);
    number(alignment, 4);
    number(zone, 1);
    end();
  }
  // The number at `offset` of `file`, so far a place within `target`, becomes an address.
  void add_pointer(std::string_view file, std::string_view target, size_t offset, uint8_t bytes) {
    begin(kAddPointer);
    name(file);
    name(target);
    number(offset, 4);
    number(bytes, 1);
    end();
  }
  void add_checksum(std::string_view file, size_t at, size_t start, size_t length) {
    begin(kAddChecksum);
    name(file);
    number(at, 4);
    number(start, 4);
    number(length, 4);
    end();
  }
  [[nodiscard]] std::vector<uint8_t> take() { return std::move(bytes_); }

 private:
  void begin(Command command) {
    start_ = bytes_.size();
    number(command, 4);
  }
  void name(std::string_view text) {
    bytes_.insert(bytes_.end(), text.begin(), text.end());
    bytes_.resize(bytes_.size() + kNameBytes - text.size());
  }
  void number(uint64_t value, unsigned bytes) { append_little(bytes_, value, bytes); }
  void end() { bytes_.resize(start_ + kCommandBytes); }

  std::vector<uint8_t> bytes_;
  size_t start_ = 0;
};

// The tables in one file, each at a multiple of 16; the FACS first, which wants one of 64.
class TableFile {
 public:
  explicit TableFile(Script& script) : script_(script) {}
  size_t place(const std::vector<uint8_t>& table) {
    bytes_.resize((bytes_.size() + 15) & ~size_t{15});
    const size_t at = bytes_.size();
    bytes_.insert(bytes_.end(), table.begin(), table.end());
    return at;
  }
  // A table with pointers: its sum is right only when they are.
  size_t place_with_pointers(std::vector<uint8_t> table, const std::vector<std::pair<size_t, uint8_t>>& pointers) {
    table[offsetof(Header, checksum)] = 0;
    const size_t at = place(table);
    for (const auto& [offset, bytes] : pointers) script_.add_pointer(kTables, kTables, at + offset, bytes);
    script_.add_checksum(kTables, at + offsetof(Header, checksum), at, table.size());
    return at;
  }
  [[nodiscard]] std::vector<uint8_t> take() { return std::move(bytes_); }

 private:
  Script& script_;
  std::vector<uint8_t> bytes_;
};

// Revision 0 (table 5.3): it names an RSDT, which all firmware and systems take.
struct [[gnu::packed]] OldRsdp {
  char signature[8];
  uint8_t checksum;
  char oem_id[6];
  uint8_t revision;
  uint32_t rsdt;
};
static_assert(sizeof(OldRsdp) == 20);

}  // namespace

Blobs build_blobs(uint32_t vcpus, const Board& board) {
  Script script;
  script.allocate(kTables, 64, kAnywhere);
  script.allocate(kRsdp, 16, kFirstMegabyte);
  TableFile file(script);
  const size_t facs = file.place(build_facs());
  const size_t dsdt = file.place(board.dsdt);
  const size_t fadt = file.place_with_pointers(build_fadt(board.hardware, dsdt, facs), {{kFadtFacs, 4}, {kFadtDsdt, 4}, {kFadtXDsdt, 8}});
  std::vector<size_t> tables{fadt, file.place(build_madt(vcpus, board.level_lines))};
  tables.push_back(file.place(build_hpet()));
  if (board.configuration) tables.push_back(file.place(build_mcfg(*board.configuration)));
  std::vector<uint8_t> rsdt;
  append(rsdt, make_header("RSDT", 1));
  std::vector<std::pair<size_t, uint8_t>> pointers;
  for (const size_t table : tables) {
    pointers.emplace_back(rsdt.size(), 4);
    append(rsdt, static_cast<uint32_t>(table));
  }
  const size_t root = file.place_with_pointers(finish(std::move(rsdt)), pointers);

  OldRsdp pointer{};
  std::memcpy(pointer.signature, "RSD PTR ", 8);
  std::memcpy(pointer.oem_id, "LODGE ", 6);
  pointer.rsdt = static_cast<uint32_t>(root);
  std::vector<uint8_t> rsdp;
  append(rsdp, pointer);
  script.add_pointer(kRsdp, kTables, offsetof(OldRsdp, rsdt), 4);
  script.add_checksum(kRsdp, offsetof(OldRsdp, checksum), 0, sizeof pointer);
  Blobs blobs{.tables = file.take(), .rsdp = std::move(rsdp), .script = script.take()};
  assert(blobs.tables.size() <= kTablesBytes && blobs.script.size() <= kScriptBytes);
  blobs.tables.resize(kTablesBytes);
  blobs.script.resize(kScriptBytes);
  return blobs;
}

Result<> offer_tables(devices::FwCfg& fw_cfg, uint32_t vcpus, const std::function<Board()>& board) {
  const auto make = [=](std::vector<uint8_t> Blobs::* part) { return [=] { return std::move(build_blobs(vcpus, board()).*part); }; };
  TRY(fw_cfg.add_made_file(kTables, make(&Blobs::tables)));
  TRY(fw_cfg.add_made_file(kRsdp, make(&Blobs::rsdp)));
  return fw_cfg.add_made_file(kScript, make(&Blobs::script));
}

}  // namespace lodge::machine::acpi
