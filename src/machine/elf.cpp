#include "machine/elf.hpp"

#include <elf.h>

#include <algorithm>
#include <cstring>
#include <string_view>

namespace lodge::machine {

namespace {

using Bytes = std::span<const uint8_t>;
constexpr uint32_t kXenNotePhys32Entry = 18;  // Xen public/elfnote.h
constexpr size_t kMaximumHeaders = 4096;

template <typename T>
std::optional<T> get(Bytes bytes, uint64_t at) {
  if (at > bytes.size() || bytes.size() - at < sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

std::optional<Bytes> part(Bytes bytes, uint64_t at, uint64_t size) {
  if (at > bytes.size() || size > bytes.size() - at) return std::nullopt;
  return bytes.subspan(at, size);
}

uint64_t align_up(uint64_t value, uint64_t alignment) { return (value + alignment - 1) / alignment * alignment; }

// Elf32_Nhdr and Elf64_Nhdr are the same: name size, descriptor size, type; both parts padded to 4 bytes.
std::optional<uint32_t> find_pvh_entry(Bytes notes) {
  for (uint64_t at = 0; at < notes.size();) {
    const auto header = get<Elf64_Nhdr>(notes, at);
    if (!header) return std::nullopt;
    const uint64_t name_at = at + sizeof *header;
    const uint64_t data_at = name_at + align_up(header->n_namesz, 4);
    const auto name = part(notes, name_at, header->n_namesz);
    const auto data = part(notes, data_at, header->n_descsz);
    if (!name || !data) return std::nullopt;
    const std::string_view owner(reinterpret_cast<const char*>(name->data()), name->size());
    if (header->n_type == kXenNotePhys32Entry && owner == std::string_view("Xen\0", 4)) return get<uint32_t>(*data, 0);
    at = data_at + align_up(header->n_descsz, 4);
  }
  return std::nullopt;
}

template <typename Ehdr, typename Phdr>
Result<ElfImage> parse(Bytes file, bool is_64bit) {
  const auto header = get<Ehdr>(file, 0);
  if (!header) return fail(ErrorKind::Usage, "the ELF file is cut short");
  const uint16_t machine = is_64bit ? EM_X86_64 : EM_386;
  if (header->e_machine != machine || header->e_type != ET_EXEC)
    return fail(ErrorKind::Usage, "the ELF file is not an x86 kernel (machine {}, type {})", header->e_machine, header->e_type);
  if (header->e_phentsize != sizeof(Phdr) || header->e_phnum == 0 || header->e_phnum > kMaximumHeaders)
    return fail(ErrorKind::Usage, "the ELF file has no usable program headers");

  ElfImage image{.is_64bit = is_64bit, .entry = header->e_entry};
  for (unsigned i = 0; i < header->e_phnum; ++i) {
    const auto program = get<Phdr>(file, header->e_phoff + uint64_t{i} * sizeof(Phdr));
    if (!program) return fail(ErrorKind::Usage, "the ELF file is cut short in its program headers");
    if (program->p_type != PT_LOAD && program->p_type != PT_NOTE) continue;
    const auto bytes = part(file, program->p_offset, program->p_filesz);
    if (!bytes) return fail(ErrorKind::Usage, "the ELF file is cut short: segment {} lies outside of it", i);
    if (program->p_type == PT_NOTE) {
      if (!image.pvh_entry) image.pvh_entry = find_pvh_entry(*bytes);
      continue;
    }
    if (program->p_memsz < program->p_filesz || uint64_t{program->p_paddr} + program->p_memsz < program->p_paddr)
      return fail(ErrorKind::Usage, "the ELF file is damaged: segment {} has impossible sizes", i);
    if (program->p_memsz > 0) image.segments.push_back({program->p_paddr, *bytes, program->p_memsz});
  }
  if (image.segments.empty()) return fail(ErrorKind::Usage, "the ELF file has nothing to load");
  return image;
}

}  // namespace

uint64_t ElfImage::lowest() const { return std::ranges::min(segments, {}, &Segment::physical).physical; }

uint64_t ElfImage::end() const {
  uint64_t last = 0;
  for (const Segment& segment : segments) last = std::max(last, segment.physical + segment.memory_size);
  return last;
}

Result<ElfImage> parse_elf(Bytes file) {
  const auto ident = part(file, 0, EI_NIDENT);
  if (!ident || std::memcmp(ident->data(), ELFMAG, SELFMAG) != 0) return fail(ErrorKind::Usage, "not an ELF file");
  if ((*ident)[EI_DATA] != ELFDATA2LSB) return fail(ErrorKind::Usage, "the ELF file is not for x86 (big-endian)");
  switch ((*ident)[EI_CLASS]) {
    case ELFCLASS64: return parse<Elf64_Ehdr, Elf64_Phdr>(file, true);
    case ELFCLASS32: return parse<Elf32_Ehdr, Elf32_Phdr>(file, false);
    default: return fail(ErrorKind::Usage, "the ELF file has an unknown class");
  }
}

}  // namespace lodge::machine
