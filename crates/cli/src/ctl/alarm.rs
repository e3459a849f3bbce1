//! `alarm`: lists the alarms that are on, or turns them off.

use wire::etcdserverpb::alarm_request::AlarmAction;
use wire::etcdserverpb::{AlarmMember, AlarmRequest, AlarmResponse};

use super::session::{Session, call_failed, deadline};
use crate::app::{Failure, Invocation, exit};
use crate::command::Command;

pub(super) const COMMAND: Command = Command::group_of(
    "alarm",
    "alarm <subcommand>",
    "Alarm related commands",
    "Alarm related commands",
    &[
        Command::new("disarm", "disarm", "Turns all alarms off", disarm),
        Command::new("list", "list", "Lists the alarms that are on", list),
    ],
);

fn disarm(call: &mut Invocation<'_>) -> Result<(), Failure> {
    without_arguments(call, "disarm")?;
    let session = Session::open(call)?;
    let client = session.client()?;
    let mut answer = AlarmResponse::default();
    let action = AlarmAction::Deactivate.into();
    for AlarmMember { member_id, alarm } in
        session.wait(client.alarms(deadline(call))).map_err(call_failed)?.alarms
    {
        let request = AlarmRequest { action, member_id, alarm };
        let ended = session.wait(client.alarm(request, deadline(call))).map_err(call_failed)?;
        answer.alarms.extend(ended.alarms);
    }
    session.printer.alarms(call.world.out, &answer)
}

fn list(call: &mut Invocation<'_>) -> Result<(), Failure> {
    without_arguments(call, "list")?;
    let session = Session::open(call)?;
    let answer = session.wait(session.client()?.alarms(deadline(call))).map_err(call_failed)?;
    session.printer.alarms(call.world.out, &answer)
}

fn without_arguments(call: &Invocation<'_>, command: &str) -> Result<(), Failure> {
    match call.args.as_slice() {
        [] => Ok(()),
        _ => Err(Failure::new(exit::BAD_ARGS, format!("alarm {command} command accepts no arguments"))),
    }
}
