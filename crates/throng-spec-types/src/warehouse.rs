//! Sources that are warehouses: they run SQL themselves.

use serde::{Deserialize, Serialize};
use throng_model::{Micros, SourceName};

use crate::{HostPort, NotAHost, SecretRef};

/// A warehouse. An audience whose `source` names it has SQL in the warehouse's dialect, which the
/// warehouse runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarehouseSource {
    /// Unique among the sources.
    pub name: SourceName,
    /// A description for people.
    pub description: Option<String>,
    /// The product, with its settings. In the JSON form they are fields of the source, and `type`
    /// is the product.
    #[serde(flatten)]
    pub settings: WarehouseSettings,
}

impl WarehouseSource {
    /// The longest time of a refresh that it runs, in seconds.
    pub fn timeout_secs(&self) -> u32 {
        match &self.settings {
            WarehouseSettings::Bigquery(settings) => settings.timeout_secs,
            WarehouseSettings::Postgres(settings) => settings.timeout_secs,
        }
    }

    /// Whether results are read in key ranges, so that a refresh can go on behind them at a later moment.
    pub fn is_read_in_key_ranges(&self) -> bool {
        match &self.settings {
            WarehouseSettings::Bigquery(_) => false,
            WarehouseSettings::Postgres(settings) => settings.key_range_rows.is_some(),
        }
    }
}

/// A supported warehouse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum WarehouseSettings {
    /// Google BigQuery.
    Bigquery(BigQuerySettings),
    /// PostgreSQL.
    Postgres(PostgresSettings),
}

impl WarehouseSettings {
    /// The servers that are called; those that are valid.
    pub fn servers(&self) -> Vec<HostPort> {
        match self {
            Self::Bigquery(settings) => settings.servers().into_iter().flatten().collect(),
            Self::Postgres(settings) => settings.server().into_iter().collect(),
        }
    }

    /// The secret that they get.
    pub fn secret(&self) -> Option<&SecretRef> {
        match self {
            Self::Bigquery(settings) => settings.credentials.as_ref(),
            Self::Postgres(settings) => settings.password.as_ref(),
        }
    }
}

/// PostgreSQL, or a server that speaks its protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresSettings {
    /// The name or IP address of the server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The database.
    pub database: String,
    /// The user; needs only `SELECT`.
    pub username: String,
    /// The user's password.
    pub password: Option<SecretRef>,
    /// Whether connections are encrypted and the server is verified; otherwise neither.
    pub tls: bool,
    /// Whether a server without TLS may be on another machine.
    pub insecure: bool,
    /// The rows of a `FETCH`.
    pub page_rows: u32,
    /// Results are read in key ranges of so many rows, and of all further rows with the last one's hash; a refresh whose
    /// connection or process is lost goes on behind the last range. `None`: it starts again from its first row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_range_rows: Option<u32>,
    /// The longest time of a statement, in seconds.
    pub statement_timeout_secs: u32,
    /// The longest time of a refresh, in seconds.
    pub timeout_secs: u32,
}

impl PostgresSettings {
    /// Host and port.
    ///
    /// # Errors
    /// [`NotAHost`]; never for a checked spec.
    pub fn server(&self) -> Result<HostPort, NotAHost> {
        format!("{}:{}", self.host, self.port).parse()
    }

    /// Whether a password would be sent to another machine unencrypted, although that is not allowed.
    pub fn is_exposed(&self) -> bool {
        !self.tls && !self.insecure && !crate::is_loopback_host(&self.host)
    }
}

/// BigQuery: where jobs run, as whom, and how much they may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BigQuerySettings {
    /// The project that runs the jobs and pays for them.
    pub project: String,
    /// The location of the jobs and of the tables, such as `EU`.
    pub location: String,
    /// The dataset of tables that the SQL names without one.
    pub dataset: Option<String>,
    /// The JSON file with the key of a service account. Exactly one of this and `metadata_url` is
    /// set.
    pub credentials: Option<SecretRef>,
    /// Another server for access tokens of the service account than Google's.
    pub token_url: Option<String>,
    /// The metadata server that returns access tokens of the machine's or pod's identity.
    pub metadata_url: Option<String>,
    /// A job that would read more bytes is refused by BigQuery, and costs nothing.
    pub maximum_bytes_billed: u64,
    /// The price of reading a TiB, for the costs that a plan shows.
    pub price_per_tib: Option<Micros>,
    /// The largest number of rows of a page.
    pub page_rows: u32,
    /// The longest time of a refresh, with the time that its job waits; in seconds.
    pub timeout_secs: u32,
    /// Another server than Google's, such as the simulator.
    pub endpoint: Option<String>,
    /// Whether `endpoint` and `token_url` may be on another machine without TLS.
    pub insecure: bool,
}

const ENDPOINT: &str = "https://bigquery.googleapis.com";
/// Google's server for access tokens of service accounts.
pub(crate) const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";

impl BigQuerySettings {
    /// The URL of the API.
    pub fn api_url(&self) -> &str {
        self.endpoint.as_deref().unwrap_or(ENDPOINT)
    }

    /// The URL of the server that issues access tokens.
    pub fn token_url(&self) -> &str {
        self.metadata_url.as_deref().or(self.token_url.as_deref()).unwrap_or(TOKEN_URL)
    }

    /// The servers that are called.
    ///
    /// # Errors
    /// [`NotAHost`] if a URL is invalid; never for a checked spec.
    pub fn servers(&self) -> Result<[HostPort; 2], NotAHost> {
        Ok([HostPort::of_url(self.api_url())?, HostPort::of_url(self.token_url())?])
    }

    /// Whether a text can be a name in a URL of BigQuery as it is.
    pub fn is_plain_name(text: &str) -> bool {
        (1..=300).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
            && !text.bytes().all(|b| b == b'.')
    }
}
