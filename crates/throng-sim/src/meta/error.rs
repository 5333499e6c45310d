//! The error envelope, and all errors of this simulator.

use serde_json::{Value, json};

/// An error of the Graph API.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct GraphError {
    pub(super) http_status: u16,
    pub(super) code: i64,
    pub(super) subcode: Option<i64>,
    pub(super) message: String,
    pub(super) kind: &'static str,
    pub(super) transient: bool,
    /// Title and text for the user of the app.
    pub(super) user: Option<Box<(String, String)>>,
    pub(super) blame: Option<String>,
}

impl GraphError {
    /// An error of type `OAuthException` with HTTP status 400, like most errors.
    pub(super) fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            http_status: 400,
            code,
            subcode: None,
            message: message.into(),
            kind: "OAuthException",
            transient: false,
            user: None,
            blame: None,
        }
    }

    pub(super) fn status(mut self, http_status: u16) -> Self {
        self.http_status = http_status;
        self
    }

    pub(super) fn sub(mut self, subcode: i64) -> Self {
        self.subcode = Some(subcode);
        self
    }

    fn kind(mut self, kind: &'static str) -> Self {
        self.kind = kind;
        self
    }

    pub(super) fn transient(mut self) -> Self {
        self.transient = true;
        self
    }

    fn user(mut self, title: &str, text: &str) -> Self {
        self.user = Some(Box::new((title.to_owned(), text.to_owned())));
        self
    }

    /// A wrong parameter (100). `why` must not quote rows.
    pub(super) fn parameter(name: &str, why: &str) -> Self {
        let mut error = Self::new(100, format!("(#100) {why}"));
        error.blame = Some(name.to_owned());
        error
    }

    pub(super) fn no_token() -> Self {
        Self::new(104, "An access token is required to request this resource.")
    }

    pub(super) fn wrong_token() -> Self {
        Self::new(190, "Invalid OAuth access token - Cannot parse access token")
    }

    pub(super) fn expired_token(now: &str) -> Self {
        let message = format!("Error validating access token: Session has expired on {now}.");
        Self::new(190, message).sub(463)
    }

    pub(super) fn no_proof() -> Self {
        Self::new(100, "API calls from the server require an appsecret_proof argument")
            .kind("GraphMethodException")
    }

    pub(super) fn wrong_proof() -> Self {
        Self::new(100, "Invalid appsecret_proof provided in the API argument")
            .kind("GraphMethodException")
    }

    pub(super) fn old_version(newest: (u32, u32)) -> Self {
        Self::new(
            2635,
            format!(
                "(#2635) You are calling a deprecated version of the Ads API. Please update to \
                 the latest version: v{}.{}.",
                newest.0, newest.1
            ),
        )
    }

    pub(super) fn unknown_path(path: &str) -> Self {
        Self::new(2500, format!("(#2500) Unknown path components: {path}"))
    }

    pub(super) fn unknown_alias(alias: &str) -> Self {
        Self::new(803, format!("(#803) Some of the aliases you requested do not exist: {alias}"))
            .status(404)
    }

    pub(super) fn no_object(method: &str, id: &str) -> Self {
        let method = method.to_ascii_lowercase();
        Self::new(
            100,
            format!(
                "Unsupported {method} request. Object with ID '{id}' does not exist, cannot be \
                 loaded due to missing permissions, or does not support this operation."
            ),
        )
        .sub(33)
        .kind("GraphMethodException")
    }

    pub(super) fn no_field(field: &str, node: &str) -> Self {
        Self::new(
            100,
            format!("(#100) Tried accessing nonexisting field ({field}) on node type ({node})"),
        )
    }

    pub(super) fn no_terms() -> Self {
        Self::new(2663, "(#2663) Terms of service has not been accepted").user(
            "Custom Audience Terms Not Accepted",
            "Accept the Custom Audience terms at \
             business.facebook.com/ads/manage/customaudiences/tos/ to use this ad account.",
        )
    }

    pub(super) fn too_many_audiences(limit: usize) -> Self {
        Self::new(2654, "(#2654) Failed to create custom audience").user(
            "Too Many Custom Audiences",
            &format!("This ad account has reached its limit of {limit} custom audiences."),
        )
    }

    pub(super) fn too_many_rows() -> Self {
        Self::new(1, "An unknown error occurred").sub(99).status(500)
    }

    pub(super) fn arity() -> Self {
        Self::parameter("payload", "Data is missing or does not match schema:")
    }

    pub(super) fn needs_value() -> Self {
        Self::parameter(
            "payload",
            "Value-Based Custom Audience requires LOOKALIKE_VALUE attribute.",
        )
    }

    pub(super) fn wrong_family(first: &str, now: &str) -> Self {
        Self::new(
            2650,
            format!(
                "(#2650) Failed to update the custom audience: This audience was created from \
                 data source FILE_IMPORTED.{first}, which does not support data source \
                 FILE_IMPORTED.{now}."
            ),
        )
    }

    pub(super) fn too_small() -> Self {
        Self::new(200, "Permissions error").sub(1_870_047).user(
            "Audience Size too Low",
            "You cannot remove users from this audience because it will result in a low audience \
             size.",
        )
    }

    /// A failure of a replace: always 2650 with a subcode.
    pub(super) fn replace(subcode: i64) -> Self {
        let (title, text) = match subcode {
            1_870_145 => (
                "Audience Update In Progress",
                "This audience is being updated. Wait until its status is normal.",
            ),
            1_870_158 => (
                "Replace Session Timed Out",
                "A replace session lasts 90 minutes from its first batch. Start a new one.",
            ),
            1_870_147 => (
                "Invalid Upload Batch for Replace",
                "The first batch of a replace session must have batch_seq 1.",
            ),
            1_870_159 => (
                "Replace Session Finished",
                "The last batch of this replace session has already been received.",
            ),
            1_870_144 => {
                ("Audience Too Large to Replace", "Audiences of this size cannot be replaced.")
            }
            _ => ("Something Went Wrong", "The audience was not fully updated. Try again."),
        };
        Self::new(2650, "(#2650) Failed to update the custom audience")
            .sub(subcode)
            .user(title, text)
    }

    /// The limits, by code: 80003 (custom audiences of an account), 17 and 613 (older meters), 4
    /// (the app).
    pub(super) fn throttled(code: i64) -> Self {
        let throttled = |message: &str| Self::new(code, message);
        match code {
            17 => throttled("(#17) User request limit reached").sub(2_446_079).user(
                "Ad Account Has Too Many API Calls",
                "There have been too many calls from this ad account. Wait a bit and try again.",
            ),
            613 => {
                throttled("(#613) Calls to this api have exceeded the rate limit.").sub(1_487_742)
            }
            4 => throttled("(#4) Application request limit reached").sub(1_504_022).transient(),
            80_003 => throttled(
                "(#80003) There have been too many calls to this ad-account. Wait a bit and try \
                 again. For more info, please refer to \
                 https://developers.facebook.com/docs/graph-api/overview/rate-limiting.",
            )
            .sub(2_446_079),
            _ => throttled(&format!("(#{code}) Too many calls. Wait a bit and try again.")),
        }
    }

    pub(super) fn unavailable(http_status: u16) -> Self {
        Self::new(2, "Service temporarily unavailable").status(http_status).transient()
    }

    /// The body. Members that do not apply are absent.
    pub(super) fn envelope(&self, trace_id: &str) -> Value {
        let mut error = json!({ "message": self.message, "type": self.kind, "code": self.code });
        if let Some(blame) = &self.blame {
            error["error_data"] = json!({ "blame_field_specs": [[blame]] });
        }
        if let Some(subcode) = self.subcode {
            error["error_subcode"] = json!(subcode);
        }
        error["is_transient"] = json!(self.transient);
        if let Some((title, text)) = self.user.as_deref() {
            error["error_user_title"] = json!(title);
            error["error_user_msg"] = json!(text);
        }
        error["fbtrace_id"] = json!(trace_id);
        json!({ "error": error })
    }
}
