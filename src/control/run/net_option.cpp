#include "control/run/net_option.hpp"

#include <linux/if.h>

#include <array>
#include <vector>

#include "control/run/setting_table.hpp"
#include "devices/pci/bridge.hpp"

namespace lodge::control {

namespace {

using devices::virtio::NetworkOptions;
using machine::NicConfig;
using Row = SettingRow<NicConfig>;

Result<int> parse_descriptor(std::string_view text) {
  int number = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < 3)
    return fail(ErrorKind::Usage, "'{}' is not a file descriptor from 3 on", text);
  return number;
}

constexpr auto kUserRows = std::to_array<Row>({
    {"hostfwd", "[tcp|udp]:[HOST]:PORT-[GUEST]:PORT",
     "a port of the host's (127.0.0.1 by default) leads to one of the guest's; several times if need be",
     [](NicConfig& nic, std::string_view value) -> Result<> {
       nic.user.forwards.push_back(TRY(net::parse_host_forward(value)));
       return {};
     },
     true},
    {"net", "A.B.C.D/BITS", "the network's addresses (default 10.0.2.0/24): gateway .2, name server .3, guest .15",
     [](NicConfig& nic, std::string_view value) { return net::parse_network(value, nic.user); }},
    {"hostname", "NAME", "the name that DHCP gives the guest",
     [](NicConfig& nic, std::string_view value) -> Result<> {
       constexpr size_t kLongest = 32;  // what libslirp sends
       if (value.empty() || value.size() > kLongest) return fail(ErrorKind::Usage, "a name has 1 to {} characters", kLongest);
       nic.user.hostname = value;
       return {};
     }},
    {"ipv6", "on|off", "fec0::/64 as well (default on)",
     [](NicConfig& nic, std::string_view value) { return set_switch(nic.user.ipv6, value); }},
    {"restrict", "on|off", "nothing leaves the network but answers through hostfwd (default off)",
     [](NicConfig& nic, std::string_view value) { return set_switch(nic.user.restrict, value); }},
    {"loopback", "on|off", "the gateway's address leads to the host's 127.0.0.1 (default off)",
     [](NicConfig& nic, std::string_view value) { return set_switch(nic.user.loopback, value); }},
});

constexpr auto kTapRows = std::to_array<Row>({
    {"ifname", "NAME", "the interface; made, with the right to, if there is none",
     [](NicConfig& nic, std::string_view value) -> Result<> {
       if (value.empty() || value.size() >= IFNAMSIZ || value.find('/') != std::string_view::npos)
         return fail(ErrorKind::Usage, "the name of an interface has 1 to {} characters and no '/'", IFNAMSIZ - 1);
       nic.tap.interface = value;
       return {};
     }},
    {"fd", "NUMBER[:NUMBER...]", "instead: open queues of a tap interface, as who started Lodge left them",
     [](NicConfig& nic, std::string_view value) -> Result<> {
       for (size_t at = 0; at <= value.size();) {
         const size_t colon = std::min(value.find(':', at), value.size());
         nic.tap.fds.push_back(TRY(parse_descriptor(value.substr(at, colon - at))));
         at = colon + 1;
       }
       if (nic.tap.fds.size() > NetworkOptions::kMostPairs)
         return fail(ErrorKind::Usage, "a card has at most {} queue pairs", NetworkOptions::kMostPairs);
       return {};
     }},
    {"queues", "NUMBER", "queue pairs, 1 to 16 (default 1)",
     [](NicConfig& nic, std::string_view value) -> Result<> {
       nic.pairs = TRY(parse_count(value, NetworkOptions::kMostPairs));
       return {};
     }},
});

constexpr auto kCommonRows = std::to_array<Row>({
    {"mac", "ADDRESS", "the card's address (default: 52:54:00 and three bytes made of the machine's name)",
     [](NicConfig& nic, std::string_view value) -> Result<> {
       nic.mac = TRY(net::parse_mac_address(value));
       return {};
     }},
    {"link", "on|off", "whether the card is plugged in (default on)",
     [](NicConfig& nic, std::string_view value) { return set_switch(nic.link, value); }},
    {"packed", "on|off", "offer packed virtqueues (default off)",
     [](NicConfig& nic, std::string_view value) { return set_switch(nic.packed, value); }},
    {"legacy", "on|off", "the card can be used by drivers older than virtio 1.0 as well (default off)",
     [](NicConfig& nic, std::string_view value) { return set_switch(nic.transitional, value); }},
    {"port", "NUMBER", "with --machine q35: behind this PCI Express root port, 1 to 6, and not on bus 0",
     [](NicConfig& nic, std::string_view value) -> Result<> {
       nic.port = TRY(parse_count(value, devices::pci::RootPort::kMost));
       return {};
     }},
    {"model", "virtio|e1000", "which card it is: virtio, or Intel's 82540EM, which older systems know (default virtio)",
     [](NicConfig& nic, std::string_view value) -> Result<> {
       const bool virtio = value == "virtio" || value == "virtio-net-pci";
       if (!virtio && value != "e1000") return fail(ErrorKind::Usage, "there is no card '{}': use virtio or e1000", value);
       nic.model = virtio ? NicConfig::Model::Virtio : NicConfig::Model::E1000;
       return {};
     }},
});

Result<> check_tap(NicConfig& nic) {
  const bool named = !nic.tap.interface.empty(), given_open = !nic.tap.fds.empty();
  if (named && given_open) return fail(ErrorKind::Usage, "ifname and fd do not go together: give one of them");
  if (!named && !given_open) return fail(ErrorKind::Usage, "which interface? Give ifname=NAME (such as tap0), or fd=NUMBER");
  if (nic.tap.fds.empty()) {
    nic.tap.pairs = nic.pairs;
    return {};
  }
  const auto given = static_cast<uint16_t>(nic.tap.fds.size());
  if (nic.pairs != 1 && nic.pairs != given)
    return fail(ErrorKind::Usage, "queues={} needs as many descriptors; fd has {}", nic.pairs, given);
  nic.pairs = given;
  return {};
}

}  // namespace

Result<std::optional<NicConfig>> parse_net(std::string_view text) {
  std::vector<Setting> settings = split_settings(text);
  const std::string kind = settings.empty() || !settings[0].name.empty() ? "" : settings[0].value;
  NicConfig nic;
  std::vector<Row> rows(kCommonRows.begin(), kCommonRows.end());
  if (kind == "user") {
    nic.kind = NicConfig::Kind::User;
    rows.insert(rows.begin(), kUserRows.begin(), kUserRows.end());
  } else if (kind == "tap") {
    nic.kind = NicConfig::Kind::Tap;
    rows.insert(rows.begin(), kTapRows.begin(), kTapRows.end());
  } else if (kind == "none") {
    if (settings.size() > 1) return fail(ErrorKind::Usage, "none has no settings");
    return std::nullopt;
  } else {
    return fail(ErrorKind::Usage, "'{}' does not begin with a kind of network: user, tap or none", text);
  }
  settings.erase(settings.begin());
  TRY(apply_settings(std::span<const Row>(rows), std::span<const Setting>(settings), nic, kind == "tap" ? "ifname=tap0" : "hostfwd=..."));
  if (kind == "tap") TRY(check_tap(nic));
  if (nic.model == NicConfig::Model::E1000 && (nic.pairs > 1 || nic.packed || nic.transitional))
    return fail(ErrorKind::Usage, "queues, packed and legacy are virtio's: leave them out, or model=e1000");
  return nic;
}

std::string net_help() {
  return "\nSettings of --net user:\n" + settings_help<NicConfig>(kUserRows) + "\nSettings of --net tap:\n" +
         settings_help<NicConfig>(kTapRows) + "\nSettings of both:\n" + settings_help<NicConfig>(kCommonRows);
}

}  // namespace lodge::control
