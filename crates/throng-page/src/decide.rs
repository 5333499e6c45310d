//! "Try a decision": the request of an ad server, with the decision and its reasons.

use askama::Template;
use throng_api::{DecisionMade, DecisionRefusal};
use throng_model::{AudienceName, counted};

use crate::Rendered;

/// The most characters of a name of an ad group that are shown: a name that is refused can be any text.
const MAX_NAME_CHARS: usize = 128;

/// A decision about a user.
#[derive(Debug)]
pub struct DecisionView {
    /// The audiences of the user.
    pub audiences: Vec<AudienceName>,
    /// The decision.
    pub decision: DecisionMade,
}

#[derive(Template)]
#[template(path = "decide.html")]
struct DecidePage<'a> {
    user: &'a str,
    ad_groups: &'a str,
    decision: Option<Decision>,
}

struct Decision {
    /// Such as `2 audiences`.
    count: String,
    audiences: Vec<String>,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    allowed: bool,
    why: String,
}

impl DecidePage<'_> {
    fn menu_path(&self) -> &'static str {
        "/decide"
    }
}

/// The form with what was entered, and the decision if a user was entered.
///
/// # Errors
/// [`RenderError`](crate::RenderError).
pub fn page(user: &str, ad_groups: &str, view: Option<DecisionView>) -> Rendered {
    DecidePage { user, ad_groups, decision: view.map(decision) }.render()
}

fn decision(DecisionView { audiences, decision }: DecisionView) -> Decision {
    let allowed = decision.allowed.iter().map(|name| Row {
        name: name.to_string(),
        allowed: true,
        why: String::new(),
    });
    let refused = |refusal: DecisionRefusal| Row {
        name: refusal.ad_group.chars().take(MAX_NAME_CHARS).collect(),
        allowed: false,
        why: refusal.why,
    };
    Decision {
        count: counted(audiences.len() as u64, "audience"),
        audiences: audiences.iter().map(ToString::to_string).collect(),
        rows: allowed.chain(decision.refused.into_iter().map(refused)).collect(),
    }
}
