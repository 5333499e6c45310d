//! Advertisers, campaigns and ad groups.

use std::collections::BTreeSet;

use throng_model::{AudienceName, Micros, Pacing, WhenStale};

use super::Reader;
use super::fields::{At, Fields, text_of};
use super::tree::{Node, Value};
use crate::{AdGroup, Advertiser, Campaign, ObjectKind, Prediction, Pricing};

/// Reads the name of an audience: of one workspace, or of any.
type AudienceReader = fn(&mut Reader, &Node, At, ObjectKind) -> Option<AudienceName>;

impl Reader {
    pub(super) fn advertiser(&mut self, mut fields: Fields<'_>) {
        let name = self.name(&mut fields, ObjectKind::Advertiser);
        let currency = self.required_as(&mut fields, "currency");
        let time_zone =
            fields.required(self, "time_zone").and_then(|(node, at)| self.time_zone(node, &at));
        fields.done(self);
        if let (Some(currency), Some(time_zone)) = (currency, time_zone) {
            self.spec.advertisers.push(Advertiser { name, currency, time_zone });
        }
    }

    pub(super) fn campaign(&mut self, mut fields: Fields<'_>) {
        let name = self.name(&mut fields, ObjectKind::Campaign);
        let advertiser = self.reference(&mut fields, "advertiser", ObjectKind::Advertiser);
        fields.done(self);
        self.spec.campaigns.push(Campaign { name, advertiser });
    }

    pub(super) fn ad_group(&mut self, mut fields: Fields<'_>) {
        let name = self.name(&mut fields, ObjectKind::AdGroup);
        let campaign = self.reference(&mut fields, "campaign", ObjectKind::Campaign);
        fields.required(self, "per");
        let words = [
            ("impression", Pricing::PerImpression),
            ("click", Pricing::PerClick),
            ("thousand", Pricing::PerThousand),
        ];
        let pricing = self.word(&mut fields, "per", &words, Pricing::PerImpression);
        let is_fine = matches!(pricing, Pricing::PerImpression);
        let price = self.amount(&mut fields, "price", is_fine);
        let daily_budget = self.amount(&mut fields, "daily_budget", false);
        let impression_rate = self.share(&mut fields, "impression_rate", 1.0);
        let action_rate = self.action_rate(&mut fields, pricing);
        let include = self.audience_list(&mut fields, "include", Self::refer_anywhere);
        let exclude = self.audience_list(&mut fields, "exclude", Self::refer_anywhere);
        let included: BTreeSet<&AudienceName> = include.iter().map(|(name, _)| name).collect();
        for (audience, at) in &exclude {
            if included.contains(audience) {
                let message = format!("`{audience}` is both included and excluded");
                let help = "nobody in it would see the ad: keep it in one of the two".to_owned();
                self.problem(at, message, Some(help));
            }
        }
        let words = [("in_flight", Prediction::InFlight), ("off", Prediction::Off)];
        let prediction = self.word(&mut fields, "prediction", &words, Prediction::default());
        let horizon_secs = self.integer(&mut fields, "horizon_secs", 10..=86_400, 180);
        let words = [("asap", Pacing::Asap), ("even", Pacing::Even)];
        let pacing = self.word(&mut fields, "pacing", &words, Pacing::default());
        let words = [("serve", WhenStale::Serve), ("stop", WhenStale::Stop)];
        let when_stale = self.word(&mut fields, "when_stale", &words, WhenStale::default());
        let once_per_insertion = self.flag(&mut fields, "once_per_insertion", true);
        fields.done(self);
        let names =
            |list: Vec<(AudienceName, At)>| list.into_iter().map(|(name, _)| name).collect();
        self.spec.ad_groups.push(AdGroup {
            name,
            campaign,
            pricing,
            price,
            daily_budget,
            impression_rate,
            action_rate,
            include: names(include),
            exclude: names(exclude),
            prediction,
            horizon_secs,
            pacing,
            when_stale,
            once_per_insertion,
        });
    }

    fn action_rate(&mut self, fields: &mut Fields<'_>, pricing: Pricing) -> f64 {
        let given = fields.get("action_rate");
        let rate = self.share(fields, "action_rate", 1.0);
        match (pricing, given) {
            (Pricing::PerImpression | Pricing::PerThousand, Some((_, at))) if rate != 1.0 => {
                let help = "leave it out, or pay per click".to_owned();
                let message = "`action_rate` must be 1 when impressions are paid";
                self.problem(&at, message, Some(help));
            }
            (Pricing::PerClick, None) => {
                let help = "add `action_rate: 0.01` if one impression in a hundred is clicked";
                let message = "missing field `action_rate`, which is needed when clicks are paid";
                self.problem(&fields.at.clone(), message, Some(help.to_owned()));
            }
            _ => {}
        }
        rate
    }

    /// An optional `true` or `false`.
    fn flag(&mut self, fields: &mut Fields<'_>, name: &'static str, unset: bool) -> bool {
        match fields.get(name) {
            None => unset,
            Some((Node { value: Value::Bool(value), .. }, _)) => *value,
            Some((node, at)) => {
                let message = format!("expected true or false, found {}", node.value.kind());
                self.problem(&at, message, Some(format!("write `{name}: {unset}`")));
                unset
            }
        }
    }

    /// A required amount of money above zero. `is_fine`: it can be given for a thousand instead.
    fn amount(&mut self, fields: &mut Fields<'_>, name: &'static str, is_fine: bool) -> Micros {
        let Some((node, at)) = fields.required(self, name) else { return Micros::ZERO };
        if !matches!(node.value, Value::Number(_) | Value::Text { .. }) {
            let message = format!("expected an amount, found {}", node.value.kind());
            let help = format!("write an amount such as `{name}: \"0.10\"`");
            self.problem(&at, message, Some(help));
            return Micros::ZERO;
        }
        let fine =
            text_of(&node.value).filter(|text| is_fine && Micros::has_too_many_decimals(text));
        if let Some(text) = fine {
            let message = format!("`{text}` has more than six digits after the point");
            let help = "write the price of a thousand impressions with `per: thousand`".to_owned();
            self.problem(&at, message, Some(help));
            return Micros::ZERO;
        }
        let Some(amount) = self.parsed::<Micros>(node, &at) else { return Micros::ZERO };
        if amount <= Micros::ZERO {
            let help = format!("write an amount such as `{name}: \"0.10\"`");
            self.problem(&at, format!("`{name}` must be more than zero"), Some(help));
        }
        amount
    }

    /// An optional list of names of audiences, each once.
    pub(super) fn audience_list(
        &mut self,
        fields: &mut Fields<'_>,
        name: &'static str,
        refer: AudienceReader,
    ) -> Vec<(AudienceName, At)> {
        let Some((node, at)) = fields.get(name) else { return Vec::new() };
        let Node { value: Value::List(items), .. } = node else {
            let message = format!("expected a list of audiences, found {}", node.value.kind());
            let help = format!("write `{name}: [audience, …]`");
            self.problem(&at, message, Some(help));
            return Vec::new();
        };
        let mut list: Vec<(AudienceName, At)> = Vec::new();
        let mut seen: BTreeSet<AudienceName> = BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            let at = at.index(index, item);
            let Some(audience) = refer(self, item, at.clone(), ObjectKind::Audience) else {
                continue;
            };
            if !seen.insert(audience.clone()) {
                let message = format!("`{audience}` is listed twice");
                self.problem(&at, message, Some("remove one of them".to_owned()));
            }
            list.push((audience, at));
        }
        list
    }
}
