// What is said of an image: 'info', 'snapshot --list'.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "block/qcow2/image.hpp"

namespace lodge::control::image {

[[nodiscard]] nlohmann::ordered_json info_json(block::Node& image);
[[nodiscard]] std::string info_text(block::Node& image);
// The table of 'snapshot --list'; empty without snapshots.
[[nodiscard]] std::string snapshot_table(const block::qcow2::Image& image);

}  // namespace lodge::control::image
