//! Countries and autonomous systems of addresses, from files in MaxMind's format (MaxMind DB File Format
//! Specification 2.0). The daemon names the files and never opens them; a command does without those
//! that cannot be read.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use ipnet::IpNet;
use maxminddb::Reader;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::failure::Failure;
use super::screen::fit;
use crate::config::Loaded;
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{GeoFiles, Reply, Request, Target};
use crate::journal::error_document::ErrorDocument;
use crate::journal::format::printable;
use crate::sys::files;

/// Bytes of a file that are read at most: of the large ones, with cities, it is some hundred megabytes.
const FILE_MAX: u64 = 1 << 30;

/// Records that are kept decoded, for each file: many addresses share one.
const CACHED_MAX: usize = 20_000;

/// Characters of an autonomous system's name.
const AS_NAME_MAX: usize = 100;

/// Columns of an autonomous system in a table.
const COLUMNS: usize = 30;

/// What is known of where an address is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Geo {
    /// The code of the country (ISO 3166-1 alpha-2), `DE`; null: not known.
    pub(super) country: Option<String>,
    /// The number of the autonomous system; null: not known.
    pub(super) asn: Option<u32>,
    /// Its name; null: not known.
    pub(super) as_name: Option<String>,
}

impl Geo {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// `AS64496 Example Networks`.
    pub(super) fn system(&self) -> Option<String> {
        let name = self.as_name.as_ref();
        match (self.asn, name) {
            (Some(asn), Some(name)) => Some(format!("AS{asn} {name}")),
            (Some(asn), None) => Some(format!("AS{asn}")),
            (None, name) => name.cloned(),
        }
    }
}

/// `DE, AS64496 Example Networks`.
impl fmt::Display for Geo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.country.iter().cloned().chain(self.system()).collect();
        f.write_str(&parts.join(", "))
    }
}

/// The cells of a table: country and autonomous system.
pub(super) fn cells(geo: Option<&Geo>) -> [String; 2] {
    let country = geo.and_then(|geo| geo.country.clone());
    let system = geo.and_then(Geo::system).map(|system| fit(&printable(&system), COLUMNS));
    [country, system].map(|cell| cell.unwrap_or_else(|| "-".to_owned()))
}

// A row with where its address is; the schema has the row's own description.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "{T}"))]
pub(crate) struct Located<T> {
    #[serde(flatten)]
    pub(super) row: T,
    /// Where the address is, by the databases that `geo` of the configuration names; absent: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) geo: Option<Geo>,
}

/// Which rows `--country` and `--asn` select; without either, all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'w> {
    /// Codes in capitals.
    pub(super) countries: &'w [String],
    pub(super) asns: &'w [u32],
}

impl Wanted<'_> {
    fn is_all(&self) -> bool {
        self.countries.is_empty() && self.asns.is_empty()
    }

    /// Whether a row is selected.
    pub(super) fn selects(&self, geo: Option<&Geo>) -> bool {
        let of = |geo: &Geo| {
            let country = geo.country.as_ref();
            (self.countries.is_empty() || country.is_some_and(|of| self.countries.contains(of)))
                && (self.asns.is_empty() || geo.asn.is_some_and(|asn| self.asns.contains(&asn)))
        };
        self.is_all() || geo.is_some_and(of)
    }
}

/// Why a file is not used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The key of the configuration.
    key: &'static str,
    message: String,
    remedy: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.remedy)
    }
}

/// The databases of the configuration. Without any, nothing is known of any address.
#[derive(Default)]
pub(super) struct Databases {
    files: Vec<Database>,
}

impl Databases {
    /// Those that the daemon at a socket names. What is wrong with one is a line on standard error.
    /// Where the daemon does not answer there are none: the request of the command says why.
    pub(super) fn of_daemon(socket: &Path, json: bool, err: &mut dyn Write) -> io::Result<Self> {
        let Ok((databases, faults)) =
            Client::connect(socket).and_then(|mut client| ask(&mut client))
        else {
            return Ok(Self::default());
        };
        for fault in faults {
            if json {
                // The command goes on, and its exit status is another matter.
                let document = ErrorDocument::new("geo", fault.message, fault.remedy.to_owned(), 0);
                err.write_all(document.line().as_bytes())?;
            } else {
                writeln!(err, "portsentryctl: {}", printable(&fault.to_string()))?;
            }
        }
        Ok(databases)
    }

    /// Those of these files that can be read, and why the others cannot.
    pub(super) fn open(files: &GeoFiles) -> (Self, Vec<Fault>) {
        let asn = files.asn.as_deref().filter(|_| files.asn != files.country);
        let (mut databases, mut faults) = (Self::default(), Vec::new());
        for (key, path) in [("geo.country", files.country.as_deref()), ("geo.asn", asn)] {
            match path.map(|path| Database::open(key, path)) {
                None => {}
                Some(Ok(database)) => databases.files.push(database),
                Some(Err(fault)) => faults.push(fault),
            }
        }
        (databases, faults)
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Where an address is, or a network that is all in one place.
    pub(super) fn find(&self, target: Target) -> Option<Geo> {
        let network = target.network();
        let found: Vec<Geo> =
            self.files.iter().filter_map(|database| database.find(network)).collect();
        // Each file is asked first for what its key names.
        let system = found.iter().rev().find(|geo| geo.system().is_some());
        let geo = Geo {
            country: found.iter().find_map(|geo| geo.country.clone()),
            asn: system.and_then(|geo| geo.asn),
            as_name: system.and_then(|geo| geo.as_name.clone()),
        };
        (!geo.is_empty()).then_some(geo)
    }

    /// A row with where its address is.
    pub(super) fn locate<T>(&self, address: Option<Target>, row: T) -> Located<T> {
        Located { geo: address.and_then(|address| self.find(address)), row }
    }

    /// Refuses a selection that nothing could be found with.
    pub(super) fn allow(&self, wanted: Wanted<'_>) -> Result<(), Failure> {
        if wanted.is_all() || !self.is_empty() {
            return Ok(());
        }
        Err(Failure::Usage(
            "--country and --asn need a database, and none can be read",
            "name one in the configuration: geo: { country: FILE, asn: FILE }",
        ))
    }
}

/// Asks the daemon for its databases and opens them.
pub(super) fn ask(client: &mut Client) -> Result<(Databases, Vec<Fault>), ClientError> {
    Ok(match client.ask(&Request::Geo {})? {
        Reply::Geo(files) => Databases::open(&files),
        _ => Default::default(),
    })
}

/// Adds what is wrong with the databases of a configuration.
pub(super) fn check(loaded: &mut Loaded) {
    let (databases, mut faults) = Databases::open(&GeoFiles::from(&loaded.config.geo));
    faults.extend(databases.files.iter().filter_map(Database::damage));
    for Fault { key, message, remedy } in faults {
        loaded.warn_of(key, message, remedy.to_owned());
    }
}

/// An open file.
struct Database {
    key: &'static str,
    path: String,
    reader: Reader<Vec<u8>>,
    /// Decoded records by their place in the file.
    known: RefCell<HashMap<usize, Geo>>,
}

impl Database {
    fn open(key: &'static str, path: &Path) -> Result<Self, Fault> {
        const REMEDY: &str =
            "geoipupdate(1) fetches one; no country or autonomous system is shown without it";
        let path_text = path.display().to_string();
        let fault = |why: &dyn fmt::Display| Fault {
            key,
            message: format!("`{key}`: {path_text} cannot be used: {why}"),
            remedy: REMEDY,
        };
        let read = || {
            let mut file = files::open(path)?;
            let facts = files::facts(&file)?;
            if !facts.regular {
                return Err(io::Error::other("it is no regular file"));
            }
            if facts.size > FILE_MAX {
                return Err(io::Error::other("it is larger than 1 GB"));
            }
            files::read_up_to(&mut file, FILE_MAX)
        };
        let bytes = read().map_err(|error| fault(&error))?;
        let reader = Reader::from_source(bytes).map_err(|error| {
            fault(&format_args!("it is damaged, or of another format: {error}"))
        })?;
        Ok(Self { key, path: path_text, reader, known: RefCell::default() })
    }

    fn find(&self, network: IpNet) -> Option<Geo> {
        // A record that cannot be decoded is as one that is not there; `check` finds it.
        let found = self.reader.lookup(network.addr()).ok()?;
        let place = found.offset()?;
        if network.prefix_len() < network.max_prefix_len() {
            let around = found.network().ok()?;
            let same_family = around.is_ipv4() == matches!(network, IpNet::V4(_));
            if same_family && around.prefix() > network.prefix_len() {
                return None;
            }
        }
        let mut known = self.known.borrow_mut();
        if let Some(geo) = known.get(&place) {
            return Some(geo.clone());
        }
        let geo = found.decode::<Record>().ok()??.geo();
        if known.len() >= CACHED_MAX {
            known.clear();
        }
        known.insert(place, geo.clone());
        Some(geo)
    }

    /// Why parts of it cannot be read: each record is decoded once.
    fn damage(&self) -> Option<Fault> {
        let fault = |why: &dyn fmt::Display| {
            let Self { key, path, .. } = self;
            let message = format!("`{key}`: {path} is damaged: {why}");
            Some(Fault { key, message, remedy: "fetch it again, with geoipupdate(1) for example" })
        };
        let metadata = self.reader.metadata();
        // A tree of so many nodes has one leaf more, or as often as parts of it are shared; one that
        // leads back into itself has no end.
        let most = u64::from(metadata.node_count) * 4;
        let mut seen = HashSet::new();
        let networks = match self.reader.networks(Default::default()) {
            Ok(networks) => networks,
            Err(error) => return fault(&error),
        };
        for (network, number) in networks.zip(0_u64..) {
            let decoded = match network {
                Ok(_) if number > most => return fault(&"its tree leads back into itself"),
                Ok(network) if !network.offset().is_some_and(|place| seen.insert(place)) => {
                    continue;
                }
                Ok(network) => network.decode::<Record>(),
                Err(error) => Err(error),
            };
            if let Err(error) = decoded {
                return fault(&error);
            }
        }
        None
    }
}

/// The keys of a record that are looked at: MaxMind's and DB-IP's (`country: {iso_code}`,
/// `autonomous_system_number`), and flat ones (`country_code`, `asn`, `as_name`) as IPinfo's.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Record {
    country: Value,
    country_code: Value,
    autonomous_system_number: Value,
    asn: Value,
    autonomous_system_organization: Value,
    as_name: Value,
}

impl Record {
    fn geo(self) -> Geo {
        let codes = [self.country_code, self.country].into_iter();
        let numbers = [self.autonomous_system_number, self.asn].into_iter();
        let names = [self.autonomous_system_organization, self.as_name].into_iter();
        Geo {
            country: codes.filter_map(Value::country).next(),
            asn: numbers.filter_map(Value::number).next(),
            as_name: names.filter_map(Value::name).next(),
        }
    }
}

/// A value of a record.
#[derive(Debug, Default)]
enum Value {
    Text(String),
    Number(u64),
    #[default]
    Other,
}

impl Value {
    /// A code of two letters; some files have the name of the country in the same key.
    fn country(self) -> Option<String> {
        let Self::Text(text) = self else { return None };
        let is_code = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_alphabetic());
        is_code.then(|| text.to_ascii_uppercase())
    }

    /// A number, or `AS64496`; 0 is reserved (RFC 7607) and says that none is known.
    fn number(self) -> Option<u32> {
        let number = match self {
            Self::Number(number) => u32::try_from(number).ok(),
            Self::Text(text) => text.strip_prefix("AS").unwrap_or(&text).parse().ok(),
            Self::Other => None,
        };
        number.filter(|number| *number > 0)
    }

    fn name(self) -> Option<String> {
        let Self::Text(text) = self else { return None };
        let text: String = text.trim().chars().take(AS_NAME_MAX).collect();
        (!text.is_empty()).then_some(text)
    }
}

/// A text, a number, or the `iso_code` of a map.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value of a record")
            }

            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(Value::Text(text.to_owned()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
                Ok(Value::Number(number))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
                Ok(Value::Other)
            }

            fn visit_u128<E>(self, _: u128) -> Result<Value, E> {
                Ok(Value::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
                Ok(Value::Other)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
                Ok(Value::Other)
            }

            fn visit_bytes<E>(self, _: &[u8]) -> Result<Value, E> {
                Ok(Value::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Value::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut code = Value::Other;
                while let Some(key) = map.next_key::<String>()? {
                    if key == "iso_code" {
                        code = map.next_value()?;
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(code)
            }
        }

        deserializer.deserialize_any(Any)
    }
}
