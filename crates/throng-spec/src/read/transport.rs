//! Settings of connections: how many, encrypted or not.

use std::net::SocketAddr;

use super::Reader;
use super::fields::{At, Fields};
use super::tree::{Node, Value};
use crate::{ConnectionSettings, TlsSettings, host_of, is_loopback_host, is_plain_remote};

impl Reader {
    /// `connections: { total: …, per_address: … }`.
    pub(super) fn connections(&mut self, fields: &mut Fields<'_>) -> ConnectionSettings {
        let default = ConnectionSettings::default();
        let Some((node, at)) = fields.get("connections") else { return default };
        let Some(mut block) = Fields::open(self, node, at) else { return default };
        let total = self.integer(&mut block, "total", 16..=1_000_000, default.total);
        let place = block.get("per_address").map(|(_, at)| at);
        let usual = default.per_address.min(total);
        let per_address = self.integer(&mut block, "per_address", 1..=1_000_000, usual);
        if let Some(at) = place
            && per_address > total
        {
            let help = format!("write at most {total}, or raise node.connections.total");
            let message = "the limit of one address is above the total";
            self.problem(&at, message, Some(help));
        }
        block.done(self);
        ConnectionSettings { total, per_address }
    }

    /// `tls: { cert_file: …, key_file: … }`.
    pub(super) fn tls(&mut self, fields: &mut Fields<'_>) -> Option<TlsSettings> {
        let (node, at) = fields.get("tls")?;
        let mut block = Fields::open(self, node, at)?;
        let cert_file = self.required_text(&mut block, "cert_file");
        let key_file = self.required_text(&mut block, "key_file");
        block.done(self);
        let [cert_file, key_file] = [cert_file, key_file].map(|path| self.folder.join(path));
        Some(TlsSettings { cert_file, key_file })
    }

    /// A problem if others can reach the address and connections are not encrypted, unless the spec
    /// allows that.
    pub(super) fn check_encrypted(
        &mut self,
        listen: SocketAddr,
        tls: Option<&TlsSettings>,
        insecure: bool,
        fields: &mut Fields<'_>,
    ) {
        if listen.ip().is_loopback() || tls.is_some() || insecure {
            return;
        }
        let Some((_, at)) = fields.get("listen") else { return };
        let help = "add `tls: { cert_file: …, key_file: … }` below `node:`, or `insecure: true` if \
                    the network is trusted or a proxy in front of the node terminates TLS";
        let message = format!(
            "{listen} can be reached from outside, and tokens would be sent there unencrypted"
        );
        self.problem(&at, message, Some(help.to_owned()));
    }

    /// The field `insecure` of an object whose URL is `url`. A problem at the URL if secrets would
    /// be sent to another machine without encryption and the field does not allow that.
    pub(super) fn insecure(
        &mut self,
        fields: &mut Fields<'_>,
        url: Option<(&str, At)>,
        what: &str,
    ) -> bool {
        let insecure = self.switch(fields, "insecure");
        if let Some((url, at)) = url
            && is_plain_remote(url)
            && !insecure
        {
            let help =
                "write https://, or add `insecure: true` beside it if the network is trusted";
            let message = format!("{what} would be sent to another machine unencrypted");
            self.problem(&at, message, Some(help.to_owned()));
        }
        insecure
    }

    /// The field `insecure` of Kafka. `exposes_password`: the password is sent in plain text, because SASL
    /// PLAIN is used without TLS.
    pub(super) fn insecure_kafka(
        &mut self,
        block: &mut Fields<'_>,
        brokers: &str,
        exposes_password: bool,
    ) -> bool {
        let insecure = self.switch(block, "insecure");
        let remote = brokers.split(',').any(|broker| !is_loopback_host(host_of(broker.trim())));
        if exposes_password && remote && !insecure {
            let at = block.get("sasl_mechanism").map_or(block.at.clone(), |(_, at)| at);
            let help = "add `tls: true` below `kafka:`, use SCRAM-SHA-512, or add `insecure: true` \
                        if the network is trusted";
            let message = "SASL PLAIN would send the password to the brokers unencrypted";
            self.problem(&at, message, Some(help.to_owned()));
        }
        insecure
    }

    /// `true` or `false`; `false` unless set.
    pub(super) fn switch(&mut self, fields: &mut Fields<'_>, name: &'static str) -> bool {
        match fields.get(name) {
            None => false,
            Some((Node { value: Value::Bool(value), .. }, _)) => *value,
            Some((_, at)) => {
                let help = "write true or false, without quotes".to_owned();
                self.problem(&at, format!("`{name}` is neither true nor false"), Some(help));
                false
            }
        }
    }
}
