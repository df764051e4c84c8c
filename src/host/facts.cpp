#include "host/facts.hpp"

namespace lodge::host {

Facts gather(const Sources& sources) {
  return Facts{.processor = read_processor(sources),
               .modules = read_modules(sources),
               .kvm = read_kvm_device(sources),
               .surroundings = read_surroundings(sources),
               .resources = read_resources(sources)};
}

}  // namespace lodge::host
