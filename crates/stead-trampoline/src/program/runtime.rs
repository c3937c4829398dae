//! What libc and the compiler's runtime would otherwise give: the entry point and memory functions.

use core::arch::{asm, global_asm};

use crate::{Vector, steps};

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",     // the outermost frame
    "mov rdi, rsp",     // argc, argv, environment
    "and rsp, -16",     // as the calling convention wants it
    "call {start}",
    "ud2",
    start = sym start,
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, xzr",     // the outermost frame
    "mov x30, xzr",
    "mov x0, sp",       // argc, argv, environment; already aligned
    "bl {start}",
    "brk #1",
    start = sym start,
);

/// Reads what the kernel put on the stack.
///
/// # Safety
///
/// `stack` is the stack pointer at the program's entry.
unsafe extern "C" fn start(stack: *const usize) -> ! {
    // SAFETY: the kernel puts there the count, that many pointers, a null pointer, then the
    // environment's pointers and a null pointer (fs/binfmt_elf.c, create_elf_tables).
    let (argv, environment) = unsafe {
        let pointers = stack.add(1).cast::<*const u8>();
        (Vector { pointers, count: *stack }, pointers.add(*stack + 1))
    };
    steps::main(argv, environment)
}

/// Ends the process.
pub fn exit() -> ! {
    loop {
        // SAFETY: does not return.
        let _ = unsafe { system_call!(EXIT_GROUP, 127) };
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit()
}

// The compiler calls these by name. The empty assembly keeps it from taking a loop for the very function
// that it implements.

/// Bytes before the final NUL.
///
/// # Safety
///
/// `string` is NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn strlen(string: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: the caller promises a NUL, and no byte after it is read.
    while unsafe { *string.add(length) } != 0 {
        length += 1;
        // SAFETY: no instruction at all.
        unsafe { asm!("", options(nostack, preserves_flags)) };
    }
    length
}

/// # Safety
///
/// As memcpy(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise; the direction flag is clear by the calling convention.
    unsafe {
        asm!("rep movsb", inout("rcx") length => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    for index in 0..length {
        // SAFETY: the caller's promise.
        unsafe {
            *to.add(index) = *from.add(index);
            asm!("", options(nostack, preserves_flags));
        }
    }
    to
}

/// # Safety
///
/// As memmove(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    if to.cast_const() <= from {
        // SAFETY: the caller's promise; upwards is right for these.
        return unsafe { memcpy(to, from, length) };
    }
    for index in (0..length).rev() {
        // SAFETY: the caller's promise.
        unsafe {
            *to.add(index) = *from.add(index);
            asm!("", options(nostack, preserves_flags));
        }
    }
    to
}

/// # Safety
///
/// As memset(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, length: usize) -> *mut u8 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise; the direction flag is clear by the calling convention.
    unsafe {
        asm!("rep stosb", inout("rcx") length => _, inout("rdi") to => _, in("al") byte as u8,
            options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    for index in 0..length {
        // SAFETY: the caller's promise.
        unsafe {
            *to.add(index) = byte as u8;
            asm!("", options(nostack, preserves_flags));
        }
    }
    to
}

/// # Safety
///
/// As memcmp(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
    for index in 0..length {
        // SAFETY: the caller's promise.
        let (a, b) = unsafe { (*left.add(index), *right.add(index)) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// # Safety
///
/// As bcmp(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { memcmp(left, right, length) }
}
