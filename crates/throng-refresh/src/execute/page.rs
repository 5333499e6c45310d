//! A part that is a page of a warehouse's result.

use throng_membership::seed_check;
use throng_model::UserHash;
use throng_store::Part;

use super::{PartWorker, Progress, served_tables};
use crate::error::RefreshError;
use crate::files::KeyFileWriter;
use crate::key_types;
use crate::parts::{PageCovers, PageOutput, ScanOutput};
use crate::pool::blocking;
use crate::warehouse::{PageRequest, WarehouseError, WarehouseJob};

impl PartWorker<'_> {
    /// Reads a page of a warehouse's result. Its keys and the cursor of the next page are recorded
    /// together, as the output of the part, so no page is lost or counts twice.
    pub(super) async fn page(
        &self,
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
        let page = warehouse.page(&request, &mut keys).await;
        // Not the warehouse's error, so that a full disk is reported as such.
        if let Some(error) = failed {
            return Err(error);
        }
        let page = page?;
        key_types::check(&served, &page.key, page.total_rows, source.name.as_str())?;
        progress.expect(Some(page.total_rows));
        let checksum = Some(blocking(move || writer.finish()).await?);
        ctx.objects.upload(&object).await?;
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
