// Who may have an image open together: the byte-range locks that QEMU's programs put on image files (their block/file-posix.c documents
// the bytes), so that Lodge and they see each other.
//
// Each user says what it does with the file (a shared lock on byte 100 + n) and what it cannot bear others to do (on byte 200 + n), then
// looks whether anybody's locks conflict. Locks belong to the open file description and go with it, also when the process dies.
#pragma once

#include <string>

#include "base/error.hpp"

namespace lodge::block {

enum class Sharing {
  Exclusive,   // writes; nobody else may write, readers that want a still image are refused
  ReadOnly,    // reads; nobody may write
  ForceShare,  // reads whatever others do meanwhile
};

// ErrorKind::Usage when another process has the file in use in a way that does not go with this one.
Result<> lock_image(int fd, const std::string& name, Sharing sharing);
// At once, and not when the last reference to the open file goes: requests that have ended may keep one for a moment.
void unlock_image(int fd);

}  // namespace lodge::block
