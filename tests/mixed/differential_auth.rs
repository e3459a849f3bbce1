//! The same random requests with users to Go's etcd and to ours: users, roles and permissions come and go, authentication
//! goes on and off, and requests come with tokens that are good, old or none.

use std::collections::BTreeMap;

use blackbox::{Cluster, Member, Random, run};
use client::Client;
use wire::ApiError;
use wire::etcdserverpb::{RangeRequest, WatchCreateRequest};

use crate::auth::level;
use crate::differential::{is_meant, one_of_each, seeded, sequences};
use crate::requests::{Answer, Request};
use crate::users::{Auth, NAMES, PASSWORDS, ROLES, ROOT_PASSWORD, grant_role, log_in, login, user};
use crate::{go, ours, say};

const REQUESTS: u64 = 80;
/// Hashes are cheap: nobody attacks them.
const FLAGS: [&str; 1] = ["--bcrypt-cost=4"];
/// Reads of each user at each member, in each sequence.
const READS: usize = 9;

/// Clients of each of some members with what the users have been given last.
type Clients = BTreeMap<String, Vec<Client>>;

/// Who has no token.
const NOBODY: &str = "";
/// Who has one that was never given.
const STRANGER: &str = "stranger";

/// Who asks: root and the users by their newest tokens, which may be good for nothing any more; nobody; or somebody with a
/// token that was never given.
fn random_asker(random: &mut Random) -> String {
    match random.below(20) {
        0 | 1 => NOBODY.to_owned(),
        2 => STRANGER.to_owned(),
        3..10 => NAMES[0].to_owned(),
        _ => NAMES[1 + random.below(3) as usize].to_owned(),
    }
}

/// Clients of those who never log in.
fn strangers(members: &[Member]) -> Clients {
    let token = |asker| (asker == STRANGER).then_some("abcdefghijklmnop.17");
    let of = |asker| members.iter().map(|member| member.client_with(token(asker))).collect();
    [NOBODY, STRANGER].map(|asker| (asker.to_owned(), of(asker))).into()
}

/// The client of this asker at a member: that of nobody before the first login.
fn client_for<'a>(clients: &'a Clients, asker: &str, place: usize) -> &'a Client {
    &clients.get(asker).unwrap_or(&clients[NOBODY])[place]
}

/// Who asks, and what.
fn random_step(random: &mut Random, revision: i64) -> (String, Request) {
    let asker = random_asker(random);
    let request = match random.below(16) {
        0..8 => Request::Auth(Auth::random(random)),
        8 => {
            let (key, range_end) = (random.key(), random.range_end());
            Request::Watch(WatchCreateRequest { key, range_end, ..Default::default() })
        }
        9 => match random.below(4) {
            0 => Request::Alarms,
            1 => Request::Defragment,
            _ => Request::KeepAlive(1 + random.below(4) as i64),
        },
        _ => Request::random(random, revision),
    };
    (asker, request)
}

/// What came of a request at each member. After a login that let the user in everywhere, that is who the user is.
async fn send_to_all(
    request: &Request,
    members: &[Member],
    asker: &str,
    clients: &mut Clients,
) -> Vec<Result<Answer, String>> {
    let mut outcomes = Vec::new();
    let mut let_in = Vec::new();
    for (place, member) in members.iter().enumerate() {
        let client = client_for(clients, asker, place);
        if let Request::Auth(Auth::Login(login)) = request
            && let Ok(token) = log_in(client, &login.name, &login.password).await
        {
            let_in.push(member.client_with(Some(&token)));
        }
        outcomes.push(request.outcome(client).await);
    }
    if let Request::Auth(Auth::Login(login)) = request
        && let_in.len() == members.len()
    {
        clients.insert(login.name.clone(), let_in);
    }
    outcomes
}

/// What makes root, and mostly lets authentication begin.
fn preparations(random: &mut Random) -> Vec<Auth> {
    let mut all = vec![user(NAMES[0], ROOT_PASSWORD), grant_role(NAMES[0], ROLES[0])];
    for (name, role) in NAMES[1..].iter().zip(&ROLES[1..]) {
        if random.one_in(3) {
            all.extend([user(name, PASSWORDS[0]), Auth::RoleAdd((*role).to_owned()), grant_role(name, role)]);
        }
    }
    if !random.one_in(4) {
        all.push(Auth::Enable);
    }
    all
}

/// How a sequence begins: what makes root and some users, and logins. Who asks, and what.
fn openings(random: &mut Random) -> std::vec::IntoIter<(String, Request)> {
    let nobody = || NOBODY.to_owned();
    // While authentication is on, who comes without a token is refused.
    let mut all = vec![(nobody(), login(NAMES[0], ROOT_PASSWORD).into())];
    let preparations = preparations(random).into_iter();
    all.extend(preparations.map(|request| (NAMES[0].to_owned(), Request::Auth(request))));
    all.push((nobody(), login(NAMES[0], ROOT_PASSWORD).into()));
    for name in &NAMES[1..] {
        all.extend(PASSWORDS.map(|password| (nobody(), login(name, password).into())));
    }
    all.into_iter()
}

/// One after the other to a single member of each kind.
#[test]
#[ignore = "needs a real etcd: cargo xtask mixed"]
fn answers() {
    let mut random = seeded();
    let mut members = one_of_each(&FLAGS);
    for text in ["invalid authentication was requested", "invalid auth token"] {
        members.iter_mut().for_each(|member| member.announce(text));
    }
    let mut clients = strangers(&members);
    let mut counts = BTreeMap::<String, usize>::new();
    run(async {
        let mut revision = 1;
        for sequence in 0..sequences() {
            let mut openings = openings(&mut random);
            for n in 0..REQUESTS {
                let next = openings.next();
                let (asker, request) = next.unwrap_or_else(|| random_step(&mut random, revision));
                if is_meant(&request) {
                    continue;
                }
                let outcomes = send_to_all(&request, &members, &asker, &mut clients).await;
                let [theirs, ours] = &outcomes[..] else { panic!("two members") };
                let at = || format!("sequence {sequence}, request {n} of {asker:?}: Go's, ours: {request:?}");
                assert_eq!(theirs, ours, "{}", at());
                if let Ok(answer) = theirs {
                    revision = revision.max(answer.revision);
                }
                let text = theirs.as_ref().err().map_or("answered", |text| text);
                *counts.entry(text.to_owned()).or_default() += 1;
            }
        }
    });
    for expected in ["answered", "permission denied", "invalid auth token", "user name is empty"] {
        assert!(counts.keys().any(|text| text.contains(expected)), "never: {expected}");
    }
    say(format!("{} requests had the same answers:", counts.values().sum::<usize>()));
    for (text, count) in counts {
        say(format!("  {count}: {text}"));
    }
}

/// To random members of a cluster of both kinds; then all of them know the same users and roles, let the same users in and
/// let them read the same keys.
#[test]
#[ignore = "needs a real etcd: cargo xtask mixed"]
fn members() {
    let mut random = seeded();
    let mut cluster = Cluster::of(&[go(), ours(), go()], &FLAGS);
    cluster.restart(&[0, 1, 2]);
    run(async {
        let mut clients = strangers(&cluster.members);
        let (mut revision, mut compared, mut allowed) = (1, 0, 0);
        for sequence in 0..sequences() {
            cluster.set_token(root(&clients[NOBODY][0]).await);
            level(&cluster).await;
            cluster.let_lead((sequence / 5) as usize % 3).await;
            let mut openings = openings(&mut random);
            for _ in 0..REQUESTS {
                let next = openings.next();
                let (asker, request) = next.unwrap_or_else(|| random_step(&mut random, revision));
                let place = random.below(3) as usize;
                let client = client_for(&clients, &asker, place);
                if let Request::Auth(Auth::Login(login)) = &request
                    && let Ok(token) = log_in(client, &login.name, &login.password).await
                {
                    // It is good at each of them.
                    let of_all = cluster.members.iter().map(|member| member.client_with(Some(&token)));
                    clients.insert(login.name.clone(), of_all.collect());
                } else if let Ok(answer) = request.outcome(client).await {
                    revision = revision.max(answer.revision);
                }
            }
            cluster.set_token(root(&clients[NOBODY][random.below(3) as usize]).await);
            level(&cluster).await;
            let (questions, answered) = compare(&cluster, &mut random, revision, sequence).await;
            compared += questions;
            allowed += answered;
            cluster.check_hashes().await;
        }
        assert!(allowed > 0 && allowed < compared, "{allowed} of {compared} questions were answered");
        say(format!("{compared} questions had the same outcome at all members, {allowed} of them an answer"));
    });
}

/// Root's token, if authentication is on.
async fn root(client: &Client) -> Option<String> {
    match log_in(client, NAMES[0], ROOT_PASSWORD).await {
        Ok(token) => Some(token),
        Err(error) => {
            assert!(error.is(ApiError::AuthNotEnabled), "{error}");
            None
        }
    }
}

/// Asks all members, which have all there is, the same. Returns how many questions were asked, and how many answered.
async fn compare(cluster: &Cluster, random: &mut Random, revision: i64, sequence: u64) -> (usize, usize) {
    let mut questions = vec![Request::Auth(Auth::Status)];
    questions.extend([Auth::UserList, Auth::RoleList].map(Request::Auth));
    questions.extend(NAMES.map(|name| Request::Auth(Auth::UserGet(name.to_owned()))));
    questions.extend(ROLES.map(|role| Request::Auth(Auth::RoleGet(role.to_owned()))));
    questions.push(Request::HashKv(revision));
    let mut tokens: Vec<Option<String>> = vec![cluster.token().map(str::to_owned); questions.len()];
    for name in NAMES {
        for password in PASSWORDS {
            let client = &cluster.members[random.below(3) as usize].client_with(None);
            let Ok(token) = log_in(client, name, password).await else { continue };
            for n in 0..READS {
                let range = RangeRequest { serializable: true, ..random.range(revision) };
                let (key, range_end) = (range.key.clone(), range.range_end.clone());
                let watch = WatchCreateRequest { key, range_end, ..Default::default() };
                questions.push(if n % 3 == 0 { Request::Watch(watch) } else { Request::Range(range) });
                tokens.push(Some(token.clone()));
            }
        }
    }
    // One of Go's that has not applied a login yet refuses its token.
    level(cluster).await;
    let mut answered = 0;
    for (question, token) in questions.iter().zip(&tokens) {
        let mut outcomes = Vec::new();
        for member in &cluster.members {
            outcomes.push(question.outcome(&member.client_with(token.as_deref())).await);
        }
        for (place, found) in outcomes.iter().enumerate().skip(1) {
            assert_eq!(*found, outcomes[0], "sequence {sequence}, member {place}: {question:?}");
        }
        answered += usize::from(outcomes[0].is_ok());
    }
    (questions.len(), answered)
}
