//! The instruction that enters the kernel. It stands alone so that a model of the kernel can take its place:
//! `tests/model` runs the trampoline's own steps against one, with every failure.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    clippy::inline_always,
    clippy::many_single_char_names
)]
// registers are what they are

use core::arch::asm;

use crate::syscall::Result;

/// Makes one system call with up to six arguments.
///
/// # Errors
///
/// The call's errno.
///
/// # Safety
///
/// Whatever the call does with these arguments must be sound, as documented for that call.
#[inline(always)]
pub unsafe fn call(number: usize, arguments: [usize; 6]) -> Result {
    let [a, b, c, d, e, f] = arguments;
    let value: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the kernel's calling convention: rcx and r11 are clobbered, nothing else is. What the call
    // itself does is the caller's promise.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => value,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the kernel's calling convention: only x0 changes. What the call itself does is the
    // caller's promise.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a as isize => value,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f, options(nostack));
    }
    // The kernel returns -errno, never below -4095 (MAX_ERRNO).
    if (-4095..0).contains(&value) { Err(-value as i32) } else { Ok(value as usize) }
}
