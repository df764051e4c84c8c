#include "host/kvm_device.hpp"

#include <cerrno>
#include <sstream>

namespace lodge::host {
namespace {

// /etc/group, group(5): name:password:GID:member,member
void read_group(const std::string& text, KvmDevice& device) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("kvm:")) continue;
    device.group_has_kvm = true;
    std::istringstream members(line.substr(line.rfind(':') + 1));
    for (std::string member; std::getline(members, member, ',');) device.user_in_group |= member == device.user;
  }
}

}  // namespace

KvmDevice read_kvm_device(const Sources& sources) {
  KvmDevice device;
  device.user = sources.user_name();
  device.present = exists(sources, "dev/kvm");
  if (device.present) {
    device.answer = sources.ask_kvm(sources.root / "dev/kvm");
  } else {
    device.answer.open_errno = ENOENT;
  }
  read_group(read_text(sources, "etc/group").value_or(""), device);
  return device;
}

}  // namespace lodge::host
