//! Delivers a call once more, on a connection of its own, and throws its reply away.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::link::reach;
use super::server::Shared;
use super::wire::Wire;

/// How long the reply to a copy is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn deliver(shared: Arc<Shared>, bytes: Vec<u8>, after: Duration) {
    tokio::time::sleep(after).await;
    match timeout(PATIENCE, exchange(&shared, &bytes)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(proxy = %shared.name, %error, "the copy of a call was not answered"),
        Err(_) => tracing::debug!(proxy = %shared.name, "the copy of a call was not answered in time"),
    }
}

/// Returns when the reply is complete: whoever leaves earlier may make a service stop half-way.
async fn exchange(shared: &Shared, bytes: &[u8]) -> io::Result<()> {
    let mut upstream = reach(shared).await.ok_or(io::ErrorKind::ConnectionRefused)?;
    let mut wire = Wire::new(shared.protocol);
    wire.up(bytes, &mut Vec::new());
    upstream.write_all(bytes).await?;
    let (mut buffer, mut ends) = (vec![0; 16 * 1024], Vec::new());
    while ends.is_empty() {
        match upstream.read(&mut buffer).await? {
            0 => break,
            n => wire.down(&buffer[..n], &mut ends),
        }
    }
    Ok(())
}
