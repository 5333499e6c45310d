//! The problems of this node, as the crates below report them.

use std::sync::Arc;

use throng_http::CertificateReporter;

use crate::{Health, ProblemClass};

/// Reports the problems of the certificate.
pub(crate) struct CertificateProblems(pub(crate) Arc<Health>);

impl CertificateReporter for CertificateProblems {
    fn report(&self, key: &str, detail: String) {
        self.0.report(ProblemClass::Certificate, key, detail);
    }

    fn clear(&self, key: &str) {
        self.0.clear(ProblemClass::Certificate, key);
    }
}
