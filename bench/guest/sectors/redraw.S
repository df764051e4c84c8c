# A boot sector that fills the screen of 1024x768x32 two hundred times, in the linear mode of the VESA BIOS.
.code16
start:
    xor %ax, %ax
    mov %ax, %ss
    mov %ax, %ds
    mov %ax, %es
    mov $0x7c00, %sp
    mov $0x4f01, %ax        # mode information: the address of the memory at 0x28
    mov $0x144, %cx
    mov $0x8000, %di
    int $0x10
    mov $0x4f02, %ax
    mov $0x4144, %bx
    int $0x10
    cli
    lgdt descriptors - start + 0x7c00
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    mov $8, %bx
    mov %bx, %es            # a limit of 4 GiB, which stays
    and $0xfe, %al
    mov %eax, %cr0
    mov $'<', %al
    out %al, $0xe9
    mov $200, %bx
    xor %edx, %edx
    cld
1:  mov 0x8028, %edi
    mov $786432, %ecx
    mov %edx, %eax
    addr32 rep stosl
    add $0x010305, %edx
    dec %bx
    jnz 1b
    mov $'!', %al
    out %al, $0xe9
2:  hlt
    jmp 2b
table:
    .quad 0, 0x00cf92000000ffff
descriptors:
    .word 15
    .long table - start + 0x7c00

