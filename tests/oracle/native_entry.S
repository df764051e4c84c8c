# The way into an instruction under test and back. Offsets are those of EntryContext (native.cpp).

  .text
  .globl oracle_enter
  .type oracle_enter, @function
oracle_enter:                        # rdi: EntryContext
  push %rbx
  push %rbp
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, oracle_host_rsp(%rip)
  rdfsbase %rax
  mov %rax, oracle_host_fs_base(%rip)
  rdgsbase %rax
  mov %rax, oracle_host_gs_base(%rip)
  movl $1, oracle_active(%rip)
  mov 0x80(%rdi), %rcx
  mov $7, %eax                       # x87, SSE, AVX
  xor %edx, %edx
  xrstor64 (%rcx)
  mov 0x88(%rdi), %ds
  mov 0x8a(%rdi), %es
  mov 0x8c(%rdi), %fs
  mov 0x8e(%rdi), %gs
  cmpl $0, 0xa0(%rdi)
  je 1f
  mov 0x90(%rdi), %rax
  wrfsbase %rax
  mov 0x98(%rdi), %rax
  wrgsbase %rax
1:
  mov 0x00(%rdi), %rax
  mov 0x08(%rdi), %rcx
  mov 0x10(%rdi), %rdx
  mov 0x18(%rdi), %rbx
  mov 0x28(%rdi), %rbp
  mov 0x30(%rdi), %rsi
  mov 0x40(%rdi), %r8
  mov 0x48(%rdi), %r9
  mov 0x50(%rdi), %r10
  mov 0x58(%rdi), %r11
  mov 0x60(%rdi), %r12
  mov 0x68(%rdi), %r13
  mov 0x70(%rdi), %r14
  mov 0x78(%rdi), %r15
  mov 0xa8(%rdi), %rsp
  mov 0x38(%rdi), %rdi
  iretq
  .size oracle_enter, . - oracle_enter

  .globl oracle_signal
  .type oracle_signal, @function
oracle_signal:                       # rdi: signal, rsi: siginfo_t, rdx: ucontext_t
  pushq $0x202                       # AC, NT and ID may be the test's
  popfq
  cmpl $0, oracle_active(%rip)
  je oracle_foreign_signal
  mov %ds, oracle_trap_segments+0(%rip)
  mov %es, oracle_trap_segments+2(%rip)
  mov %fs, oracle_trap_segments+4(%rip)
  mov %gs, oracle_trap_segments+6(%rip)
  rdfsbase %rax
  mov %rax, oracle_trap_fs_base(%rip)
  rdgsbase %rax
  mov %rax, oracle_trap_gs_base(%rip)
  xor %eax, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %fs
  mov %eax, %gs
  mov oracle_host_fs_base(%rip), %rax
  wrfsbase %rax
  mov oracle_host_gs_base(%rip), %rax
  wrgsbase %rax
  and $-16, %rsp
  call oracle_on_trap
  movl $0, oracle_active(%rip)
  mov oracle_host_rsp(%rip), %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbp
  pop %rbx
  ret
  .size oracle_signal, . - oracle_signal

  .bss
  .balign 8
  .globl oracle_host_rsp, oracle_host_fs_base, oracle_host_gs_base, oracle_active
  .globl oracle_trap_segments, oracle_trap_fs_base, oracle_trap_gs_base
oracle_host_rsp: .quad 0
oracle_host_fs_base: .quad 0
oracle_host_gs_base: .quad 0
oracle_trap_fs_base: .quad 0
oracle_trap_gs_base: .quad 0
oracle_trap_segments: .quad 0
oracle_active: .long 0

  .section .note.GNU-stack, "", @progbits
