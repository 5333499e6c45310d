//! Which engine runs SQL over folders.

use super::Reader;
use super::fields::{At, Fields};
use crate::{BallistaSettings, BallistaTls, EngineSettings, HostPort, is_loopback_host};

impl Reader {
    /// `engine: ballista`, with the settings of the cluster in `ballista:`.
    pub(super) fn engine(&mut self, fields: &mut Fields<'_>) -> EngineSettings {
        let words = [("process", false), ("ballista", true)];
        let chosen = self.word(fields, "engine", &words, false);
        let example = "  ballista:\n    scheduler: ballista-1:50050";
        let Some(mut block) = self.block(fields, "ballista", chosen, "engine", example) else {
            return EngineSettings::Process;
        };
        let place = block.get("scheduler").map(|(_, at)| at);
        let scheduler = self.required_text(&mut block, "scheduler");
        let server = server(&scheduler);
        if let (None, Some(at)) = (&server, &place)
            && !scheduler.is_empty()
        {
            let help = "write HOST:PORT, such as ballista-1:50050".to_owned();
            self.problem(at, "the scheduler is not the address of a server", Some(help));
        }
        let tls = self.ballista_tls(&mut block);
        if let (Some((host, _)), Some(at), None) = (&server, &place, &tls)
            && !is_loopback_host(host)
        {
            self.unencrypted_cluster(at);
        }
        let partitions = self.integer(&mut block, "partitions", 1..=4096, 16);
        let buckets = self.switch(&mut block, "buckets");
        block.done(self);
        let (host, port) = server.unwrap_or_default();
        EngineSettings::Ballista(BallistaSettings { host, port, tls, partitions, buckets })
    }

    /// Queries name files, and their results have keys.
    fn unencrypted_cluster(&mut self, at: &At) {
        let help = "add `ca_file`, `cert_file` and `key_file`, with which the processes of the cluster prove \
                    themselves to each other";
        let message = "queries would be sent to another machine unencrypted, and whoever reaches it could send some";
        self.problem(at, message, Some(help.to_owned()));
    }

    fn ballista_tls(&mut self, block: &mut Fields<'_>) -> Option<BallistaTls> {
        let [ca_file, cert_file, key_file] = ["ca_file", "cert_file", "key_file"].map(|name| {
            let path = self.optional_text(block, name);
            path.map(|path| self.folder.join(path))
        });
        match (ca_file, cert_file, key_file) {
            (Some(ca_file), Some(cert_file), Some(key_file)) => {
                Some(BallistaTls { ca_file, cert_file, key_file })
            }
            (None, None, None) => None,
            _ => {
                let help = "set all three, or none for a cluster on this machine".to_owned();
                let at = block.at.clone();
                let message = "ca_file, cert_file and key_file belong together";
                self.problem(&at, message, Some(help));
                None
            }
        }
    }
}

/// Host and port of a scheduler; the host of an IPv6 address is without brackets.
fn server(text: &str) -> Option<(String, u16)> {
    let server: HostPort = text.parse().ok()?;
    // Without a port the parser takes that of https.
    let named = text.ends_with(&format!(":{}", server.port()));
    let host = server.host().trim_start_matches('[').trim_end_matches(']');
    named.then(|| (host.to_owned(), server.port()))
}
