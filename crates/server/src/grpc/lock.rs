//! `v3lockpb.Lock`: the lock of a name belongs to the first place of its queue.

use bytes::Bytes;
use prost::Message as _;
use store::admission;
use store::request::DeleteRange;
use wire::v3lockpb as pb;
use wire::{ApiError, Status, etcdserverpb};

use super::kv::undecodable;
use super::queue::{Place, Queue, Turn, session, told};
use super::task::{Answered, By};

/// `Lock.Lock`: waits for the lock. It is given up again if the client is gone before it is told.
pub(super) async fn lock(message: &Bytes, by: &By) -> Result<Answered<Place>, Status> {
    let request = pb::LockRequest::decode(&message[..]).map_err(|error| undecodable(&error))?;
    acquire(request, by).await.map_err(told)
}

async fn acquire(request: pb::LockRequest, by: &By) -> Result<Answered<Place>, Status> {
    let session = session(by, request.lease).await?;
    let queue = Queue::of(by, &request.name);
    let mut entered = queue.enter(session, Bytes::new()).await?;
    let header = match queue.wait_turn(&mut entered.place).await? {
        Turn::AtOnce => entered.header,
        Turn::Waited(header) => header,
        Turn::Lost => return Err(ApiError::SessionExpired.into()),
    };
    let response = pb::LockResponse { header: Some(header), key: entered.place.key.clone() };
    Ok(Answered::new(&response, Some(entered.place)))
}

/// `Lock.Unlock`: deletes the key, whosesoever it is.
pub(super) async fn unlock(message: &Bytes, by: &By) -> Result<Answered<Place>, Status> {
    let pb::UnlockRequest { key } =
        pb::UnlockRequest::decode(&message[..]).map_err(|error| undecodable(&error))?;
    let encoded = etcdserverpb::DeleteRangeRequest { key, ..Default::default() }.encode_to_vec();
    let delete = DeleteRange::decode(&encoded).map_err(|error| undecodable(&error))?;
    admission::check_delete_range(&delete).map_err(told)?;
    let lane = &by.front.lane;
    let (who, id) = (by.who().map_err(told)?, lane.next_id());
    let data = admission::encode_delete_range(id.0, who.caller(), &encoded);
    admission::check_size(&data, &by.front.config.limits).map_err(told)?;
    let answer = lane.apply(id, data, false).await.map_err(told)?;
    let response = pb::UnlockResponse { header: Some(lane.member().header(answer.revision)) };
    Ok(Answered::new(&response, None))
}
