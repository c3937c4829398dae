//! Runs a command as a service, which is how it comes to be LocalSystem.
//!
//! `sc create NAME binPath= "testbed-service OUTPUT PROGRAM [ARGUMENT ..]"`, `sc start NAME`; what the program says
//! is in the file OUTPUT, and its exit code in OUTPUT.status when it has ended.

#[cfg(not(windows))]
fn main() {}

#[cfg(windows)]
fn main() -> std::io::Result<()> {
    service::main()
}

#[cfg(windows)]
mod service {
    use std::fs::{self, File};
    use std::io;
    use std::process::Command;
    use std::ptr;
    use windows_sys::Win32::System::Services::{
        RegisterServiceCtrlHandlerW, SERVICE_RUNNING, SERVICE_STATUS, SERVICE_STATUS_CURRENT_STATE,
        SERVICE_STOPPED, SERVICE_TABLE_ENTRYW, SERVICE_WIN32_OWN_PROCESS, SetServiceStatus,
        StartServiceCtrlDispatcherW,
    };

    pub fn main() -> io::Result<()> {
        let mut name = [0_u16];
        let table = [
            SERVICE_TABLE_ENTRYW { lpServiceName: name.as_mut_ptr(), lpServiceProc: Some(service_main) },
            SERVICE_TABLE_ENTRYW { lpServiceName: ptr::null_mut(), lpServiceProc: None },
        ];
        // SAFETY: the table ends with an empty entry and outlives the call.
        if unsafe { StartServiceCtrlDispatcherW(table.as_ptr()) } == 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    unsafe extern "system" fn handler(_control: u32) {}

    unsafe extern "system" fn service_main(_count: u32, _arguments: *mut *mut u16) {
        let name = [0_u16];
        // SAFETY: the name ends with a zero; a service of one's own process may have any.
        let handle = unsafe { RegisterServiceCtrlHandlerW(name.as_ptr(), Some(handler)) };
        let tell = |state: SERVICE_STATUS_CURRENT_STATE| {
            let status = SERVICE_STATUS {
                dwServiceType: SERVICE_WIN32_OWN_PROCESS,
                dwCurrentState: state,
                ..Default::default()
            };
            // SAFETY: the handle is this service's, and needs no closing.
            unsafe { SetServiceStatus(handle, &raw const status) };
        };
        tell(SERVICE_RUNNING);
        let mut arguments = std::env::args_os().skip(1);
        if let (Some(output), Some(program)) = (arguments.next(), arguments.next()) {
            let run = || -> io::Result<i32> {
                let file = File::create(&output)?;
                let mut command = Command::new(program);
                command.args(arguments).stdout(file.try_clone()?).stderr(file);
                Ok(command.status()?.code().unwrap_or(-1))
            };
            let said = run().map_or_else(|error| error.to_string(), |code| code.to_string());
            let mut status = output.clone();
            status.push(".status");
            // Without the file the workflow fails, which is right.
            let _ = fs::write(status, said);
        }
        tell(SERVICE_STOPPED);
    }
}
