//! Tokens, sessions and sign-in codes.

use throng_model::SecretHash;

use super::*;
use crate::{Grant, NewToken};

fn hash(text: &str) -> SecretHash {
    SecretHash::of(text)
}

fn token(name: &str, secret: &str, expires: Option<u64>) -> NewToken {
    NewToken {
        name: name.to_owned(),
        hash: hash(secret),
        scopes: "events,feed".to_owned(),
        workspace: None,
        owner: None,
        created_by: "ann".to_owned(),
        expires_at: expires.map(at),
    }
}

async fn valid(ledger: &dyn Ledger, n: u64) -> Vec<String> {
    let mut names: Vec<String> =
        ledger.valid_tokens(at(n)).await.unwrap().into_iter().map(|t| t.name).collect();
    names.sort();
    names
}

pub(super) async fn tokens_are_valid_until_they_expire_or_are_revoked(ledger: &dyn Ledger) {
    let new = NewToken { workspace: Some("shop".to_owned()), ..token("a", "1", Some(10)) };
    let id = ledger.create_token(&new, at(1)).await.unwrap();
    ledger.create_token(&token("b", "2", None), at(2)).await.unwrap();
    let rows = ledger.tokens().await.unwrap();
    let row = rows.iter().find(|t| t.id == id).unwrap();
    assert_eq!((row.name.as_str(), row.hash, row.scopes.as_str()), ("a", hash("1"), "events,feed"));
    assert_eq!((row.workspace.as_deref(), row.owner.as_deref()), (Some("shop"), None));
    assert_eq!((row.created_at, row.created_by.as_str()), (at(1), "ann"));
    assert_eq!((row.expires_at, row.last_used_at, row.revoked_at), (Some(at(10)), None, None));
    assert!(row.is_valid(at(9)) && !row.is_valid(at(10)));
    assert_eq!(valid(ledger, 9).await, ["a", "b"]);
    assert_eq!(valid(ledger, 10).await, ["b"], "at its end a token is not valid");
    ledger.revoke_token("b", at(5)).await.unwrap();
    assert_eq!(valid(ledger, 6).await, ["a"]);
    assert_not_found(ledger.revoke_token("b", at(6)).await);
    assert_not_found(ledger.revoke_token("c", at(6)).await);
    ledger.extend_token(id, at(20)).await.unwrap();
    ledger.extend_token(id, at(15)).await.unwrap();
    assert_eq!(valid(ledger, 19).await, ["a"]);
    assert_eq!(ledger.tokens().await.unwrap().len(), 2, "revoked tokens are listed too");
}

pub(super) async fn a_name_is_in_use_while_its_token_is_valid(ledger: &dyn Ledger) {
    ledger.create_token(&token("a", "1", Some(10)), at(1)).await.unwrap();
    assert_wrong_state(ledger.create_token(&token("a", "2", None), at(9)).await);
    assert_eq!(ledger.tokens().await.unwrap().len(), 1);
    ledger.create_token(&token("a", "2", None), at(10)).await.unwrap();
    ledger.revoke_token("a", at(11)).await.unwrap();
    ledger.create_token(&token("a", "3", None), at(12)).await.unwrap();
    let tokens = ledger.valid_tokens(at(13)).await.unwrap();
    assert_eq!(tokens.iter().map(|t| t.hash).collect::<Vec<_>>(), [hash("3")]);
}

pub(super) async fn a_data_directory_keeps_one_token(ledger: &dyn Ledger) {
    let owned = |name: &str, secret: &str, owner: &str| NewToken {
        owner: Some(owner.to_owned()),
        ..token(name, secret, None)
    };
    for new in [owned("a", "1", "x"), owned("b", "2", "x"), owned("c", "3", "y")] {
        ledger.create_token(&new, at(1)).await.unwrap();
    }
    ledger.create_token(&token("d", "4", None), at(1)).await.unwrap();
    assert_eq!(ledger.revoke_owned("x", hash("2"), at(2)).await.unwrap(), 1);
    assert_eq!(valid(ledger, 3).await, ["b", "c", "d"]);
    assert_eq!(ledger.revoke_owned("x", hash("2"), at(2)).await.unwrap(), 0);
}

pub(super) async fn the_last_use_of_a_token_never_decreases(ledger: &dyn Ledger) {
    let id = ledger.create_token(&token("a", "1", None), at(1)).await.unwrap();
    for n in [5, 9, 7] {
        ledger.record_token_use(&[(id, at(n)), (id + 100, at(n))]).await.unwrap();
    }
    ledger.record_token_use(&[]).await.unwrap();
    assert_eq!(ledger.tokens().await.unwrap()[0].last_used_at, Some(at(9)));
}

pub(super) async fn sessions_are_found_by_hash_and_end(ledger: &dyn Ledger) {
    let id = ledger.create_token(&token("a", "1", None), at(1)).await.unwrap();
    let first = ledger.begin_session(hash("s1"), &Grant::Token(id), at(1), at(100)).await.unwrap();
    let bound = Grant::Binding(hash("bound"));
    let second = ledger.begin_session(hash("s2"), &bound, at(2), at(50)).await.unwrap();
    let session = ledger.session(hash("s1")).await.unwrap().unwrap();
    assert_eq!((session.id, &session.grant), (first, &Grant::Token(id)));
    assert_eq!((session.created_at, session.last_seen_at), (at(1), at(1)));
    assert_eq!(session.expires_at, at(100));
    assert_eq!(ledger.session(hash("s2")).await.unwrap().unwrap().grant, bound);
    assert_eq!(ledger.session(hash("s3")).await.unwrap(), None);
    for n in [8, 6] {
        ledger.record_session_use(first, at(n)).await.unwrap();
    }
    assert_eq!(ledger.session(hash("s1")).await.unwrap().unwrap().last_seen_at, at(8));
    let ids = async |n| -> Vec<i64> {
        ledger.sessions(at(n)).await.unwrap().into_iter().map(|s| s.id).collect()
    };
    assert_eq!(ids(49).await, [second, first]);
    assert_eq!(ids(50).await, [first]);
    assert!(ledger.end_session(first).await.unwrap());
    assert!(!ledger.end_session(first).await.unwrap());
    assert_eq!(ledger.session(hash("s1")).await.unwrap(), None);
    ledger.begin_session(hash("s4"), &Grant::Token(id), at(60), at(70)).await.unwrap();
    assert_eq!(ledger.session(hash("s2")).await.unwrap(), None, "expired ones are deleted");
}

pub(super) async fn a_sign_in_code_is_redeemed_once(ledger: &dyn Ledger) {
    let id = ledger.create_token(&token("a", "1", None), at(1)).await.unwrap();
    let grant = Grant::Token(id);
    ledger.put_sign_in_code(hash("c1"), &grant, at(1), at(10)).await.unwrap();
    ledger.put_sign_in_code(hash("c2"), &grant, at(1), at(10)).await.unwrap();
    let redeem = async |code, n| ledger.redeem_sign_in_code(hash(code), at(n)).await.unwrap();
    assert_eq!(redeem("c3", 2).await, None);
    let tries = futures::future::join_all((0..8).map(|_| redeem("c1", 9))).await;
    assert_eq!(tries.iter().flatten().count(), 1, "{tries:?}");
    assert_eq!(redeem("c1", 9).await, None);
    assert_eq!(redeem("c2", 10).await, None, "at its end a code is not valid");
}
