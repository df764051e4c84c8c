#include "machine/acpi/aml.hpp"

#include <algorithm>

#include "base/append_little.hpp"

namespace lodge::machine::acpi {

namespace {

constexpr uint8_t kZeroOp = 0x00, kOneOp = 0x01, kNameOp = 0x08, kBytePrefix = 0x0a, kWordPrefix = 0x0b, kDWordPrefix = 0x0c,
                  kStringPrefix = 0x0d, kQWordPrefix = 0x0e, kScopeOp = 0x10, kBufferOp = 0x11, kPackageOp = 0x12, kDualNamePrefix = 0x2e,
                  kMultiNamePrefix = 0x2f, kExtOpPrefix = 0x5b, kDeviceOp = 0x82, kMethodOp = 0x14, kArg0Op = 0x68, kStoreOp = 0x70,
                  kAndOp = 0x7b, kOrOp = 0x7d, kCreateDWordFieldOp = 0x8a, kIfOp = 0xa0, kReturnOp = 0xa4, kRegionOp = 0x80,
                  kFieldOp = 0x81, kLEqualOp = 0x93;

// End tag (6.4.2.9); a checksum of 0 says that the template is not summed.
const Aml kEndTag{0x79, 0x00};

void append_segment(Aml& out, std::string_view segment) {
  for (size_t i = 0; i < 4; ++i) out.push_back(static_cast<uint8_t>(i < segment.size() ? segment[i] : '_'));
}

Aml with_length(const Aml& opcode, const Aml& content) { return sequence(opcode, package_length(content.size()), content); }

}  // namespace

Aml join(std::initializer_list<const Aml*> terms) {
  Aml all;
  for (const Aml* term : terms)
    for (uint8_t byte : *term) all.push_back(byte);
  return all;
}

Aml package_length(size_t content) {
  // One byte up to 63, then the low nibble first and one to three more bytes.
  if (content + 1 < 0x40) return Aml(1, static_cast<uint8_t>(content + 1));
  for (unsigned more = 1; more <= 3; ++more) {
    const size_t total = content + 1 + more;
    if (total >= size_t{1} << (4 + 8 * more)) continue;
    Aml out;
    out.push_back(static_cast<uint8_t>(more << 6 | (total & 0xf)));
    append_little(out, total >> 4, more);
    return out;
  }
  return {};  // 256 MiB of AML: no table of ours comes near
}

Aml name_string(std::string_view path) {
  Aml out;
  if (!path.empty() && path.front() == '\\') {
    out.push_back('\\');
    path.remove_prefix(1);
  }
  std::vector<std::string_view> segments;
  while (!path.empty()) {
    const size_t dot = path.find('.');
    segments.push_back(path.substr(0, dot));
    path = dot == std::string_view::npos ? std::string_view{} : path.substr(dot + 1);
  }
  if (segments.empty()) out.push_back(0);
  if (segments.size() == 2) out.push_back(kDualNamePrefix);
  if (segments.size() > 2) {
    out.push_back(kMultiNamePrefix);
    out.push_back(static_cast<uint8_t>(segments.size()));
  }
  for (std::string_view segment : segments) append_segment(out, segment);
  return out;
}

Aml integer(uint64_t value) {
  if (value == 0) return {kZeroOp};
  if (value == 1) return {kOneOp};
  Aml out;
  if (value <= 0xff) {
    out.push_back(kBytePrefix);
    append_little(out, value, 1);
  } else if (value <= 0xffff) {
    out.push_back(kWordPrefix);
    append_little(out, value, 2);
  } else if (value <= 0xffffffff) {
    out.push_back(kDWordPrefix);
    append_little(out, value, 4);
  } else {
    out.push_back(kQWordPrefix);
    append_little(out, value, 8);
  }
  return out;
}

Aml string(std::string_view text) {
  Aml out(text.size() + 2);
  out[0] = kStringPrefix;
  std::copy(text.begin(), text.end(), out.begin() + 1);
  return out;
}

// 19.3.4: three letters of five bits and four hexadecimal digits, big-endian.
Aml eisa_id(std::string_view id) {
  const auto letter = [&](size_t i) { return static_cast<uint32_t>(id[i] - 'A' + 1); };
  const auto digit = [&](size_t i) { return static_cast<uint32_t>(id[i] <= '9' ? id[i] - '0' : id[i] - 'A' + 10); };
  const uint32_t big = letter(0) << 26 | letter(1) << 21 | letter(2) << 16 | digit(3) << 12 | digit(4) << 8 | digit(5) << 4 | digit(6);
  Aml out(1, kDWordPrefix);
  append_little(out, __builtin_bswap32(big), 4);
  return out;
}

Aml buffer(const Aml& bytes) { return with_length({kBufferOp}, sequence(integer(bytes.size()), bytes)); }

Aml package(std::span<const Aml> elements) {
  Aml content{static_cast<uint8_t>(elements.size())};
  for (const Aml& element : elements) content.insert(content.end(), element.begin(), element.end());
  return with_length({kPackageOp}, content);
}

Aml name(std::string_view path, const Aml& value) { return sequence(Aml{kNameOp}, name_string(path), value); }
Aml scope(std::string_view path, const Aml& content) { return with_length({kScopeOp}, sequence(name_string(path), content)); }
Aml device(std::string_view path, const Aml& content) {
  return with_length({kExtOpPrefix, kDeviceOp}, sequence(name_string(path), content));
}

Aml region(std::string_view path, Space space, uint64_t offset, uint64_t length) {
  return sequence(Aml{kExtOpPrefix, kRegionOp}, name_string(path), Aml{static_cast<uint8_t>(space)}, integer(offset), integer(length));
}

Aml byte_fields(std::string_view region, std::initializer_list<std::string_view> names) {
  constexpr uint8_t kByteAccess = 1, kBits = 8;  // no lock; what is beside a field is preserved
  Aml content = sequence(name_string(region), Aml{kByteAccess});
  for (const std::string_view field : names) {
    append_segment(content, field);
    content.push_back(kBits);
  }
  return with_length({kExtOpPrefix, kFieldOp}, content);
}

Aml method(std::string_view path, unsigned arguments, const Aml& body) {
  constexpr unsigned kSerialized = 8;
  return with_length({kMethodOp}, sequence(name_string(path), Aml{static_cast<uint8_t>(arguments | kSerialized)}, body));
}

Aml returns(const Aml& value) { return sequence(Aml{kReturnOp}, value); }
Aml store(const Aml& value, const Aml& target) { return sequence(Aml{kStoreOp}, value, target); }
// The third operand, where the result goes too, is left out by a null name.
Aml bit_and(const Aml& a, const Aml& b) { return sequence(Aml{kAndOp}, a, b, Aml{kZeroOp}); }
Aml bit_or(const Aml& a, const Aml& b) { return sequence(Aml{kOrOp}, a, b, Aml{kZeroOp}); }
Aml equal(const Aml& a, const Aml& b) { return sequence(Aml{kLEqualOp}, a, b); }
Aml if_true(const Aml& condition, const Aml& then) { return with_length({kIfOp}, sequence(condition, then)); }
Aml dword_in_buffer(const Aml& buffer, unsigned byte, std::string_view path) {
  return sequence(Aml{kCreateDWordFieldOp}, buffer, integer(byte), name_string(path));
}
Aml argument(unsigned number) { return {static_cast<uint8_t>(kArg0Op + number)}; }

Aml io_ports(uint16_t base, uint8_t length) {
  Aml out{0x47, 0x01};  // I/O port descriptor (6.4.2.5), 16-bit decode
  append_little(out, base, 2);
  append_little(out, base, 2);
  out.push_back(1);  // alignment
  out.push_back(length);
  return out;
}

Aml irq(unsigned line) {
  Aml out{0x22};  // IRQ descriptor (6.4.2.1) without flags: edge, active high, exclusive
  append_little(out, uint64_t{1} << line, 2);
  return out;
}

Aml dma_channel(unsigned channel) { return {0x2a, static_cast<uint8_t>(1u << channel), 0}; }

Aml level_interrupt(std::initializer_list<uint32_t> lines) {
  constexpr uint8_t kConsumerLevelHighShared = 0b1001;
  Aml out{0x89};
  append_little(out, 2 + 4 * lines.size(), 2);
  out.push_back(kConsumerLevelHighShared);
  out.push_back(static_cast<uint8_t>(lines.size()));
  for (const uint32_t line : lines) append_little(out, line, 4);
  return out;
}

Aml fixed_memory(uint32_t base, uint32_t length) {
  Aml out{0x86, 9, 0, 1};  // 32-bit fixed memory range descriptor (6.4.3.4), read and write
  append_little(out, base, 4);
  append_little(out, length, 4);
  return out;
}

namespace {

// Address space descriptors (6.4.3.5): tag, length of what follows, resource type, flags, then granularity, minimum, maximum,
// translation and length in numbers of so many bytes. Bounds are fixed: both ends (6.4.3.5, general flags).
Aml address_space(uint8_t tag, unsigned bytes, uint8_t type, uint8_t type_flags, uint64_t first, uint64_t last) {
  constexpr uint8_t kBothFixed = 0b1100;
  Aml out{tag};
  append_little(out, 3 + 5 * bytes, 2);
  out.push_back(type);
  out.push_back(kBothFixed);
  out.push_back(type_flags);
  for (const uint64_t value : {uint64_t{0}, first, last, uint64_t{0}, last - first + 1}) append_little(out, value, bytes);
  return out;
}

constexpr uint8_t kWord = 0x88, kDWord = 0x87, kQWord = 0x8a;
constexpr uint8_t kMemory = 0, kIo = 1, kBusNumbers = 2;

}  // namespace

Aml bus_numbers(uint16_t first, uint16_t last) { return address_space(kWord, 2, kBusNumbers, 0, first, last); }

Aml port_window(uint16_t base, uint32_t length) {
  constexpr uint8_t kEntireRange = 3;  // ISA and non-ISA addresses
  return address_space(kWord, 2, kIo, kEntireRange, base, base + length - 1);
}

Aml memory_window(uint64_t base, uint64_t length) {
  constexpr uint8_t kReadWrite = 1;
  const bool wide = base + length > uint64_t{1} << 32;
  return address_space(wide ? kQWord : kDWord, wide ? 8 : 4, kMemory, kReadWrite, base, base + length - 1);
}

Aml resources(const Aml& descriptors) { return buffer(sequence(descriptors, kEndTag)); }

}  // namespace lodge::machine::acpi
