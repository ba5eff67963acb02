//! The artifacts that are part of the program.

use super::definition::Definition;
use super::load::load;

macro_rules! files {
    ($($name:literal,)*) => {
        /// File names and texts.
        pub(super) const FILES: &[(&str, &str)] = &[$((
            concat!($name, ".yaml"),
            include_str!(concat!("../../artifacts/", $name, ".yaml")),
        ),)*];
    };
}

files! {
    "Generic.Applications.Chrome.History",
    "Generic.Applications.Firefox.History",
    "Generic.Client.Info",
    "Generic.Client.Rekey",
    "Generic.Client.Stats",
    "Generic.Client.VQL",
    "Generic.Detection.Yara.Glob",
    "Generic.Network.InterfaceAddresses",
    "Generic.Network.Netstat",
    "Linux.Debian.Packages",
    "Linux.Detection.Autoruns",
    "Linux.Forensics.Journal",
    "Linux.Mounts",
    "Linux.Proc.Arp",
    "Linux.Proc.Modules",
    "Linux.Search.FileFinder",
    "Linux.Ssh.AuthorizedKeys",
    "Linux.Ssh.KnownHosts",
    "Linux.Sys.BashHistory",
    "Linux.Sys.BashShell",
    "Linux.Sys.Crontab",
    "Linux.Sys.Groups",
    "Linux.Sys.LastUserLogin",
    "Linux.Sys.Pslist",
    "Linux.Sys.SUID",
    "Linux.Sys.Services",
    "Linux.Sys.Users",
    "Linux.Syslog.SSHLogin",
    "MacOS.Detection.Autoruns",
    "MacOS.Search.FileFinder",
    "MacOS.System.Packages",
    "MacOS.System.Pslist",
    "MacOS.System.Users",
    "System.VFS.DownloadFile",
    "System.VFS.ListDirectory",
    "Windows.EventLogs.Evtx",
    "Windows.Forensics.Prefetch",
    "Windows.Search.FileFinder",
    "Windows.Sys.Programs",
    "Windows.Sys.StartupItems",
    "Windows.Sys.Users",
    "Windows.System.CmdShell",
    "Windows.System.PowerShell",
    "Windows.System.Pslist",
    "Windows.System.Services",
    "Windows.System.TaskScheduler",
}

/// All of them. One that does not load is left out; a test sees to it that there is none.
pub(super) fn definitions() -> Vec<Definition> {
    let files = FILES.iter();
    let loaded = files.filter_map(|(file, text)| load(file, text).ok());
    loaded.map(|loaded| loaded.definition).collect()
}
