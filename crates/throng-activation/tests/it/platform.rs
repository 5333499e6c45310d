//! A platform in memory with scripted faults.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use throng_activation::{
    Advice, Cell, Destination, DestinationLimits, EnsuredAudience, PlatformSize, PreparedRow,
    Schema, SendClass, SendError, SendRequest, SendResponse, SizeLimits, Skip, Usage,
};
use throng_model::Personal;
use throng_store::Operation;

const SIZES: SizeLimits = SizeLimits { min_shown: 1_000, lag: Duration::from_secs(24 * 3_600) };

/// The fault of the next request.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// It is refused with this class.
    Refuse(SendClass),
    /// It is permanently refused, with this advice.
    Advise(Advice),
    /// It is applied, and the response is lost.
    CutAfter,
    /// Only this many rows are received.
    Short(u64),
    /// The last rows, this many, are not received.
    Missing(usize),
    /// It succeeds, and the meters show this.
    Usage(Usage),
    /// It succeeds.
    Fine,
}

#[derive(Default)]
struct State {
    members: BTreeSet<String>,
    session: Option<(i64, BTreeSet<String>)>,
    faults: VecDeque<Fault>,
    requests: u64,
    created: u64,
    owner: Option<String>,
}

/// A value that begins with `poison` makes the whole request fail, values with `invalid` are refused one by
/// one (the platform names only the first), rows with `blank` are skipped.
#[derive(Default)]
pub(crate) struct Platform(Mutex<State>);

impl Platform {
    pub(crate) fn script(&self, faults: &[Fault]) {
        self.0.lock().unwrap().faults.extend(faults.iter().cloned());
    }

    /// All further requests succeed.
    pub(crate) fn end_faults(&self) {
        self.0.lock().unwrap().faults.clear();
    }

    pub(crate) fn members(&self) -> BTreeSet<String> {
        self.0.lock().unwrap().members.clone()
    }

    /// Another owner has created an audience of the name, with these members.
    pub(crate) fn create_foreign(&self, members: BTreeSet<String>) {
        let mut state = self.0.lock().unwrap();
        (state.owner, state.members) = (Some("another owner".to_owned()), members);
    }

    pub(crate) fn requests(&self) -> u64 {
        self.0.lock().unwrap().requests
    }

    pub(crate) fn created(&self) -> u64 {
        self.0.lock().unwrap().created
    }
}

fn error(class: SendClass) -> SendError {
    let error = SendError::local(class, "refused");
    SendError { code: Some(100), http_status: 400, ..error }
}

fn value(row: &PreparedRow) -> String {
    match &row[0] {
        Cell::Plain(text) => text.to_string(),
        _ => String::new(),
    }
}

impl State {
    fn apply(&mut self, request: &SendRequest<'_>, values: &[String]) -> Result<(), SendError> {
        let good = values.iter().filter(|v| !v.starts_with("invalid")).cloned();
        match (request.operation, request.session) {
            (Operation::Add, _) => self.members.extend(good),
            (Operation::Remove, _) => {
                for value in good {
                    self.members.remove(&value);
                }
            }
            (Operation::Replace, Some(step)) => {
                if step.seq == 1 {
                    self.session = Some((step.id, BTreeSet::new()));
                }
                let Some((_, rows)) = self.session.as_mut().filter(|(id, _)| *id == step.id) else {
                    return Err(error(SendClass::Restart));
                };
                rows.extend(good);
                if step.last {
                    self.members = std::mem::take(rows);
                    self.session = None;
                }
            }
            (Operation::Replace, None) => return Err(error(SendClass::Stop)),
        }
        Ok(())
    }
}

#[async_trait]
impl Destination for Platform {
    fn limits(&self) -> DestinationLimits {
        DestinationLimits { max_batch_rows: 100, max_tasks: 8, sizes: Some(SIZES) }
    }

    async fn ensure_audience(&self, _: &str, owner: &str) -> Result<EnsuredAudience, SendError> {
        let mut state = self.0.lock().unwrap();
        let created = state.owner.is_none();
        state.created += u64::from(created);
        let own = *state.owner.get_or_insert_with(|| owner.to_owned()) == *owner;
        Ok(EnsuredAudience { platform_id: "77".into(), created, own })
    }

    fn prepare(&self, _: &Schema, cells: &[Option<Personal>]) -> Result<PreparedRow, Skip> {
        match cells[0].as_ref().map(Personal::expose) {
            Some(text) if !text.starts_with("blank") => Ok(vec![Cell::Plain(text.into())].into()),
            _ => Err(Skip("no_usable_identifier")),
        }
    }

    async fn send(&self, request: &SendRequest<'_>) -> Result<SendResponse, SendError> {
        let mut state = self.0.lock().unwrap();
        state.requests += 1;
        let values: Vec<String> = request.rows.iter().map(value).collect();
        let fault = state.faults.pop_front().unwrap_or(Fault::Fine);
        if let Fault::Refuse(class) = fault {
            return Err(error(class));
        }
        if let Fault::Advise(advice) = fault {
            return Err(error(SendClass::Stop).with_advice(advice));
        }
        if values.iter().any(|v| v.starts_with("poison")) {
            return Err(error(SendClass::InvalidRows));
        }
        let received = match fault {
            Fault::Short(received) => Some(received),
            Fault::Missing(lost) => Some(values.len().saturating_sub(lost) as u64),
            _ => None,
        };
        if let Some(received) = received {
            let some = &values[..received as usize];
            state.apply(request, some)?;
            return Ok(SendResponse { http_status: 200, received, ..SendResponse::default() });
        }
        state.apply(request, &values)?;
        if let Fault::CutAfter = fault {
            return Err(SendError::local(SendClass::Retry, "cut"));
        }
        let invalid: Vec<usize> =
            (0..values.len()).filter(|at| values[*at].starts_with("invalid")).collect();
        Ok(SendResponse {
            http_status: 200,
            received: values.len() as u64,
            invalid: invalid.len() as u64,
            invalid_rows: invalid
                .first()
                .map(|at| (*at, "bad hash".to_owned()))
                .into_iter()
                .collect(),
            usage: if let Fault::Usage(usage) = fault { Some(usage) } else { None },
            ..SendResponse::default()
        })
    }

    async fn size(&self, _: &str) -> Result<PlatformSize, SendError> {
        Ok(PlatformSize::default())
    }

    async fn delete_audience(&self, _: &str) -> Result<(), SendError> {
        let mut state = self.0.lock().unwrap();
        state.owner = None;
        state.members.clear();
        Ok(())
    }

    async fn probe(&self) -> Result<(), SendError> {
        Ok(())
    }
}
