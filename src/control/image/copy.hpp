// Carries the contents of one image into another: several pieces at once, holes as holes.
#pragma once

#include <functional>
#include <optional>

#include "control/image/command.hpp"
#include "control/image/progress.hpp"

namespace lodge::control::image {

struct CopyOptions {
  unsigned parallel = 8;  // pieces in flight
  bool in_order = true;   // writes begin in the order of the disk
  bool compressed = false;
  uint64_t sparse = 4096;       // so many zero bytes in a row become a hole; 0: all is written
  bool target_is_zero = false;  // what is not written of the target reads as zeros
  bool salvage = false;         // what cannot be read becomes zeros, with a warning
};

// A part of the work, of any length; `zero`: there is nothing to read.
struct Piece {
  Node* from;
  uint64_t offset, length;
  uint64_t target;  // offset there
  bool zero;
};
// Pieces one after another, ever further on in the target; nothing at the end.
using NextPiece = std::function<Task<Result<std::optional<Piece>>>()>;

// `progress` is shown of `total` bytes, by where the work is in the target.
Task<Result<>> copy(Node& target, NextPiece next, const CopyOptions& options, Progress& progress, uint64_t total);

}  // namespace lodge::control::image
