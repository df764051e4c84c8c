# A boot sector that prints lines by the BIOS until the screen has scrolled a thousand times.
.code16
    xor %ax, %ax
    mov %ax, %ss
    mov $0x7c00, %sp
    mov $'<', %al
    out %al, $0xe9
    mov $1024, %cx
1:  mov $0x0e58, %ax        # teletype output
    xor %bx, %bx
    int $0x10
    mov $0x0e0d, %ax
    int $0x10
    mov $0x0e0a, %ax
    int $0x10
    loop 1b
    mov $'!', %al
    out %al, $0xe9
2:  hlt
    jmp 2b
