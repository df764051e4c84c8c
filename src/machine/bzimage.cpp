#include "machine/bzimage.hpp"

#include <algorithm>
#include <cstring>

#include "machine/memory_map.hpp"

namespace lodge::machine {

namespace {
constexpr size_t kHeaderAt = 0x1f1, kBootFlagAt = 0x1fe, kJumpOffsetAt = 0x201, kMagicAt = 0x202;
constexpr uint16_t kBootFlag = 0xaa55;
constexpr uint16_t kProtocolMinimum = 0x206, kProtocolPayload = 0x208;
constexpr size_t kSector = 512, kParagraph = 16;
}  // namespace

bool looks_like_bzimage(std::span<const uint8_t> file) {
  return file.size() >= kMagicAt + 4 && file[kBootFlagAt] == (kBootFlag & 0xff) && file[kBootFlagAt + 1] == kBootFlag >> 8 &&
         std::memcmp(file.data() + kMagicAt, "HdrS", 4) == 0;
}

size_t setup_bytes(std::span<const uint8_t> file) {
  constexpr size_t kSectorsWhereNoneAreTold = 4;
  return ((file[kHeaderAt] == 0 ? kSectorsWhereNoneAreTold : file[kHeaderAt]) + 1) * kSector;
}

bool BzImage::has_64bit_entry() const { return header.version >= 0x20c && (header.xloadflags & XLF_KERNEL_64); }

// It unpacks itself to its preferred address and needs init_size bytes there (protocol 2.10).
uint64_t BzImage::end() const {
  constexpr uint16_t kProtocolInitSize = 0x20a;
  const bool tells = header.version >= kProtocolInitSize;
  const uint64_t preferred = tells ? std::max<uint64_t>(header.pref_address, kHighMemory) : kHighMemory;
  const uint64_t needed = tells ? header.init_size : 4 * protected_mode.size();
  return std::max(preferred + needed, kHighMemory + protected_mode.size());
}

Result<BzImage> parse_bzimage(std::span<const uint8_t> file) {
  if (!looks_like_bzimage(file)) return fail(ErrorKind::Usage, "not a bzImage");
  // The header ends where the jump before its magic leads to.
  const size_t header_end = kMagicAt + file[kJumpOffsetAt];
  if (header_end > file.size()) return fail(ErrorKind::Usage, "the bzImage is cut short in its setup header");
  BzImage image{};
  std::memcpy(&image.header, file.data() + kHeaderAt, std::min(header_end - kHeaderAt, sizeof image.header));
  const setup_header& header = image.header;
  if (header.version < kProtocolMinimum)
    return fail(ErrorKind::Usage, "the kernel speaks boot protocol {}.{:02}; 2.06 or later is needed (Linux 2.6.22)", header.version >> 8,
                header.version & 0xff);
  if (!(header.loadflags & LOADED_HIGH)) return fail(ErrorKind::Usage, "the kernel is a zImage; only bzImage is supported");

  const size_t setup = setup_bytes(file);
  if (setup >= file.size()) return fail(ErrorKind::Usage, "the bzImage is cut short: it ends in its real-mode part");
  image.protected_mode = file.subspan(setup);
  const uint64_t code_bytes = uint64_t{header.syssize} * kParagraph;
  if (code_bytes >= image.protected_mode.size() + kParagraph)
    return fail(ErrorKind::Usage, "the bzImage is cut short: {} of {} bytes of code are there", image.protected_mode.size(), code_bytes);

  if (header.version >= kProtocolPayload) {
    const uint64_t offset = header.payload_offset, length = header.payload_length;
    if (offset > image.protected_mode.size() || length > image.protected_mode.size() - offset)
      return fail(ErrorKind::Usage, "the bzImage is damaged: its payload lies outside of the file");
    image.payload = image.protected_mode.subspan(offset, length);
  }
  return image;
}

}  // namespace lodge::machine
