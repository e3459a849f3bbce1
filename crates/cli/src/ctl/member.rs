//! `member`: add, remove, update, list and promote.

use wire::etcdserverpb::{Member, MemberAddRequest, MemberAddResponse, MemberUpdateRequest};

use super::session::{Session, call_failed, deadline};
use crate::app::{Failure, Invocation, exit};
use crate::command::Command;
use crate::flag::{Flag, Kind};
use crate::gotext;
use crate::print::Format;

const PEER_URLS: Flag = Flag::new("peer-urls", Kind::Text, "peer URLs, with commas between");

pub(super) const COMMAND: Command = Command::group_of(
    "member",
    "member <subcommand>",
    "Membership related commands",
    "Membership related commands",
    &[
        Command::new("add", "add <memberName> [options]", "Adds a member", add)
            .with_long(ADD)
            .with_flags(&[PEER_URLS, Flag::new("learner", Kind::Bool, "add it without a vote")]),
        Command::new("remove", "remove <memberID>", "Removes a member for ever", remove),
        Command::new("update", "update <memberID> [options]", "Changes a member's peer URLs", update)
            .with_flags(&[PEER_URLS]),
        Command::new("list", "list", "Lists the members", list).with_long(LIST).with_flags(&[Flag::new(
            "consistency",
            Kind::Text,
            "l for linearizable, s for serializable",
        )
        .default("l")]),
        Command::new("promote", "promote <memberID>", "Makes a learner a voter", promote),
    ],
);

const ADD: &str = "Adds a member.

With -w simple the settings follow with which it is to be started; its name is not known to the cluster before.";

const LIST: &str = "Lists the members.

With -w simple a line is: id, whether it has started, name, peer URLs, client URLs, whether it is a learner. -w table
has the same with heads.";

fn add(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let bad = |text: &str| Err(Failure::new(exit::BAD_ARGS, text));
    let name = match call.args.as_slice() {
        [] => return bad("member name not provided"),
        [name] => String::from_utf8_lossy(name).into_owned(),
        words => {
            let words = words.iter().map(|word| String::from_utf8_lossy(word));
            let urls = words.filter(|word| word.to_lowercase().starts_with("http"));
            let hints: String = urls.map(|url| format!(", did you mean --peer-urls={url}")).collect();
            return bad(&format!("too many arguments{hints}"));
        }
    };
    let given = call.flags.text("peer-urls").to_owned();
    if given.is_empty() {
        return bad("member peer urls not provided");
    }
    let request = MemberAddRequest { peer_ur_ls: split(&given), is_learner: call.flags.bool("learner") };
    let session = Session::open(call)?;
    let (client, deadline) = (session.client()?, deadline(call));
    let answer = session.wait(client.member_add(request, deadline)).map_err(call_failed)?;
    session.printer.member_add(call.world.out, &answer)?;
    if session.printer.format == Format::Simple {
        write!(call.world.out, "{}", settings(&name, &given, &answer))?;
    }
    Ok(())
}

/// The variables that the new member is to be started with.
fn settings(name: &str, peer_urls: &str, answer: &MemberAddResponse) -> String {
    let new_id = answer.member.as_ref().map_or(0, |member| member.id);
    let member = |member: &Member| {
        let name = if member.id == new_id { name } else { &member.name };
        member.peer_ur_ls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>()
    };
    let cluster = answer.members.iter().flat_map(member).collect::<Vec<_>>().join(",");
    let quote = |text: &str| gotext::quote(text.as_bytes());
    format!(
        "\nETCD_NAME={}\nETCD_INITIAL_CLUSTER={}\nETCD_INITIAL_ADVERTISE_PEER_URLS={}\n\
         ETCD_INITIAL_CLUSTER_STATE=\"existing\"\n",
        quote(name),
        quote(&cluster),
        quote(peer_urls),
    )
}

fn remove(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let id = member_id(call)?;
    let session = Session::open(call)?;
    let (client, deadline) = (session.client()?, deadline(call));
    let answer = session.wait(client.member_remove(id, deadline)).map_err(call_failed)?;
    session.printer.member_remove(call.world.out, id, &answer)
}

fn update(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let id = member_id(call)?;
    let given = call.flags.text("peer-urls");
    if given.is_empty() {
        return Err(Failure::new(exit::BAD_ARGS, "member peer urls not provided"));
    }
    let request = MemberUpdateRequest { id, peer_ur_ls: split(given) };
    let session = Session::open(call)?;
    let (client, deadline) = (session.client()?, deadline(call));
    let answer = session.wait(client.member_update(request, deadline)).map_err(call_failed)?;
    session.printer.member_update(call.world.out, id, &answer)
}

fn list(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let linearizable = match call.flags.text("consistency") {
        "s" => false,
        "l" => true,
        // etcdctl names what `get` would have been given.
        _ => return Err(Failure::new(exit::BAD_FEATURE, "unknown consistency flag \"l\"")),
    };
    let session = Session::open(call)?;
    let (client, deadline) = (session.client()?, deadline(call));
    let answer = session.wait(client.member_list(linearizable, deadline)).map_err(call_failed)?;
    session.printer.members(call.world.out, &answer)
}

fn promote(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let id = member_id(call)?;
    let session = Session::open(call)?;
    let (client, deadline) = (session.client()?, deadline(call));
    let answer = session.wait(client.member_promote(id, deadline)).map_err(call_failed)?;
    session.printer.member_promote(call.world.out, id, &answer)
}

fn split(urls: &str) -> Vec<String> {
    urls.split(',').map(str::to_owned).collect()
}

fn member_id(call: &Invocation<'_>) -> Result<u64, Failure> {
    let [text] = call.args.as_slice() else {
        return Err(Failure::new(exit::BAD_ARGS, "member ID is not provided"));
    };
    gotext::parse_uint(text, 16).map_err(|reason| {
        Failure::new(exit::BAD_ARGS, format!("bad member ID arg ({reason}), expecting ID in Hex"))
    })
}
