//! Asking the other members for their hashes: `/version`, then `/members/hashkv`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use node::corruption::{COMPARED_FROM, Hashed, NoHash, PeerHash};
use serde::Deserialize;
use store::{KvHash, Member, Membership};
use tokio::task::JoinSet;
use wire::ApiError;

use crate::LocalFuture;
use crate::config::Url;
use crate::log;
use crate::peer::{HashError, Incompatible, Question, Reply, version_told};

/// An answer to come, or why there is none.
pub(super) type Answer = LocalFuture<'static, Result<Reply, String>>;

/// Asks others, in one check: who does not answer is not asked again. Works inside a `LocalSet`.
pub(super) struct Asker(Rc<Inner>);

struct Inner {
    own: u64,
    /// How long one may take to answer.
    patience: Duration,
    /// Asks at one URL.
    ask: Box<dyn Fn(Url, Question, Duration) -> Answer>,
    /// Who has not answered: to wait for each again would take the whole time that the check has.
    silent: RefCell<BTreeSet<u64>>,
}

/// etcd's JSON of a hash; what is 0 is left out.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Told {
    header: Option<Header>,
    hash: u32,
    compact_revision: i64,
    hash_revision: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Header {
    revision: i64,
}

impl Asker {
    /// In the name of the member `own`, by `ask`, which asks at a URL and waits for so long.
    pub(super) fn new(
        own: u64,
        patience: Duration,
        ask: impl Fn(Url, Question, Duration) -> Answer + 'static,
    ) -> Self {
        Asker(Rc::new(Inner { own, patience, ask: Box::new(ask), silent: RefCell::default() }))
    }

    /// Asks all other members that have peer URLs for their hashes of a revision, at the same time. The answers are in
    /// ascending order of id.
    pub(super) async fn ask(&self, membership: &Membership, revision: i64) -> Vec<PeerHash> {
        let own = self.0.own;
        let mut asking = JoinSet::new();
        for member in membership.members().filter(|member| member.id != own && !member.peer_urls.is_empty()) {
            let (inner, member) = (Rc::clone(&self.0), member.clone());
            asking.spawn_local(async move {
                let is_silent = inner.silent.borrow().contains(&member.id);
                let answer = match is_silent {
                    true => Err(NoHash::NoAnswer),
                    false => inner.ask_member(&member, revision).await,
                };
                if answer == Err(NoHash::NoAnswer) {
                    inner.silent.borrow_mut().insert(member.id);
                }
                PeerHash { id: member.id, answer }
            });
        }
        let mut peers = asking.join_all().await;
        peers.sort_unstable_by_key(|peer| peer.id);
        peers
    }
}

impl Inner {
    /// The answer of the first URL that gives a hash; else why the last one does not.
    async fn ask_member(&self, member: &Member, revision: i64) -> Result<Hashed, NoHash> {
        let mut reason = NoHash::NoAnswer;
        for url in member.peer_urls.iter().filter_map(|url| Url::parse(url).ok()) {
            let refused = match self.ask_at(&url, revision).await {
                Ok(hashed) => return Ok(hashed),
                Err(refused) => refused,
            };
            reason = refused.0;
            if reason == NoHash::TooOld {
                return Err(reason);
            }
            log::warn!(
                "failed hash kv request",
                "local-member-id" => format!("{:x}", self.own),
                "requested-revision" => revision,
                "remote-peer-endpoint" => url,
                "error" => refused.1,
            );
        }
        Err(reason)
    }

    async fn ask_at(&self, url: &Url, revision: i64) -> Result<Hashed, (NoHash, String)> {
        let unheard = |error| (NoHash::NoAnswer, error);
        let reply =
            (self.ask)(url.clone(), Question::get("/version"), self.patience).await.map_err(unheard)?;
        if version_told(&reply, "etcdserver").is_some_and(|version| version < COMPARED_FROM) {
            return Err((NoHash::TooOld, String::new()));
        }
        let body = match revision {
            0 => "{}".to_owned(),
            revision => format!(r#"{{"revision":{revision}}}"#),
        };
        let (content_type, body) = ("application/json", Bytes::from(body));
        let question = Question { content_type, body, ..Question::get("/members/hashkv") };
        read(&(self.ask)(url.clone(), question, self.patience).await.map_err(unheard)?)
    }
}

fn read(reply: &Reply) -> Result<Hashed, (NoHash, String)> {
    let text = String::from_utf8_lossy(&reply.body);
    let refused = |reason, error: ApiError| Err((reason, error.text().to_owned()));
    match reply.status {
        200 => {
            let told: Told =
                serde_json::from_str(&text).map_err(|error| (NoHash::NoAnswer, error.to_string()))?;
            let Told { header, hash, compact_revision, hash_revision } = told;
            let hash = KvHash { hash, compact_revision, hash_revision };
            Ok(Hashed { hash, revision: header.unwrap_or_default().revision })
        }
        400 if text.contains(&HashError::Compacted.to_string()) => {
            refused(NoHash::Compacted, ApiError::Compacted)
        }
        400 if text.contains(&HashError::Future.to_string()) => {
            refused(NoHash::FutureRevision, ApiError::FutureRev)
        }
        412 if text.contains(&Incompatible::Cluster.to_string()) => {
            refused(NoHash::OtherCluster, ApiError::ClusterIdMismatch)
        }
        _ => Err((NoHash::NoAnswer, format!("unknown error: {text}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use http::HeaderMap;

    use super::*;

    #[test]
    fn answers_are_read_as_etcd_writes_them() {
        let hashed = |hash, compact_revision, hash_revision, revision| {
            Ok(Hashed { hash: KvHash { hash, compact_revision, hash_revision }, revision })
        };
        let refused = |reason, text: &str| Err((reason, text.to_owned()));
        for (status, body, expected) in [
            (
                200,
                r#"{"header":{"revision":9},"hash":7,"compact_revision":-1,"hash_revision":5}"#,
                hashed(7, -1, 5, 9),
            ),
            (200, r#"{"header":{"revision":1},"hash":4294967295}"#, hashed(u32::MAX, 0, 0, 1)),
            (200, "{}", hashed(0, 0, 0, 0)),
            (
                400,
                "mvcc: required revision has been compacted\n",
                refused(NoHash::Compacted, "etcdserver: mvcc: required revision has been compacted"),
            ),
            (
                400,
                "mvcc: required revision is a future revision\n",
                refused(NoHash::FutureRevision, "etcdserver: mvcc: required revision is a future revision"),
            ),
            (412, "cluster ID mismatch\n", refused(NoHash::OtherCluster, "etcdserver: cluster ID mismatch")),
            (
                412,
                "incompatible version\n",
                refused(NoHash::NoAnswer, "unknown error: incompatible version\n"),
            ),
            (404, "404 page not found\n", refused(NoHash::NoAnswer, "unknown error: 404 page not found\n")),
        ] {
            let reply = Reply { status, headers: HeaderMap::new(), body: Bytes::from(body) };
            assert_eq!(read(&reply), expected, "{status} {body}");
        }
        let nonsense = Reply { status: 200, headers: HeaderMap::new(), body: Bytes::from("nonsense") };
        assert_eq!(read(&nonsense).map_err(|(reason, _)| reason), Err(NoHash::NoAnswer));
    }

    /// Asks members at `http://127.0.0.<id>:<place>`, in the name of member 1, for these revisions.
    fn ask(
        urls: &[(u64, usize)],
        revisions: &[i64],
        answer: impl Fn(&str, &Question) -> Result<Reply, String> + 'static,
    ) -> Vec<Vec<PeerHash>> {
        let members = urls.iter().map(|(id, count)| Member {
            id: *id,
            peer_urls: (0..*count).map(|place| format!("http://127.0.0.{id}:{}", place + 1)).collect(),
            ..Member::default()
        });
        let membership = Membership::new(members, [], String::new());
        let asker = Asker::new(1, Duration::from_secs(1), move |url: Url, question, _| {
            let answer = answer(url.as_str(), &question);
            Box::pin(async move { answer })
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let all = async {
            let mut told = Vec::new();
            for revision in revisions {
                told.push(asker.ask(&membership, *revision).await);
            }
            told
        };
        tokio::task::LocalSet::new().block_on(&runtime, all)
    }

    fn reply(status: u16, body: &str) -> Result<Reply, String> {
        Ok(Reply { status, headers: HeaderMap::new(), body: Bytes::from(body.to_owned()) })
    }

    #[test]
    fn each_member_is_asked_at_its_urls_until_one_answers_and_old_ones_are_not() {
        let asked = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&asked);
        let peers = ask(&[(4, 1), (1, 1), (2, 2), (3, 2), (5, 0)], &[5], move |url, question| {
            let body = String::from_utf8_lossy(&question.body).into_owned();
            log.borrow_mut().push(format!("{} {url} {} {body}", question.method, question.path));
            match (url, question.path.as_str()) {
                ("http://127.0.0.2:1", _) => Err("connection refused".to_owned()),
                ("http://127.0.0.3:1", "/version") => reply(200, r#"{"etcdserver":"3.5.15"}"#),
                (_, "/version") => reply(200, r#"{"etcdserver":"3.7.1"}"#),
                ("http://127.0.0.2:2", _) => {
                    reply(200, r#"{"header":{"revision":6},"hash":7,"hash_revision":5}"#)
                }
                _ => reply(400, "mvcc: required revision has been compacted"),
            }
        });
        let hash = KvHash { hash: 7, compact_revision: 0, hash_revision: 5 };
        let expected = [
            PeerHash { id: 2, answer: Ok(Hashed { hash, revision: 6 }) },
            PeerHash { id: 3, answer: Err(NoHash::TooOld) },
            PeerHash { id: 4, answer: Err(NoHash::Compacted) },
        ];
        assert_eq!(peers, [expected]);
        let mut asked = asked.borrow().clone();
        asked.sort_unstable();
        let expected = [
            "GET http://127.0.0.2:1 /version ",
            r#"GET http://127.0.0.2:2 /members/hashkv {"revision":5}"#,
            "GET http://127.0.0.2:2 /version ",
            "GET http://127.0.0.3:1 /version ",
            r#"GET http://127.0.0.4:1 /members/hashkv {"revision":5}"#,
            "GET http://127.0.0.4:1 /version ",
        ];
        assert_eq!(asked, expected);
    }

    /// Ten hashes are kept, and a check that waited for it ten times would end by its time limit.
    #[test]
    fn who_does_not_answer_is_asked_once_a_check() {
        let asked = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&asked);
        let told = ask(&[(2, 1), (3, 2), (4, 1)], &[9, 8, 7], move |url, question| {
            log.borrow_mut().push(format!("{url} {}", question.path));
            match (url, question.path.as_str()) {
                ("http://127.0.0.2:1", _) => Err("context deadline exceeded".to_owned()),
                ("http://127.0.0.3:1", _) => Err("connection refused".to_owned()),
                (_, "/version") => reply(200, r#"{"etcdserver":"3.7.1"}"#),
                // This one is there, and has nothing to say of these revisions.
                ("http://127.0.0.4:1", _) => reply(400, "mvcc: required revision is a future revision"),
                _ => reply(200, r#"{"header":{"revision":9},"hash":7,"hash_revision":9}"#),
            }
        });
        let hash = KvHash { hash: 7, compact_revision: 0, hash_revision: 9 };
        let expected = [
            PeerHash { id: 2, answer: Err(NoHash::NoAnswer) },
            PeerHash { id: 3, answer: Ok(Hashed { hash, revision: 9 }) },
            PeerHash { id: 4, answer: Err(NoHash::FutureRevision) },
        ];
        assert_eq!(told, vec![expected.to_vec(); 3]);
        let asked = asked.borrow();
        let count = |url: &str| asked.iter().filter(|asked| asked.starts_with(url)).count();
        assert_eq!(
            (count("http://127.0.0.2"), count("http://127.0.0.3:2"), count("http://127.0.0.4")),
            (1, 6, 6)
        );
    }
}
