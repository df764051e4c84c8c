// All instruction forms that the decoder knows, found by asking it for every opcode of every map, and how many of them
// a run has covered.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "decoder.hpp"

namespace lodge::oracle {

struct Form {
  std::array<uint8_t, 16> bytes;  // an example
  uint8_t length;
  uint8_t modrm_at;  // 0: no ModRM byte
  std::string text;
  uint64_t runs = 0;
  uint64_t completions = 0;  // runs that ended behind the instruction, not in a fault
};

class Forms {
 public:
  explicit Forms(Mode mode);

  [[nodiscard]] const std::vector<Form>& tested() const { return forms_; }
  // Forms of the decoder that are not tested, by reason.
  [[nodiscard]] const std::unordered_map<std::string, uint64_t>& excluded() const { return excluded_; }
  void count(uint64_t key, bool completed);

 private:
  void enumerate(Mode mode);
  void add(Mode mode, std::span<const uint8_t> bytes);

  std::vector<Form> forms_;
  std::unordered_map<uint64_t, size_t> index_;  // by key; ~0: excluded
  std::unordered_map<std::string, uint64_t> excluded_;
};

}  // namespace lodge::oracle
