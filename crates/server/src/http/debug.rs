//! What etcd has under `/debug`: variables of the process, and of Go's profiler the command line alone.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

use super::{Health, Site, not_allowed, plain};

/// A member's part in consensus, as `/debug/vars` shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RaftStatus {
    /// The member's id.
    pub id: u64,
    /// Its term.
    pub term: u64,
    /// The leader's id; 0 while there is none.
    pub leader: u64,
    /// The commit index.
    pub commit: u64,
    /// Everything through this index is applied.
    pub applied: u64,
    /// Whether it is a learner.
    pub is_learner: bool,
}

/// The answer to one of these paths, if there is such a page.
pub(super) fn answer(
    path: &str,
    method: &Method,
    health: &dyn Health,
    site: &Site,
) -> Option<Response<Full<Bytes>>> {
    match path {
        "/debug/vars" if *method != Method::GET => Some(not_allowed()),
        "/debug/vars" => Some(vars(&health.raft_status())),
        // Go's profiler takes any method.
        "/debug/pprof/" if site.profiles => {
            let text = "<html><body>/debug/pprof/<p>Go's profiler has no counterpart here. There is \
                        <a href=\"cmdline\">cmdline</a>.</body></html>\n";
            let mut response = plain(StatusCode::OK, text);
            let kind = HeaderValue::from_static("text/html; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            Some(response)
        }
        "/debug/pprof/cmdline" if site.profiles => Some(plain(StatusCode::OK, &words().join("\0"))),
        _ => None,
    }
}

fn words() -> Vec<String> {
    std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// Go's `expvar` page, with etcd's variables.
fn vars(raft: &RaftStatus) -> Response<Full<Bytes>> {
    let state = match (raft.leader == raft.id, raft.is_learner) {
        (true, _) => "StateLeader",
        (false, true) => "StateLearner",
        (false, false) => "StateFollower",
    };
    let vars = json!({
        "cmdline": words(),
        "file_descriptor_limit": crate::listen::descriptors(),
        "raft.status": {
            "id": format!("{:x}", raft.id),
            "term": raft.term,
            "commit": raft.commit,
            "lead": format!("{:x}", raft.leader),
            "raftState": state,
            "applied": raft.applied,
        },
    });
    let mut response = Response::new(Full::from(format!("{vars:#}\n")));
    let kind = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
