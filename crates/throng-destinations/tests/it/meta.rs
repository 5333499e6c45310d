//! Meta's calls, and the effects of faults.

use std::sync::Arc;
use std::time::Duration;

use throng_activation::{
    BatchPart, Cell, Destination, EnsuredAudience, PreparedRow, Schema, SendClass, SendRequest,
    SessionStep,
};
use throng_destinations::{Account, AccountCalls, CallLimits, MetaAccount, open, open_paced};
use throng_model::{Clock, HashedIdentifier, ManualClock, Personal, Secret, SyncRunId, Timestamp};
use throng_sim::meta::{FaultKind, FaultRule, FaultScript, MetaSim, MetaSimConfig};
use throng_store::Operation;

const OWNER: &str = "0123456789abcdef";

fn account(sim: &MetaSim) -> MetaAccount {
    MetaAccount {
        account: "act_12".into(),
        access_token: Secret::new("token"),
        app_secret: None,
        base_url: Some(sim.url()),
        api_version: "v25.0".into(),
    }
}

async fn start(config: MetaSimConfig) -> (MetaSim, Arc<dyn Destination>) {
    let sim = MetaSim::start(config).await.unwrap();
    let destination = open(&Account::Meta(account(&sim))).unwrap();
    (sim, destination)
}

fn schema() -> Schema {
    Schema { keys: vec!["EXTERN_ID".into(), "EMAIL".into()], default_country: None }
}

fn rows(destination: &dyn Destination, users: std::ops::Range<u32>) -> Vec<PreparedRow> {
    users
        .map(|u| {
            let cells = [format!("x{u}"), format!("user{u}@example.com")];
            let cells: Vec<_> = cells.into_iter().map(|c| Some(Personal::new(c))).collect();
            destination.prepare(&schema(), &cells).unwrap()
        })
        .collect()
}

struct Upload<'a> {
    id: &'a str,
    operation: Operation,
    rows: &'a [PreparedRow],
    session: Option<SessionStep>,
}

async fn send(
    destination: &dyn Destination,
    upload: Upload<'_>,
) -> Result<throng_activation::SendResponse, throng_activation::SendError> {
    let request = SendRequest {
        platform_id: upload.id,
        part: BatchPart { run: SyncRunId(1), batch: 0, first: 0 },
        operation: upload.operation,
        schema: &schema(),
        rows: upload.rows,
        session: upload.session,
    };
    destination.send(&request).await
}

fn names(users: std::ops::Range<u32>) -> Vec<String> {
    let mut names: Vec<String> = users.map(|u| format!("x{u}")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_audience_is_found_before_it_is_created() {
    let (sim, meta) = start(MetaSimConfig::default()).await;
    meta.probe().await.unwrap();
    // More than one page, so that the audience is on the last page.
    let first = meta.ensure_audience("wanted", OWNER).await.unwrap();
    assert!(first.created && first.own);
    for n in 0..130 {
        meta.ensure_audience(&format!("other {n}"), OWNER).await.unwrap();
    }
    for (owner, own) in [(OWNER, true), ("fedcba9876543210", false)] {
        let second = meta.ensure_audience("wanted", owner).await.unwrap();
        assert_eq!(second, EnsuredAudience { created: false, own, ..first.clone() });
    }
    assert_eq!(sim.audience_count(), 131);
}

#[tokio::test]
async fn a_create_whose_response_was_lost_creates_no_second_audience() {
    let (sim, meta) = start(MetaSimConfig::default()).await;
    let cut = FaultRule::new(FaultKind::CutAfter).on_path("POST", "customaudiences").times(1);
    sim.set_faults(FaultScript::new(1, [cut])).unwrap();
    let error = meta.ensure_audience("a", OWNER).await.unwrap_err();
    assert_eq!((error.class, error.http_status), (SendClass::Retry, 0));
    let ensured = meta.ensure_audience("a", OWNER).await.unwrap();
    assert!(!ensured.created && ensured.own);
    assert_eq!(sim.audience_count(), 1);
}

#[tokio::test]
async fn an_audience_is_deleted_once_however_often_the_call_is_repeated() {
    let (sim, meta) = start(MetaSimConfig::default()).await;
    let id = meta.ensure_audience("a", OWNER).await.unwrap().platform_id;
    let other = meta.ensure_audience("b", OWNER).await.unwrap().platform_id;
    let error =
        |code, subcode| FaultKind::Error { code, subcode, status: 400, message: "no".to_owned() };
    // A lookalike uses it; it exists but is not visible; the response is lost.
    for (fault, class, left) in [
        (error(2656, None), SendClass::Stop, 2),
        (error(100, Some(33)), SendClass::Stop, 2),
        (FaultKind::CutAfter, SendClass::Retry, 1),
    ] {
        let rule = FaultRule::new(fault).on_call("delete_audience").times(1);
        sim.set_faults(FaultScript::new(1, [rule])).unwrap();
        assert_eq!(meta.delete_audience(&id).await.unwrap_err().class, class);
        assert_eq!(sim.audience_count(), left);
    }
    meta.delete_audience(&id).await.unwrap();
    meta.delete_audience(&other).await.unwrap();
    assert_eq!(sim.audience_count(), 0);
}

#[tokio::test]
async fn users_are_added_removed_and_replaced() {
    let (sim, meta) = start(MetaSimConfig::default()).await;
    let id = meta.ensure_audience("a", OWNER).await.unwrap().platform_id;
    let upload = |operation, rows, session| Upload { id: &id, operation, rows, session };
    let all = rows(&*meta, 0..2_000);
    let response = send(&*meta, upload(Operation::Add, &all, None)).await.unwrap();
    assert_eq!((response.received, response.invalid, response.http_status), (2_000, 0, 200));
    // Far more rows than fit into a URL.
    send(&*meta, upload(Operation::Remove, &all[500..], None)).await.unwrap();
    assert_eq!(sim.members(&id).unwrap(), names(0..500));

    let step = |seq, last, sent_before| {
        let repeated = false;
        Some(SessionStep { id: 7, seq, last, repeated, sent_before, estimated_total: 20 })
    };
    let response =
        send(&*meta, upload(Operation::Replace, &all[..10], step(1, false, 0))).await.unwrap();
    assert_eq!(response.received, 10);
    let response =
        send(&*meta, upload(Operation::Replace, &all[10..20], step(11, true, 10))).await.unwrap();
    assert_eq!(response.received, 10);
    assert_eq!(sim.members(&id).unwrap(), names(0..20));
    let size = meta.size(&id).await.unwrap();
    assert_eq!((size.settling, size.problem), (false, None));
    let late = send(&*meta, upload(Operation::Replace, &all[..10], step(21, false, 20))).await;
    assert_eq!(late.unwrap_err().class, SendClass::Restart);
    assert_eq!(sim.requests().unhashed_cells, 0);
}

#[tokio::test]
async fn invalid_rows_are_named_and_counted() {
    let (_sim, meta) = start(MetaSimConfig::default()).await;
    let id = meta.ensure_audience("a", OWNER).await.unwrap().platform_id;
    let mut all = rows(&*meta, 0..5);
    let email = Cell::Hashed(HashedIdentifier::of_normalised("e@example.com"));
    all[3] = vec![Cell::Empty, email].into();
    let upload = Upload { id: &id, operation: Operation::Add, rows: &all, session: None };
    let response = send(&*meta, upload).await.unwrap();
    assert_eq!((response.received, response.invalid), (5, 1));
    assert_eq!(response.invalid_rows.len(), 1);
    assert_eq!(response.invalid_rows[0].0, 3);
}

#[tokio::test]
async fn faults_have_their_class_and_quote_no_value() {
    let (sim, meta) = start(MetaSimConfig::default()).await;
    let id = meta.ensure_audience("a", OWNER).await.unwrap().platform_id;
    let all = rows(&*meta, 0..3);
    let upload = || Upload { id: &id, operation: Operation::Add, rows: &all, session: None };
    let error = |code, subcode| FaultKind::Error {
        code,
        subcode,
        status: 400,
        message: "row x1 user1@example.com".into(),
    };
    for (fault, class) in [
        (FaultKind::CutBefore, SendClass::Retry),
        (FaultKind::CutAfter, SendClass::Retry),
        (FaultKind::ServerError { status: 503, applied: true }, SendClass::Retry),
        (FaultKind::Html { status: 200, applied: false }, SendClass::Retry),
        (FaultKind::TokenExpired, SendClass::StopAccount),
        (error(100, None), SendClass::InvalidRows),
        (error(100, Some(1_713_230)), SendClass::Stop),
        (error(2650, Some(1_870_145)), SendClass::RetryLater(Duration::from_secs(300))),
    ] {
        sim.set_faults(FaultScript::new(1, [FaultRule::new(fault.clone())])).unwrap();
        let failure = send(&*meta, upload()).await.unwrap_err();
        assert_eq!(failure.class, class, "{fault:?}");
        assert!(!failure.message.contains("user1@"), "{}", failure.message);
        assert!(!failure.message.contains("token/"), "{}", failure.message);
    }
    let throttle = FaultKind::Throttled { code: 80_003, regain_minutes: 3 };
    sim.set_faults(FaultScript::new(1, [FaultRule::new(throttle)])).unwrap();
    let failure = send(&*meta, upload()).await.unwrap_err();
    assert!(matches!(failure.class, SendClass::Throttled(_)), "{failure:?}");
    let short = FaultKind::WrongCounts { missing: 1 };
    sim.set_faults(FaultScript::new(1, [FaultRule::new(short)])).unwrap();
    assert_eq!(send(&*meta, upload()).await.unwrap().received, 2);
}

#[tokio::test]
async fn the_proof_of_the_app_secret_is_sent() {
    let config =
        MetaSimConfig { app_secret: Some(Secret::new("hush")), ..MetaSimConfig::default() };
    let sim = MetaSim::start(config).await.unwrap();
    let without = open(&Account::Meta(account(&sim))).unwrap();
    assert!(without.probe().await.is_err());
    let signing = MetaAccount { app_secret: Some(Secret::new("hush")), ..account(&sim) };
    let with = open(&Account::Meta(signing)).unwrap();
    with.ensure_audience("a", OWNER).await.unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_respond_is_retried() {
    let (sim, meta) = start(MetaSimConfig::default()).await;
    sim.shutdown().await;
    let error = meta.probe().await.unwrap_err();
    assert_eq!((error.class, error.http_status), (SendClass::Retry, 0));
}

/// A server that sends the next of these responses to each request, and returns the requests.
async fn serve_responses(
    responses: Vec<String>,
) -> (std::net::SocketAddr, tokio::task::JoinHandle<String>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let mut requests = String::new();
        for response in responses {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(connection.read_u8().await.unwrap());
            }
            requests += &String::from_utf8(head).unwrap();
            connection.write_all(response.as_bytes()).await.unwrap();
        }
        requests
    });
    (address, serving)
}

/// A response with a body of JSON.
fn json_response(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    )
}

/// A destination on a server.
fn destination_at(address: std::net::SocketAddr) -> Arc<dyn Destination> {
    let account = MetaAccount {
        account: "act_12".into(),
        access_token: Secret::new("token"),
        app_secret: None,
        base_url: Some(format!("http://{address}")),
        api_version: "v25.0".into(),
    };
    open(&Account::Meta(account)).unwrap()
}

#[tokio::test]
async fn a_list_that_is_not_read_to_its_end_does_not_show_that_an_audience_is_gone() {
    // As many pages as are read.
    let pages = || {
        (0..200).map(|page| {
            let body = format!(
                r#"{{"data":[{{"id":"{page}","name":"other"}}],"paging":{{"cursors":{{"after":"c{page}"}}}}}}"#
            );
            json_response("200 OK", &body)
        })
    };
    let gone =
        r#"{"error":{"message":"Unsupported request","code":100,"error_subcode":33,"type":"x"}}"#;
    let deletion = std::iter::once(json_response("400 Bad Request", gone));
    let (address, serving) = serve_responses(deletion.chain(pages()).collect()).await;
    let error = destination_at(address).delete_audience("999").await.unwrap_err();
    assert_eq!(error.class, SendClass::Stop, "{error}");
    for part in ["20000", "account 12", "delete audiences"] {
        assert!(error.message.contains(part), "{error}");
    }
    assert_eq!(serving.await.unwrap().matches("GET ").count(), 200);
    let (address, serving) = serve_responses(pages().collect()).await;
    let error = destination_at(address).ensure_audience("wanted", OWNER).await.unwrap_err();
    assert_eq!(error.class, SendClass::Stop, "no second audience is created: {error}");
    serving.await.unwrap();
    // Neither is a response that is not a list, a cursor that leads to the same page again, or a next page without
    // a cursor.
    let page = r#"{"data":[{"id":"1","name":"a"}],"paging":{"cursors":{"after":"c"}}}"#;
    let empty = r#"{"data":[],"paging":{"cursors":{"after":"c"},"next":"https://x.test/"}}"#;
    let without_cursor = r#"{"data":[],"paging":{"next":"https://x.test/"}}"#;
    for bodies in [
        vec!["{}"],
        vec![r#"{"data":null}"#],
        vec![page, page],
        vec![empty, empty],
        vec![without_cursor],
    ] {
        let responses = bodies.iter().map(|body| json_response("200 OK", body)).collect();
        let (address, serving) = serve_responses(responses).await;
        let error = destination_at(address).ensure_audience("wanted", OWNER).await.unwrap_err();
        assert_eq!(error.class, SendClass::Retry, "{error}");
        serving.await.unwrap();
    }
}

#[tokio::test]
async fn an_empty_page_is_the_end_of_a_list_only_without_a_next_page() {
    let empty = r#"{"data":[],"paging":{"cursors":{"after":"c"},"next":"https://x.test/"}}"#;
    let wanted = r#"{"data":[{"id":"2","name":"wanted"}]}"#;
    let responses = [empty, wanted].map(|body| json_response("200 OK", body)).to_vec();
    let (address, serving) = serve_responses(responses).await;
    let found = destination_at(address).ensure_audience("wanted", OWNER).await.unwrap();
    assert_eq!((found.platform_id.as_str(), found.created), ("2", false));
    let requests = serving.await.unwrap();
    assert!(requests.contains("after=c"), "{requests}");
    // Without one it is.
    let gone =
        r#"{"error":{"message":"Unsupported request","code":100,"error_subcode":33,"type":"x"}}"#;
    let deletion = json_response("400 Bad Request", gone);
    let end = r#"{"data":[],"paging":{"cursors":{"after":"c"}}}"#;
    let (address, serving) = serve_responses(vec![deletion, json_response("200 OK", end)]).await;
    destination_at(address).delete_audience("999").await.unwrap();
    serving.await.unwrap();
}

#[tokio::test]
async fn the_token_is_never_sent_to_a_server_that_a_response_names() {
    let other_server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    other_server.set_nonblocking(true).unwrap();
    let url = format!("http://{}/v25.0/stolen", other_server.local_addr().unwrap());
    let page = json_response(
        "200 OK",
        &format!(
            r#"{{"data":[{{"id":"1","name":"a"}}],"paging":{{"cursors":{{"after":"c"}},"next":"{url}"}}}}"#
        ),
    );
    let last = json_response("200 OK", r#"{"data":[{"id":"2","name":"wanted"}]}"#);
    let moved = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: {url}\r\ncontent-length: 0\r\n\
         connection: close\r\n\r\n"
    );
    let (address, serving) = serve_responses(vec![page, last, moved]).await;
    let meta = destination_at(address);
    assert_eq!(meta.ensure_audience("wanted", OWNER).await.unwrap().platform_id, "2");
    meta.probe().await.unwrap_err();
    let requests = serving.await.unwrap();
    assert_eq!(requests.matches("Bearer token").count(), 3);
    assert!(requests.contains("after=c"), "{requests}");
    // A connection would be pending.
    let connection = other_server.accept().map_err(|error| error.kind());
    assert_eq!(connection.err(), Some(std::io::ErrorKind::WouldBlock), "another server was called");
}

/// Uploads until the account has no quota: the number of uploads, and the wait.
async fn upload_until_paced(destination: &dyn Destination, id: &str) -> (u64, Duration) {
    let rows = rows(destination, 0..1);
    for uploads in 0.. {
        let upload = Upload { id, operation: Operation::Add, rows: &rows, session: None };
        match send(destination, upload).await {
            Ok(response) => assert_eq!(response.received, 1),
            Err(error) => match error.class {
                SendClass::Paced(wait) => return (uploads, wait),
                other => panic!("{other:?}"),
            },
        }
    }
    unreachable!()
}

#[tokio::test]
async fn the_quota_of_an_account_is_used_and_no_call_is_refused_also_after_a_restart() {
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000_000_000)));
    let config = MetaSimConfig {
        clock: Arc::<ManualClock>::clone(&clock),
        quota_calls_per_hour: Some(500),
        ..MetaSimConfig::default()
    };
    let sim = MetaSim::start(config).await.unwrap();
    let process = || {
        let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        let limits = CallLimits { lowest: 500, assumed: 190_000 };
        let calls = AccountCalls::new(limits, clock);
        open_paced(&Account::Meta(account(&sim)), Some(calls)).unwrap()
    };
    let calls = || sim.requests().calls.values().map(|kind| kind.requests).sum::<u64>();
    let destination = process();
    let id = destination.ensure_audience("a", OWNER).await.unwrap().platform_id;
    let (uploads, wait) = upload_until_paced(&*destination, &id).await;
    assert!(calls() >= 480, "{} calls, {uploads} of them uploads", calls());
    assert!(calls() - uploads < 10, "{} calls, {uploads} of them uploads", calls());
    assert!(wait > Duration::from_secs(3_500), "all calls were made in one second: {wait:?}");
    // Another process does not know of these calls until it has seen the meter.
    let restarted = process();
    let (uploads, wait) = upload_until_paced(&*restarted, &id).await;
    assert!(uploads <= 5 && wait <= Duration::from_secs(60), "{uploads} {wait:?}");
    // A size can be read all the same.
    destination.size(&id).await.unwrap();
    clock.advance(Duration::from_secs(3_602));
    let (uploads, _) = upload_until_paced(&*restarted, &id).await;
    assert!(uploads >= 470, "{uploads}");
    let errors: u64 = sim.requests().calls.values().flat_map(|kind| kind.errors.values()).sum();
    assert_eq!(errors, 0);
}

#[tokio::test]
async fn an_upload_goes_if_the_meter_cannot_be_read() {
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000_000_000)));
    let config =
        MetaSimConfig { clock: Arc::<ManualClock>::clone(&clock), ..MetaSimConfig::default() };
    let sim = MetaSim::start(config).await.unwrap();
    let id = {
        let unpaced = open(&Account::Meta(account(&sim))).unwrap();
        unpaced.ensure_audience("a", OWNER).await.unwrap().platform_id
    };
    // The second call has to read the meter.
    let calls = AccountCalls::new(CallLimits { lowest: 100, assumed: 190_000 }, clock);
    let destination = open_paced(&Account::Meta(account(&sim)), Some(calls)).unwrap();
    let fault = FaultKind::ServerError { status: 503, applied: false };
    sim.set_faults(FaultScript::new(1, [FaultRule::new(fault).on_path("GET", &id)])).unwrap();
    let rows = rows(&*destination, 0..2);
    for row in rows.chunks(1) {
        let upload = Upload { id: &id, operation: Operation::Add, rows: row, session: None };
        assert_eq!(send(&*destination, upload).await.unwrap().received, 1);
    }
    assert_eq!(sim.injected_faults(), [1]);
    assert_eq!(sim.member_count(&id), Some(2));
}
