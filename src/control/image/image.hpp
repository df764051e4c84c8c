// 'lodge image': makes, looks at and changes disk images. Called by the name qemu-img it takes the same commands and options as that does
// and ends with its exit codes.
#pragma once

#include <span>
#include <string>

namespace lodge::control {

// The arguments behind the program's (or the command's) name. Returns the exit code: 0; 2 for what the user or an image did wrong (1 as
// qemu-img); and the results of 'check' (2: damaged, 3: leaks, 63: the format has nothing to check, 1: not done) and 'compare' (1: they
// differ).
int run_image(std::span<const std::string> arguments, bool as_qemu_img);

}  // namespace lodge::control
