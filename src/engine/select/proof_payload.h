/* Where the proof's payload and the host agree on addresses; for C++ and the assembler alike. */
#pragma once

#define PROOF_MEMORY_SIZE 0x20000

#define PROOF_PML4 0x1000
#define PROOF_PDPT 0x2000
#define PROOF_PD_LOW 0x3000  /* 0..1 GiB */
#define PROOF_PT 0x4000      /* the window at PROOF_WINDOW */
#define PROOF_PD_HIGH 0x5000 /* 3..4 GiB, for the local APIC */
#define PROOF_GDT 0x6000
#define PROOF_TSS 0x6100
#define PROOF_IDT 0x7000
#define PROOF_CODE 0x8000
#define PROOF_RESULT 0xc000
#define PROOF_PAGE_A 0xd000
#define PROOF_PAGE_B 0xe000
#define PROOF_STACK_TOP 0x14000 /* grows down */
#define PROOF_RSP0 0x16000
#define PROOF_IST1 0x18000
#define PROOF_USER_STACK 0x1a000

#define PROOF_WINDOW 0x200000      /* its first page shows page A, then page B */
#define PROOF_WINDOW_HOLE 0x201000 /* not present until the page fault handler maps it */

#define PROOF_VALUE_A 0x41414141
#define PROOF_VALUE_B 0x42424242

#define PROOF_KERNEL_CS 0x08
#define PROOF_KERNEL_SS 0x10
#define PROOF_USER_BASE 0x18 /* STAR[63:48]: SS is +8, 64-bit CS is +16 */
#define PROOF_USER_SS 0x23
#define PROOF_USER_CS 0x2b
#define PROOF_TR 0x30

#define PROOF_VECTOR_INTERRUPT 0x30
#define PROOF_VECTOR_USER 0x40

#define PROOF_PORT 0xf4
#define PROOF_PORT_DONE 0x5a
#define PROOF_PORT_FAILED 0xee

/* The result page: 64-bit words. */
#define PROOF_RESULT_STEP (PROOF_RESULT + 0)
#define PROOF_RESULT_CR2 (PROOF_RESULT + 8)
#define PROOF_RESULT_PF_ERROR (PROOF_RESULT + 16)
#define PROOF_RESULT_UD_COUNT (PROOF_RESULT + 24)
#define PROOF_RESULT_INTERRUPTS (PROOF_RESULT + 32)
#define PROOF_RESULT_USER_CS (PROOF_RESULT + 40)
#define PROOF_RESULT_WINDOW (PROOF_RESULT + 48) /* what the window showed, three reads */
#define PROOF_RESULT_SYSCALL_RIP (PROOF_RESULT + 72)

#define PROOF_STEP_CONTROL_REGISTERS 1
#define PROOF_STEP_MSRS 2
#define PROOF_STEP_DESCRIPTOR_TABLES 3
#define PROOF_STEP_PAGING 4
#define PROOF_STEP_PAGE_FAULT 5
#define PROOF_STEP_INVALID_OPCODE 6
#define PROOF_STEP_USER_MODE 7
#define PROOF_STEP_SYSCALL 8
#define PROOF_STEP_INTERRUPT 9
#define PROOF_STEP_DONE 10
