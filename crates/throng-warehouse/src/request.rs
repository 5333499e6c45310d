//! Ids and bodies of BigQuery jobs. Pure.

use serde_json::{Value, json};
use throng_refresh::WarehouseJob;
use throng_spec::BigQuerySettings;

/// The longest value of a label.
const MAX_LABEL_CHARS: usize = 63;

/// The id of a job: the same for the same job, whichever process asks.
pub(crate) fn job_id(job: &WarehouseJob) -> String {
    let audience = job.audience.as_str().replace(['.', ':'], "_");
    let (refresh, at) = (job.refresh, job.scheduled_at.0);
    format!("throng-{:016x}-{audience}-{refresh}-{at}-{}", job.deployment, job.attempt)
}

/// A value of a label: lower-case letters, digits, `_` and `-`.
fn label(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let label = text.chars().map(|c| if allowed(c) { c } else { '_' });
    label.take(MAX_LABEL_CHARS).collect()
}

fn query(settings: &BigQuerySettings, sql: &str) -> Value {
    let mut query = json!({
        "query": sql,
        "useLegacySql": false,
        "priority": "BATCH",
        // 64-bit numbers are texts in this API.
        "maximumBytesBilled": settings.maximum_bytes_billed.to_string(),
    });
    if let Some(dataset) = &settings.dataset {
        query["defaultDataset"] = json!({ "projectId": settings.project, "datasetId": dataset });
    }
    query
}

/// The body that creates a job.
pub(crate) fn create(
    settings: &BigQuerySettings,
    job: &WarehouseJob,
    id: &str,
    sql: &str,
) -> Value {
    json!({
        "jobReference": {
            "projectId": settings.project,
            "jobId": id,
            "location": settings.location,
        },
        "configuration": {
            "query": query(settings, sql),
            "labels": {
                "throng_audience": label(job.audience.as_str()),
                "throng_refresh": label(&job.refresh.to_string()),
            },
        },
    })
}

/// The body that checks SQL without running it.
pub(crate) fn dry_run(settings: &BigQuerySettings, sql: &str) -> Value {
    json!({
        "jobReference": { "projectId": settings.project, "location": settings.location },
        "configuration": { "dryRun": true, "query": query(settings, sql) },
    })
}

#[cfg(test)]
mod tests {
    use throng_model::{RefreshId, Timestamp};

    use super::*;

    #[test]
    fn ids_and_labels_have_allowed_characters_and_tell_jobs_apart() {
        let job = WarehouseJob {
            deployment: 0xab,
            audience: "music.clickers-7".parse().unwrap(),
            refresh: RefreshId(12),
            scheduled_at: Timestamp(5),
            attempt: 0,
        };
        let id = job_id(&job);
        assert_eq!(id, "throng-00000000000000ab-music_clickers-7-12-5-0");
        let again = WarehouseJob { attempt: 1, ..job.clone() };
        let restored = WarehouseJob { scheduled_at: Timestamp(6), ..job.clone() };
        assert!(job_id(&again) != id && job_id(&restored) != id);
        assert_eq!(label("music.clickers-7"), "music_clickers-7");
        let of_workspace = WarehouseJob { audience: "acme:clickers".parse().unwrap(), ..job };
        assert_eq!(job_id(&of_workspace), "throng-00000000000000ab-acme_clickers-12-5-0");
        assert_eq!(label("acme:clickers"), "acme_clickers");
        assert_eq!(label(&"x".repeat(200)).len(), 63);
    }
}
