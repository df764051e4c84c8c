// An option ROM that starts a kernel handed over by --kernel, under a PC's BIOS (Plug and Play BIOS Specification 1.0A, 3.2: an expansion
// header with a bootstrap entry vector; BIOS Boot Specification 1.01, 3.2).
//
// What is to be done is the host's plan (kernel_rom.hpp), an item of fw_cfg whose number and length the host writes into this image: it is
// read through the ports, and each of its transfers is a DMA request. Then either Linux's real-mode part is entered (boot protocol,
// "RUNNING THE KERNEL"), or a multiboot kernel in protected mode, with the BIOS's memory map (Multiboot Specification 0.6.96, 3.2 and 3.3).
//
// All addresses are offsets from the ROM's beginning, which is where the BIOS's code segment begins.

#define AT(label) (label - lodge_kernel_rom)

// Low memory that is nobody's by now; as kernel_rom.cpp has it.
#define PLAN 0x6000
#define PLAN_MODE 0
#define PLAN_ENTRY 4
#define PLAN_TRANSFERS 8
#define PLAN_FIRST 12
#define STACK 0x5ff0
#define GDT_POINTER 0x5ff4
#define MEMORY_MAP 0x8000
#define MEMORY_MAP_END 0x9000
#define INFO 0x9000
#define INFO_MEM_LOWER (INFO + 4)
#define INFO_MEM_UPPER (INFO + 8)
#define INFO_MMAP_LENGTH (INFO + 44)

#define FW_CFG_SELECT 0x510
#define FW_CFG_DATA 0x511
#define FW_CFG_DMA 0x514
#define LINUX_SEGMENT 0x1000
#define LINUX_STACK 0xe000
#define MODE_MULTIBOOT 1
#define E820 0xe820
#define SMAP 0x534d4150
#define E820_ENTRY 20
#define HIGH_MEMORY 0x100000
#define MULTIBOOT_MAGIC 0x2badb002

        .section .rodata
        .balign 16
        .global lodge_kernel_rom
        .hidden lodge_kernel_rom
        .global lodge_kernel_rom_end
        .hidden lodge_kernel_rom_end
        .code16
lodge_kernel_rom:
        .byte 0x55, 0xaa
        .byte AT(lodge_kernel_rom_end) / 512
        jmp initialize
        .org lodge_kernel_rom + 6
        .byte 0                         // the host makes the sum right here
        .byte 0
        .global lodge_kernel_rom_plan
        .hidden lodge_kernel_rom_plan
lodge_kernel_rom_plan:                  // the host's: the plan's item, and its bytes
        .word 0
        .word 0
        .org lodge_kernel_rom + 0x18
        .word 0                         // it is no PCI device's
        .word AT(plug_and_play)

        .balign 16
plug_and_play:
        .ascii "$PnP"
        .byte 1, 2                      // revision; 32 bytes
        .word 0
        .byte 0
        .byte 0                         // sum: the host's
        .long 0
        .word AT(maker), AT(product)
        .byte 0, 0, 0
        .byte 0x14                      // a device for the initial program load; its ROM needs no shadow
        .word 0, 0
        .word AT(boot)
        .word 0, 0
maker:  .asciz "Lodge"
product:
        .asciz "Kernel of --kernel"

initialize:
        xorw %ax, %ax                   // nothing is attached
        lretw

boot:
        cli
        cld
        xorw %ax, %ax
        movw %ax, %ss
        movl $STACK, %esp
        movw %ax, %ds
        movw %ax, %es
        // The plan, byte by byte.
        movw %cs:AT(lodge_kernel_rom_plan), %ax
        movw $FW_CFG_SELECT, %dx
        outw %ax, %dx
        movw %cs:(AT(lodge_kernel_rom_plan) + 2), %cx
        movw $FW_CFG_DATA, %dx
        movw $PLAN, %di
        rep insb
        // Its transfers: requests as they are, at addresses whose bytes go to the device highest first.
        movw PLAN + PLAN_TRANSFERS, %cx
        movw $PLAN + PLAN_FIRST, %si
transfer:
        jcxz start
        movw $FW_CFG_DMA, %dx
        xorl %eax, %eax
        outl %eax, %dx
        movzwl %si, %eax
        bswapl %eax
        addw $4, %dx
        outl %eax, %dx
1:      movl (%si), %eax
        testl $0x01000000, %eax         // an error
        jnz failed
        testl %eax, %eax
        jnz 1b
        addw $16, %si
        decw %cx
        jmp transfer
failed:
        int $0x18                       // the next device

start:
        cmpl $MODE_MULTIBOOT, PLAN + PLAN_MODE
        je multiboot
        movw $LINUX_SEGMENT, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %fs
        movw %ax, %gs
        movw %ax, %ss
        movl $LINUX_STACK, %esp
        ljmpw $(LINUX_SEGMENT + 0x20), $0

multiboot:
        int $0x12
        movzwl %ax, %eax
        movl %eax, INFO_MEM_LOWER
        // The BIOS's memory map becomes the loader's: each entry behind its length.
        movw $MEMORY_MAP + 4, %di
        xorl %ebx, %ebx
1:      movl $E820, %eax
        movl $E820_ENTRY, %ecx
        movl $SMAP, %edx
        int $0x15
        jc 3f
        cmpl $SMAP, %eax
        jne 3f
        movl $E820_ENTRY, -4(%di)
        cmpl $HIGH_MEMORY, (%di)
        jne 2f
        cmpl $0, 4(%di)
        jne 2f
        movl 8(%di), %eax
        shrl $10, %eax
        movl %eax, INFO_MEM_UPPER
2:      addw $E820_ENTRY + 4, %di
        cmpw $MEMORY_MAP_END - E820_ENTRY, %di
        ja 3f
        testl %ebx, %ebx
        jnz 1b
3:      cli
        movzwl %di, %eax
        subl $MEMORY_MAP + 4, %eax
        movl %eax, INFO_MMAP_LENGTH
        // Protected mode, flat.
        xorl %ebx, %ebx
        movw %cs, %bx
        shll $4, %ebx
        movw $AT(segments_end) - AT(segments) - 1, GDT_POINTER
        leal AT(segments)(%ebx), %eax
        movl %eax, GDT_POINTER + 2
        lgdtl GDT_POINTER
        movl %cr0, %eax
        orb $1, %al
        movl %eax, %cr0
        leal AT(protected_mode)(%ebx), %eax
        pushl $8
        pushl %eax
        lretl

        .code32
protected_mode:
        movw $16, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %fs
        movw %ax, %gs
        movw %ax, %ss
        movl PLAN + PLAN_ENTRY, %ecx
        movl $MULTIBOOT_MAGIC, %eax
        movl $INFO, %ebx
        jmp *%ecx

        .balign 8
segments:                               // the null descriptor, flat code, flat data
        .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
segments_end:
        .balign 512
lodge_kernel_rom_end:

        .section .note.GNU-stack, "", @progbits
