//! The networks that `portsentryctl allow add` named: a text file in the state directory, one
//! network a line, written as a whole.

use std::io;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::sys::{files, replace};

/// Networks that one file may hold: enough for any administrator, and a bound.
const ENTRIES_MAX: usize = 10_000;

/// The file and what is in it.
#[derive(Debug)]
pub(super) struct AllowFile {
    path: PathBuf,
    networks: Vec<IpNet>,
    /// Lines that could not be read, in words; the file is not overwritten while there are any, so
    /// that nothing is lost.
    faults: Vec<String>,
}

impl AllowFile {
    /// Reads the file `allowed` in `state_dir`; a missing one is empty.
    pub(super) fn read(state_dir: &Path) -> Self {
        let path = state_dir.join("allowed");
        let mut file = Self { path, networks: Vec::new(), faults: Vec::new() };
        let text = files::open_itself(&file.path).and_then(io::read_to_string);
        match text {
            Ok(text) => file.parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => file.faults.push(format!("{}: {error}", file.path.display())),
        }
        file
    }

    fn parse(&mut self, text: &str) {
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let fault = match parse_network(line) {
                Some(network) if self.networks.len() < ENTRIES_MAX => {
                    self.networks.push(network);
                    continue;
                }
                Some(_) => format!("more than {ENTRIES_MAX} networks"),
                None => format!("no address or network: {line:?}"),
            };
            self.faults.push(format!("{}:{}: {fault}", self.path.display(), number + 1));
        }
    }

    /// What is allowed by hand.
    pub(super) fn networks(&self) -> &[IpNet] {
        &self.networks
    }

    /// What could not be read, a line each.
    pub(super) fn faults(&self) -> &[String] {
        &self.faults
    }

    /// Adds a network; `false` if it was there.
    ///
    /// # Errors
    /// In words, when the file cannot be written; then nothing has changed.
    pub(super) fn add(&mut self, network: IpNet) -> Result<bool, String> {
        let network = network.trunc();
        if self.networks.contains(&network) {
            return Ok(false);
        }
        if self.networks.len() >= ENTRIES_MAX {
            return Err(format!(
                "{} networks are allowed by hand already; put the rest into the configuration's allow list",
                ENTRIES_MAX
            ));
        }
        let mut networks = self.networks.clone();
        networks.push(network);
        self.replace(networks)?;
        Ok(true)
    }

    /// Removes a network; `false` if it was not there.
    ///
    /// # Errors
    /// As [`AllowFile::add`].
    pub(super) fn remove(&mut self, network: IpNet) -> Result<bool, String> {
        let network = network.trunc();
        let networks: Vec<_> =
            self.networks.iter().copied().filter(|&other| other != network).collect();
        if networks.len() == self.networks.len() {
            return Ok(false);
        }
        self.replace(networks)?;
        Ok(true)
    }

    fn replace(&mut self, networks: Vec<IpNet>) -> Result<(), String> {
        if let Some(fault) = self.faults.first() {
            return Err(format!(
                "{fault}; mend or remove that file first, so that nothing in it is lost"
            ));
        }
        self.write(&networks)
            .map_err(|error| format!("cannot write {}: {error}", self.path.display()))?;
        self.networks = networks;
        Ok(())
    }

    fn write(&self, networks: &[IpNet]) -> io::Result<()> {
        let mut text =
            String::from("# Networks that are never blocked, kept by \"portsentryctl allow\".\n");
        for network in networks {
            text.push_str(&network.to_string());
            text.push('\n');
        }
        // The daemon is its only writer: the state store beside it is locked against a second one.
        replace::write(&self.path, text.as_bytes(), 0o600)
    }
}

/// An address or a network in CIDR form; host bits are cut off.
pub(super) fn parse_network(text: &str) -> Option<IpNet> {
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Some(IpNet::from(address));
    }
    text.parse::<IpNet>().ok().map(|network| network.trunc())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_added_is_there_after_a_restart_and_gone_when_removed() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = AllowFile::read(directory.path());
        let network = parse_network("192.0.2.77/24").unwrap();
        assert_eq!(file.add(network), Ok(true));
        assert_eq!(file.add(network), Ok(false));
        let mut again = AllowFile::read(directory.path());
        assert_eq!(again.networks(), [parse_network("192.0.2.0/24").unwrap()]);
        assert_eq!(again.remove(network), Ok(true));
        assert_eq!(AllowFile::read(directory.path()).networks(), []);
    }

    #[test]
    fn a_damaged_file_is_told_with_its_line_and_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("allowed");
        fs::write(&path, "# by hand\n192.0.2.1\n192.0.2.300\n").unwrap();
        let mut file = AllowFile::read(directory.path());
        assert_eq!(file.networks().len(), 1);
        assert!(file.faults()[0].contains("allowed:3:"), "{:?}", file.faults());
        assert!(file.add(parse_network("::1").unwrap()).is_err());
        assert!(fs::read_to_string(&path).unwrap().contains("192.0.2.300"));
    }

    #[test]
    fn a_directory_that_cannot_be_written_changes_nothing() {
        let mut file = AllowFile::read(Path::new("/proc/self"));
        assert!(file.add(parse_network("::1").unwrap()).is_err());
        assert_eq!(file.networks(), []);
    }
}
