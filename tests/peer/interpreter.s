# A firmware that holds a conversation with a PC's registers: it carries out the script at its own beginning, a list of 16-byte records
# (peer.py writes them), and says what it has read on the debug port. It uses no device but that, and of memory only a small stack.
#
# Record: operation, width in bytes, two bytes unused, address, value, and one more, of four bytes each.

        .set DEBUG_PORT, 0x402
        .set EXIT_PORT, 0x501
        .set EXIT_VALUE, 0x10           # the process ends with 2 * 16 + 1
        .set STACK, 0x7000
        .set ROM, 0xfffc0000            # it runs from a copy of all of it in memory, which no chip takes away
        .set ROM_BYTES, 0x40000
        .set OFFSET, ROM - 0x200000     # of the ROM from where it is linked for
        .set PATIENCE, 8000             # how long a register has to become what it should, in TSC ticks >> 20

        .code32
        .section .text
        .global script
start32:
        movw $0x10, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movl $STACK, %esp
        cld
        movl $ROM, %esi
        movl $script, %edi
        movl $ROM_BYTES / 4, %ecx
        rep movsl
        movl $script, %esi
        movl $next, %eax
        jmp *%eax
next:
        movl %esi, record
        movzbl (%esi), %eax
        movzbl 1(%esi), %ecx
        movl 4(%esi), %edx
        movl 8(%esi), %ebx
        movl 12(%esi), %ebp
        addl $16, %esi
        jmp *operations(, %eax, 4)

operations:
        .long finish, port_write, port_read, memory_write, memory_read, port_wait, memory_wait, port_string, memory_string
        .long memory_jump, triple_fault

finish:
        movl $EXIT_PORT, %edx
        movb $EXIT_VALUE, %al
        outb %al, %dx
1:      hlt
        jmp 1b

port_write:
        movl %ebx, %eax
        cmpl $2, %ecx
        jb 1f
        je 2f
        outl %eax, %dx
        jmp next
1:      outb %al, %dx
        jmp next
2:      outw %ax, %dx
        jmp next

memory_write:
        movl %ebx, %eax
        cmpl $2, %ecx
        jb 1f
        je 2f
        movl %eax, (%edx)
        jmp next
1:      movb %al, (%edx)
        jmp next
2:      movw %ax, (%edx)
        jmp next

port_read:
        movl $read_port, reader
        jmp read
memory_read:
        movl $read_memory, reader
read:
        call *reader
        call tell
        jmp next

# Until the register's bits of the mask (value) are the third number.
port_wait:
        movl $read_port, reader
        jmp wait
memory_wait:
        movl $read_memory, reader
wait:
        call now
        movl %eax, %edi
1:      call *reader
        andl %ebx, %eax
        cmpl %ebp, %eax
        je 2f
        call still_patient
        jb 1b
2:      call tell
        jmp next

# EAX: the time.
now:
        pushl %edx
        rdtsc
        shrdl $20, %edx, %eax
        popl %edx
        ret

# Below: no longer than PATIENCE since EDI. EAX stays.
still_patient:
        pushl %eax
        call now
        subl %edi, %eax
        cmpl $PATIENCE, %eax
        popl %eax
        ret

# As often as the value says: the same port, or one place of memory after the other.
port_string:
        call read_port
        call tell
        decl %ebx
        jnz port_string
        jmp next

memory_string:
        call read_memory
        call tell
        addl %ecx, %edx
        decl %ebx
        jnz memory_string
        jmp next

# To the record of the number behind the width, where the register's bits of the mask (value) are the third number.
memory_jump:
        call read_memory
        andl %ebx, %eax
        cmpl %ebp, %eax
        jne next
        movl record, %eax
        movzwl 2(%eax), %esi
        shll $4, %esi
        addl $script, %esi
        jmp next

triple_fault:
        lidt no_interrupts
        int3

# EAX: the register at EDX, of ECX bytes.
read_port:
        xorl %eax, %eax
        cmpl $2, %ecx
        jb 1f
        je 2f
        inl %dx, %eax
        ret
1:      inb %dx, %al
        ret
2:      inw %dx, %ax
        ret

read_memory:
        xorl %eax, %eax
        cmpl $2, %ecx
        jb 1f
        je 2f
        movl (%edx), %eax
        ret
1:      movb (%edx), %al
        ret
2:      movw (%edx), %ax
        ret

# EAX on the debug port, lowest byte first.
tell:
        pushl %edx
        pushl %ecx
        movl $DEBUG_PORT, %edx
        movl $4, %ecx
1:      outb %al, %dx
        shrl $8, %eax
        loop 1b
        popl %ecx
        popl %edx
        ret

record: .long 0
reader: .long 0
no_interrupts:
        .word 0
        .long 0

        .balign 8
segments:                                # flat code and data behind the null descriptor
        .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
segments_pointer:
        .word . - segments - 1
        .long segments + OFFSET

        .code16
start16:
        cli
        addr32 lgdtl %cs:segments_pointer + OFFSET - 0xffff0000
        movl %cr0, %eax
        orb $1, %al
        movl %eax, %cr0
        ljmpl $8, $start32 + OFFSET

        .section .reset, "ax"            # where the processor begins
        jmp start16
        .balign 16, 0x90
