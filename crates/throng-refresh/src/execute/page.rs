//! A part that is a page of a warehouse's result.

use throng_membership::seed_check;
use throng_model::{AudienceName, RefreshId, UserHash};
use throng_part_files::KeyFileWriter;
use throng_store::{HistoryEvent, Part};

use super::{PartWorker, Progress, served_tables};
use crate::error::RefreshError;
use crate::parts::{self, PageCovers, PageOutput, ScanOutput};
use crate::pool::blocking;
use crate::warehouse::{PageRequest, WarehouseError, WarehouseJob};
use crate::{RefreshContext, history, key_types};

impl PartWorker<'_> {
    /// Reads a page of a warehouse's result. Its keys and the cursor of the next page are recorded
    /// together, as the output of the part, so no page is lost or counts twice.
    pub(super) async fn page(
        &mut self,
        part: &Part,
        covers: &PageCovers,
        progress: &Progress,
    ) -> Result<ScanOutput, RefreshError> {
        let ctx = self.ctx;
        let spec = ctx.spec.load_full();
        let source = self.model.source.as_deref().and_then(|name| spec.warehouse(name));
        let source = source.ok_or(RefreshError::Superseded)?;
        let warehouse = ctx.warehouses.open(source)?;
        let refresh = ctx.ledger.refresh(self.refresh).await?;
        // All pages of a job have the columns of its first one.
        let served = match covers.cursor {
            None => served_tables(ctx, &self.audience, &self.model).await?,
            Some(_) => Vec::new(),
        };
        let job = WarehouseJob {
            deployment: seed_check(ctx.seed),
            audience: refresh.audience,
            refresh: self.refresh,
            scheduled_at: refresh.scheduled_at,
            attempt: covers.attempt,
        };
        let request = PageRequest {
            sql: &self.model.sql,
            key: self.model.key.as_deref(),
            job: &job,
            cursor: covers.cursor.as_ref(),
            seed: ctx.seed,
        };
        let object = self.scan_object(part);
        let mut writer = KeyFileWriter::create(&ctx.objects.root().join(&object))?;
        let mut failed = None;
        let mut keys = |hashes: &[UserHash], null_keys: u64| {
            progress.add(hashes.len() as u64 + null_keys, null_keys);
            writer.push(hashes, None).map_err(|error| {
                failed = Some(error);
                let message = "writing the keys of a page failed".to_owned();
                WarehouseError::Unavailable { message, after: None }
            })
        };
        let page = warehouse.page(&request, &mut keys, &mut self.session).await;
        // Not the warehouse's error, so that a full disk is reported as such.
        if let Some(error) = failed {
            return Err(error.into());
        }
        let page = page?;
        let rows = page.total_rows.unwrap_or(page.rows);
        key_types::check(&served, &page.key, rows, source.name.as_str())?;
        progress.expect(page.total_rows);
        let checksum = Some(blocking(move || Ok(writer.finish()?)).await?);
        ctx.objects.upload(&object).await?;
        if page.is_later {
            record_later(ctx, &self.audience, self.refresh, covers.attempt).await?;
        }
        Ok(ScanOutput {
            object,
            rows_read: page.rows,
            null_keys: page.null_keys,
            padded_keys: page.padded_keys,
            checksum,
            page: Some(PageOutput {
                next: page.next,
                total_rows: page.total_rows,
                key: Some(page.key),
            }),
        })
    }
}

/// Records that a job goes on at a later moment, behind the pages that are done.
async fn record_later(
    ctx: &RefreshContext,
    audience: &AudienceName,
    refresh: RefreshId,
    attempt: u32,
) -> Result<(), RefreshError> {
    let pages = parts::pages(&ctx.ledger.parts(refresh).await?, attempt)?;
    let (count, rows) = (pages.len(), pages.iter().map(|(_, page)| page.rows_read).sum::<u64>());
    tracing::info!(%refresh, pages = count, rows, "refresh goes on behind a key range, at a later moment");
    let why = format!(
        "refresh {refresh} goes on behind {count} pages with {rows} rows: users behind them are of a later moment"
    );
    Ok(history::record(ctx, audience, HistoryEvent::RefreshResumed, why).await?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use throng_lake::Model;
    use throng_spec::Spec;

    use super::super::help;
    use super::*;
    use crate::fixture::Rig;
    use crate::{LEASE, pages};

    /// A spec whose audience is of a PostgreSQL server; `fields` are more fields of the source.
    fn spec(rig: &Rig, fields: &str) -> Spec {
        let source =
            format!("name: app, type: postgres, host: localhost, database: d, username: u{fields}");
        let audience = "name: a, source: app, sql: SELECT id FROM t";
        let file = rig.dir.path().join("warehouse.yaml");
        let text =
            format!("version: 1\nsources:\n  - {{ {source} }}\naudiences:\n  - {{ {audience} }}\n");
        std::fs::write(&file, text).unwrap();
        throng_spec::load(&file).unwrap()
    }

    #[tokio::test]
    async fn a_builder_that_does_not_lead_the_refresh_reads_no_key_range() {
        let rig = Rig::new(&["a"]).await;
        let (ctx, refresh) = (&rig.ctx, rig.members[0].refresh.id);
        let whole = spec(&rig, "");
        let first = pages::first(&Model::of(&whole.audiences[0]), 0, 0).unwrap();
        ctx.ledger.add_parts(refresh, &[first], None).await.unwrap();
        let now = ctx.clock.now();
        let claimed = ctx.ledger.claim_part(refresh, "other#1", now, now.plus(LEASE)).await;
        let part = claimed.unwrap().unwrap();
        ctx.spec.store(Arc::new(spec(&rig, ", key_range_rows: 10")));
        assert!(!help(ctx, refresh, &part).await.unwrap());
        // It would read the whole result, and there is no warehouse here.
        ctx.spec.store(Arc::new(whole));
        let error = help(ctx, refresh, &part).await.unwrap_err();
        assert!(matches!(error, RefreshError::Warehouse(_)), "{error:?}");
    }
}
