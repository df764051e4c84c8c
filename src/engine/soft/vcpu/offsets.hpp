// Offsets that assembly needs; plain macros so that both languages read them.
#pragma once

#define LODGE_OFFSET_HOST_RSP 128

#ifndef __ASSEMBLER__
#include "engine/soft/cpu/state.hpp"
static_assert(offsetof(lodge::engine::soft::CpuState, host_rsp) == LODGE_OFFSET_HOST_RSP);

extern "C" {
uint32_t soft_enter(lodge::engine::soft::CpuState* c, void* vector, uint32_t (*loop)(lodge::engine::soft::CpuState*));
// -8(%rbp) of its frame lies above the XSAVE area: 896 bytes are 832 of state, alignment and 8 for MXCSR.
void soft_host_call(void (*function)(void*), void* argument);
void soft_xsave(void* area);
void soft_xrstor(const void* area);
}
#endif
