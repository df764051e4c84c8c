// /dev/kvm: is it there, may this user open it, what does it say.
#pragma once

#include <string>

#include "host/sources.hpp"

namespace lodge::host {

struct KvmDevice {
  bool present = false;
  KvmAnswer answer;            // open_errno is ENOENT where it is not present
  std::string user;            // who asked
  bool group_has_kvm = false;  // the system has a group named kvm
  bool user_in_group = false;  // /etc/group lists the user in it; a login before that does not know yet
};

[[nodiscard]] KvmDevice read_kvm_device(const Sources& sources);

}  // namespace lodge::host
