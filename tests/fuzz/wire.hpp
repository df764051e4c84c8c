// For fuzz targets: a network that reads whatever a card sends, and is full now and then.
#pragma once

#include <cstdint>
#include <span>

#include "net/backend.hpp"

namespace lodge::fuzz {

struct Wire final : net::Backend {
  explicit Wire(const net::Offloads& offered = {}) : offers(offered) {}
  [[nodiscard]] net::Offloads takes() const override { return offers; }
  [[nodiscard]] unsigned most_pairs() const override { return 2; }
  void connect(net::Receiver* to, const net::Offloads&) override { card = to; }
  void change_offloads(const net::Offloads&) override {}
  void room(unsigned) override {}
  [[nodiscard]] bool send(unsigned, const net::Header&, std::span<const iovec> frame) override {
    for (const iovec& piece : frame)
      for (size_t i = 0; i < piece.iov_len; ++i) sum += static_cast<const uint8_t*>(piece.iov_base)[i];
    return !full;
  }
  const net::Offloads offers;
  net::Receiver* card = nullptr;
  bool full = false;
  uint64_t sum = 0;
};

}  // namespace lodge::fuzz
