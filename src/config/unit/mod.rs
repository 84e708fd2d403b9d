//! The daemon's systemd unit, and what it refuses of a configuration.
//!
//! The unit that is installed decides, with its drop-ins, because systemd applies these. Where none
//! is installed, it is the one of this package, which is compiled into the program: unit and check
//! cannot drift apart. The files are read as systemd.syntax(7) and systemd.unit(5) describe them;
//! systemd itself is not asked, so that a check works in a chroot and before an installation.

mod command;
mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

pub(super) use judge::judge;

/// The name of the unit.
const NAME: &str = "portsentry.service";

/// The name of the unit of the helper that runs as root.
const RESPONSES: &str = "portsentry-responses@.service";

/// What enables that: a link among the sockets of one of [`PLACES`].
const RESPONSES_SOCKET: &str = "portsentry-responses.socket";

/// The units of this package.
const SHIPPED: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/systemd/portsentry.service"));
const SHIPPED_RESPONSES: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/contrib/systemd/portsentry-responses@.service"
));

/// Where systemd looks for units, the first place first.
const PLACES: &[&str] = &[
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// A unit: the settings of its section `[Service]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unit {
    /// The file; `None`: no unit is installed, and this is the one of the package.
    file: Option<PathBuf>,
    /// The unit of the helper that runs as root, if the administrator has enabled it.
    responses: Option<Box<Unit>>,
    /// The values of each setting, in order, with its drop-ins. An empty value ends what came
    /// before.
    settings: BTreeMap<String, Vec<String>>,
}

/// What the daemon may do with a path under the unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Read and write.
    Write,
    /// Read and write; the content is gone when the service ends, or no other program sees it.
    Volatile(&'static str),
    /// Read.
    Read,
    /// The path is hidden, by this setting.
    Hidden(&'static str),
}

impl Unit {
    /// The installed unit with its drop-ins, or that of this package.
    pub fn of_system() -> Self {
        Self::installed(Path::new("/")).unwrap_or_else(Self::shipped)
    }

    /// The unit of this package.
    pub fn shipped() -> Self {
        let mut unit = Self::default();
        unit.add(SHIPPED);
        unit
    }

    /// The unit that is installed in the file system at `root`; `None` if there is none, or it is
    /// masked.
    pub fn installed(root: &Path) -> Option<Self> {
        let mut unit = Self::installed_as(root, NAME)?;
        let is_enabled = PLACES.iter().any(|place| {
            let link = root.join(place).join("sockets.target.wants").join(RESPONSES_SOCKET);
            fs::symlink_metadata(link).is_ok()
        });
        if is_enabled {
            let responses = Self::installed_as(root, RESPONSES).unwrap_or_else(|| {
                let mut unit = Self::default();
                unit.add(SHIPPED_RESPONSES);
                unit
            });
            unit.responses = Some(Box::new(responses));
        }
        Some(unit)
    }

    fn installed_as(root: &Path, name: &str) -> Option<Self> {
        let file = PLACES.iter().map(|place| root.join(place).join(name)).find(|file| {
            // A link to /dev/null masks the unit; as such it is the one that counts.
            fs::symlink_metadata(file).is_ok()
        })?;
        let mut unit = Self { file: Some(file.clone()), ..Self::default() };
        unit.add(&fs::read_to_string(&file).ok().filter(|text| !text.trim().is_empty())?);
        for file in drop_ins(root, name) {
            unit.add(&fs::read_to_string(file).unwrap_or_default());
        }
        Some(unit)
    }

    /// The unit whose processes run commands and write hosts.deny and blocked files.
    fn of_responses(&self) -> &Self {
        self.responses.as_deref().unwrap_or(self)
    }

    /// The user that the daemon runs as, if that is not root.
    fn user(&self) -> Option<&str> {
        Some(self.value("User")).filter(|user| !matches!(*user, "" | "root" | "0"))
    }

    /// Whether the unit's main process has this capability: root what the bounding set allows,
    /// another user what is ambient, too.
    fn has_capability(&self, name: &str) -> bool {
        let is_ambient = || {
            self.settings.contains_key("AmbientCapabilities")
                && self.allows("AmbientCapabilities", name)
        };
        self.allows("CapabilityBoundingSet", name) && (self.user().is_none() || is_ambient())
    }

    /// The name for messages.
    fn name(&self) -> String {
        match &self.file {
            Some(file) => file.display().to_string(),
            None => format!("the unit of this package, {NAME}"),
        }
    }

    /// Adds the settings of a file.
    fn add(&mut self, text: &str) {
        let mut is_service = false;
        let mut begun = String::new();
        for line in text.lines() {
            let line = line.trim();
            // A comment does not end a line that goes on.
            if line.starts_with(['#', ';']) || (line.is_empty() && begun.is_empty()) {
                continue;
            }
            if let Some(part) = line.strip_suffix('\\') {
                begun.push_str(part);
                begun.push(' ');
                continue;
            }
            let line = std::mem::take(&mut begun) + line;
            if let Some(section) = line.strip_prefix('[') {
                is_service = section.trim_end_matches(']') == "Service";
            } else if let Some((key, value)) = line.split_once('=').filter(|_| is_service) {
                let values = self.settings.entry(key.trim().to_owned()).or_default();
                values.push(value.trim().to_owned());
            }
        }
    }

    /// The value of a setting of which the last counts.
    fn value(&self, key: &str) -> &str {
        self.settings.get(key).and_then(|values| values.last()).map_or("", String::as_str)
    }

    /// Whether a switch is on.
    fn is_on(&self, key: &str) -> bool {
        matches!(&*self.value(key).to_ascii_lowercase(), "yes" | "y" | "true" | "t" | "on" | "1")
    }

    /// The words of a setting that is a list.
    fn words(&self, key: &str) -> impl Iterator<Item = &str> {
        let values = self.settings.get(key).map_or(&[][..], Vec::as_slice);
        let from = values.iter().rposition(String::is_empty).map_or(0, |at| at + 1);
        let values = values.get(from..).unwrap_or_default();
        values
            .iter()
            .flat_map(|value| value.split_whitespace())
            .map(|word| word.trim_matches(['"', '\'']))
    }

    /// Whether a setting that lists what is allowed, or after `~` what is not, allows this.
    fn allows(&self, key: &str, wanted: &str) -> bool {
        let values = self.settings.get(key).map_or(&[][..], Vec::as_slice);
        // Without the setting everything is allowed.
        let mut allowed: Option<bool> = None;
        for value in values {
            let (names, is_denied) = match value.strip_prefix('~') {
                Some(names) => (names, true),
                None => (value.as_str(), false),
            };
            let is_named = names.split_whitespace().any(|name| name.eq_ignore_ascii_case(wanted));
            allowed = Some(match (is_named, is_denied) {
                (true, _) => !is_denied,
                // The first list decides what happens to all others, and an empty value what to
                // everything.
                (false, _) if value.is_empty() => false,
                (false, _) => allowed.unwrap_or(is_denied),
            });
        }
        allowed.unwrap_or(true)
    }

    /// What the daemon may do with this path.
    fn access(&self, path: &Path) -> Access {
        let real = resolved(path);
        let rules = self.rules();
        let within = rules.iter().filter(|(tree, _)| real.starts_with(resolved(tree)));
        // A hidden directory hides all within, whatever is said about that.
        let hidden = within.clone().find(|(_, access)| matches!(access, Access::Hidden(_)));
        // Of two rules for one tree the later.
        let nearest = within.max_by_key(|(tree, _)| tree.components().count());
        hidden.or(nearest).map_or(Access::Write, |(_, access)| *access)
    }

    /// Directories, and what may be done in them.
    fn rules(&self) -> Vec<(PathBuf, Access)> {
        let mut rules: Vec<(PathBuf, Access)> = Vec::new();
        let mut add = |trees: &[&str], access| {
            rules.extend(trees.iter().map(|tree| (PathBuf::from(tree), access)));
        };
        let protect = self.value("ProtectSystem").to_ascii_lowercase();
        match &*protect {
            "strict" => {
                add(&["/"], Access::Read);
                add(&["/dev", "/proc", "/sys"], Access::Write);
            }
            "full" => add(&["/usr", "/boot", "/efi", "/etc"], Access::Read),
            _ if self.is_on("ProtectSystem") => add(&["/usr", "/boot", "/efi"], Access::Read),
            _ => {}
        }
        let homes = ["/home", "/root", "/run/user"];
        match &*self.value("ProtectHome").to_ascii_lowercase() {
            "read-only" => add(&homes, Access::Read),
            "tmpfs" => add(&homes, Access::Hidden("ProtectHome=tmpfs")),
            _ if self.is_on("ProtectHome") => add(&homes, Access::Hidden("ProtectHome=yes")),
            _ => {}
        }
        if self.is_on("PrivateTmp") || self.value("PrivateTmp") == "disconnected" {
            add(&["/tmp", "/var/tmp"], Access::Volatile("is the service's own (PrivateTmp=)"));
        }
        let preserved = !matches!(self.value("RuntimeDirectoryPreserve"), "" | "no");
        let runtime = if preserved {
            Access::Write
        } else {
            Access::Volatile("is removed when the service ends (RuntimeDirectory=)")
        };
        for (key, top, access) in [
            ("StateDirectory", "/var/lib", Access::Write),
            ("CacheDirectory", "/var/cache", Access::Write),
            ("LogsDirectory", "/var/log", Access::Write),
            ("RuntimeDirectory", "/run", runtime),
        ] {
            // `name:link` makes a link, too.
            let names = self.words(key).filter_map(|name| name.split(':').next());
            rules.extend(names.map(|name| (Path::new(top).join(name), access)));
        }
        for (key, access) in [
            ("ReadWritePaths", Access::Write),
            ("ReadOnlyPaths", Access::Read),
            ("InaccessiblePaths", Access::Hidden("InaccessiblePaths=")),
        ] {
            let paths = self.words(key).map(|path| path.trim_start_matches(['-', '+']));
            rules.extend(paths.filter_map(|path| Some((expanded(path)?, access))));
        }
        rules
    }
}

/// The drop-ins of the unit, in the order in which they apply: by name; of two with the same name
/// the one in the earlier place, and one for this unit before one for all services.
fn drop_ins(root: &Path, name: &str) -> Vec<PathBuf> {
    let mut files: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for directory in ["service.d".to_owned(), format!("{name}.d")] {
        for place in PLACES.iter().rev() {
            let found = fs::read_dir(root.join(place).join(&directory)).into_iter().flatten();
            for entry in found.flatten() {
                let path = entry.path();
                if path.extension().is_some_and(|extension| extension == "conf") {
                    files.insert(entry.file_name(), path);
                }
            }
        }
    }
    files.into_values().collect()
}

/// The path with the specifiers of directories (systemd.unit(5)) replaced; `None` with others.
fn expanded(path: &str) -> Option<PathBuf> {
    let mut path = path.to_owned();
    for (specifier, directory) in [
        ("%E", "/etc"),
        ("%t", "/run"),
        ("%S", "/var/lib"),
        ("%C", "/var/cache"),
        ("%L", "/var/log"),
        ("%T", "/tmp"),
        ("%V", "/var/tmp"),
        ("%N", "portsentry"),
        ("%p", "portsentry"),
    ] {
        path = path.replace(specifier, directory);
    }
    (path.starts_with('/') && !path.contains('%')).then(|| PathBuf::from(path))
}

/// The path without symbolic links and `..`, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let mut rest = Vec::new();
    for ancestor in path.ancestors() {
        if let Ok(mut real) = fs::canonicalize(ancestor) {
            real.extend(rest.iter().rev());
            return real;
        }
        rest.extend(ancestor.file_name().map(OsString::from));
    }
    path.to_owned()
}

/// The names in a list that are not allowed.
fn denied<'n>(unit: &Unit, key: &str, names: &[&'n str]) -> BTreeSet<&'n str> {
    names.iter().copied().filter(|name| !unit.allows(key, name)).collect()
}

#[cfg(test)]
mod tests;
