# A boot sector that says that it runs: a byte at the debug console.
.code16
    mov $'!', %al
    out %al, $0xe9
1:  hlt
    jmp 1b
