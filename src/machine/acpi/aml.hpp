// A small writer of ACPI Machine Language (ACPI 6.5, chapter 20). Each call gives the bytes of one term; terms
// are put together by concatenation.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

namespace lodge::machine::acpi {

using Aml = std::vector<uint8_t>;

// Terms one after the other.
[[nodiscard]] Aml join(std::initializer_list<const Aml*> terms);
template <typename... Terms>
[[nodiscard]] Aml sequence(const Terms&... terms) {
  return join({&terms...});
}

[[nodiscard]] Aml package_length(size_t content);      // 20.2.4, counting its own bytes
[[nodiscard]] Aml name_string(std::string_view path);  // "\\_SB", "COM1", "\\_SB.COM1"; segments of 1 to 4 letters
[[nodiscard]] Aml integer(uint64_t value);
[[nodiscard]] Aml string(std::string_view text);
[[nodiscard]] Aml eisa_id(std::string_view id);  // "PNP0501" as an integer
[[nodiscard]] Aml buffer(const Aml& bytes);
[[nodiscard]] Aml package(std::span<const Aml> elements);  // at most 255
[[nodiscard]] inline Aml package(std::initializer_list<Aml> elements) { return package(std::span(elements.begin(), elements.size())); }
[[nodiscard]] Aml name(std::string_view path, const Aml& value);
[[nodiscard]] Aml scope(std::string_view path, const Aml& content);
[[nodiscard]] Aml device(std::string_view path, const Aml& content);

// --- What changes at run time: fields of registers, and methods (20.2.5)
enum class Space : uint8_t { SystemIo = 1, PciConfig = 2 };
[[nodiscard]] Aml region(std::string_view path, Space space, uint64_t offset, uint64_t length);
[[nodiscard]] Aml byte_fields(std::string_view region, std::initializer_list<std::string_view> names);  // one a byte, from its beginning
[[nodiscard]] Aml method(std::string_view path, unsigned arguments, const Aml& body);                   // serialized
[[nodiscard]] Aml returns(const Aml& value);
[[nodiscard]] Aml store(const Aml& value, const Aml& target);
[[nodiscard]] Aml bit_and(const Aml& a, const Aml& b);
[[nodiscard]] Aml bit_or(const Aml& a, const Aml& b);
[[nodiscard]] Aml equal(const Aml& a, const Aml& b);
[[nodiscard]] Aml if_true(const Aml& condition, const Aml& then);
[[nodiscard]] Aml dword_in_buffer(const Aml& buffer, unsigned byte, std::string_view path);
[[nodiscard]] Aml argument(unsigned number);

// Resource descriptors (6.4), to be joined and wrapped by resources().
[[nodiscard]] Aml io_ports(uint16_t base, uint8_t length);  // fixed, 16-bit decode
[[nodiscard]] Aml irq(unsigned line);                       // edge, active high, exclusive
[[nodiscard]] Aml dma_channel(unsigned channel);            // 8 bits, no bus master (6.4.2.2)
// IRQs by their number at the interrupt controllers (6.4.3.6): level-triggered, active high, shared, one of `lines`.
[[nodiscard]] Aml level_interrupt(std::initializer_list<uint32_t> lines);
[[nodiscard]] Aml fixed_memory(uint32_t base, uint32_t length);
// What a bridge passes on to its bus (6.4.3.5): bus numbers, ports, memory that is not cacheable.
[[nodiscard]] Aml bus_numbers(uint16_t first, uint16_t last);
[[nodiscard]] Aml port_window(uint16_t base, uint32_t length);
[[nodiscard]] Aml memory_window(uint64_t base, uint64_t length);
[[nodiscard]] Aml resources(const Aml& descriptors);  // ResourceTemplate

}  // namespace lodge::machine::acpi
