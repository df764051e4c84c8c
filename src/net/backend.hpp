// What a network card is plugged into: the host's side of a guest's Ethernet.
//
// Frames go with the header of virtio 1.2, section 5.1.6 (Linux's struct virtio_net_hdr_v1), by which each side leaves checksums and
// segmentation to the other as far as that one has said that it can do them.
//
// Threads: all on the thread that serves the card.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/error.hpp"

namespace lodge::net {

struct Header {
  uint8_t flags = 0;
  uint8_t gso_type = 0;
  uint16_t header_bytes = 0;   // of the frame's headers, a hint
  uint16_t segment_bytes = 0;  // of payload
  uint16_t checksum_start = 0, checksum_offset = 0;
  uint16_t buffers = 0;  // that the frame takes in a queue; the card's to fill in
};
static_assert(sizeof(Header) == 12);
constexpr uint8_t kNeedsChecksum = 1, kDataValid = 2;                        // flags
constexpr uint8_t kGsoNone = 0, kGsoTcp4 = 1, kGsoTcp6 = 4, kGsoEcn = 0x80;  // gso_type

// The largest frame: 64 KiB of IP behind an Ethernet header with a VLAN tag.
constexpr size_t kMostFrameBytes = 65536 + 18;

// What a side takes from the other one unfinished.
struct Offloads {
  bool checksum = false;                         // VIRTIO_NET_HDR_F_NEEDS_CSUM
  bool tso4 = false, tso6 = false, ecn = false;  // kGsoTcp4, kGsoTcp6, kGsoEcn
  bool operator==(const Offloads&) const = default;
};

// The card.
class Receiver {
 public:
  virtual ~Receiver() = default;
  // A frame of the network's for one of the card's queue pairs. False: there is no room; then room() follows when there is.
  [[nodiscard]] virtual bool receive(unsigned pair, const Header& header, std::span<const std::byte> frame) = 0;
  virtual void received(unsigned pair) = 0;  // the end of a batch
  virtual void sendable(unsigned pair) = 0;  // after a send() that did not fit
};

class Backend {
 public:
  virtual ~Backend() = default;
  // What the backend takes from the guest.
  [[nodiscard]] virtual Offloads takes() const = 0;
  [[nodiscard]] virtual unsigned most_pairs() const { return 1; }
  // Frames flow from here on, with no more left undone than `guest_takes`; null: they don't any more.
  virtual void connect(Receiver* receiver, const Offloads& guest_takes) = 0;
  virtual void change_offloads(const Offloads& guest_takes) = 0;
  // The pairs that the guest uses: the first so many, 1 after connect().
  virtual void use_pairs(unsigned) {}
  virtual void room(unsigned pair) = 0;
  // False: it does not fit now; the receiver's sendable() follows. What no network could carry is dropped, and counts as sent.
  [[nodiscard]] virtual bool send(unsigned pair, const Header& header, std::span<const iovec> frame) = 0;
};

}  // namespace lodge::net
