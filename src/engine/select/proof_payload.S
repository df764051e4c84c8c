// The guest of the functional proof: 64-bit code at PROOF_CODE, entered in long mode with the page tables of proof.cpp.
//
// Each step first writes its number to the result page, so that a hang can be named. What a kernel needs every moment
// is done once: control registers, MSRs, descriptor tables, a changed page table with INVLPG, a page fault that the handler
// mends, an invalid opcode, ring 3 and back through a gate and through SYSCALL, and an interrupt of the local APIC
// that wakes a HLT. It ends with a write of PROOF_PORT_DONE to PROOF_PORT.

#include "engine/select/proof_payload.h"

#define AT(label) ((label) - lodge_proof_begin + PROOF_CODE)
#define STEP(number) movq $(number), PROOF_RESULT_STEP

#define CR0_WP_BIT 16
#define CR4_PGE_BIT 7
#define MSR_EFER 0xc0000080
#define EFER_SCE 0x001
#define EFER_LMA 0x400
#define MSR_STAR 0xc0000081
#define MSR_LSTAR 0xc0000082
#define MSR_FMASK 0xc0000084
#define APIC_BASE 0xfee00000
#define APIC_EOI 0xb0
#define APIC_SVR 0xf0
#define APIC_ICR_LOW 0x300
#define RFLAGS_IF 0x200

        .section .rodata.lodge_proof, "a"
        .balign 16
        .code64
        .globl lodge_proof_begin
lodge_proof_begin:
        STEP(PROOF_STEP_CONTROL_REGISTERS)
        mov     %cr0, %rax
        mov     %rax, %rbx
        bts     $CR0_WP_BIT, %rbx
        mov     %rbx, %cr0
        mov     %cr0, %rcx
        cmp     %rbx, %rcx
        jne     failed
        mov     %cr4, %rax
        bts     $CR4_PGE_BIT, %rax
        mov     %rax, %cr4
        mov     %cr4, %rcx
        cmp     %rax, %rcx
        jne     failed
        mov     %cr3, %rax
        mov     %rax, %cr3
        xor     %eax, %eax
        xor     %ecx, %ecx
        cpuid
        test    %eax, %eax
        jz      failed

        STEP(PROOF_STEP_MSRS)
        mov     $MSR_EFER, %ecx
        rdmsr
        test    $EFER_LMA, %eax
        jz      failed
        or      $EFER_SCE, %eax
        wrmsr
        mov     $MSR_STAR, %ecx
        xor     %eax, %eax
        mov     $((PROOF_USER_BASE << 16) | PROOF_KERNEL_CS), %edx
        wrmsr
        mov     $MSR_FMASK, %ecx
        mov     $RFLAGS_IF, %eax
        xor     %edx, %edx
        wrmsr
        mov     $MSR_LSTAR, %ecx
        mov     $AT(on_syscall), %eax
        wrmsr
        xor     %eax, %eax
        rdmsr
        cmp     $AT(on_syscall), %eax
        jne     failed

        STEP(PROOF_STEP_DESCRIPTOR_TABLES)
        lgdt    gdt_pointer(%rip)
        lidt    idt_pointer(%rip)
        mov     $PROOF_KERNEL_SS, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        pushq   $PROOF_KERNEL_CS
        lea     reloaded(%rip), %rax
        push    %rax
        lretq
reloaded:
        mov     $PROOF_TR, %eax
        ltr     %ax
        str     %ecx
        cmp     $PROOF_TR, %cx
        jne     failed

        STEP(PROOF_STEP_PAGING)
        mov     PROOF_WINDOW, %eax
        mov     %rax, PROOF_RESULT_WINDOW
        movq    $(PROOF_PAGE_B | 3), PROOF_PT
        invlpg  PROOF_WINDOW
        mov     PROOF_WINDOW, %eax
        mov     %rax, PROOF_RESULT_WINDOW + 8

        STEP(PROOF_STEP_PAGE_FAULT)
        mov     PROOF_WINDOW_HOLE, %eax
        mov     %rax, PROOF_RESULT_WINDOW + 16

        STEP(PROOF_STEP_INVALID_OPCODE)
        ud2
        cmpq    $1, PROOF_RESULT_UD_COUNT
        jne     failed

        STEP(PROOF_STEP_USER_MODE)
        pushq   $PROOF_USER_SS
        pushq   $PROOF_USER_STACK
        pushq   $2
        pushq   $PROOF_USER_CS
        lea     user(%rip), %rax
        push    %rax
        iretq

user:
        int     $PROOF_VECTOR_USER      // the handler writes the CS that it was called from
        STEP(PROOF_STEP_SYSCALL)
        syscall
after_syscall:
        jmp     failed                  // SYSCALL does not come back here

on_syscall:
        mov     %rcx, PROOF_RESULT_SYSCALL_RIP
        mov     $PROOF_STACK_TOP, %esp

        STEP(PROOF_STEP_INTERRUPT)
        mov     $APIC_BASE, %ebx
        movl    $0x1ff, APIC_SVR(%rbx)
        movl    $(0x40000 | PROOF_VECTOR_INTERRUPT), APIC_ICR_LOW(%rbx)  // to itself, fixed
wait_for_interrupt:
        cmpq    $0, PROOF_RESULT_INTERRUPTS
        jne     interrupted
        sti
        hlt
        cli
        jmp     wait_for_interrupt
interrupted:
        STEP(PROOF_STEP_DONE)
        mov     $PROOF_PORT_DONE, %al
        out     %al, $PROOF_PORT
stop:
        cli
        hlt
        jmp     stop

failed:
        mov     $PROOF_PORT_FAILED, %al
        out     %al, $PROOF_PORT
        jmp     stop

// The handlers; proof.cpp points the IDT at them.
        .globl  lodge_proof_on_page_fault
lodge_proof_on_page_fault:
        push    %rax
        mov     8(%rsp), %rax
        mov     %rax, PROOF_RESULT_PF_ERROR
        mov     %cr2, %rax
        mov     %rax, PROOF_RESULT_CR2
        movq    $(PROOF_PAGE_A | 3), PROOF_PT + 8
        pop     %rax
        add     $8, %rsp
        iretq

        .globl  lodge_proof_on_invalid_opcode
lodge_proof_on_invalid_opcode:
        incq    PROOF_RESULT_UD_COUNT
        addq    $2, (%rsp)
        iretq

        .globl  lodge_proof_on_user
lodge_proof_on_user:
        push    %rax
        mov     16(%rsp), %rax
        mov     %rax, PROOF_RESULT_USER_CS
        pop     %rax
        iretq

        .globl  lodge_proof_on_interrupt
lodge_proof_on_interrupt:
        push    %rax
        incq    PROOF_RESULT_INTERRUPTS
        mov     $APIC_BASE, %eax
        movl    $0, APIC_EOI(%rax)
        pop     %rax
        iretq

        .globl  lodge_proof_on_unexpected
lodge_proof_on_unexpected:
        jmp     failed

        .balign 8
gdt_pointer:
        .word   PROOF_TR + 15
        .quad   PROOF_GDT
idt_pointer:
        .word   256 * 16 - 1
        .quad   PROOF_IDT

// After SYSCALL, RCX must hold this address.
        .globl  lodge_proof_after_syscall
        .set    lodge_proof_after_syscall, after_syscall
        .globl  lodge_proof_end
lodge_proof_end:

        .section .note.GNU-stack, "", @progbits
