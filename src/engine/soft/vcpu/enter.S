# Crossing between the host's C++ and guest mode. Offsets of CpuState come from vcpu/offsets.hpp, checked there with static_assert.
#include "engine/soft/vcpu/offsets.hpp"

        .text

# Unwind soft_guarded(CpuState* c, void (*function)(CpuState*, uint64_t), uint64_t argument)
# Saves what a callee must save, so that soft_unwind can come back here from any depth.
        .globl  soft_guarded
        .type   soft_guarded, @function
soft_guarded:
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        push    LODGE_OFFSET_HOST_RSP(%rdi)     # the enclosing guarded call
        push    %rdi                            # and 16-byte alignment for the call: 8 pushes and the return address, plus
        sub     $8, %rsp                        # this
        mov     %rsp, LODGE_OFFSET_HOST_RSP(%rdi)
        mov     %rsi, %rax
        mov     %rdx, %rsi
        call    *%rax
        xor     %eax, %eax
.Lleave:
        add     $8, %rsp
        pop     %rdi
        pop     LODGE_OFFSET_HOST_RSP(%rdi)
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        ret
        .size   soft_guarded, .-soft_guarded

# [[noreturn]] void soft_unwind(CpuState* c, Unwind reason)
        .globl  soft_unwind
        .type   soft_unwind, @function
soft_unwind:
        mov     LODGE_OFFSET_HOST_RSP(%rdi), %rsp
        mov     %esi, %eax
        cld
        jmp     .Lleave
        .size   soft_unwind, .-soft_unwind

# uint32_t soft_enter(CpuState* c, void* vector, uint32_t (*loop)(CpuState*))
# The host's vector state is the caller's to lose (all caller-saved), but for MXCSR and the x87 control word.
        .globl  soft_enter
        .type   soft_enter, @function
soft_enter:
        push    %rbx
        push    %r12
        push    %r13
        sub     $16, %rsp
        stmxcsr (%rsp)
        fnstcw  4(%rsp)
        mov     %rdi, %rbx
        mov     %rsi, %r12
        mov     %rdx, %r13
        rdgsbase %rax
        mov     %rax, 8(%rsp)
        wrgsbase %rdi
        mov     $7, %eax
        xor     %edx, %edx
        xrstor64 (%r12)
        mov     %rbx, %rdi
        call    *%r13
        mov     %eax, %r13d
        mov     $7, %eax
        xor     %edx, %edx
        xsave64 (%r12)
        vzeroupper
        fninit
        fldcw   4(%rsp)
        ldmxcsr (%rsp)
        mov     8(%rsp), %rax
        wrgsbase %rax
        mov     %r13d, %eax
        add     $16, %rsp
        pop     %r13
        pop     %r12
        pop     %rbx
        ret
        .size   soft_enter, .-soft_enter

# void soft_host_call(void (*function)(void*), void* argument)
# Runs ordinary C++ from guest mode: the guest's vector state is put aside and the host's defaults are set.
        .globl  soft_host_call
        .type   soft_host_call, @function
soft_host_call:
        push    %rbp
        mov     %rsp, %rbp
        sub     $896, %rsp
        and     $-64, %rsp
        mov     %rdi, %rcx
        xor     %eax, %eax
        mov     %rax, 512(%rsp)                 # the header of the XSAVE area must not hold rubbish (SDM vol. 1, 13.4.2)
        mov     %rax, 520(%rsp)
        mov     %rax, 528(%rsp)
        mov     %rax, 536(%rsp)
        mov     %rax, 544(%rsp)
        mov     %rax, 552(%rsp)
        mov     %rax, 560(%rsp)
        mov     %rax, 568(%rsp)
        mov     $7, %eax
        xor     %edx, %edx
        xsave64 (%rsp)
        fninit
        movl    $0x1f80, -8(%rbp)
        ldmxcsr -8(%rbp)
        mov     %rsi, %rdi
        call    *%rcx
        mov     $7, %eax
        xor     %edx, %edx
        xrstor64 (%rsp)
        leave
        ret
        .size   soft_host_call, .-soft_host_call

# void soft_xsave(void* area) / soft_xrstor(const void* area): x87, SSE and AVX of the running guest; 64-byte aligned.
        .globl  soft_xsave
        .type   soft_xsave, @function
soft_xsave:
        mov     $7, %eax
        xor     %edx, %edx
        xsave64 (%rdi)
        ret
        .size   soft_xsave, .-soft_xsave
        .globl  soft_xrstor
        .type   soft_xrstor, @function
soft_xrstor:
        mov     $7, %eax
        xor     %edx, %edx
        xrstor64 (%rdi)
        ret
        .size   soft_xrstor, .-soft_xrstor

        .section .note.GNU-stack,"",@progbits
