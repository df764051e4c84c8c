// The VGA's registers (IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem"; the names are its), and those of the Bochs
// extensions (Bochs "VBE Display API").
#pragma once

#include <cstdint>

namespace lodge::devices::vga {

// Ports 0x3B0 to 0x3DF, at offsets from the first.
constexpr uint16_t kPorts = 0x3b0, kPortBytes = 0x30;
enum Port : uint16_t {
  kMonoCrtcIndex = 0x3b4,
  kMonoCrtcData = 0x3b5,
  kMonoStatus1 = 0x3ba,
  kAttributeIndex = 0x3c0,
  kAttributeData = 0x3c1,
  kMiscWrite = 0x3c2,  // read: input status 0
  kEnable = 0x3c3,
  kSequencerIndex = 0x3c4,
  kSequencerData = 0x3c5,
  kPixelMask = 0x3c6,
  kDacReadIndex = 0x3c7,  // read: DAC state
  kDacWriteIndex = 0x3c8,
  kDacData = 0x3c9,
  kFeatureRead = 0x3ca,
  kMiscRead = 0x3cc,
  kGraphicsIndex = 0x3ce,
  kGraphicsData = 0x3cf,
  kColorCrtcIndex = 0x3d4,
  kColorCrtcData = 0x3d5,
  kColorStatus1 = 0x3da,
};

constexpr uint64_t kWindow = 0xa0000, kWindowBytes = 0x20000;

enum Sequencer : uint8_t { kReset, kClockingMode, kMapMask, kCharacterMaps, kMemoryMode, kSequencerRegisters };
constexpr uint8_t kEightDots = 0x01, kHalfClock = 0x08, kScreenOff = 0x20;  // clocking mode
constexpr uint8_t kSequential = 0x04, kChain4 = 0x08;                       // memory mode

enum Graphics : uint8_t {
  kSetReset,
  kEnableSetReset,
  kColorCompare,
  kDataRotate,
  kReadMap,
  kMode,
  kMiscellaneous,
  kColorDontCare,
  kBitMask,
  kGraphicsRegisters
};
constexpr uint8_t kReadMode1 = 0x08, kHostOddEven = 0x10, kShiftInterleaved = 0x20, kShift256 = 0x40;  // mode
constexpr uint8_t kGraphicsMode = 0x01;                                                                // miscellaneous

enum Crtc : uint8_t {
  kHorizontalTotal = 0x00,
  kHorizontalDisplayEnd = 0x01,
  kVerticalTotal = 0x06,
  kOverflow = 0x07,
  kPresetRowScan = 0x08,
  kMaximumScanLine = 0x09,
  kCursorStart = 0x0a,
  kCursorEnd = 0x0b,
  kStartHigh = 0x0c,
  kStartLow = 0x0d,
  kCursorHigh = 0x0e,
  kCursorLow = 0x0f,
  kVerticalRetraceEnd = 0x11,
  kVerticalDisplayEnd = 0x12,
  kOffset = 0x13,
  kUnderline = 0x14,
  kCrtcMode = 0x17,
  kLineCompare = 0x18,
  kCrtcRegisters = 0x19
};
constexpr uint8_t kProtect = 0x80;                                                                  // vertical retrace end
constexpr uint8_t kOverflowLineCompare = 0x10;                                                      // overflow
constexpr uint8_t kCursorOff = 0x20;                                                                // cursor start
constexpr uint8_t kDoubleScan = 0x80, kScanLineLineCompare = 0x40;                                  // maximum scan line
constexpr uint8_t kDoubleword = 0x40;                                                               // underline
constexpr uint8_t kRowBit0IsA13 = 0x01, kRowBit1IsA14 = 0x02, kWrapAt64K = 0x20, kByteMode = 0x40;  // mode; the first two when clear

enum Attribute : uint8_t {
  kPalette = 0x00,
  kAttributeMode = 0x10,
  kOverscan,
  kPlaneEnable,
  kPelPanning,
  kColorSelect,
  kAttributeRegisters
};
constexpr uint8_t kPaletteAddressSource = 0x20;                                                                            // index
constexpr uint8_t kMonochrome = 0x02, kLineGraphics = 0x04, kBlink = 0x08, kPanningTopOnly = 0x20, kColorSelect54 = 0x80;  // mode

constexpr uint8_t kColorAddresses = 0x01, kRamEnable = 0x02;  // miscellaneous output

// Bochs: an index and a data port of 16 bits.
constexpr uint16_t kDispiIndexPort = 0x1ce, kDispiPortBytes = 4;
enum Dispi : uint16_t {
  kDispiId,
  kDispiWidth,
  kDispiHeight,
  kDispiBpp,
  kDispiEnable,
  kDispiBank,
  kDispiVirtualWidth,
  kDispiVirtualHeight,
  kDispiXOffset,
  kDispiYOffset,
  kDispiMemory64K,
  kDispiRegisters
};
constexpr uint16_t kDispiVersion = 0xb0c5, kDispiFirstVersion = 0xb0c0;
constexpr uint16_t kDispiEnabled = 0x01, kDispiGetCapabilities = 0x02, kDispi8BitDac = 0x20, kDispiLinear = 0x40, kDispiNoClear = 0x80;
constexpr unsigned kMaximumWidth = 2560, kMaximumHeight = 1600;

}  // namespace lodge::devices::vga
