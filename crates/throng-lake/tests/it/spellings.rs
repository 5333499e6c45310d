//! Names of columns that are spelled in several ways, and fields inside of objects.

use crate::Shop;
use crate::files::{holds, refused};

#[tokio::test]
async fn spellings_within_one_json_file_are_refused_or_become_one_column() {
    let shop = Shop::new()
        .file("two.jsonl", "{\"user_id\":1}\n{\"userId\":2}\n")
        .file("three.json", "[{\"user_id\":1},{\"UserID\":2},{\"user-id\":3}]")
        .file(
            "cased.jsonl",
            "{\"user_id\":1,\"n\":1}\n{\"User_ID\":2}\n{\"USER_ID\":\"x3\",\"N\":5}\n",
        )
        .file("both.jsonl", "{\"user_id\":1,\"userId\":7}\n{\"user_id\":2}\n")
        .file("apart.jsonl", "{\"user_id\":1,\"USER_ID\":7}\n{\"user_id\":2}\n")
        .file("f/1.jsonl", "{\"user_id\":1}\n{\"User_ID\":2}\n")
        .file("f/2.csv", "USER_ID\n3\n")
        .file("g/1.jsonl", "{\"user_id\":1,\"n\":1}\n")
        .file("g/2.jsonl", "{\"userid\":2,\"n\":1}\n{\"userId\":3,\"n\":1}\n");
    let ids = |table: &str| format!("SELECT user_id FROM shop.{table}");
    refused(&shop, &ids("two"), &["user_id in ", "userId in ", "two.jsonl", "one name"]).await;
    refused(&shop, &ids("three"), &["UserID in ", "user-id in ", "user_id in ", "three.json"])
        .await;
    refused(&shop, &ids("g"), &["user_id in ", "1.jsonl", "userid in ", "2.jsonl"]).await;
    holds(&shop, &ids("cased"), &["1", "2", "x3"]).await;
    holds(&shop, "SELECT user_id FROM shop.cased WHERE n = 5", &["x3"]).await;
    holds(&shop, "SELECT count(*) FROM shop.cased WHERE user_id IS NULL", &["0"]).await;
    holds(&shop, &ids("both"), &["1", "2"]).await;
    holds(&shop, "SELECT \"userId\" FROM shop.both", &["7"]).await;
    holds(&shop, "SELECT \"user_id\" FROM shop.apart", &["1", "2"]).await;
    holds(&shop, "SELECT \"USER_ID\" FROM shop.apart", &["7"]).await;
    holds(&shop, &ids("f"), &["1", "2", "3"]).await;
    let trimmed = shop.file("w.jsonl", "{\"user_id\":\" a \"}\n{\"User_ID\":\"b \"}\n").trim();
    holds(&trimmed, &ids("w"), &["a", "b"]).await;
}

#[tokio::test]
async fn fields_of_objects_that_are_twice_or_in_two_cases_are_refused_where_they_are_used() {
    let shop = Shop::new()
        .file("twice.jsonl", "{\"id\":1,\"u\":{\"x\":1,\"x\":2}}\n{\"id\":2,\"u\":{\"x\":3}}\n")
        .file("t/1.jsonl", "{\"id\":1,\"u\":[{\"x\":1}]}\n")
        .file("t/2.jsonl", "{\"id\":2,\"u\":[{\"X\":1}]}\n");
    let used = |table: &str| format!("SELECT id FROM shop.{table} WHERE u IS NOT NULL");
    refused(&shop, &used("twice"), &["an object in", "twice.jsonl has the field u.x twice"]).await;
    refused(&shop, &used("t"), &["u[].x in", "1.jsonl", "u[].X in", "2.jsonl", "in case"]).await;
    for table in ["twice", "t"] {
        holds(&shop, &format!("SELECT id FROM shop.{table}"), &["1", "2"]).await;
    }
}

#[tokio::test]
async fn separators_between_digits_are_part_of_a_name() {
    let shop = Shop::new()
        .file("q/1.csv", "user_id,city,q1_1\n1,Rome,yes\n")
        .file("q/2.csv", "user_id,city,q11\n2,Oslo,no\n")
        .file("a/1.csv", "user_id,city,line_1\n1,Rome,x\n")
        .file("a/2.csv", "user_id,city,line1\n2,Oslo,y\n")
        .file("n/1.csv", "user_id,city,Gr\u{f6}\u{df}e\n1,Rome,x\n")
        .file("n/2.csv", "user_id,city,Gro\u{308}\u{df}e\n2,Oslo,y\n");
    holds(&shop, "SELECT user_id FROM shop.q WHERE q1_1 IS NULL", &["2"]).await;
    holds(&shop, "SELECT user_id FROM shop.q WHERE q11 = 'no'", &["2"]).await;
    for table in ["a", "n"] {
        let sql = format!("SELECT user_id FROM shop.{table}");
        refused(&shop, &sql, &["several ways", "1.csv", "2.csv"]).await;
    }
}

#[tokio::test]
async fn refusals_name_the_whole_path_of_a_field() {
    let shop = Shop::new()
        .file("j/1.jsonl", "{\"user_id\":1,\"address\":{\"zip\":{\"code\":1}}}\n")
        .file("j/2.jsonl", "{\"user_id\":2,\"address\":{\"zip\":\"00123\"}}\n")
        .file("one.jsonl", "{\"orders\":[{\"total\":5}]}\n{\"orders\":[{\"total\":[5]}]}\n")
        .file("texts/1.jsonl", "{\"user_id\":1,\"address\":{\"zip\":123}}\n")
        .file("texts/2.jsonl", "{\"user_id\":2,\"address\":{\"zip\":\"00123\"}}\n")
        .parquet(
            "p/1.parquet",
            "SELECT 1 AS user_id, named_struct('zip', '00123', 'n', 1) AS address",
        )
        .await
        .parquet("p/2.parquet", "SELECT 2 AS user_id, named_struct('zip', 123, 'n', 1) AS address")
        .await
        .parquet("m/1.parquet", "SELECT 1 AS user_id, named_struct('n', 1) AS address")
        .await
        .parquet("m/2.parquet", "SELECT 2 AS user_id, named_struct('n', 1, 'zip', 5) AS address")
        .await;
    let ids = |table: &str| format!("SELECT user_id FROM shop.{table} WHERE address IS NOT NULL");
    let kinds = ["column address.zip has objects in", "1.jsonl", "plain values in", "2.jsonl"];
    refused(&shop, &ids("j"), &kinds).await;
    let items = ["column orders[].total has plain values and arrays in", "one.jsonl", "one way"];
    refused(&shop, "SELECT orders FROM shop.one", &items).await;
    let types = ["column address.zip is text in", "1.parquet", "Int64 in", "2.parquet"];
    refused(&shop, &ids("p"), &types).await;
    refused(&shop, &ids("m"), &["column address.zip is missing in", "Int64 in", "2.parquet"]).await;
    // Text and numbers in JSON are text.
    let zip = "SELECT get_field(address, 'zip') FROM shop.texts";
    holds(&shop, zip, &["123", "00123"]).await;
}

#[tokio::test]
async fn a_name_with_a_character_that_looks_like_a_space_is_shown_as_such() {
    let shop = Shop::new().file("u.csv", "user\u{a0}id,n\n1,5\n");
    let words = ["there is no column user id", "did you mean", "U+00A0", "rename the column"];
    refused(&shop, "SELECT \"user id\" FROM shop.u", &words).await;
    holds(&shop, "SELECT \"user\u{a0}id\" FROM shop.u", &["1"]).await;
}
