//! The parts of a refresh whose SQL a warehouse runs: one part for each page of the result. A page
//! names the next one, so its part is added when the page is done; the user shards follow after the
//! last page. Pure.

use throng_lake::{Model, Rule};
use throng_store::{NewPart, Part, PartKind};

use super::error::RefreshError;
use super::parts::{self, PageCovers, ScanCovers};

/// Jobs of one refresh, if the results of earlier ones are lost.
pub(super) const MAX_JOBS: u32 = 3;

/// The first page of a job.
pub(super) fn first(model: &Model, attempt: u32, number: u32) -> serde_json::Result<NewPart> {
    let covers = ScanCovers {
        model: Some(model.clone()),
        tables: Some(Vec::new()),
        page: Some(PageCovers { attempt, cursor: None }),
        ..ScanCovers::default()
    };
    Ok(NewPart { kind: PartKind::Scan, number, covers: serde_json::to_value(covers)? })
}

/// What to add once all recorded parts are done: the next page, or after the last one the user
/// shards. Nothing if the parts are complete, as they always are if no warehouse runs the SQL.
///
/// Every page must begin where the previous one ended, and all together must have as many rows as
/// the job: a page that is missing or was read twice is an error and not a wrong audience. The number of
/// rows comes with each page, or with the last one.
pub(super) fn next(recorded: &[Part]) -> Result<Vec<NewPart>, RefreshError> {
    let Some(attempt) = parts::newest_job(recorded)? else { return Ok(Vec::new()) };
    if recorded.iter().any(|part| part.kind == PartKind::Shards) {
        return Ok(Vec::new());
    }
    let number = recorded.iter().map(|part| part.number + 1).max().unwrap_or(0);
    let (mut rows, mut total_rows, mut expected) = (0, None::<u64>, None);
    let pages = parts::pages(recorded, attempt)?;
    if pages.is_empty() {
        return Err(RefreshError::Pages("the first page is missing"));
    }
    for (covers, output) in pages {
        if covers.cursor != expected {
            return Err(RefreshError::Pages("a page does not begin where the previous one ended"));
        }
        rows += output.rows_read;
        let page = output.page.ok_or(RefreshError::Pages("a page has no cursor"))?;
        if total_rows.zip(page.total_rows).is_some_and(|(total, now)| total != now) {
            return Err(RefreshError::Pages("the number of rows of its result has changed"));
        }
        (expected, total_rows) = (page.next, page.total_rows.or(total_rows));
    }
    // At once: pages that name each other in a circle have no end.
    if total_rows.is_some_and(|total| rows > total) {
        return Err(RefreshError::Pages("its pages have more rows than its result"));
    }
    if expected.is_some() {
        let page = Some(PageCovers { attempt, cursor: expected });
        let covers = serde_json::to_value(ScanCovers { page, ..ScanCovers::default() })?;
        return Ok(vec![NewPart { kind: PartKind::Scan, number, covers }]);
    }
    if Some(rows) != total_rows {
        return Err(RefreshError::Pages("its pages do not have as many rows as its result"));
    }
    Ok(parts::shards(number, Rule::ANY)?)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use throng_store::PartState;

    use super::super::parts::{PageOutput, ScanOutput};
    use super::*;

    /// A part that is done; its page has two rows.
    fn done(new: NewPart, next: Option<&str>, total_rows: Option<u64>) -> Part {
        let next = next.map(Value::from);
        let page = Some(PageOutput { next, total_rows, key: None });
        let (rows_read, null_keys, padded_keys, checksum) = (2, 0, 0, None);
        let object = "o".into();
        let output = ScanOutput { object, rows_read, null_keys, padded_keys, checksum, page };
        Part {
            kind: new.kind,
            number: new.number,
            state: PartState::Done,
            covers: new.covers,
            output: Some(serde_json::to_value(output).unwrap()),
            holder: None,
        }
    }

    fn model() -> Model {
        Model {
            sql: "SELECT id FROM t".into(),
            key: None,
            source: Some("app".into()),
            parameters: Vec::new(),
        }
    }

    #[test]
    fn pages_follow_each_other_and_shards_follow_the_last() {
        let mut recorded = vec![done(first(&model(), 0, 0).unwrap(), Some("b"), Some(4))];
        let mut second = next(&recorded).unwrap();
        assert_eq!((second.len(), second[0].number), (1, 1));
        assert_eq!(second[0].covers["page"], json!({ "attempt": 0, "cursor": "b" }));
        recorded.push(done(second.remove(0), None, Some(4)));
        let shards = next(&recorded).unwrap();
        assert!(shards.iter().zip(2..).all(|(part, number)| part.number == number));
        assert_eq!(shards.len(), 16);
        assert!(shards.iter().all(|part| part.kind == PartKind::Shards));
        recorded.extend(shards.into_iter().map(|part| done(part, None, Some(4))));
        assert!(next(&recorded).unwrap().is_empty());
    }

    /// A page of the second job that is done.
    fn page(
        number: u32,
        cursor: Option<&str>,
        next: Option<&str>,
        total_rows: Option<u64>,
    ) -> Part {
        let page = Some(PageCovers { attempt: 1, cursor: cursor.map(Value::from) });
        let covers = serde_json::to_value(ScanCovers { page, ..ScanCovers::default() }).unwrap();
        done(NewPart { kind: PartKind::Scan, number, covers }, next, total_rows)
    }

    #[test]
    fn the_rows_of_key_ranges_are_compared_after_the_last_one() {
        let ranges = [
            page(5, None, Some("b"), None),
            page(6, Some("b"), Some("c"), None),
            page(7, Some("c"), None, Some(6)),
        ];
        assert_eq!(next(&ranges[..1]).unwrap().len(), 1);
        assert_eq!(next(&ranges).unwrap().len(), 16);
        let missing = [page(5, None, Some("b"), None), page(6, Some("b"), None, Some(6))];
        assert!(matches!(next(&missing), Err(RefreshError::Pages(_))));
        let untold = [page(5, None, Some("b"), None), page(6, Some("b"), None, None)];
        assert!(matches!(next(&untold), Err(RefreshError::Pages(_))));
    }

    #[test]
    fn a_missing_page_and_a_page_of_an_earlier_job_are_noticed() {
        // A builder that had lost its lease added a page of the first job.
        let stale = done(first(&model(), 0, 3).unwrap(), Some("x"), Some(9));
        let whole =
            [stale.clone(), page(5, None, Some("b"), Some(4)), page(6, Some("b"), None, Some(4))];
        assert_eq!(next(&whole).unwrap().len(), 16);
        let outputs = parts::scan_outputs(&whole).unwrap();
        assert_eq!(outputs.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [5, 6]);
        let gap = [stale, page(5, None, Some("b"), Some(6)), page(6, Some("c"), None, Some(6))];
        assert!(matches!(next(&gap), Err(RefreshError::Pages(_))));
        let short = [page(5, None, Some("b"), Some(6)), page(6, Some("b"), None, Some(6))];
        assert!(matches!(next(&short), Err(RefreshError::Pages(_))));
        let circle = [
            page(5, None, Some("b"), Some(4)),
            page(6, Some("b"), Some("c"), Some(4)),
            page(7, Some("c"), Some("b"), Some(4)),
        ];
        assert_eq!(next(&circle[..2]).unwrap().len(), 1);
        assert!(matches!(next(&circle), Err(RefreshError::Pages(_))));
        let other = [page(5, None, Some("b"), Some(4)), page(6, Some("b"), None, Some(5))];
        assert!(matches!(next(&other), Err(RefreshError::Pages(_))));
    }
}
