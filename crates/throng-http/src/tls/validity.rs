//! The validity of X.509 certificates, which the TLS library does not return. Reads the few fields
//! of a certificate in DER up to its validity (RFC 5280, section 4.1), and nothing after it.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use throng_model::Timestamp;

/// A certificate that expires within this time is reported: renewal usually happens earlier.
const WARN_BEFORE: Duration = Duration::from_secs(14 * 86_400);
/// A certificate with a short lifetime is reported only in the last quarter of it.
const WARN_PART: u32 = 4;

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT`, the version.
const VERSION: u8 = 0xa0;

/// The validity of a chain of certificates: while all of them are valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    /// The latest `notBefore` of the chain.
    not_before: Timestamp,
    /// The earliest `notAfter` of the chain.
    pub(super) not_after: Timestamp,
    /// The lifetime of the certificate that expires first.
    lifetime: Duration,
    /// Its position in the file, from 1.
    position: usize,
}

/// Why a certificate is not valid, or soon will not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValidityProblem {
    /// It expires soon.
    ExpiresSoon,
    /// It has expired.
    Expired,
    /// Its validity has not begun.
    NotYetValid,
}

impl Validity {
    /// Reads the certificates of a file, in its order.
    ///
    /// # Errors
    /// The position, from 1, of a certificate whose validity cannot be read.
    pub(super) fn of(chain: &[CertificateDer<'_>]) -> Result<Self, usize> {
        let mut chain_validity: Option<Self> = None;
        for (position, certificate) in (1..).zip(chain) {
            let (not_before, not_after) = validity_times(certificate).ok_or(position)?;
            let lifetime = not_after.since(not_before);
            let own = Self { not_before, not_after, lifetime, position };
            chain_validity = Some(match chain_validity {
                None => own,
                Some(before) => {
                    let first = if own.not_after < before.not_after { own } else { before };
                    Self { not_before: not_before.max(before.not_before), ..first }
                }
            });
        }
        chain_validity.ok_or(1)
    }

    /// The problem at this time, if there is one.
    pub(super) fn problem_at(&self, now: Timestamp) -> Option<ValidityProblem> {
        let warn_before = WARN_BEFORE.min(self.lifetime / WARN_PART);
        if now > self.not_after {
            Some(ValidityProblem::Expired)
        } else if now.plus(warn_before) > self.not_after {
            Some(ValidityProblem::ExpiresSoon)
        } else if now < self.not_before {
            Some(ValidityProblem::NotYetValid)
        } else {
            None
        }
    }

    /// Describes a problem for people. `file` holds the certificates.
    pub(super) fn describe(&self, problem: ValidityProblem, file: &str) -> String {
        const HINT: &str = "put a renewed one in the file: it is used without a restart";
        let Self { not_before, not_after, position, .. } = self;
        match problem {
            ValidityProblem::ExpiresSoon => {
                format!("certificate {position} of {file} expires at {not_after}; {HINT}")
            }
            ValidityProblem::Expired => format!(
                "certificate {position} of {file} expired at {not_after}: clients refuse this node; {HINT}"
            ),
            ValidityProblem::NotYetValid => format!(
                "a certificate of {file} is not valid before {not_before}: clients refuse this node; \
                 check the clock of this machine, or {HINT}"
            ),
        }
    }
}

/// `notBefore` and `notAfter` of a certificate; `None` if they cannot be read.
fn validity_times(certificate: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let mut fields = Der(Der(Der(certificate).expect(SEQUENCE)?).expect(SEQUENCE)?);
    let (tag, _) = fields.read()?;
    // A certificate of version 1 has no version field, and begins with its serial number.
    if tag == VERSION {
        fields.expect(INTEGER)?;
    } else if tag != INTEGER {
        return None;
    }
    let _signature_algorithm = fields.expect(SEQUENCE)?;
    let _issuer = fields.expect(SEQUENCE)?;
    let mut validity = Der(fields.expect(SEQUENCE)?);
    Some((validity.time()?, validity.time()?))
}

/// Consecutive values in DER.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The tag and the content of the next value.
    fn read(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // The number of length bytes. Three suffice: a certificate is shorter than 16 MiB.
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |length, byte| length * 256 + usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn expect(&mut self, expected: u8) -> Option<&'a [u8]> {
        let (tag, content) = self.read()?;
        (tag == expected).then_some(content)
    }

    /// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`, the only forms that RFC 5280 allows.
    fn time(&mut self) -> Option<Timestamp> {
        let (tag, text) = self.read()?;
        let digits = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let full = match (tag, digits.len()) {
            (UTC_TIME, 12) if digits < "50" => format!("20{digits}"),
            (UTC_TIME, 12) => format!("19{digits}"),
            (GENERALIZED_TIME, 14) => digits.to_owned(),
            _ => return None,
        };
        let (date, time) = full.split_at(8);
        let (year, month, day) = (&date[..4], &date[4..6], &date[6..]);
        let (hour, minute, second) = (&time[..2], &time[2..4], &time[4..]);
        // The last day of the calendar means "no expiry" and is after the range of our times.
        if (year, month, day) == ("9999", "12", "31") {
            return Some(Timestamp(i64::MAX));
        }
        format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z").parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(from: (i32, u8, u8), to: (i32, u8, u8)) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["node.example".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from.0, from.1, from.2);
        params.not_after = date_time_ymd(to.0, to.1, to.2);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        certificate.der().clone()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_validity_of_a_certificate_is_read_in_both_forms() {
        let cases = [
            ((2026, 1, 31), (2026, 5, 1), "2026-01-31T00:00:00Z", "2026-05-01T00:00:00Z"),
            ((1975, 1, 1), (2049, 12, 31), "1975-01-01T00:00:00Z", "2049-12-31T00:00:00Z"),
            ((2024, 2, 29), (4096, 1, 1), "2024-02-29T00:00:00Z", "4096-01-01T00:00:00Z"),
        ];
        for (from, to, not_before, not_after) in cases {
            let der = certificate(from, to);
            assert_eq!(
                validity_times(&der),
                Some((at(not_before), at(not_after))),
                "{from:?} {to:?}"
            );
        }
    }

    #[test]
    fn damaged_certificates_have_no_validity_and_cause_no_panic() {
        let der = certificate((2026, 1, 1), (2027, 1, 1));
        for end in 0..der.len() {
            assert_eq!(validity_times(&der[..end]), None, "cut at {end}");
        }
        for position in 0..der.len() {
            for byte in [0x00, 0x30, 0x7f, 0x80, 0x81, 0x84, 0xff] {
                let mut damaged = der.to_vec();
                damaged[position] = byte;
                validity_times(&damaged);
            }
        }
        assert_eq!(Validity::of(&[]), Err(1));
        assert_eq!(Validity::of(&[der, CertificateDer::from(vec![0x30, 0])]), Err(2));
    }

    #[test]
    fn only_times_in_the_forms_of_x509_are_accepted() {
        let time = |tag: u8, text: &str| {
            let mut der = vec![tag, u8::try_from(text.len()).unwrap()];
            der.extend(text.bytes());
            Der(&der).time()
        };
        assert_eq!(time(UTC_TIME, "491231235959Z"), Some(at("2049-12-31T23:59:59Z")));
        assert_eq!(time(UTC_TIME, "500101000000Z"), Some(at("1950-01-01T00:00:00Z")));
        assert_eq!(time(GENERALIZED_TIME, "20500101000000Z"), Some(at("2050-01-01T00:00:00Z")));
        // No expiry.
        assert_eq!(time(GENERALIZED_TIME, "99991231235959Z"), Some(Timestamp(i64::MAX)));
        for (tag, text) in [
            (UTC_TIME, "4912312359Z"),
            (UTC_TIME, "491231235959+0000"),
            (UTC_TIME, "20491231235959Z"),
            (GENERALIZED_TIME, "491231235959Z"),
            (GENERALIZED_TIME, "20500101000000.5Z"),
            (GENERALIZED_TIME, "20501301000000Z"),
            (GENERALIZED_TIME, "２０５０Z"),
            (SEQUENCE, "20500101000000Z"),
            (UTC_TIME, ""),
        ] {
            assert_eq!(time(tag, text), None, "{tag:x} {text}");
        }
    }

    #[test]
    fn a_certificate_is_reported_two_weeks_before_its_expiry_or_in_the_last_quarter_of_a_short_life()
     {
        let of = |from, to| Validity::of(&[certificate(from, to)]).unwrap();
        let quarter = of((2026, 1, 1), (2026, 4, 1));
        assert_eq!(
            quarter.problem_at(at("2025-12-31T23:59:59Z")),
            Some(ValidityProblem::NotYetValid)
        );
        assert_eq!(quarter.problem_at(at("2026-03-18T00:00:00Z")), None);
        assert_eq!(
            quarter.problem_at(at("2026-03-18T00:00:01Z")),
            Some(ValidityProblem::ExpiresSoon)
        );
        assert_eq!(
            quarter.problem_at(at("2026-04-01T00:00:00Z")),
            Some(ValidityProblem::ExpiresSoon)
        );
        assert_eq!(quarter.problem_at(at("2026-04-01T00:00:01Z")), Some(ValidityProblem::Expired));
        let week = of((2026, 1, 1), (2026, 1, 9));
        assert_eq!(week.problem_at(at("2026-01-07T00:00:00Z")), None);
        assert_eq!(week.problem_at(at("2026-01-07T00:00:01Z")), Some(ValidityProblem::ExpiresSoon));
        let words = week.describe(ValidityProblem::ExpiresSoon, "/etc/tls.crt");
        assert!(words.starts_with("certificate 1 of /etc/tls.crt expires at 2026-01-09T00:00:00Z"));
    }

    #[test]
    fn the_certificate_that_expires_first_counts_for_a_chain() {
        let leaf = certificate((2026, 1, 1), (2026, 12, 1));
        let authority = certificate((2020, 1, 1), (2026, 6, 1));
        let root = certificate((2010, 1, 1), (2040, 1, 1));
        let chain = Validity::of(&[leaf, authority, root]).unwrap();
        assert_eq!((chain.not_before, chain.position), (at("2026-01-01T00:00:00Z"), 2));
        assert_eq!(chain.problem_at(at("2026-05-18T00:00:00Z")), None);
        assert_eq!(
            chain.problem_at(at("2026-05-18T00:00:01Z")),
            Some(ValidityProblem::ExpiresSoon)
        );
        let words = chain.describe(ValidityProblem::Expired, "f");
        assert!(words.starts_with("certificate 2 of f expired at 2026-06-01T00:00:00Z"), "{words}");
    }
}
