//! The problems of this node, as the crates below report them.

use std::sync::Arc;

use throng_backends::{BackendProblem, BackendReporter};
use throng_http::CertificateReporter;

use throng_telemetry::{Health, ProblemClass};

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

/// Reports the problems of the backends.
pub(crate) struct BackendProblems(pub(crate) Arc<Health>);

fn class_of(problem: BackendProblem) -> ProblemClass {
    match problem {
        BackendProblem::Ledger => ProblemClass::Ledger,
        BackendProblem::Disk => ProblemClass::Disk,
        BackendProblem::DataDirectory => ProblemClass::DataDirectory,
        BackendProblem::Log => ProblemClass::Log,
    }
}

impl BackendReporter for BackendProblems {
    fn report(&self, problem: BackendProblem, key: &str, detail: String) {
        self.0.report(class_of(problem), key, detail);
    }

    fn clear(&self, problem: BackendProblem, key: &str) {
        self.0.clear(class_of(problem), key);
    }

    fn disk_is_writable(&self) {
        self.0.clear_storage_errors();
    }
}
