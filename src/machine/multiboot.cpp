#include "machine/multiboot.hpp"

#include <algorithm>
#include <cstring>
#include <optional>

#include "machine/elf.hpp"
#include "machine/memory_map.hpp"

namespace lodge::machine {

namespace {

constexpr size_t kSearched = 8192, kAlignment = 4;
constexpr uint32_t kMagic = 0x1badb002;
enum Flag : uint32_t {
  kAlignModules = 1 << 0,
  kMemoryInformation = 1 << 1,
  kVideoMode = 1 << 2,
  kRequirements = 0xffff,  // what a loader must do or refuse
  kHasAddresses = 1 << 16,
};

struct Header {  // 3.1.1; the addresses only with kHasAddresses
  uint32_t magic, flags, checksum;
  uint32_t header_address, load_address, load_end_address, bss_end_address, entry_address;
};
constexpr size_t kShortHeader = 12;
static_assert(sizeof(Header) == 32);

struct Found {
  Header header;
  size_t at;
};

std::optional<Found> find_header(std::span<const uint8_t> file) {
  for (size_t at = 0; at + kShortHeader <= std::min(file.size(), kSearched); at += kAlignment) {
    Found found{.header = {}, .at = at};
    std::memcpy(&found.header, file.data() + at, std::min(file.size() - at, sizeof found.header));
    if (found.header.magic == kMagic && found.header.magic + found.header.flags + found.header.checksum == 0) return found;
  }
  return std::nullopt;
}

// 3.1.3: the file as it is, from where the header says on.
Result<MultibootImage> by_addresses(std::span<const uint8_t> file, const Found& found) {
  const Header& header = found.header;
  const uint32_t before = header.header_address - header.load_address;
  if (header.load_address > header.header_address || before > found.at)
    return fail(ErrorKind::Usage, "the addresses in its multiboot header are impossible");
  const std::span<const uint8_t> rest = file.subspan(found.at - before);
  const uint64_t bytes = header.load_end_address == 0 ? rest.size() : uint64_t{header.load_end_address} - header.load_address;
  if (header.load_end_address != 0 && header.load_end_address < header.load_address)
    return fail(ErrorKind::Usage, "the addresses in its multiboot header are impossible");
  if (bytes > rest.size()) return fail(ErrorKind::Usage, "the file is cut short: {} of {} bytes are there", rest.size(), bytes);
  const uint64_t end = std::max<uint64_t>(header.bss_end_address, header.load_address + bytes);
  MultibootImage image{.entry = header.entry_address, .segments = {}};
  image.segments.push_back({header.load_address, rest.first(bytes), end - header.load_address});
  return image;
}

Result<MultibootImage> by_elf(std::span<const uint8_t> file) {
  const ElfImage elf = TRY(parse_elf(file));
  if (elf.entry > UINT32_MAX) return fail(ErrorKind::Usage, "its entry at {:#x} is beyond 4 GiB", elf.entry);
  MultibootImage image{.entry = static_cast<uint32_t>(elf.entry), .segments = {}};
  for (const ElfImage::Segment& segment : elf.segments) image.segments.push_back({segment.physical, segment.bytes, segment.memory_size});
  return image;
}

}  // namespace

uint64_t MultibootImage::end() const {
  uint64_t last = 0;
  for (const Segment& segment : segments) last = std::max(last, segment.address + segment.memory_size);
  return last;
}

bool looks_like_multiboot(std::span<const uint8_t> file) { return find_header(file).has_value(); }

Result<MultibootImage> parse_multiboot(std::span<const uint8_t> file) {
  const auto found = find_header(file);
  if (!found) return fail(ErrorKind::Usage, "there is no multiboot header in its first {} bytes", kSearched);
  if (const uint32_t unknown = found->header.flags & kRequirements & ~(kAlignModules | kMemoryInformation))
    return fail(ErrorKind::Usage, "it wants {} of its loader (multiboot flags {:#x}): start it by GRUB, from a disk or a CD",
                unknown & kVideoMode ? "a graphics mode" : "something unknown", unknown);
  MultibootImage image = TRY(found->header.flags & kHasAddresses ? by_addresses(file, *found) : by_elf(file));
  for (const MultibootImage::Segment& segment : image.segments)
    if (segment.address < kHighMemory)
      return fail(ErrorKind::Usage, "it wants to be loaded at {:#x}, below 1 MiB, where the BIOS is", segment.address);
  return image;
}

}  // namespace lodge::machine
