#include "devices/virtio/net/network.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>

#include "base/log.hpp"

namespace lodge::devices::virtio {

namespace {

// 5.1.3.
constexpr unsigned kChecksum = 0, kGuestChecksum = 1, kControlGuestOffloads = 2, kMtu = 3, kMac = 5, kGuestTso4 = 7, kGuestTso6 = 8,
                   kGuestEcn = 9, kHostTso4 = 11, kHostTso6 = 12, kHostEcn = 13, kMergeable = 15, kStatus = 16, kControl = 17,
                   kControlReceive = 18, kControlReceiveExtra = 20, kMultiQueue = 22, kControlMac = 23;
// 5.1.4: struct virtio_net_config.
constexpr size_t kStatusAt = 6, kPairsAt = 8, kMtuAt = 10, kConfigBytes = 12;
constexpr uint16_t kLinkUp = 1;
// 5.1.6.5: the control queue's classes and commands.
constexpr uint8_t kReceiveMode = 0, kAddresses = 1, kPairs = 4, kGuestOffloads = 5;
constexpr uint8_t kPromiscuous = 0, kAllMulticast = 1, kAllUnicast = 2, kNoMulticast = 3, kNoUnicast = 4, kNoBroadcast = 5;
constexpr uint8_t kTableSet = 0, kAddressSet = 1, kPairsSet = 0, kOffloadsSet = 0;
constexpr uint8_t kAck = 0, kError = 1;

constexpr size_t kOldHeaderBytes = offsetof(net::Header, buffers);
constexpr unsigned kVersion1 = 32;
constexpr uint16_t kControlEntries = 64;
constexpr size_t kMostCommandBytes = 16384;
constexpr size_t kMostAddresses = 256;  // of a kind; a driver with more gets all frames of that kind

std::vector<uint16_t> queue_sizes(const NetworkOptions& options) {
  std::vector<uint16_t> sizes(size_t{2} * options.pairs, options.queue_entries);
  sizes.push_back(kControlEntries);
  return sizes;
}

uint64_t packed(const net::MacAddress& mac) {
  uint64_t word = 0;
  std::memcpy(&word, mac.data(), mac.size());
  return word;
}
net::MacAddress unpacked(uint64_t word) {
  net::MacAddress mac{};
  std::memcpy(mac.data(), &word, mac.size());
  return mac;
}

// The pieces from byte `skip` on.
void tail_of(std::span<const iovec> pieces, size_t skip, std::vector<iovec>& into) {
  into.clear();
  for (const iovec& piece : pieces) {
    const size_t over = std::min(skip, piece.iov_len);
    skip -= over;
    if (over < piece.iov_len) into.push_back({static_cast<std::byte*>(piece.iov_base) + over, piece.iov_len - over});
  }
}

size_t copy_out(std::span<const iovec> pieces, void* to, size_t bytes) {
  size_t done = 0;
  for (const iovec& piece : pieces) {
    const size_t now = std::min(piece.iov_len, bytes - done);
    if (now != 0) std::memcpy(static_cast<std::byte*>(to) + done, piece.iov_base, now);
    done += now;
  }
  return done;
}

}  // namespace

Network::Network(std::string name, Worker& worker, net::Backend& backend, const NetworkOptions& options)
    : Device(Type::Network, std::move(name), worker, queue_sizes(options)),
      backend_(backend),
      options_(options),
      link_(options.link),
      mac_(packed(options.mac)),
      pairs_(options.pairs) {
  features_ = feature(kMac) | feature(kStatus) | feature(kMergeable) | feature(kControl) | feature(kControlReceive) |
              feature(kControlReceiveExtra) | feature(kControlMac) | feature(kGuestChecksum) | feature(kGuestTso4) | feature(kGuestTso6) |
              feature(kGuestEcn) | feature(kControlGuestOffloads);
  const net::Offloads takes = backend.takes();
  if (takes.checksum) features_ |= feature(kChecksum);
  if (takes.tso4) features_ |= feature(kHostTso4);
  if (takes.tso6) features_ |= feature(kHostTso6);
  if (takes.ecn) features_ |= feature(kHostEcn);
  if (options.mtu != 0) features_ |= feature(kMtu);
  if (options.pairs > 1) features_ |= feature(kMultiQueue);
}

Network::~Network() = default;

// --- Configuration

void Network::read_config(uint64_t offset, std::span<uint8_t> into) const {
  std::array<uint8_t, kConfigBytes> config{};
  const auto put = [&config](size_t at, uint16_t value) { std::memcpy(&config[at], &value, sizeof value); };
  std::ranges::copy(unpacked(mac_), config.begin());
  put(kStatusAt, link_ ? kLinkUp : 0);
  put(kPairsAt, options_.pairs);
  put(kMtuAt, options_.mtu);
  for (size_t i = 0; i < into.size(); ++i) into[i] = offset + i < config.size() ? config[offset + i] : 0;
}

void Network::set_link(bool up) {
  if (link_.exchange(up) == up) return;
  config_changed();
  if (!up) return;
  for (unsigned pair = 0; pair < pairs_.size(); ++pair)
    if (running(2 * pair)) backend_.room(pair);
}

// --- Life

unsigned Network::control_queue() const { return has(kMultiQueue) ? 2 * options_.pairs : 2; }

net::Offloads Network::guest_takes(uint64_t features) const {
  const auto chosen = [features](unsigned bit) { return (features & feature(bit)) != 0; };
  return {.checksum = chosen(kGuestChecksum), .tso4 = chosen(kGuestTso4), .tso6 = chosen(kGuestTso6), .ecn = chosen(kGuestEcn)};
}

void Network::started() {
  filter_ = Filter();
  uint64_t chosen = 0;
  for (const unsigned bit : {kGuestChecksum, kGuestTso4, kGuestTso6, kGuestEcn})
    if (has(bit)) chosen |= feature(bit);
  backend_.connect(this, guest_takes(chosen));
}

void Network::queue_started(unsigned queue) {
  if (queue == control_queue() || queue / 2 >= pairs_.size()) return;
  Pair& pair = pairs_[queue / 2];
  if (queue % 2 == 0) pair.starved = true;  // what waits may come now
}

void Network::stopped() {
  backend_.connect(nullptr, {});
  mac_ = packed(options_.mac);
  for (Pair& pair : pairs_) pair.starved = false;
}

void Network::serve(unsigned queue) {
  if (has(kControl) && queue == control_queue()) return serve_control(queue);
  if (queue >= 2 * pairs_.size() || (queue >= 2 && !has(kMultiQueue))) return;
  if (queue % 2 == 1) return transmit(queue / 2);
  if (std::exchange(pairs_[queue / 2].starved, false)) backend_.room(queue / 2);
}

// --- Receiving

// 5.1.6.5.1, 5.1.6.5.2.
bool Network::wanted(std::span<const std::byte> frame) const {
  if (!link_ || frame.size() < std::tuple_size_v<net::MacAddress>) return false;
  if (filter_.promiscuous) return true;
  net::MacAddress to{};
  std::memcpy(to.data(), frame.data(), to.size());
  if (std::ranges::all_of(to, [](uint8_t byte) { return byte == 0xff; })) return !filter_.no_broadcast;
  if (net::is_multicast(to))
    return !filter_.no_multicast &&
           (filter_.all_multicast || filter_.multicast_overflow || std::ranges::find(filter_.multicast, to) != filter_.multicast.end());
  return !filter_.no_unicast && (filter_.all_unicast || filter_.unicast_overflow || packed(to) == mac_.load() ||
                                 std::ranges::find(filter_.unicast, to) != filter_.unicast.end());
}

// 5.1.6: older drivers without merged buffers know no count of them.
size_t Network::header_bytes() const { return has(kVersion1) || has(kMergeable) ? sizeof(net::Header) : kOldHeaderBytes; }

// Takes buffers for so many bytes; `used` of pairs_[pair].receiving. False: there are too few, and the driver tells when there are more.
bool Network::gather(unsigned pair, uint64_t bytes, size_t& used) {
  auto& chains = pairs_[pair].receiving;
  const unsigned queue = 2 * pair;
  uint64_t room = 0;
  used = 0;
  while (room < bytes) {
    if (used == chains.size()) chains.emplace_back();
    if (!take(queue, chains[used])) {
      // Asked for behind the last buffer there is, so that the next one is told of. Those that came meanwhile are tried at once.
      if (allow_notifications(queue)) continue;
      while (used != 0) put_back(queue, chains[--used]);
      return false;
    }
    room += chains[used++].writable_bytes();
    // 5.1.6.3.1: without merging one buffer has to do; what does not fit is lost.
    if (!has(kMergeable)) return true;
  }
  return true;
}

bool Network::receive(unsigned pair, const net::Header& header, std::span<const std::byte> frame) {
  const unsigned queue = 2 * pair;
  if (pair >= pairs_.size() || !running(queue) || !wanted(frame)) return true;
  Pair& own = pairs_[pair];
  size_t used = 0;
  const size_t head_bytes = header_bytes();
  if (!gather(pair, head_bytes + frame.size(), used)) {
    own.starved = true;
    return false;
  }
  suppress_notifications(queue);
  auto& chains = own.receiving;
  if (chains[0].writable_bytes() < head_bytes) {
    broken("a receive buffer without room for the header");
    while (used != 0) give_back(queue, chains[--used], 0);
    return true;
  }
  net::Header all = header;
  all.buffers = static_cast<uint16_t>(used);
  const auto* head = reinterpret_cast<const std::byte*>(&all);
  size_t at = 0;
  const auto fill = [&](std::span<const iovec> pieces) {
    uint64_t written = 0;
    for (const iovec& piece : pieces) {
      auto* to = static_cast<std::byte*>(piece.iov_base);
      size_t room = piece.iov_len;
      while (room != 0 && at < head_bytes + frame.size()) {
        const std::span<const std::byte> from = at < head_bytes ? std::span(head + at, head_bytes - at) : frame.subspan(at - head_bytes);
        const size_t now = std::min(room, from.size());
        std::memcpy(to, from.data(), now);
        to += now;
        room -= now;
        at += now;
        written += now;
      }
    }
    return written;
  };
  if (!has(kMergeable) && chains[0].writable_bytes() < head_bytes + frame.size()) {
    log::debug("{}: a frame of {} bytes is larger than the driver's buffer", name(), frame.size());
    put_back(queue, chains[0]);
    return true;
  }
  std::array<Queue::Used, 64> few;
  std::vector<Queue::Used> many;
  std::span<Queue::Used> results(few);
  if (used > few.size()) {
    many.resize(used);
    results = many;
  }
  for (size_t i = 0; i < used; ++i) results[i] = {&chains[i], fill(chains[i].writable())};
  give_back(queue, results.first(used));
  return true;
}

void Network::received(unsigned pair) {
  if (pair < pairs_.size() && running(2 * pair)) interrupt(2 * pair);
}

// --- Sending

void Network::transmit(unsigned pair) {
  const unsigned queue = 2 * pair + 1;
  Pair& own = pairs_[pair];
  bool done = false;
  for_each_buffer(queue, own.sending, [&](const Chain& chain) {
    if (!send(pair, chain)) {
      put_back(queue, chain);
      return false;
    }
    give_back(queue, chain, 0);
    done = true;
    return true;
  });
  if (done) interrupt(queue);
}

bool Network::send(unsigned pair, const Chain& chain) {
  net::Header header{};
  const size_t head_bytes = header_bytes();
  if (copy_out(chain.readable(), &header, head_bytes) != head_bytes) {
    broken("a frame without a header");
    return true;
  }
  if (!link_) return true;
  // 5.1.6.2.1: nothing that was not negotiated.
  const uint8_t gso = header.gso_type & ~net::kGsoEcn;
  const bool known = gso == net::kGsoNone || (gso == net::kGsoTcp4 && has(kHostTso4)) || (gso == net::kGsoTcp6 && has(kHostTso6));
  const bool checksum = (header.flags & net::kNeedsChecksum) != 0;
  if (!known || (checksum && !has(kChecksum)) || (gso != net::kGsoNone && !checksum)) {
    log::debug("{}: a frame with offloads that were not negotiated is dropped", name());
    return true;
  }
  header.flags &= net::kNeedsChecksum;
  header.buffers = 0;
  tail_of(chain.readable(), head_bytes, frame_);
  return backend_.send(pair, header, frame_);
}

void Network::sendable(unsigned pair) {
  if (pair < pairs_.size() && running(2 * pair + 1)) transmit(pair);
}

// --- Control

void Network::serve_control(unsigned queue) {
  bool done = false;
  for_each_buffer(queue, control_, [&](const Chain& chain) {
    std::vector<uint8_t> command(std::min<uint64_t>(chain.readable_bytes(), kMostCommandBytes));
    copy_out(chain.readable(), command.data(), command.size());
    if (command.size() < 2 || chain.writable_bytes() < 1) {
      broken("a command without class, number or room for the answer");
      give_back(queue, chain, 0);
      return true;
    }
    const bool obeyed = chain.readable_bytes() <= kMostCommandBytes && obey(command[0], command[1], std::span(command).subspan(2));
    *static_cast<uint8_t*>(chain.writable()[0].iov_base) = obeyed ? kAck : kError;
    give_back(queue, chain, 1);
    done = true;
    return true;
  });
  if (done) interrupt(queue);
}

bool Network::obey(uint8_t group, uint8_t command, std::span<const uint8_t> data) {
  switch (group) {
    case kReceiveMode: return obey_receive_mode(command, data);
    case kAddresses: return obey_addresses(command, data);
    case kPairs: {  // 5.1.6.5.5
      uint16_t pairs = 0;
      if (!has(kMultiQueue) || command != kPairsSet || data.size() < sizeof pairs) return false;
      std::memcpy(&pairs, data.data(), sizeof pairs);
      if (pairs == 0 || pairs > options_.pairs) return false;
      backend_.use_pairs(pairs);
      return true;
    }
    case kGuestOffloads: {  // 5.1.6.5.6
      uint64_t chosen = 0;
      if (!has(kControlGuestOffloads) || command != kOffloadsSet || data.size() < sizeof chosen) return false;
      std::memcpy(&chosen, data.data(), sizeof chosen);
      for (unsigned bit = 0; bit < 64; ++bit)
        if ((chosen & feature(bit)) != 0 &&
            !(has(bit) && (bit == kGuestChecksum || bit == kGuestTso4 || bit == kGuestTso6 || bit == kGuestEcn)))
          return false;
      backend_.change_offloads(guest_takes(chosen));
      return true;
    }
    default: return false;
  }
}

bool Network::obey_receive_mode(uint8_t command, std::span<const uint8_t> data) {
  if (!has(kControlReceive) || data.empty() || (command > kAllMulticast && !has(kControlReceiveExtra))) return false;
  const bool on = data[0] != 0;
  switch (command) {
    case kPromiscuous: filter_.promiscuous = on; return true;
    case kAllMulticast: filter_.all_multicast = on; return true;
    case kAllUnicast: filter_.all_unicast = on; return true;
    case kNoMulticast: filter_.no_multicast = on; return true;
    case kNoUnicast: filter_.no_unicast = on; return true;
    case kNoBroadcast: filter_.no_broadcast = on; return true;
    default: return false;
  }
}

bool Network::obey_addresses(uint8_t command, std::span<const uint8_t> data) {
  if (command == kTableSet && has(kControlReceive)) return set_table(data);
  net::MacAddress mac{};
  if (command != kAddressSet || !has(kControlMac) || data.size() < mac.size()) return false;
  std::memcpy(mac.data(), data.data(), mac.size());
  mac_ = packed(mac);
  return true;
}

// 5.1.6.5.2: two lists, each with a count before it.
bool Network::set_table(std::span<const uint8_t> data) {
  std::array<std::vector<net::MacAddress>, 2> lists;
  std::array<bool, 2> overflow{};
  for (size_t kind = 0; kind < lists.size(); ++kind) {
    uint32_t count = 0;
    if (data.size() < sizeof count) return false;
    std::memcpy(&count, data.data(), sizeof count);
    data = data.subspan(sizeof count);
    if (count > data.size() / sizeof(net::MacAddress)) return false;
    overflow[kind] = count > kMostAddresses;
    if (!overflow[kind]) {
      lists[kind].resize(count);
      if (count != 0) std::memcpy(lists[kind].data(), data.data(), count * sizeof(net::MacAddress));
    }
    data = data.subspan(count * sizeof(net::MacAddress));
  }
  filter_.unicast = std::move(lists[0]);
  filter_.multicast = std::move(lists[1]);
  filter_.unicast_overflow = overflow[0];
  filter_.multicast_overflow = overflow[1];
  return true;
}

}  // namespace lodge::devices::virtio
