//! The pipeline: every request passes these stages in this order.
//!
//! accept ► identify ► decode ► resolve ► route ► attempt ► reply
//!
//! Each stage takes what the one before made, so calling them out of order
//! does not compile. No stage knows a path or a vendor.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use aisix_core::{Error, Operation, Reason};
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Body;

use crate::{
    endpoints::Answer,
    gateway::Worker,
    reply::{Reply, ReplyBody, fault},
    snapshot::Snapshot,
    stages::{self, Accepted, Arrival},
};

impl Worker {
    /// Answers a request. Never fails: every problem is a response.
    pub async fn serve<B>(self: Arc<Self>, request: Request<B>, peer: SocketAddr) -> Response<ReplyBody>
    where
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        let arrival = Arrival::of(&self, &request, peer);
        let panicked = arrival.after_panic();
        let mut work = pin!(self.answer(arrival, request));
        poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
            Ok(poll) => poll,
            Err(_) => {
                let error = Error::new(Reason::Internal, "internal error");
                Poll::Ready(panicked.respond(Err(error)))
            }
        })
        .await
    }

    async fn answer<B>(&self, arrival: Arrival, request: Request<B>) -> Response<ReplyBody>
    where
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        // One request reads one snapshot.
        let snapshot = self.gateway.snapshot.load_full();
        let (parts, mut body) = request.into_parts();
        let mut accepted = arrival.accept(self, parts);
        let result = {
            let mut stages = pin!(self.stages(&snapshot, &mut accepted, &mut body));
            poll_fn(|cx| match stages.as_mut().poll(cx) {
                Poll::Pending if self.gateway.lifecycle.is_cut_off() => Poll::Ready(Err(fault::cut_off())),
                poll => poll,
            })
            .await
        };
        match &result {
            Err(error) if error.reason() == Reason::ShuttingDown => accepted.unfinished = true,
            Err(_) if !accepted.unfinished && !body.is_end_stream() => {
                stages::drain(&mut accepted, body).await;
            }
            _ => {}
        }
        accepted.respond(result)
    }

    async fn stages<B>(
        &self,
        snapshot: &Snapshot,
        accepted: &mut Accepted,
        body: &mut B,
    ) -> Result<Reply, Error>
    where
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        stages::check_host(accepted)?;
        let endpoint = accepted.endpoint()?;
        let settings = &self.gateway.settings;
        stages::check_length(accepted, body, settings, &self.shard).await?;
        match endpoint.answer {
            Answer::Livez => Ok(Reply::probe(aisix_core::probe::livez, &self.gateway.lifecycle, accepted)),
            Answer::Readyz => Ok(Reply::probe(aisix_core::probe::readyz, &self.gateway.lifecycle, accepted)),
            Answer::Models => {
                let caller = stages::identify(accepted, snapshot, &self.shard)?;
                Ok(Reply::models(snapshot, &caller))
            }
            Answer::Upstream(operation) => self.upstream_stages(snapshot, accepted, operation, body).await,
        }
    }

    async fn upstream_stages<B>(
        &self,
        snapshot: &Snapshot,
        accepted: &mut Accepted,
        operation: Operation,
        body: &mut B,
    ) -> Result<Reply, Error>
    where
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        let caller = stages::identify(accepted, snapshot, &self.shard)?;
        let call = stages::decode(accepted, operation, body, &self.gateway.settings).await?;
        let addressed = stages::resolve(accepted, snapshot, &caller, &call)?;
        let plan = stages::route(addressed, &self.gateway.settings)?;
        // Boxed: the connection keeps the room of this future, and a stream outlives its attempt.
        Box::pin(stages::attempt(self, accepted, &caller, call, plan)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The future of a request is copied when it starts and kept for every
    /// connection, so its size is memory and time.
    #[test]
    fn the_future_of_a_request_stays_small() {
        fn size<F>(_: impl FnOnce(Arc<Worker>, Request<hyper::body::Incoming>, SocketAddr) -> F) -> usize {
            size_of::<F>()
        }
        let bytes = size(Worker::serve::<hyper::body::Incoming>);
        assert!(bytes <= 3 * 1024, "{bytes} bytes");
    }
}
