//! The functions of system libraries that are loaded when they are needed, and never unloaded.

/// The function of this name and type in a loaded library, where there is one.
macro_rules! symbol {
    ($library:expr, $kind:ty, $name:literal) => {{
        let library: *mut std::ffi::c_void = $library;
        // SAFETY: `library` is a handle that is never closed, the name is NUL-terminated.
        let address = unsafe { libc::dlsym(library, $name.as_ptr()) };
        if address.is_null() {
            None
        } else {
            // SAFETY: the address is that of the function of this name, whose type is `$kind`, as the library's header
            // declares it; function and data pointers are alike on Linux.
            Some(unsafe { std::mem::transmute::<*mut std::ffi::c_void, $kind>(address) })
        }
    }};
}

pub(crate) use symbol;
