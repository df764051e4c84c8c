#include "machine/peripherals.hpp"

namespace lodge::machine {

Result<std::unique_ptr<Peripherals>> Peripherals::open(const Config& config, const std::function<void()>& quit) {
  using devices::LoopThread;
  auto all = std::make_unique<Peripherals>();
  for (const DriveConfig& drive : config.drives)
    all->drives_.push_back(TRY(Drive::open(drive, static_cast<unsigned>(all->drives_.size()))));
  // libslirp keeps state of all its networks together.
  std::shared_ptr<LoopThread> user_networks;
  for (const NicConfig& nic : config.nics) {
    const auto number = static_cast<unsigned>(all->nics_.size());
    std::shared_ptr<LoopThread> thread = nic.kind == NicConfig::Kind::User ? user_networks : nullptr;
    if (!thread) thread = TRY(LoopThread::start(fmt::format("net{}", number)));
    if (nic.kind == NicConfig::Kind::User) user_networks = thread;
    const net::MacAddress mac = nic.mac.value_or(net::derived_mac_address(config.name, number));
    all->nics_.push_back(TRY(Nic::open(nic, std::move(thread), mac)));
  }
  if (config.console != "none") all->console_ = TRY(ConsoleLine::open(config.console, quit));
  all->services_ = TRY(LoopThread::start("services"));
  return all;
}

}  // namespace lodge::machine
