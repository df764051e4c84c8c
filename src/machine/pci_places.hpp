// Where functions sit on PCI bus 0.
#pragma once

#include "machine/config.hpp"

namespace lodge::machine {

// Device numbers. Cards come before disks, so that their names in the guest stay when disks are added; disks on virtio come one after
// the other from first_drive on.
struct PciPlaces {
  unsigned display, first_nic, entropy, balloon, console, usb, first_drive;
};
[[nodiscard]] constexpr PciPlaces pci_places(Kind kind) {
  switch (kind) {
    case Kind::Direct: return {.display = 0, .first_nic = 1, .entropy = 5, .balloon = 6, .console = 7, .usb = 0, .first_drive = 8};
    case Kind::Pc: return {.display = 2, .first_nic = 3, .entropy = 7, .balloon = 8, .console = 9, .usb = 10, .first_drive = 11};
    case Kind::Q35: return {.display = 1, .first_nic = 2, .entropy = 6, .balloon = 7, .console = 8, .usb = 9, .first_drive = 10};
  }
  return {};
}

}  // namespace lodge::machine
