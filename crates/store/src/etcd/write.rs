//! Commits: one transaction each.

use aisix_core::rows::{
    AuditQuery, AuditRecord, BoxFuture, Commit, CommitError, Edit, Expect, RawRow, Writer,
};
use bytes::Bytes;

use super::EtcdStore;
use super::client::{Failure, header, revision, signed};
use super::proto::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, KeyValue, Operation, PutRequest, RangeRequest,
    RangeResponse, RequestOp, TargetUnion, TxnRequest, TxnResponse, path,
};

/// Audit records that are read at once.
const PAGE: i64 = 100;

impl Writer for EtcdStore {
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<u64, CommitError>> {
        Box::pin(async move {
            let operations = commit.edits.len() + 2;
            let Some(request) = self.transaction(commit)? else { return Err(CommitError::Moved) };
            let answer: Result<TxnResponse, _> = self.client.call(path::TXN, request).await;
            match answer {
                Ok(answer) if answer.succeeded => Ok(header(answer.header.as_ref()).1),
                Ok(_) => Err(CommitError::Moved),
                Err(failure) => Err(refusal(failure, operations)),
            }
        })
    }

    fn audit(&self, query: AuditQuery) -> BoxFuture<'_, Result<Vec<AuditRecord>, CommitError>> {
        Box::pin(self.records(query))
    }

    fn rows_at(&self, revision: u64) -> BoxFuture<'_, Result<Option<Vec<RawRow>>, CommitError>> {
        Box::pin(async move {
            // To etcd, revision 0 is the current one.
            if revision == 0 {
                return Ok(None);
            }
            match self.list(revision).await {
                Ok(listing) => Ok(Some(listing.rows)),
                // Compacted, or not reached yet.
                Err(failure) if failure.is_revision() => Ok(None),
                Err(failure) => Err(CommitError::Unavailable(failure.to_string())),
            }
        })
    }
}

impl EtcdStore {
    /// The whole commit, or `None` if it cannot hold.
    ///
    /// An edited row needs no comparison with `base` beyond what is expected of
    /// it: a row written at a revision up to `base`, or absent, was not
    /// written since. Comparisons count like edits towards the limit of etcd.
    fn transaction(&self, commit: Commit) -> Result<Option<TxnRequest>, CommitError> {
        let record = serde_json::to_vec(&commit.audit).map_err(|error| {
            CommitError::Unavailable(format!("the audit record cannot be written: {error}"))
        })?;
        let guard = format!("{}commit", self.side).into_bytes();
        let trace = self.record_key(commit.base).into_bytes();
        let not_since = Compare {
            result: CompareResult::Less as i32,
            target: CompareTarget::Mod as i32,
            key: guard.clone(),
            value: Some(TargetUnion::ModRevision(signed(commit.base.saturating_add(1)))),
        };
        let mut request = TxnRequest { compare: vec![not_since, absent(trace.clone())], success: Vec::new() };
        for Edit { key, value, expect } in commit.edits {
            let key = format!("{}{key}", self.prefix).into_bytes();
            request.compare.push(match expect {
                Expect::Absent => absent(key.clone()),
                Expect::Revision(at) if at > commit.base => return Ok(None),
                Expect::Revision(at) => Compare {
                    result: CompareResult::Equal as i32,
                    target: CompareTarget::Mod as i32,
                    key: key.clone(),
                    value: Some(TargetUnion::ModRevision(signed(at))),
                },
            });
            request.success.push(match value {
                Some(value) => put(key, value),
                None => operation(Operation::Delete(DeleteRangeRequest { key })),
            });
        }
        request.success.push(put(guard, Bytes::new()));
        request.success.push(put(trace, record.into()));
        Ok(Some(request))
    }

    /// Where the record of a commit lies. Between `base` and the revision of a
    /// commit there is no other commit, so `base` grows with the revision and
    /// is never used twice. Counted down, because etcd pages upwards only and
    /// the newest record is wanted first.
    fn record_key(&self, base: u64) -> String {
        format!("{}audit/{:020}", self.side, u64::MAX - base)
    }

    async fn records(&self, query: AuditQuery) -> Result<Vec<AuditRecord>, CommitError> {
        let mut found = Vec::new();
        // A record older than a revision has a base older than that, too.
        let newest = query.before.map_or(u64::MAX, |before| before.saturating_sub(1));
        let mut request = RangeRequest {
            key: self.record_key(newest).into_bytes(),
            // Behind the digits.
            range_end: format!("{}audit/:", self.side).into_bytes(),
            limit: PAGE,
            ..RangeRequest::default()
        };
        while found.len() < query.limit {
            let page: Result<RangeResponse, _> = self.client.call(path::RANGE, request.clone()).await;
            let page = page.map_err(|failure| CommitError::Unavailable(failure.to_string()))?;
            let last = page.kvs.last().map(|row| row.key.clone());
            let records = page.kvs.into_iter().filter_map(record).filter(|record| query.matches(record));
            found.extend(records.take(query.limit - found.len()));
            match last {
                Some(mut key) if page.more => {
                    key.push(0);
                    request.key = key;
                }
                _ => break,
            }
        }
        Ok(found)
    }
}

/// A record that somebody else put there and that is none is passed over.
fn record(row: KeyValue) -> Option<AuditRecord> {
    let at = revision(row.mod_revision);
    match serde_json::from_slice::<AuditRecord>(&row.value) {
        Ok(record) => Some(AuditRecord { revision: at, ..record }),
        Err(_) => {
            tracing::warn!(revision = at, "an audit record in etcd cannot be read");
            None
        }
    }
}

fn absent(key: Vec<u8>) -> Compare {
    Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key,
        value: Some(TargetUnion::CreateRevision(0)),
    }
}

fn put(key: Vec<u8>, value: Bytes) -> RequestOp {
    operation(Operation::Put(PutRequest { key, value }))
}

fn operation(operation: Operation) -> RequestOp {
    RequestOp { request: Some(operation) }
}

fn refusal(failure: Failure, operations: usize) -> CommitError {
    let unavailable = |text: String| CommitError::Unavailable(text);
    match failure {
        Failure::NotReached(_) => unavailable(format!("{failure}; nothing was written")),
        Failure::Unanswered(_) => {
            unavailable(format!("{failure}; it is not known whether the change was written"))
        }
        Failure::Refused(_, text) if text.contains("too many operations") => CommitError::TooLarge(format!(
            "{operations} operations are more than etcd takes in one transaction; \
             make smaller changes or raise --max-txn-ops of etcd"
        )),
        Failure::Refused(_, text)
            if text.contains("request is too large") || text.contains("larger than max") =>
        {
            CommitError::TooLarge(
                "the change is larger than etcd takes in one request; \
                 make smaller changes or raise --max-request-bytes of etcd"
                    .into(),
            )
        }
        Failure::Refused(_, text) if text.contains("database space exceeded") => unavailable(
            "etcd is out of space (alarm NOSPACE) and takes no writes: compact, defragment and disarm the alarm, \
             or raise --quota-backend-bytes; nothing was written"
                .into(),
        ),
        Failure::Refused(code, text) => unavailable(format!(
            "{}; nothing was written",
            Failure::Refused(code, text)
        )),
    }
}
