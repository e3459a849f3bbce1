//! The front end on a port, with the real store on records in memory: for trying clients, and for
//! measuring what the front end costs. `cargo run --release --example front -- 127.0.0.1:2379`;
//! without an address the kernel picks a port, which is printed on stdout.
//! `no-op` as the second argument leaves out the store's work of writes.
#![allow(missing_docs, reason = "an example")]

#[path = "../tests/support/mod.rs"]
mod support;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let (member, lane, driver) = support::FakeMember::new();
        if std::env::args().any(|argument| argument == "no-op") {
            member.set_mood(support::Mood::Pretends);
        }
        tokio::task::spawn_local(driver);
        let front = server::grpc::Front::new(lane, server::grpc::GrpcConfig::default());
        let listener = tokio::net::TcpListener::bind(&address).await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            tokio::task::spawn_local(server::grpc::serve(socket, front.clone(), None));
        }
    })
}
