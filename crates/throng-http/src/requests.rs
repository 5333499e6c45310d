//! The service of one connection: passes its requests to the router.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, Response, Version, header};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::body::{BodyLimits, BodyWait, DiscardedRest, RequestBody};
use super::stream::ResponseBody;
use super::table::Entry;

/// The service for the requests of one connection. Adds `ConnectInfo<SocketAddr>` and [`BodyWait`] to the
/// extensions of every request.
#[derive(Clone)]
pub(super) struct Requests {
    pub(super) router: TowerToHyperService<Router>,
    pub(super) entry: Arc<Entry>,
    pub(super) body_limits: BodyLimits,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let connection = &self.entry.connection;
        if connection.is_half_open() {
            self.entry.mark_served();
        }
        let is_http2 = request.version() == Version::HTTP_2;
        let in_flight = Arc::new(connection.begin_request(is_http2));
        // An HTTP/2 stream is reset instead, which the peer expects.
        let rest = (!is_http2).then(|| DiscardedRest {
            awaits_continue: request.headers().contains_key(header::EXPECT),
            request: Arc::clone(&in_flight) as Arc<dyn Send + Sync>,
        });
        let wait = BodyWait::default();
        let mut request = request
            .map(|body| Body::new(RequestBody::new(body, self.body_limits, wait.clone(), rest)));
        request.extensions_mut().insert(wait);
        request.extensions_mut().insert(ConnectInfo(connection.peer));
        let response = self.router.call(request);
        Box::pin(async move {
            Ok(response.await?.map(|inner| ResponseBody { inner, request: in_flight }))
        })
    }
}
